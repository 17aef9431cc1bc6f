// SPDX-License-Identifier: Apache-2.0
package import Limits
internal import Loop
package import Report

/// How many keys stand that are known by name.
extension LedgerHost {
    /// Each costs as much as some ten steps of a walk.
    private static let namesPerPiece = 64

    /// How these keys stand now. They are looked up in pieces. Those without an account are left out.
    ///
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`; `TooManyListings` if too many others wait.
    package func standings(of names: [KeyName], withHistory: Bool) async throws -> [KeyStanding] {
        typealias Answer = CheckedContinuation<([Standing], WallClock), any Error>
        let (standings, clock) = try await withCheckedThrowingContinuation { (answer: Answer) in
            loop.execute { [self] in
                var found: [Standing] = []
                var left = names[...]
                var limits: [String: LimitState] = [:]
                weak var first: Ledger?
                submit(to: lookups, failed: { answer.resume(throwing: $0) }) { ledger in
                    if first == nil {
                        first = ledger
                        let wanted = Set(names.map(\.limit))
                        for limit in ledger.limits where wanted.contains(limit.limit.name) {
                            limits[limit.limit.name] = limit
                        }
                    }
                    guard first === ledger else { throw AdministrationFault.walkEnded }
                    found += left.prefix(Self.namesPerPiece).compactMap { name in
                        limits[name.limit].flatMap { ledger.standing(ofKey: Array(name.key.utf8), in: $0) }
                    }
                    left = left.dropFirst(Self.namesPerPiece)
                    guard left.isEmpty else { return true }
                    answer.resume(returning: (found, WallClock(of: ledger)))
                    return false
                }
            }
        }
        return standings.map { standing in
            var figures = KeyStanding(standing, clock)
            if !withHistory { for index in figures.rates.indices { figures.rates[index].history = nil } }
            return figures
        }
    }

    /// Takes note of what all hosts together have used of these keys. Each costs as much as one step of a walk.
    ///
    /// - Returns: the keys of which this host has used so much meanwhile that it must ask again.
    /// - Throws: `LedgerUnavailable`.
    package func note(_ uses: [KeyName: Ledger.SharedUse]) async throws -> [KeyName] {
        try await loop.submit { [self] in
            try withLedger { ledger in
                let limits = Dictionary(ledger.limits.map { ($0.limit.name, $0) }, uniquingKeysWith: { one, _ in one })
                return uses.compactMap { name, use in
                    limits[name.limit].flatMap { ledger.note(use, ofKey: Array(name.key.utf8), in: $0) ? name : nil }
                }
            }
        }
    }
}
