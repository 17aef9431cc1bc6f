// SPDX-License-Identifier: Apache-2.0
import NIOCore

/// When an open-loop load means to start each operation, whatever became of the ones before.
struct ArrivalSchedule {
    let start: NIODeadline
    /// Operations a second.
    let rate: Double
    private(set) var taken = 0

    init(start: NIODeadline, rate: Double) {
        self.start = start
        self.rate = rate
    }

    /// When the next operation is due.
    var next: NIODeadline {
        start + .nanoseconds(Int64(Double(taken) / rate * 1e9))
    }

    /// The time that the next operation was due, or nil where that is still to come.
    mutating func take(at now: NIODeadline) -> NIODeadline? {
        let due = next
        guard due <= now else { return nil }
        taken += 1
        return due
    }
}
