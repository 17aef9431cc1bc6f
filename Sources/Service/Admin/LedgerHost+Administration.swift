// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
internal import MailSyntax
internal import NIOCore

/// What administrators ask of the ledger. Everything is answered on its loop, in pieces that let requests through.
extension LedgerHost {
    /// Slots of the tables that are looked at in one go, some hundred microseconds where they are full.
    private static let slotsPerPiece = 1024
    /// Requests come in between.
    private static let pauseBetweenPieces: TimeAmount = .microseconds(500)
    /// People wait for it, and not Postfix.
    private static let pauseInSearch: TimeAmount = .milliseconds(2)

    /// The `most` fullest keys, of all limits or of one.
    ///
    /// Up to `Ledger.mostFullest` are at hand; for more, all keys are looked at, which takes seconds at a million.
    /// - Parameter withHistory: only where they are at hand.
    func fullest(_ most: Int, limit: String?, withHistory: Bool = false) async throws -> [AdminMessages.Standing] {
        if most <= Ledger.mostFullest {
            return try await loop.submit { [self] in
                try withLedger { ledger in
                    try ledger.fullest(most, limit: limit, withHistory: withHistory).map { .init($0, in: ledger) }
                }
            }
        }
        try await loop.submit { [self] in _ = try withLedger { try $0.limits(named: limit) } }
        return try await withCheckedThrowingContinuation { continuation in
            loop.execute { self.advance(FullestWalk(most: most, limit: limit), continuation) }
        }
    }

    private func advance(_ walk: FullestWalk, _ asked: CheckedContinuation<[AdminMessages.Standing], any Error>) {
        do {
            if try withLedger({ walk.advance(in: $0, slots: Self.slotsPerPiece) }) {
                loop.schedule(in: Self.pauseBetweenPieces) { self.advance(walk, asked) }
            } else {
                asked.resume(returning: try withLedger(walk.result))
            }
        } catch {
            asked.resume(throwing: error)
        }
    }

    /// Keys in which `text` stands, whatever its case, and those that it means by itself.
    ///
    /// All keys are looked at, which takes seconds at a million.
    ///
    /// - Returns: nil while another search is under way: there is one at a time, for each takes its part of the loop.
    func search(_ text: String) async throws -> AdminMessages.Search? {
        try await withCheckedThrowingContinuation { asked in
            loop.execute { [self] in
                guard !isSearching else { return asked.resume(returning: nil) }
                do {
                    let walk = SearchWalk(text: Array(text.utf8), meant: try presentMeanings(of: text))
                    isSearching = true
                    advance(walk, asked)
                } catch {
                    asked.resume(throwing: error)
                }
            }
        }
    }

    /// The limits in which `text` is a key, known or not.
    func meanings(of text: String) async throws -> [AdminMessages.FoundKey] {
        try await loop.submit { [self] in try presentMeanings(of: text) }
    }

    private func presentMeanings(of text: String) throws -> [AdminMessages.FoundKey] {
        try withLedger { $0.meanings(of: Array(text.utf8)) }
            .map { .init(limit: $0.limit, key: String(decoding: $0.key, as: UTF8.self), isKnown: $0.isKnown) }
    }

    private func advance(_ walk: SearchWalk, _ asked: CheckedContinuation<AdminMessages.Search?, any Error>) {
        do {
            if try withLedger({ walk.advance(in: $0, slots: Self.slotsPerPiece) }) {
                return loop.schedule(in: Self.pauseInSearch) { self.advance(walk, asked) }
            }
            isSearching = false
            asked.resume(returning: walk.result)
        } catch {
            isSearching = false
            asked.resume(throwing: error)
        }
    }

    func standings(ofKey key: String, limit: String?) async throws -> [AdminMessages.Standing] {
        try await loop.submit { [self] in
            try withLedger { ledger in
                try ledger.standings(ofKey: Array(key.utf8), limit: limit).map {
                    AdminMessages.Standing($0, in: ledger)
                }
            }
        }
    }

    /// Carries out what `user` wants, and keeps that it was done.
    ///
    /// - Parameter details: of the intervention, for the audit trail.
    /// - Returns: where the key stands afterwards; empty where no limit knows it.
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`.
    func intervene(
        _ message: AdminMessages.Intervention, rates: [Rate], by user: String, details: String
    ) async throws -> [AdminMessages.Standing] {
        try await loop.submit { [self] in
            let standings = try withLedger { ledger in
                // Ten years stand for "until somebody ends it".
                let until = ledger.now + (message.duration.map { $0 * 1000 } ?? 10 * 366 * 86_400_000)
                let intervention: Intervention =
                    switch message.action {
                    case .reset: .reset
                    case .raise: .raise(rates, until: until)
                    case .block: .block(until: until)
                    case .unblock: .unblock
                    }
                return try ledger.intervene(intervention, onKey: Array(message.key.utf8), limit: message.limit)
                    .map { standing in
                        var presented = AdminMessages.Standing(standing, in: ledger)
                        if message.action == .block {
                            presented.note =
                                ledger.remark(onBlockBy: standing.limit) ?? fault.map { "not kept yet: \($0.message)" }
                        }
                        if message.action == .raise, let until = standing.blockedUntil {
                            presented.note =
                                "still blocked for \(Self.rounded(until - ledger.now)): weir limits unblock \(Self.quoted(presented.key))"
                        }
                        return presented
                    }
            }
            for key in standings.isEmpty ? [message.key] : Set(standings.map(\.key)).sorted() {
                record(
                    AuditEntry(
                        time: Int64(time(nil)), user: user, action: message.action.rawValue, key: key, details: details,
                        reason: message.reason ?? "", limits: standings.filter { $0.key == key }.map(\.limit)))
            }
            return standings
        }
    }

    /// As a word for a shell: what a peer has sent must not be more than that.
    private static func quoted(_ key: String) -> String {
        let isPlain =
            !key.isEmpty && key.utf8.allSatisfy { $0.isAlphanumeric || "@._+:/=%,-".utf8.contains($0) }
            && !key.hasPrefix("-")
        return isPlain ? key : "'\(key.replacing("'", with: "'\\''"))'"
    }

    /// Milliseconds in the unit in which a person would tell them.
    private static func rounded(_ milliseconds: Int64) -> String {
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)] as [(String, Int64)]
        where milliseconds >= 2 * length {
            return "\(milliseconds / length)\(unit)"
        }
        return "\(max(1, milliseconds / 1000))s"
    }

    func status(of policy: PolicyListener) async throws -> AdminMessages.Status {
        try await loop.submit { [self] in presentStatus(of: policy) }
    }

    /// What the ledger and the policy server tell of themselves; the rest of a snapshot is filled in by others.
    func snapshot(of policy: PolicyListener, version: String) async throws -> (AdminMessages.Snapshot, LatencyHistogram)
    {
        try await loop.submit { [self] in
            withActivity { activity, second in
                let lastMinute = activity.latencyOfLastMinute(at: second)
                let answers = PolicyAction.allCases.compactMap { action -> AdminMessages.Answers? in
                    let total = activity.total(action)
                    guard total > 0 || action == .dunno else { return nil }
                    return .init(action: action.name, total: total, perSecond: activity.history(of: action, at: second))
                }
                let snapshot = AdminMessages.Snapshot(
                    time: Double(time(nil)), version: version, configuration: configuration.summary,
                    status: presentStatus(of: policy),
                    answers: answers, medianAnswer: lastMinute.bound(ofShare: 0.5),
                    slowAnswer: lastMinute.bound(ofShare: 0.99),
                    refusals: activity.refusals.newestFirst, ways: [], rules: [], rulesWithoutHits: 0,
                    audit: audit.newestFirst)
                return (snapshot, activity.latency)
            }
        }
    }

    private func presentStatus(of policy: PolicyListener) -> AdminMessages.Status {
        // What can be told is told, also while the ledger can't be opened.
        let limits = try? withLedger { ledger in
            ledger.limits.map { state in
                let limit = state.limit
                return AdminMessages.LimitStatus(
                    name: limit.name, attributes: limit.key.parts.map(\.name).joined(separator: "|"),
                    count: limit.count.rawValue,
                    mode: limit.mode.rawValue, rates: limit.rates.map(\.description), keys: state.accountCount,
                    refusals: state.refusals)
            }
        }
        return AdminMessages.Status(
            requests: requests, connections: policy.openConnections, faults: .init(policy.counters),
            keys: limits?.reduce(0) { $0 + $1.keys } ?? 0, trouble: fault?.message, ledger: presentLedger(),
            limits: limits ?? [])
    }

    private func presentLedger() -> AdminMessages.LedgerStatus {
        let checkpoint = try? withLedger(\.lastCheckpoint)
        return AdminMessages.LedgerStatus(
            path: configuration.ledger.path, durability: configuration.ledger.durability.rawValue,
            journalBytes: journalBytes,
            lastCheckpoint: checkpoint.map { Double($0.began) / 1000 },
            checkpointSeconds: checkpoint?.took.map { Double($0) / 1000 },
            mostKeys: configuration.ledger.mostKeys, evictedKeys: evictedKeys)
    }
}

extension AdminMessages.PolicyFaults {
    init(_ counters: PolicyListener.Counters) {
        self.init(
            refusedConnections: counters.refusedConnections, malformed: counters.malformed, tooSlow: counters.tooSlow,
            droppedMidRequest: counters.droppedMidRequest)
    }
}

/// Looks for the fullest accounts, a piece at a time.
private final class FullestWalk {
    private let most: Int
    private let limit: String?
    private var walk = Ledger.Walk()
    private var found: [(fullness: Double, account: Account)] = []

    init(most: Int, limit: String?) {
        self.most = most
        self.limit = limit
    }

    func advance(in ledger: Ledger, slots: Int) -> Bool {
        let hasMore = ledger.walk(&walk, slots: slots) { account in
            if let limit, account.limit.limit.name != limit { return }
            if let fullness = account.fullness(at: ledger.now) { found.append((fullness, account)) }
        }
        if found.count > 2 * most + slots || !hasMore { keepFullest() }
        return hasMore
    }

    private func keepFullest() {
        found.sort { ($0.fullness, $1.account.id) > ($1.fullness, $0.account.id) }
        if found.count > most { found.removeSubrange(most...) }
    }

    func result(_ ledger: Ledger) -> [AdminMessages.Standing] {
        found.map { AdminMessages.Standing(ledger.standing(of: $0.account), in: ledger) }
    }
}

/// Looks for keys in which a text stands, a piece at a time.
private final class SearchWalk {
    /// More tell nobody which one is meant.
    private static let most = 100

    private let text: [UInt8]
    private let meant: [AdminMessages.FoundKey]
    private var walk = Ledger.Walk()
    private var found: [AdminMessages.FoundKey] = []
    private var isCut = false

    init(text: [UInt8], meant: [AdminMessages.FoundKey]) {
        self.text = text.map(Self.folded)
        self.meant = meant
    }

    func advance(in ledger: Ledger, slots: Int) -> Bool {
        let hasMore = ledger.walk(&walk, slots: slots) { account in
            guard contains(account.key) else { return }
            guard found.count < Self.most else { return isCut = true }
            found.append(
                .init(limit: account.limit.limit.name, key: String(decoding: account.key, as: UTF8.self), isKnown: true)
            )
        }
        return hasMore && !isCut
    }

    var result: AdminMessages.Search {
        .init(meant: meant, found: found.sorted { ($0.key, $0.limit) < ($1.key, $1.limit) }, isCut: isCut)
    }

    private func contains(_ key: [UInt8]) -> Bool {
        guard key.count >= text.count else { return false }
        return key.withUnsafeBufferPointer { key in
            text.withUnsafeBufferPointer { text in
                (0...key.count - text.count).contains { start in
                    text.indices.allSatisfy { Self.folded(key[start + $0]) == text[$0] }
                }
            }
        }
    }

    private static func folded(_ byte: UInt8) -> UInt8 { byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte }
}
