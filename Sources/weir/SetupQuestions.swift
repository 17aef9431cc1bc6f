// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Limits
import Report
import Rules
import Settings

/// Asks the questions of `weir setup` on standard input. An empty answer takes the default; a bad one is asked again.
struct SetupQuestions {
    /// False: every question has its default as its answer.
    let asks: Bool
    private var input = InputLines()

    private static let usualShadowDays = 7
    private static let mostShadowDays = 365

    /// A bad answer, and what is allowed.
    private struct BadAnswer: Error {
        let text: String
    }

    init(asks: Bool) {
        self.asks = asks
    }

    /// Asks for one of the values of an enumeration.
    mutating func ask<Choice: CaseIterable & RawRepresentable<String>>(
        _ question: String, _ answer: WritableKeyPath<SetupAnswers, Choice>, of answers: inout SetupAnswers
    ) throws {
        try ask(question, shown: answers[keyPath: answer].rawValue) { text throws(BadAnswer) in
            guard let choice = Choice(rawValue: text.lowercased()) else {
                throw BadAnswer(text: "write one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            answers[keyPath: answer] = choice
        }
    }

    mutating func askRates(of answers: inout SetupAnswers) throws {
        let shown = answers.rates.map(\.description).joined(separator: ", ")
        try ask("How many recipients may each have, in which time?", shown: shown) { text throws(BadAnswer) in
            var changed = answers
            changed.rates = []
            for word in text.split(whereSeparator: { $0 == "," || $0 == " " }) {
                guard let rate = Rate(word) else {
                    throw BadAnswer(
                        text: "'\(printable(word.utf8))' is not a rate; write N/window, such as 100/1m, 1000/1h")
                }
                changed.rates.append(rate)
            }
            try Self.check(changed)
            answers = changed
        }
    }

    mutating func askAddress(of answers: inout SetupAnswers) throws {
        try ask("Which mail address gets alerts (none: only the log)?", shown: answers.alertAddress ?? "none") {
            text throws(BadAnswer) in
            var changed = answers
            changed.alertAddress = text == "none" ? nil : text
            try Self.check(changed)
            answers = changed
        }
    }

    mutating func askShadow(of answers: inout SetupAnswers) throws {
        answers.shadowUntil = Self.day(after: Self.usualShadowDays)
        let question = "For how many days only log what the limit would refuse (0: refuse at once)?"
        try ask(question, shown: "\(Self.usualShadowDays)") {
            text throws(BadAnswer) in
            guard let days = Int(text), (0...Self.mostShadowDays).contains(days) else {
                throw BadAnswer(text: "write a number of days from 0 to \(Self.mostShadowDays)")
            }
            answers.shadowUntil = days == 0 ? nil : Self.day(after: days)
        }
    }

    private static func check(_ answers: SetupAnswers) throws(BadAnswer) {
        if let problem = answers.problem { throw BadAnswer(text: problem) }
    }

    private static func day(after days: Int) -> String {
        utcText(time(nil) + days * 86_400, format: "%Y-%m-%d")
    }

    /// - Parameter take: stores the answer. Is not called for an empty one.
    private mutating func ask(_ question: String, shown: String, take: (String) throws(BadAnswer) -> Void) throws {
        guard asks else { return }
        while true {
            try StandardOutput.write("\(question) [\(printable(shown.utf8))] ")
            try StandardOutput.flush()
            guard let line = input.next() else {
                try StandardOutput.write(line: "")
                StandardError.complain("end of input before the last answer; nothing is written", by: "setup")
                throw ExitCode(EX_USAGE)
            }
            let text = Self.trimmed(line)
            if text.isEmpty { return }
            do {
                return try take(text)
            } catch {
                try StandardOutput.write(line: "  \(error.text)")
            }
        }
    }

    private static func trimmed(_ line: [UInt8]) -> String {
        let isBlank = { (byte: UInt8) in byte == 0x20 || byte == 0x09 || byte == 0x0d }
        let start = line.firstIndex { !isBlank($0) } ?? line.endIndex
        let end = line.lastIndex { !isBlank($0) }.map { $0 + 1 } ?? start
        return String(decoding: line[start..<max(start, end)], as: UTF8.self)
    }
}
