// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// When an open-loop load means to start each operation, whatever became of the ones before.
package struct ArrivalSchedule {
    package let start: NIODeadline
    /// Operations a second.
    package let rate: Double
    package private(set) var taken = 0

    package init(start: NIODeadline, rate: Double) {
        self.start = start
        self.rate = rate
    }

    /// When the next operation is due.
    package var next: NIODeadline {
        start + .nanoseconds(Int64(Double(taken) / rate * 1e9))
    }

    /// The time that the next operation was due, or nil where that is still to come.
    package mutating func take(at now: NIODeadline) -> NIODeadline? {
        let due = next
        guard due <= now else { return nil }
        taken += 1
        return due
    }
}
