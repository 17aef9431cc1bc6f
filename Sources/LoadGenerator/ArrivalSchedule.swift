// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// When an open-loop load means to start each operation, whatever became of the ones before.
package struct ArrivalSchedule {
    package let start: NIODeadline
    package let pace: LoadPace
    package private(set) var taken = 0
    /// The phase in which the next operation is due, when that begins, and how many operations are due before it.
    private var phase = 0
    private var phaseStart = 0.0
    private var dueBefore = 0.0

    package init(start: NIODeadline, pace: LoadPace) {
        self.start = start
        self.pace = pace
    }

    /// When the next operation is due.
    package var next: NIODeadline {
        let seconds = phaseStart + (Double(taken) - dueBefore) / pace.phases[phase].rate
        return start + .nanoseconds(Int64(seconds * 1e9))
    }

    /// The time that the next operation was due, or nil where that is still to come.
    package mutating func take(at now: NIODeadline) -> NIODeadline? {
        let due = next
        guard due <= now else { return nil }
        taken += 1
        enterPhase()
        return due
    }

    /// The last phase lasts for ever.
    private mutating func enterPhase() {
        while phase + 1 < pace.phases.count {
            let (seconds, rate) = (pace.phases[phase].seconds, pace.phases[phase].rate)
            guard Double(taken) >= dueBefore + seconds * rate else { return }
            dueBefore += seconds * rate
            phaseStart += seconds
            phase += 1
        }
    }
}
