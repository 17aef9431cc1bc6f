// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Synchronization

/// How the next hop of one filter does, over all its event loops.
final class NextHopCounters: Sendable {
    struct Trouble: Codable, Equatable, Sendable {
        var cause: String
        /// Seconds since 1970.
        var since: Double
    }

    struct Values: Codable, Sendable {
        var address: String
        /// How often it could not be had, or went away.
        var failures: UInt64
        var connections: Int
        /// Those of `connections` that have nothing to do.
        var idle: Int
        /// Why it could not be had when it was tried last; absent where it could.
        var trouble: Trouble?
    }

    private let address: String
    private let failures = Atomic<UInt64>(0)
    private let trouble = Mutex<Trouble?>(nil)
    let connections = Atomic(0)
    let idle = Atomic(0)

    init(address: String) {
        self.address = address
    }

    func countLoss() { failures.add(1, ordering: .relaxed) }

    /// It could not be had.
    func countFailure(_ cause: String) {
        failures.add(1, ordering: .relaxed)
        trouble.withLock { trouble in trouble = Trouble(cause: cause, since: trouble?.since ?? Double(time(nil))) }
    }

    /// - Returns: whether it could not be had before.
    func noteReady() -> Bool {
        trouble.withLock { trouble in
            defer { trouble = nil }
            return trouble != nil
        }
    }

    var values: Values {
        Values(
            address: address, failures: failures.load(ordering: .relaxed),
            connections: connections.load(ordering: .relaxed),
            idle: idle.load(ordering: .relaxed), trouble: trouble.withLock(\.self))
    }
}
