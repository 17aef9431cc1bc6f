// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Finds the year of a log whose lines have none.
enum LogYear {
    private static let day: Int64 = 86_400_000

    /// The year of a log's first line: the latest in which all of the log was written before the file was modified, and
    /// in which a 29 February of the log exists. Standard input counts as modified now, and is not read ahead.
    static func first(of path: String) -> Int {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        var seconds = Int((attributes?[.modificationDate] as? Date ?? Date()).timeIntervalSince1970)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let year = Int(parts.tm_year) + 1900
        // Allow a day, as the time zone is unknown.
        let end = Int64(seconds) * 1000 + day
        guard let first = LogReader.firstTime(of: path, year: year) else { return year }
        let candidate = first > end ? year - 1 : year
        guard let leapYear = yearOfLeapDay(in: path, first: candidate) else { return candidate }
        let existing = (0...leapYear).reversed().first { isLeap($0) && CivilDay($0, 2, 29).milliseconds <= end }
        return candidate - leapYear + (existing ?? leapYear)
    }

    private static func yearOfLeapDay(in path: String, first year: Int) -> Int? {
        guard namesLeapDay(path), let file = try? LogFile(path: path) else { return nil }
        var time = LogTime(year: year)
        try? file.forEachLine { line in
            if time.yearOfLeapDay == nil { _ = LogLine(LogReader.withoutDamage(line), &time) }
        }
        return time.yearOfLeapDay
    }

    /// Nearly no log does, and this search takes much less time than reading the lines.
    private static func namesLeapDay(_ path: String) -> Bool {
        var isFound = false
        try? LogFile(path: path).forEachLine { line in
            guard !isFound else { return }
            var rest = line.prefix(128)
            while !isFound, let start = rest.firstIndex(of: UInt8(ascii: "F")) {
                isFound = rest[start...].starts(with: "Feb 29".utf8)
                rest = rest[(start + 1)...]
            }
        }
        return isFound
    }

    private static func isLeap(_ year: Int) -> Bool { year % 4 == 0 && year % 100 != 0 || year % 400 == 0 }
}
