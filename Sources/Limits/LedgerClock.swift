// SPDX-License-Identifier: Apache-2.0

/// A time of the ledger, in milliseconds. It is close to Unix time, but never goes back.
package struct LedgerTime: Comparable, Hashable, Sendable {
    package var milliseconds: Int64

    /// Sums and slot numbers of times up to this one do not overflow.
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

/// The machine's clocks, read at one moment.
package struct ClockReading: Equatable, Sendable {
    /// Milliseconds since this boot, including sleep (CLOCK_BOOTTIME). Nobody can set it.
    package var sinceBoot: Int64
    /// Milliseconds since 1970 (CLOCK_REALTIME). It may be set, forward or back.
    package var wall: Int64

    package init(sinceBoot: Int64, wall: Int64) {
        self.sinceBoot = sinceBoot
        self.wall = wall
    }
}

/// The machine's clocks. Tests use their own.
package protocol SystemClocks: Sendable {
    /// Identifies this boot (`/proc/sys/kernel/random/boot_id`). Two values of `sinceBoot` can be compared only within
    /// one.
    var boot: UInt64 { get }
    func read() -> ClockReading
}

/// The clocks and the ledger's time at one moment, as each journal batch keeps them.
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
/// Time follows CLOCK_BOOTTIME while the service runs, and across restarts within one boot, so a step of the wall clock
/// changes nothing. Only across a reboot does the wall clock tell how long the machine was down. If it went back, the
/// ledger assumes that no time has passed: this may defer mail for a while, but never admits more than the limits.
package struct LedgerClock: Sendable {
    private let clocks: any SystemClocks
    private var offset: Int64
    private var latest: LedgerTime

    /// The year 2248. A stored time after it is damage, and is ignored: it would expire every count.
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

    /// Continues from `time` if that is later than now. Times after `end` are ignored.
    mutating func advance(to time: LedgerTime) {
        guard latest < time, time <= Self.end else { return }
        offset += time - latest
        latest = time
    }

    package mutating func now() -> LedgerTime {
        latest = max(latest, LedgerTime(milliseconds: clocks.read().sinceBoot + offset))
        return latest
    }

    /// The ledger's time now, with the readings from which a later start resumes.
    package mutating func anchor() -> ClockAnchor {
        let reading = clocks.read()
        latest = max(latest, LedgerTime(milliseconds: reading.sinceBoot + offset))
        return ClockAnchor(boot: clocks.boot, reading: reading, time: latest)
    }
}
