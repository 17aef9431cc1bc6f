// SPDX-License-Identifier: Apache-2.0
package import Limits
internal import Loop
package import Policy
package import Report

/// What administrators ask of all hosts that share limits, as one: figures of shared limits are sums. A limit that is
/// not shared is this host's alone. Without `shared`, everything is.
package struct AllHosts: Sendable {
    package let host: LedgerHost
    /// nil without `shared`.
    private let exchange: HostExchange?

    /// The most limits whose parts hosts tell each other.
    static let mostLimits = 1000
    /// With more keys than this, hosts do not tell each other their history.
    static let mostHistories = 300
    /// In the answer to a search. Nobody finds a key in a longer list.
    private static let mostFound = 100

    package init(host: LedgerHost, exchange: HostExchange?) {
        self.host = host
        self.exchange = exchange
    }

    /// nil without `shared`.
    package var hosts: SharedFigures? { exchange?.figures }

    // MARK: Keys

    /// Like `LedgerHost.fullest`, for all hosts. A key that is among the `most` fullest on no host is missing.
    package func fullest(_ most: Int, limit: String?, withHistory: Bool = false) async throws -> [KeyStanding] {
        guard let exchange else { return try await host.fullest(most, limit: limit, withHistory: withHistory) }
        let (own, answers) = try await exchange.ask(.fullest(most: most, limit: limit)) {
            try await host.fullest(most, limit: limit, withHistory: withHistory)
        }
        let (sums, _) = try await summed(own, answers, most: most, limit: limit, exchange)
        return sums.prefix(most).map { withHistory ? $0 : $0.withoutHistory }
    }

    /// Like `LedgerHost.keys`, for all hosts.
    ///
    /// - Parameters:
    ///   - state: as for `KeySelection`.
    ///   - match: as for `KeySelection`.
    package func keys(
        state: String?, limit: String?, match: String?, most: Int
    ) async throws -> KeyListing {
        let selection = try KeySelection(state: state, limit: limit, match: match)
        guard let exchange else { return try await host.keys(selection, most: most) }
        // Where all hosts together have used a part of a limit, one of them has used as much as each would if they
        // were equal.
        var least = state
        if case .filled(let percent) = selection.state {
            least = String(max(1, percent / UInt64(exchange.hosts.count)))
        }
        let lowered = try KeySelection(state: least, limit: limit, match: match)
        let (own, answers) = try await exchange.ask(
            .selection(state: least, limit: limit, match: match, most: Ledger.mostFullest)
        ) {
            try await host.keys(lowered, most: Ledger.mostFullest)
        }
        let (sums, isSumCut) = try await summed(own.keys, answers, most: Ledger.mostFullest, limit: limit, exchange)
        let found = sums.filter { $0.isIn(selection.state) }
        let isCut = isSumCut || own.count > own.keys.count || answers.contains(where: \.isCut)
        // Each host counts all of its keys, but of these, not all are in the selection where `least` is less.
        let counted = least == state ? max(own.count, answers.map(\.count).max() ?? 0) : 0
        return KeyListing(
            count: max(found.count, isCut ? counted : 0), keys: found.prefix(most).map(\.withoutHistory),
            isCut: isCut ? true : nil)
    }

    /// Like `LedgerHost.standings(ofKey:limit:)`, for all hosts.
    package func standings(ofKey key: String, limit: String?) async throws -> [KeyStanding] {
        guard let exchange else { return try await host.standings(ofKey: key, limit: limit) }
        let (own, answers) = try await exchange.ask(.key(key, limit: limit)) {
            try await host.standings(ofKey: key, limit: limit)
        }
        var sums = KeySums(own: exchange.name, hosts: exchange.figures.hosts)
        sums.add(own: own)
        sums.add(answers, tellAll: true)
        let shared = try await exchange.ledger.sharedLimits()
        let order = own.map(\.limit)
        let all = sums.sums(sums.names.filter { shared.contains($0.limit) }, at: secondsSince1970())
        return (own.filter { !shared.contains($0.limit) } + all).sorted { one, other in
            (order.firstIndex(of: one.limit) ?? .max, one.limit)
                < (order.firstIndex(of: other.limit) ?? .max, other.limit)
        }
    }

    /// Like `LedgerHost.standings(ofText:most:)`, for all hosts.
    package func standings(ofText text: String, most: Int) async throws -> [FoundKey] {
        guard let exchange else { return try await host.standings(ofText: text, most: most) }
        let (own, answers) = try await exchange.ask(.key(text, limit: nil)) {
            try await host.standings(ofText: text, most: most)
        }
        let sums = try await standings(own.compactMap(\.standing), answers, exchange)
        return own.map { found in
            guard let sum = sums[KeyName(limit: found.limit, key: found.key)] else { return found }
            return FoundKey(limit: found.limit, key: found.key, isKnown: true, standing: sum)
        }
    }

    /// Like `LedgerHost.search`, for all hosts.
    package func search(_ text: String) async throws -> KeySearch? {
        guard let exchange else { return try await host.search(text) }
        let (own, answers) = try await exchange.ask(.search(text)) { try await host.search(text) }
        guard var result = own else { return nil }
        let (standings, _) = try await summed(
            result.found.compactMap(\.standing), answers, most: Self.mostFound + 1, limit: nil, exchange)
        result.isCut = result.isCut || answers.contains(where: \.isCut) || standings.count > Self.mostFound
        result.found = standings.prefix(Self.mostFound).map {
            FoundKey(limit: $0.limit, key: $0.key, isKnown: true, standing: $0.withoutHistory)
        }.sorted { ($0.key, $0.limit) < ($1.key, $1.limit) }
        let known = Set(standings.map { KeyName($0) })
        for index in result.meant.indices where known.contains(KeyName(result.meant[index])) {
            result.meant[index].isKnown = true
        }
        return result
    }

    /// How these keys stand. Those that no host knows are left out.
    package func standings(of names: [KeyName]) async throws -> [KeyName: KeyStanding] {
        guard let exchange else {
            let own = try await host.standings(of: names, withHistory: true)
            return Dictionary(own.map { (KeyName($0), $0) }, uniquingKeysWith: { one, _ in one })
        }
        let (own, answers) = try await exchange.ask(.names(names, withHistory: true)) {
            try await host.standings(of: names, withHistory: true)
        }
        return try await standings(own, answers, exchange)
    }

    // MARK: Changes

    /// Like `LedgerHost.apply`, for all hosts. If other hosts share the limit, the notes name those that do not answer.
    package func apply(_ change: KeyChange) async throws -> [KeyStanding] {
        guard let exchange else { return try await host.apply(change) }
        var (standings, silent) = try await exchange.greet { try await host.apply(change) }
        let shared = try await exchange.ledger.sharedLimits()
        for index in standings.indices where shared.contains(standings[index].limit) {
            standings[index].note = Self.note(standings[index].note, silent: silent)
        }
        return standings
    }

    /// Like `LedgerHost.apply`, for all hosts. If other hosts share the limits, the note names those that do not
    /// answer.
    package func apply(_ change: KeyChange, to selection: KeySelection, most: Int?) async throws -> KeysChanged {
        guard let exchange else { return try await host.apply(change, to: selection, most: most) }
        var (changed, silent) = try await exchange.greet {
            try await host.apply(change, to: selection, most: most)
        }
        if changed.note != nil { changed.note = Self.note(changed.note, silent: silent) }
        return changed
    }

    /// The note on a change, and the hosts that have not answered.
    private static func note(_ note: String?, silent: [HostFigures]) -> String? {
        let names = silent.map { host in
            "\(host.name) (\(host.age.map { "last heard \(Int($0))s ago" } ?? "never heard"))"
        }
        let notes = [note, names.isEmpty ? nil : "no answer from \(names.joined(separator: ", "))"].compactMap(\.self)
        return notes.isEmpty ? nil : notes.joined(separator: "; ")
    }

    // MARK: Limits and refusals

    /// Asks the other hosts what they have counted of shared limits.
    ///
    /// - Returns: what each has told last, even if it has not answered now; nil without `shared`.
    package func askForFigures() async -> ToldFigures? {
        guard let exchange, let shared = try? await exchange.ledger.sharedLimits() else { return nil }
        _ = try? await exchange.ask(.figures) {}
        return ToldFigures(own: exchange.name, shared: shared, answers: exchange.latestFigures)
    }

    // MARK: Sums

    private func standings(
        _ own: [KeyStanding], _ answers: [HostAnswer], _ exchange: HostExchange
    ) async throws -> [KeyName: KeyStanding] {
        let shared = try await exchange.ledger.sharedLimits()
        var sums = KeySums(own: exchange.name, hosts: exchange.figures.hosts)
        sums.add(own: own)
        sums.add(answers, tellAll: true)
        let all = sums.sums(sums.names.filter { shared.contains($0.limit) }, at: secondsSince1970())
        return Dictionary(
            (all + own.filter { !shared.contains($0.limit) }).map { (KeyName($0), $0) },
            uniquingKeysWith: { one, _ in one })
    }

    /// Adds up what hosts have told of some of their keys. A host may have left out a key that another has told of, so
    /// all are asked again, by name.
    ///
    /// - Parameter most: of the result.
    /// - Returns: the fullest first; and whether some of the keys may be missing.
    private func summed(
        _ own: [KeyStanding], _ answers: [HostAnswer], most: Int, limit: String?, _ exchange: HostExchange
    ) async throws -> (standings: [KeyStanding], isCut: Bool) {
        let shared = try await exchange.ledger.sharedLimits()
        var sums = KeySums(own: exchange.name, hosts: exchange.figures.hosts)
        sums.add(own: own.filter { shared.contains($0.limit) })
        sums.add(
            answers.map { answer in
                var answer = answer
                answer.standings.removeAll { !shared.contains($0.limit) || $0.limit != limit ?? $0.limit }
                return answer
            }, tellAll: false)
        // Twice as many: the sums may change the order.
        let names = sums.candidates(min(2 * most, HostQuestion.mostKeys))
        var isCut = sums.names.count > names.count
        if !answers.isEmpty, !names.isEmpty {
            let withHistory = names.count <= Self.mostHistories
            let (again, others) = try await exchange.ask(
                .names(names, withHistory: withHistory), of: Set(answers.map(\.from))
            ) {
                try await host.standings(of: names, withHistory: withHistory)
            }
            sums.add(own: again)
            sums.add(others, tellAll: true)
            isCut = isCut || others.contains(where: \.isCut)
        }
        let alone = own.filter { !shared.contains($0.limit) }
        return (KeySums.fullestFirst(sums.sums(names, at: secondsSince1970()) + alone), isCut)
    }
}

/// What the other hosts have told last of the limits that they share with this one.
package struct ToldFigures: Sendable {
    /// The name of this host.
    let own: String
    /// The limits that hosts share.
    let shared: Set<String>
    let answers: [HostAnswer]

    /// Seconds. Refusals of the last minute are not told to be those of a minute that has passed long ago.
    private static let mostAgeOfRates = 10.0

    package init(own: String, shared: Set<String>, answers: [HostAnswer]) {
        self.own = own
        self.shared = shared
        self.answers = answers
    }

    /// One list for each host.
    package var refusals: [[RefusalGroup]] {
        answers.map { $0.age <= Self.mostAgeOfRates ? $0.refusals : $0.refusals.map(\.withoutRate) }
    }

    /// Adds the parts of all hosts to the figures of this one, where the limit is shared.
    package func addParts(to limits: inout [LimitFigures]) {
        for index in limits.indices where shared.contains(limits[index].name) {
            let limit = limits[index]
            let part = LimitPart(host: own, keys: limit.keys, refusals: limit.refusals, blocks: limit.blocks)
            limits[index].hosts = [part] + answers.compactMap { $0.limits[limit.name] }
        }
    }
}

extension KeyName {
    fileprivate init(_ found: FoundKey) { self.init(limit: found.limit, key: found.key) }
}

extension KeyStanding {
    fileprivate var withoutHistory: KeyStanding {
        var copy = self
        for index in copy.rates.indices { copy.rates[index].history = nil }
        return copy
    }

    /// Whether the sum is still what was looked for.
    fileprivate func isIn(_ state: KeySelection.State) -> Bool {
        switch state {
        case .any, .used, .blockedByLimit: true
        case .blocked: blockedUntil != nil
        case .raised: raisedUntil != nil
        case .filled(let percent): isFilled(percent: percent)
        }
    }
}
