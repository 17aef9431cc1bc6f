// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// What each rule of a list did since it was first loaded.
package final class RuleCounters: Sendable {
    package struct Values: Equatable, Sendable {
        /// Times the rule decided.
        package var hits = 0
        /// When it last did, in nanoseconds of the clock that the matcher was given: of `monotonicNanoseconds` where the service runs.
        package var lastHit: UInt64?
        /// Time spent in its pattern, in nanoseconds; sampled while there is no fast pass.
        package var time: UInt64 = 0
        /// Times it ran into a match limit or the message's budget and so counted as no match.
        package var limitsReached = 0
    }

    /// Of one rule; lists of one reload and the next share it while messages are on their way through both.
    private final class Counter: Sendable {
        let values = Mutex(Values())
    }

    /// What makes a rule the same after a reload.
    private struct Identity: Hashable {
        let table: String
        let source: PatternSource?
        let second: PatternSource?
        let isNegated: Bool
        let action: Replacement?
    }

    private let identities: [Identity]
    private let counters: [Counter]

    /// - Parameter old: goes on counting for the rules that it has as well; of several that are the same, in their order.
    init(entries: [RuleList.Entry], tables: [Table], continuing old: RuleCounters?) {
        identities = entries.map { entry in
            let statement = entry.statement
            var action: Replacement?
            if case .match(let replacement) = statement.operation { action = replacement }
            return Identity(
                table: tables[entry.table].name, source: statement.expression?.source, second: statement.second?.source,
                isNegated: statement.expression?.negated ?? false, action: action)
        }
        var known: [Identity: ArraySlice<Counter>] = [:]
        for (identity, counter) in zip(old?.identities ?? [], old?.counters ?? []) {
            known[identity, default: []].append(counter)
        }
        counters = identities.map { known[$0]?.popFirst() ?? Counter() }
    }

    /// Whether both are of the same rules in the same order.
    func hasSameRules(as other: RuleCounters) -> Bool { identities == other.identities }

    package subscript(rule: Int) -> Values { counters[rule].values.withLock { $0 } }

    /// All of them, by rule number.
    package var snapshot: [Values] { counters.map { $0.values.withLock { $0 } } }

    func add(time: UInt64, to rule: Int) { counters[rule].values.withLock { $0.time += time } }

    func addHit(at time: UInt64, to rule: Int) {
        counters[rule].values.withLock {
            $0.hits += 1
            $0.lastHit = time
        }
    }

    func addLimit(to rule: Int) { counters[rule].values.withLock { $0.limitsReached += 1 } }
}
