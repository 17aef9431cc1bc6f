// SPDX-License-Identifier: Apache-2.0
package import Limits
internal import Loop
internal import MailSyntax
internal import NIOCore
package import Report
internal import Settings
internal import Sharing

/// What administrators ask of the ledger. Its loop does it in pieces, and answers requests between them.
extension LedgerHost {
    /// Limits that are asked for a key in one go, which takes some hundred microseconds.
    static let limitsPerPiece = 512
    /// Steps of `FullestWalk` in one go. They take as long.
    private static let stepsPerPiece = 1024

    /// The `most` fullest keys, of all limits or of one. They are looked for in pieces.
    ///
    /// - Parameter most: at most `Ledger.mostFullest`.
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`; `TooManyWalks` if too many others wait.
    package func fullest(_ most: Int, limit: String?, withHistory: Bool = false) async throws -> [KeyStanding] {
        typealias Answer = CheckedContinuation<([Standing], WallClock), any Error>
        let (standings, clock) = try await withCheckedThrowingContinuation { (answer: Answer) in
            loop.execute { [self] in
                var walk: FullestWalk?
                submit(to: listings, failed: { answer.resume(throwing: $0) }) { ledger in
                    var current = try walk.take() ?? ledger.fullestWalk(most, limit: limit, withHistory: withHistory)
                    guard ledger.advance(&current, steps: Self.stepsPerPiece) else {
                        answer.resume(returning: (current.result, WallClock(of: ledger)))
                        return false
                    }
                    walk = current
                    return true
                }
            }
        }
        // Not on the ledger's loop: texts for people take most of the time.
        return standings.map { KeyStanding($0, clock) }
    }

    /// The limits in which `text` is a key, known or not, and how it stands with those that know it. The limits are
    /// asked in pieces.
    ///
    /// - Parameter most: limits of the result; there may be more that are left out.
    /// - Throws: `LedgerUnavailable`; `TooManyWalks` if too many others wait.
    package func standings(ofText text: String, most: Int) async throws -> [FoundKey] {
        try await withCheckedThrowingContinuation { answer in
            loop.execute { [self] in
                var found: [FoundKey] = []
                var position = 0
                submit(to: lookups, failed: { answer.resume(throwing: $0) }) { ledger in
                    // A reload may have removed limits since.
                    let piece = ledger.limits.dropFirst(position).prefix(Self.limitsPerPiece)
                    position += Self.limitsPerPiece
                    let clock = WallClock(of: ledger)
                    found += ledger.standings(ofText: Array(text.utf8), in: piece, most: most - found.count)
                        .map { FoundKey($0, $1, $2, clock) }
                    if position < ledger.limits.count, found.count < most { return true }
                    answer.resume(returning: found)
                    return false
                }
            }
        }
    }

    /// How the keys of these refusals stand now, with their history; at most one standing for each.
    package func standings(of refusals: [RefusalGroup]) throws -> [KeyStanding] {
        try withLedger { ledger in
            let (clock, names) = (WallClock(of: ledger), Set(refusals.map(\.newest.limit)))
            let limits = ledger.limits.filter { names.contains($0.limit.name) }
            return refusals.compactMap { refusal in
                limits.first { $0.limit.name == refusal.newest.limit }
                    .flatMap { ledger.standing(ofKey: Array(refusal.newest.key.utf8), in: $0) }
                    .map { KeyStanding($0, clock) }
            }
        }
    }

    package func standings(ofKey key: String, limit: String?) async throws -> [KeyStanding] {
        try await loop.submit { [self] in
            try withLedger { ledger in
                let standings = try ledger.standings(ofKey: Array(key.utf8), limit: limit)
                return standings.map { KeyStanding($0, WallClock(of: ledger)) }
            }
        }
    }

    /// Carries out an administrator's change, and adds it to the audit trail. Returns when the change is saved.
    ///
    /// - Returns: where the key stands afterwards; empty if no limit knows the key.
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`; `ChangeNotSaved` if the change is in force all the same.
    package func apply(_ change: KeyChange) async throws -> [KeyStanding] {
        try await withCheckedThrowingContinuation { answer in
            loop.execute { [self] in
                do {
                    let standings = try withLedger { try carryOut(change, in: $0) }
                    // The tick that `withLedger` has begun ends with this turn.
                    unsavedChanges.append { [self] fault in
                        record(change, standings)
                        if let fault, !standings.isEmpty {
                            answer.resume(throwing: ChangeNotSaved(reason: fault.message))
                        } else {
                            answer.resume(returning: standings)
                        }
                    }
                } catch {
                    answer.resume(throwing: error)
                }
            }
        }
    }

    private func carryOut(_ change: KeyChange, in ledger: Ledger) throws -> [KeyStanding] {
        // Without a limit, a key that no limit knows is not changed.
        let key = Array(change.key.utf8)
        let isNew = try change.limit != nil && ledger.standings(ofKey: key, limit: change.limit).isEmpty
        return try ledger.intervene(
            change.intervention(at: ledger.now), onKey: key, limit: change.limit,
            by: .everywhere(user: change.user, reason: change.reason)
        )
        .map { standing in
            var figures = KeyStanding(standing, WallClock(of: ledger))
            let notes = [
                isNew ? noteOnNewKey(change.action, limit: standing.limit) : nil,
                note(on: change, standing, in: ledger), noteOnOthers(limits: [standing.limit]),
            ]
            figures.note = notes.contains { $0 != nil } ? notes.compactMap(\.self).joined(separator: "; ") : nil
            return figures
        }
    }

    /// Answers the changes of this tick, whose batch was committed or has failed. They survive a crash of the service
    /// whatever `ledger.durability` says, and a loss of power if it is `power`.
    func answerChanges() {
        guard !unsavedChanges.isEmpty else { return }
        flush()
        let (changes, fault) = (unsavedChanges, fault)
        unsavedChanges = []
        for finish in changes { finish(fault) }
    }

    private func record(_ change: KeyChange, _ standings: [KeyStanding]) {
        for key in standings.isEmpty ? [change.key] : Set(standings.map(\.key)).sorted() {
            record(
                change.action, of: key, by: user(of: change), details: change.details, reason: change.reason,
                limits: standings.filter { $0.key == key }.map(\.limit))
        }
    }

    /// What the administrator should know about the change that was just made.
    private func note(on change: KeyChange, _ standing: Standing, in ledger: Ledger) -> String? {
        switch change.action {
        case .block: return ledger.remark(onBlockBy: standing.limit)
        case .raise:
            let notes = [noteOnLowerRates(of: change, standing), noteOnBlock(standing)].compactMap(\.self)
            return notes.isEmpty ? nil : notes.joined(separator: "; ")
        case .reset, .unraise, .unblock: return nil
        }
    }

    /// A key that was misspelt gets a block, too, which protects nobody.
    private func noteOnNewKey(_ action: KeyAction, limit: String) -> String? {
        switch action {
        case .block, .raise:
            "\(limit) has not counted this key \(isShared([limit]) ? "on this host" : "yet"): check the spelling"
        case .reset, .unraise, .unblock: nil
        }
    }

    /// A raise may also lower a rate.
    private func noteOnLowerRates(of change: KeyChange, _ standing: Standing) -> String? {
        guard let limit = configuration.limits.first(where: { $0.name == standing.limit }) else { return nil }
        let lowered = limit.rates.filter { rate in
            change.rates.contains { $0.window == rate.window && $0.count < rate.count }
        }
        return lowered.isEmpty ? nil : "this is less than \(lowered.map(\.description).joined(separator: ", "))"
    }

    private func noteOnBlock(_ standing: Standing) -> String? {
        guard standing.blockedUntil != nil else { return nil }
        let key = ShellWord.argument(String(decoding: standing.key, as: UTF8.self))
        return "still blocked: weir limits unblock \(key)"
    }

    /// The user in the audit trail: with the host, if hosts share limits.
    func user(of change: KeyChange) -> String {
        ledger?.shared.map { "\(change.user) on \($0.name)" } ?? change.user
    }

    /// Whether other hosts have a change that was just made to keys of these limits; nil if no other host shares them.
    func noteOnOthers(limits: some Collection<String>) -> String? {
        guard let shared = ledger?.shared, isShared(limits) else { return nil }
        return shared.ledger.isReady
            ? "the hosts that are connected get it within a second"
            : "the other hosts get it when this host can use the engine"
    }

    /// Whether other hosts share one of these limits.
    private func isShared(_ limits: some Collection<String>) -> Bool {
        ledger?.shared != nil && configuration.shared.hosts.count > 1
            && configuration.limits.contains { $0.isShared && limits.contains($0.name) }
    }

    /// Carries out what other hosts have changed.
    func adopt(_ changes: [SharedChange]) {
        guard !changes.isEmpty, let ledger else { return }
        for change in ledger.adopt(changes) {
            let (subject, author) = (change.subject, change.author)
            let key = String(decoding: subject.key, as: UTF8.self)
            let left = Self.rounded(change.until - ledger.now.milliseconds)
            guard !author.user.isEmpty else {
                let text = "limit \(subject.limit): \(author.host) blocks \(key) for \(left)"
                if !change.value.isEmpty { log.notice(text) }
                continue
            }
            record(
                change.action, of: key, by: "\(author.user) on \(author.host)",
                details: change.value.isEmpty ? "" : "for \(left)", reason: author.reason, limits: [subject.limit])
        }
    }

    /// Milliseconds as a text in the unit that a person would use.
    private static func rounded(_ milliseconds: Int64) -> String {
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)] as [(String, Int64)]
        where milliseconds >= 2 * length {
            return "\((milliseconds + length / 2) / length)\(unit)"
        }
        return "\(max(1, milliseconds / 1000))s"
    }
}

/// So many walks wait in a `WalkQueue` that another one is refused.
package struct TooManyWalks: Error, CustomStringConvertible {
    package var description: String { "too many other tasks are waiting" }
}

/// An administrator's change is in force, but only in memory.
package struct ChangeNotSaved: Error {
    package let reason: String
}

/// A change that an administrator makes to a key.
package struct KeyChange: Sendable {
    package var action: KeyAction
    /// A key, or the text of a selection of keys.
    package var key: String
    /// Only this limit; nil means every limit that knows the key.
    package var limit: String?
    /// For `raise`: each replaces the limit's rate of the same window.
    package var rates: [Rate]
    /// Seconds, for `raise` and `block`; nil means until an administrator ends it.
    package var duration: Int64?
    /// For the audit trail.
    package var reason: String
    package var user: String
    package var details: String

    package init(
        _ action: KeyAction, key: String, limit: String?, rates: [Rate], duration: Int64?, reason: String, user: String,
        details: String
    ) {
        self.action = action
        self.key = key
        self.limit = limit
        self.rates = rates
        self.duration = duration
        self.reason = reason
        self.user = user
        self.details = details
    }

    /// Ten years stand for "until an administrator ends it".
    private static let forever: Int64 = 10 * 366 * 86_400_000

    func intervention(at now: LedgerTime) -> Intervention {
        let until = now + (duration.map { $0 * 1000 } ?? Self.forever)
        return switch action {
        case .reset: .reset
        case .raise: .raise(rates, until: until)
        case .unraise: .unraise
        case .block: .block(until: until)
        case .unblock: .unblock
        }
    }
}

extension SharedChange {
    fileprivate var action: KeyAction {
        switch subject.kind {
        case .block: value.isEmpty ? .unblock : .block
        case .raise: value.isEmpty ? .unraise : .raise
        case .reset: .reset
        }
    }
}

/// Turns times of a ledger into times of the wall clock.
struct WallClock: Sendable {
    private let now: LedgerTime
    /// Milliseconds since 1970.
    private let wallNow: Int64

    init(of ledger: Ledger) {
        now = ledger.now
        wallNow = ledger.wallTime(of: now)
    }

    /// Seconds since 1970.
    fileprivate func seconds(_ time: LedgerTime) -> Double { Double(wallNow + (time - now)) / 1000 }
}

extension FoundKey {
    fileprivate init(_ limit: String, _ key: [UInt8], _ standing: Standing?, _ clock: WallClock) {
        self.init(
            limit: limit, key: String(decoding: key, as: UTF8.self), isKnown: standing != nil,
            standing: standing.map { KeyStanding($0, clock) })
    }
}

extension KeyStanding {
    init(_ standing: Standing, _ clock: WallClock) {
        self.init(
            limit: standing.limit, key: String(decoding: standing.key, as: UTF8.self), count: standing.count.rawValue,
            mode: standing.mode.rawValue,
            rates: standing.usages.map { usage in
                Rate(
                    rate: usage.rate.description,
                    window: Limits.Rate.text(ofDuration: usage.rate.window.milliseconds), used: usage.used,
                    limit: usage.admitted, freesAt: usage.freesAt.map(clock.seconds), history: usage.history)
            },
            refusedTries: standing.refusedTries, blockedUntil: standing.blockedUntil.map(clock.seconds),
            raisedUntil: standing.raisedUntil.map(clock.seconds), exempt: standing.isExempt)
    }
}
