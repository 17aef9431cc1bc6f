// SPDX-License-Identifier: Apache-2.0
package import Synchronization

/// The state of the next hop of one filter, over all its loops.
package final class NextHopCounters: Sendable {
    package struct Trouble: Codable, Equatable, Sendable {
        package var cause: String
        /// Seconds since 1970.
        package var since: Double
    }

    package struct Values: Codable, Sendable {
        package var address: String
        /// Failed connection attempts and lost connections.
        package var failures: UInt64
        package var connections: Int
        /// Connections without a transaction.
        package var idle: Int
        /// Why the last connection attempt failed; absent if it succeeded.
        package var trouble: Trouble?
    }

    private let address: String
    private let failures = Atomic<UInt64>(0)
    private let trouble = Mutex<Trouble?>(nil)
    package let connections = Atomic(0)
    package let idle = Atomic(0)

    package init(address: String) {
        self.address = address
    }

    package func countLoss() { failures.add(1, ordering: .relaxed) }

    /// The next hop is unreachable.
    package func countFailure(_ cause: String) {
        failures.add(1, ordering: .relaxed)
        trouble.withLock { trouble in trouble = Trouble(cause: cause, since: trouble?.since ?? secondsSince1970()) }
    }

    /// - Returns: whether it was unreachable before.
    package func noteReady() -> Bool {
        trouble.withLock { trouble in
            defer { trouble = nil }
            return trouble != nil
        }
    }

    package var values: Values {
        Values(
            address: address, failures: failures.load(ordering: .relaxed),
            connections: connections.load(ordering: .relaxed),
            idle: idle.load(ordering: .relaxed), trouble: trouble.withLock(\.self))
    }
}
