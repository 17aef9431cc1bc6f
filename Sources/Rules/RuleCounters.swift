// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// The counters of each rule of a list, since the rule was first loaded.
package final class RuleCounters: Sendable {
    package struct Values: Equatable, Sendable {
        /// How often the rule matched first.
        package var hits = 0
        /// When it last matched, in nanoseconds of the matcher's clock: `monotonicNanoseconds` in the service.
        package var lastHit: UInt64?
        /// The time spent in its pattern, in nanoseconds; sampled while there is no fast pass.
        package var time: UInt64 = 0
        /// How often it exceeded a match limit or the time budget of a message, which counts as no match.
        package var limitsReached = 0
    }

    /// The counters of one rule. After a reload the old and the new list share them while messages still use the old
    /// one.
    private final class Counter: Sendable {
        let values = Mutex(Values())
    }

    /// What identifies a rule over a reload.
    private struct Identity: Hashable {
        let table: String
        let source: PatternSource?
        let second: PatternSource?
        let isNegated: Bool
        let action: Replacement?
    }

    private let identities: [Identity]
    private let counters: [Counter]

    /// - Parameter old: rules that it has too keep its counters; equal rules do so in their order.
    init(entries: [RuleList.Entry], tables: [Table], continuing old: RuleCounters?) {
        identities = entries.map { entry in
            let statement = entry.statement
            var action: Replacement?
            if case .match(let replacement) = statement.operation { action = replacement }
            return Identity(
                table: tables[entry.table].name, source: statement.expression?.source, second: statement.second?.source,
                isNegated: statement.expression?.negated ?? false, action: action)
        }
        var oldCounters: [Identity: ArraySlice<Counter>] = [:]
        for (identity, counter) in zip(old?.identities ?? [], old?.counters ?? []) {
            oldCounters[identity, default: []].append(counter)
        }
        counters = identities.map { oldCounters[$0]?.popFirst() ?? Counter() }
    }

    /// Whether both count the same rules in the same order.
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
