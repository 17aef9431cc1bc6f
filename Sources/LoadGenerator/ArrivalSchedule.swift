// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// When an open-loop load starts each operation, no matter how long earlier ones take.
package struct ArrivalSchedule {
    package let start: NIODeadline
    package let pace: LoadPace
    /// Nothing is due from here on.
    private let end: NIODeadline
    package private(set) var issued = 0
    /// The phase of the next operation, the seconds before the phase, and the number of operations due before it.
    private var phase = 0
    private var phaseStart = 0.0
    private var dueBefore = 0.0

    package init(start: NIODeadline, pace: LoadPace, duration: TimeAmount) {
        self.start = start
        self.pace = pace
        end = start + duration
    }

    /// When the next operation is due.
    package var next: NIODeadline {
        let seconds = phaseStart + (Double(issued) - dueBefore) / pace.phases[phase].rate
        return start + .nanoseconds(Int64(seconds * 1e9))
    }

    /// Removes the next operation if it is due, and returns the time it was due.
    package mutating func popDue(at now: NIODeadline) -> NIODeadline? {
        let due = next
        guard due <= now, due < end else { return nil }
        issued += 1
        enterPhase()
        return due
    }

    /// The last phase never ends.
    private mutating func enterPhase() {
        while phase + 1 < pace.phases.count {
            let (seconds, rate) = (pace.phases[phase].seconds, pace.phases[phase].rate)
            guard Double(issued) >= dueBefore + seconds * rate else { return }
            dueBefore += seconds * rate
            phaseStart += seconds
            phase += 1
        }
    }
}
