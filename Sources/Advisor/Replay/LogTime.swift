// SPDX-License-Identifier: Apache-2.0

/// Parses the times of log lines: `Nov 23 02:44:06`, without a year, and `2026-11-23T02:44:06.123456+01:00`.
struct LogTime {
    /// The year of lines without one; incremented when January follows December.
    private var year: Int
    private var lastMonth: Int?

    private static let months: [UInt32: Int] = Dictionary(
        uniqueKeysWithValues: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            .enumerated()
            .map { index, name in (name.utf8.reduce(0) { $0 << 8 | UInt32($1) }, index + 1) })

    /// - Parameter year: of the first line.
    init(year: Int) {
        self.year = year
    }

    /// Milliseconds since 1970, and the offset of the text after the time. Times without a zone are treated as UTC.
    mutating func read(_ line: UnsafeRawBufferPointer) -> (milliseconds: Int64, end: Int)? {
        guard line.count > 20 else { return nil }
        return line[4] == UInt8(ascii: "-") ? Self.readISO(line) : readTraditional(line)
    }

    private mutating func readTraditional(_ line: UnsafeRawBufferPointer) -> (milliseconds: Int64, end: Int)? {
        let name = UInt32(line[0]) << 16 | UInt32(line[1]) << 8 | UInt32(line[2])
        guard let month = Self.months[name], line[3] == 0x20, line[15] == 0x20,
            let day = Self.number(line, 4, 2), let time = Self.time(line, 7)
        else { return nil }
        if let lastMonth {
            if lastMonth == 12, month == 1 { year += 1 }
            if lastMonth == 1, month == 12 { year -= 1 }
        }
        lastMonth = month
        return (Self.milliseconds(year, month, day) + time, 16)
    }

    private static func readISO(_ line: UnsafeRawBufferPointer) -> (milliseconds: Int64, end: Int)? {
        guard let year = number(line, 0, 4), let month = number(line, 5, 2), 1...12 ~= month,
            let day = number(line, 8, 2),
            line[10] == UInt8(ascii: "T"), let time = time(line, 11)
        else { return nil }
        var milliseconds = milliseconds(year, month, day) + time
        var position = 19
        if line[position] == UInt8(ascii: ".") {
            var scale: Int64 = 100
            position += 1
            while position < line.count, case let digit = line[position] &- 0x30, digit < 10 {
                milliseconds += Int64(digit) * scale
                scale /= 10
                position += 1
            }
        }
        guard position < line.count else { return nil }
        if line[position] == UInt8(ascii: "Z") {
            position += 1
        } else if line[position] == UInt8(ascii: "+") || line[position] == UInt8(ascii: "-"), position + 6 < line.count,
            let hours = number(line, position + 1, 2), let minutes = number(line, position + 4, 2)
        {
            let offset = Int64(hours * 60 + minutes) * 60_000
            milliseconds += line[position] == UInt8(ascii: "+") ? -offset : offset
            position += 6
        }
        guard position < line.count, line[position] == 0x20 else { return nil }
        return (milliseconds, position + 1)
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

    /// The start of a day in the proleptic Gregorian calendar.
    private static func milliseconds(_ year: Int, _ month: Int, _ day: Int) -> Int64 {
        // Count years from March, so that the leap day is the last day.
        let year = month <= 2 ? year - 1 : year
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        let days = 365 * year + year / 4 - year / 100 + year / 400 + dayOfYear - 719_468
        return Int64(days) * 86_400_000
    }
}
