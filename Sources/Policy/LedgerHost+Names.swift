// SPDX-License-Identifier: Apache-2.0
package import Limits
internal import Loop
package import Report

/// How many keys stand that are known by name.
extension LedgerHost {
    /// Each costs as much as some ten steps of a walk.
    private static let namesPerPiece = 64

    /// How these keys stand now. Those without an account are left out.
    ///
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`; `TooManyWalks` if too many others wait.
    package func standings(of names: [KeyName], withHistory: Bool) async throws -> [KeyStanding] {
        let (standings, clock) = try await lookUp(names) { ledger, limit, name in
            ledger.standing(ofKey: Array(name.key.utf8), in: limit)
        }
        return standings.map { standing in
            var figures = KeyStanding(standing, clock)
            if !withHistory { for index in figures.rates.indices { figures.rates[index].history = nil } }
            return figures
        }
    }

    /// The last changes of these keys (`Ledger.lastChange`). Keys of limits that this host lacks are left out.
    ///
    /// - Throws: as `standings`.
    package func lastChanges(of names: [KeyName]) async throws -> [KeyName: Int64] {
        let changes = try await lookUp(names) { ledger, limit, name in
            (name, ledger.lastChange(ofKey: Array(name.key.utf8), in: limit))
        }
        return Dictionary(changes.0, uniquingKeysWith: { one, _ in one })
    }

    /// Takes note of what all hosts together have used of these keys. To be called from any thread.
    ///
    /// - Parameter done: gets the keys of which this host has used so much meanwhile that it must ask again.
    package func note(_ uses: [KeyName: Ledger.SharedUse], _ done: @escaping @Sendable ([KeyName]) -> Void) {
        loop.execute { [self] in
            lookUp(Array(uses.keys)) { ledger, limit, name in
                uses[name].flatMap { ledger.note($0, ofKey: Array(name.key.utf8), in: limit) ? name : nil }
            } done: { result in
                done((try? result.get())?.0 ?? [])
            }
        }
    }

    private func lookUp<Found: Sendable>(
        _ names: [KeyName], _ find: @escaping @Sendable (Ledger, LimitState, KeyName) -> Found?
    ) async throws -> ([Found], WallClock) {
        try await withCheckedThrowingContinuation { (answer: CheckedContinuation<([Found], WallClock), any Error>) in
            loop.execute { [self] in lookUp(names, find) { answer.resume(with: $0) } }
        }
    }

    /// Looks keys up in pieces.
    private func lookUp<Found: Sendable>(
        _ names: [KeyName], _ find: @escaping (Ledger, LimitState, KeyName) -> Found?,
        done: @escaping (Result<([Found], WallClock), any Error>) -> Void
    ) {
        var found: [Found] = []
        var left = names[...]
        var limits: [String: LimitState] = [:]
        weak var first: Ledger?
        submit(to: lookups, failed: { done(.failure($0)) }) { ledger in
            if first == nil {
                first = ledger
                let wanted = Set(names.map(\.limit))
                for limit in ledger.limits where wanted.contains(limit.limit.name) {
                    limits[limit.limit.name] = limit
                }
            }
            guard first === ledger else { throw AdministrationFault.walkEnded }
            found += left.prefix(Self.namesPerPiece).compactMap { name in
                limits[name.limit].flatMap { find(ledger, $0, name) }
            }
            left = left.dropFirst(Self.namesPerPiece)
            guard left.isEmpty else { return true }
            done(.success((found, WallClock(of: ledger))))
            return false
        }
    }
}
