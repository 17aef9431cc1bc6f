// SPDX-License-Identifier: Apache-2.0

/// A point on the ledger's own time line, in milliseconds; close to Unix time, but it never goes back and never jumps.
package struct LedgerTime: Comparable, Hashable, Sendable {
    package var milliseconds: Int64

    /// Sums and slots of times up to here do not overflow.
    static let largest = LedgerTime(milliseconds: 1 << 53)

    package init(milliseconds: Int64) {
        self.milliseconds = milliseconds
    }

    package static func < (left: LedgerTime, right: LedgerTime) -> Bool {
        left.milliseconds < right.milliseconds
    }

    package static func + (left: LedgerTime, milliseconds: Int64) -> LedgerTime {
        LedgerTime(milliseconds: left.milliseconds + milliseconds)
    }

    package static func - (left: LedgerTime, right: LedgerTime) -> Int64 {
        left.milliseconds - right.milliseconds
    }
}

/// What the machine's clocks read at one moment.
package struct ClockReading: Equatable, Sendable {
    /// Milliseconds since this boot, sleep included (CLOCK_BOOTTIME); can't be set.
    package var sinceBoot: Int64
    /// Milliseconds since 1970 (CLOCK_REALTIME); anybody may set it, in either direction.
    package var wall: Int64

    package init(sinceBoot: Int64, wall: Int64) {
        self.sinceBoot = sinceBoot
        self.wall = wall
    }
}

/// The clocks of the machine, to be replaced in tests.
package protocol SystemClocks: Sendable {
    /// Stands for this boot (`/proc/sys/kernel/random/boot_id`): `sinceBoot` can be compared only where it is the same.
    var boot: UInt64 { get }
    func read() -> ClockReading
}

/// A reading of the clocks and the ledger's time at that moment, as kept with the counts.
package struct ClockAnchor: Equatable, Sendable {
    package var boot: UInt64
    package var reading: ClockReading
    package var time: LedgerTime

    package init(boot: UInt64, reading: ClockReading, time: LedgerTime) {
        self.boot = boot
        self.reading = reading
        self.time = time
    }
}

/// Turns clock readings into the ledger's time.
///
/// While the service runs, time follows CLOCK_BOOTTIME, so a step of the wall clock changes nothing. Over a restart
/// within one boot it does so too. Only over a boot the wall clock tells how long the machine was away; where it says
/// less than nothing, no time has passed, which can hold mail back for a while but never lets more through.
package struct LedgerClock: Sendable {
    private let clocks: any SystemClocks
    private var offset: Int64
    private var latest: LedgerTime

    /// The year 2248. What is kept with a later time is damaged, and no reason to lose all that counts now.
    private static let end = LedgerTime(milliseconds: 1 << 43)

    package init(clocks: any SystemClocks, resuming anchor: ClockAnchor?) {
        self.clocks = clocks
        let now = clocks.read()
        var start = LedgerTime(milliseconds: now.wall)
        if let anchor {
            let away =
                anchor.boot == clocks.boot
                ? now.sinceBoot - anchor.reading.sinceBoot : now.wall - anchor.reading.wall
            let resumed = anchor.time + max(0, away)
            if resumed <= Self.end { start = resumed }
        }
        offset = start.milliseconds - now.sinceBoot
        latest = start
    }

    /// Goes on from `time`, where that is later: something has been counted then.
    mutating func advance(to time: LedgerTime) {
        guard latest < time, time <= Self.end else { return }
        offset += time - latest
        latest = time
    }

    package mutating func now() -> LedgerTime {
        latest = max(latest, LedgerTime(milliseconds: clocks.read().sinceBoot + offset))
        return latest
    }

    /// The ledger's time now, with the readings that a later start resumes from.
    package mutating func anchor() -> ClockAnchor {
        let reading = clocks.read()
        latest = max(latest, LedgerTime(milliseconds: reading.sinceBoot + offset))
        return ClockAnchor(boot: clocks.boot, reading: reading, time: latest)
    }
}
