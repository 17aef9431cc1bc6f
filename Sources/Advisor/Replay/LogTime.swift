// SPDX-License-Identifier: Apache-2.0

/// A time of a log.
struct LogMoment: Sendable, Equatable {
    /// Milliseconds since 1970, in UTC. If the log has no zones: in the log's own time, as if its clock were never set
    /// back.
    let milliseconds: Int64
    /// Minutes to add for the time as the log has it.
    let offset: Int
    /// Whether the log states `offset`, as its zone.
    let hasZone: Bool

    /// Milliseconds since 1970 for the report: in UTC, or in the log's own time if that has no zone.
    var reported: Int64 { hasZone ? milliseconds : milliseconds + Int64(offset) * 60_000 }
    /// Minutes east of UTC.
    var zone: Int? { hasZone ? offset : nil }

    static func utc(_ milliseconds: Int64) -> LogMoment {
        LogMoment(milliseconds: milliseconds, offset: 0, hasZone: true)
    }
}

/// Parses the times of log lines: those of syslog, without year and zone; RFC 3339 and what is close to it; and those
/// of journalctl's short formats.
struct LogTime {
    /// The year of lines without one; incremented when January follows December.
    private var year: Int
    private var lastMonth: Int?
    private var changes = ClockChanges()
    /// The year of the first 29 February that was read without one, whether or not that year has the day.
    private(set) var yearOfLeapDay: Int?

    private static let months: [UInt32: Int] = Dictionary(
        uniqueKeysWithValues: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            .enumerated()
            .map { index, name in (name.utf8.reduce(0) { $0 << 8 | UInt32($1) }, index + 1) })

    /// Minutes east of UTC for the abbreviations that journalctl prints and that mean one zone only: not CST, IST.
    private static let zones: [String: Int] = [
        "UTC": 0, "GMT": 0, "WET": 0, "WEST": 60, "BST": 60, "CET": 60, "CEST": 120, "EET": 120, "EEST": 180,
        "MSK": 180, "JST": 540, "KST": 540, "AEST": 600, "AEDT": 660, "NZST": 720, "NZDT": 780, "EST": -300,
        "EDT": -240, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420,
    ]

    /// - Parameter year: of the first line.
    init(year: Int) {
        self.year = year
    }

    /// Continues with another file of the same log.
    mutating func beginFile(year: Int) {
        self.year = year
        lastMonth = nil
    }

    /// The time at the beginning of `line`, and the offset of the text after it and a space.
    mutating func read(_ line: UnsafeRawBufferPointer) -> (moment: LogMoment, end: Int)? {
        guard line.count > 20 else { return nil }
        if line[4] == UInt8(ascii: "-") { return readISO(line, 0) }
        // The weekday of `journalctl -o short-full`.
        if line[3] == 0x20, line[8] == UInt8(ascii: "-") { return readISO(line, 4) }
        if line[10] == UInt8(ascii: ".") { return Self.readUnix(line) }
        return readTraditional(line)
    }

    /// `Nov 23 02:44:06`, of `journalctl -o short-precise` also `Nov 23 02:44:06.123456`; with a year before or after
    /// the day (`2026 Nov 23`, `Nov 23 2026`), or with one space before the day (`Nov 3`), too.
    private mutating func readTraditional(_ line: UnsafeRawBufferPointer) -> (LogMoment, Int)? {
        var position = 0
        var ownYear = Self.year(line, &position)
        let name = UInt32(line[position]) << 16 | UInt32(line[position + 1]) << 8 | UInt32(line[position + 2])
        guard let month = Self.months[name], line[position + 3] == 0x20 else { return nil }
        let length = line[position + 5] == 0x20 ? 1 : 2
        guard let day = Self.number(line, position + 4, length), line[position + 4 + length] == 0x20 else { return nil }
        position += 5 + length
        if ownYear == nil { ownYear = Self.year(line, &position) }
        guard position + 8 < line.count, let time = Self.time(line, position) else { return nil }
        position += 8
        let fraction = Self.fraction(line, &position)
        guard position < line.count, line[position] == 0x20 else { return nil }
        if let ownYear {
            year = ownYear
        } else if let lastMonth {
            if lastMonth == 12, month == 1 { year += 1 }
            if lastMonth == 1, month == 12 { year -= 1 }
        }
        lastMonth = month
        if ownYear == nil, month == 2, day == 29, yearOfLeapDay == nil { yearOfLeapDay = year }
        return (changes.moment(CivilDay(year, month, day), time + fraction), position + 1)
    }

    /// A year and the space behind it.
    private static func year(_ line: UnsafeRawBufferPointer, _ position: inout Int) -> Int? {
        guard position + 4 < line.count, line[position] != 0x20, line[position + 4] == 0x20,
            let year = number(line, position, 4)
        else { return nil }
        position += 5
        return year
    }

    /// `2026-11-23T02:44:06.123456+01:00`, `2026-11-23 02:44:06`, `Mon 2026-11-23 02:44:06 CET`
    private mutating func readISO(_ line: UnsafeRawBufferPointer, _ start: Int) -> (LogMoment, Int)? {
        guard line.count > start + 20, line[start + 7] == UInt8(ascii: "-"),
            line[start + 10] == UInt8(ascii: "T") || line[start + 10] == 0x20,
            let year = Self.number(line, start, 4), let month = Self.number(line, start + 5, 2), 1...12 ~= month,
            let day = Self.number(line, start + 8, 2), var time = Self.time(line, start + 11)
        else { return nil }
        var position = start + 19
        time += Self.fraction(line, &position)
        let zone = Self.zone(line, &position, afterWeekday: start > 0)
        guard position < line.count, line[position] == 0x20 else { return nil }
        let date = CivilDay(year, month, day)
        guard let zone else { return (changes.moment(date, time), position + 1) }
        let moment = LogMoment(
            milliseconds: date.milliseconds + time - Int64(zone) * 60_000, offset: zone, hasZone: true)
        return (moment, position + 1)
    }

    /// `1795401846.123456`, of `journalctl -o short-unix`
    private static func readUnix(_ line: UnsafeRawBufferPointer) -> (LogMoment, Int)? {
        guard let seconds = number(line, 0, 10) else { return nil }
        var position = 10
        let fraction = fraction(line, &position)
        guard position < line.count, line[position] == 0x20 else { return nil }
        return (.utc(Int64(seconds) * 1000 + fraction), position + 1)
    }

    /// `02:44:06`
    private static func time(_ line: UnsafeRawBufferPointer, _ start: Int) -> Int64? {
        guard let hour = number(line, start, 2), let minute = number(line, start + 3, 2),
            let second = number(line, start + 6, 2),
            line[start + 2] == UInt8(ascii: ":"), line[start + 5] == UInt8(ascii: ":"), hour < 24, minute < 60,
            second < 62
        else { return nil }
        return Int64((hour * 60 + minute) * 60 + second) * 1000
    }

    /// The milliseconds of `.123456`, or 0.
    private static func fraction(_ line: UnsafeRawBufferPointer, _ position: inout Int) -> Int64 {
        guard position < line.count, line[position] == UInt8(ascii: ".") || line[position] == UInt8(ascii: ",")
        else { return 0 }
        var (milliseconds, scale) = (Int64(0), Int64(100))
        position += 1
        while position < line.count, case let digit = line[position] &- 0x30, digit < 10 {
            milliseconds += Int64(digit) * scale
            scale /= 10
            position += 1
        }
        return milliseconds
    }

    /// The minutes of `Z`, `+01:00`, `+0100` or `+01`, also after a space, or of ` CET` in a line with a weekday. Also
    /// skips an abbreviation that has several meanings.
    private static func zone(
        _ line: UnsafeRawBufferPointer, _ position: inout Int, afterWeekday: Bool
    ) -> Int? {
        let start = position < line.count && line[position] == 0x20 ? position + 1 : position
        guard let end = line[start...].firstIndex(of: 0x20), end > start else { return nil }
        if line[start] == UInt8(ascii: "+") || line[start] == UInt8(ascii: "-") {
            let hasColon = end - start == 6 && line[start + 3] == UInt8(ascii: ":")
            guard hasColon || end - start == 5 || end - start == 3, let hours = number(line, start + 1, 2),
                let minutes = end - start == 3 ? 0 : number(line, hasColon ? start + 4 : start + 3, 2)
            else { return nil }
            position = end
            return (line[start] == UInt8(ascii: "+") ? 1 : -1) * (hours * 60 + minutes)
        }
        if start == position {
            guard line[start] == UInt8(ascii: "Z"), end == start + 1 else { return nil }
            position = end
            return 0
        }
        guard afterWeekday else { return nil }
        position = end
        return zones[String(decoding: line[start..<end], as: UTF8.self)]
    }

    /// A number of `count` digits; the first may be a space.
    private static func number(_ line: UnsafeRawBufferPointer, _ start: Int, _ count: Int) -> Int? {
        var number = 0
        for index in start..<start + count {
            let digit = line[index] &- 0x30
            if digit < 10 {
                number = number * 10 + Int(digit)
            } else if index > start || line[index] != 0x20 {
                return nil
            }
        }
        return number
    }
}

/// A day in the proleptic Gregorian calendar.
struct CivilDay {
    let month: Int
    let day: Int
    /// Days since 1970-01-01.
    let number: Int

    init(_ year: Int, _ month: Int, _ day: Int) {
        (self.month, self.day) = (month, day)
        // Count years from March, so that the leap day is the last day.
        let year = month <= 2 ? year - 1 : year
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        number = 365 * year + year / 4 - year / 100 + year / 400 + dayOfYear - 719_468
    }

    /// The start of the day, since 1970.
    var milliseconds: Int64 { Int64(number) * 86_400_000 }

    /// Whether some country sets its clocks back on this day: Europe on the last Sunday of October, North America on
    /// the first of November, Australia and New Zealand on the first of April.
    var mayEndSummerTime: Bool {
        let isSunday = (number % 7 + 7 + 4) % 7 == 0
        return isSunday && (month == 10 && day >= 25 || [4, 11].contains(month) && day <= 7)
    }
}

/// Finds where the clock of a log without zones was set back by an hour, and counts that hour twice.
private struct ClockChanges {
    private static let hour: Int64 = 3_600_000
    /// The clock was not set back if a line is less behind the line before: that is disorder, or the log of an idle
    /// server.
    private static let leastChange: Int64 = 300_000
    /// How late a program's line may be after the change.
    private static let mostDelay: Int64 = 60_000

    /// What the local time is behind, because the clock was set back.
    private var shift: Int64 = 0
    /// The hour that came twice, in local time.
    private var repeated: Range<Int64>?
    /// The line before: its local time, and the same with the shift.
    private var last: (local: Int64, shifted: Int64)?

    /// - Parameter time: since the start of the day.
    mutating func moment(_ date: CivilDay, _ time: Int64) -> LogMoment {
        let local = date.milliseconds + time
        if let last {
            let back = last.local - local
            if back > 24 * Self.hour {
                // Another machine's log.
                (shift, repeated) = (0, nil)
            } else if Self.leastChange...Self.hour ~= back, date.mayEndSummerTime, time < 4 * Self.hour,
                repeated.map({ local > $0.upperBound + 24 * Self.hour }) ?? true
            {
                shift += Self.hour
                let start = local - local % Self.hour
                repeated = start..<start + Self.hour
            }
        }
        var shifted = local + shift
        // A line that is out of order may be of the first of the two hours.
        if let repeated, let last, repeated.contains(local),
            abs(shifted - Self.hour - last.shifted) <= Self.mostDelay
        {
            shifted -= Self.hour
        }
        last = (local, shifted)
        return LogMoment(milliseconds: shifted, offset: Int((local - shifted) / 60_000), hasZone: false)
    }
}
