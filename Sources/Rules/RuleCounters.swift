// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// What each rule of a list did since the list was loaded.
package final class RuleCounters: Sendable {
    package struct Counter: Equatable, Sendable {
        /// Times the rule decided.
        package var hits = 0
        /// When it last did, in nanoseconds of the clock that the matcher was given.
        package var lastHit: UInt64?
        /// Time spent in its pattern, in nanoseconds; sampled while there is no fast pass.
        package var time: UInt64 = 0
        /// Times it ran into a match limit or the message's budget and so counted as no match.
        package var limitsReached = 0
    }

    private let counters: Mutex<[Counter]>

    init(count: Int) { counters = Mutex(Array(repeating: Counter(), count: count)) }

    package subscript(rule: Int) -> Counter { counters.withLock { $0[rule] } }

    /// All of them, by rule number.
    package var snapshot: [Counter] { counters.withLock { $0 } }

    func add(time: UInt64, to rule: Int) { counters.withLock { $0[rule].time += time } }

    func addHit(at time: UInt64, to rule: Int) {
        counters.withLock {
            $0[rule].hits += 1
            $0[rule].lastHit = time
        }
    }

    func addLimit(to rule: Int) { counters.withLock { $0[rule].limitsReached += 1 } }
}
