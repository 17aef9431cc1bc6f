// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import LoadGenerator

/// A bound on the figures of a load, such as `p99>5ms`.
struct LoadBound: ExpressibleByArgument, CustomStringConvertible {
    enum Figure: String, CaseIterable {
        case p50, p90, p99, p999 = "p99.9", max, mean
        case rate, answered, refused, errors, unanswered, unsent
        case lost, duplicates, changed
        case heldAfter = "held-after", passedBeforeHeld = "passed-before-held", honestRefused = "honest-refused"

        static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }

        enum Kind {
            /// Microseconds, seconds.
            case latency, seconds
            case number
            /// A number, or a percentage of all answers.
            case count
        }

        var kind: Kind {
            switch self {
            case .p50, .p90, .p99, .p999, .max, .mean: .latency
            case .heldAfter: .seconds
            case .rate, .answered, .passedBeforeHeld: .number
            case .refused, .errors, .unanswered, .unsent, .lost, .duplicates, .changed, .honestRefused: .count
            }
        }

        /// Infinite, and so beyond every bound, if it was not measured.
        func value(in report: LoadReport) -> Double {
            switch self {
            case _ where kind == .latency && report.answered == 0: .infinity
            case .p50: report.latency.p50
            case .p90: report.latency.p90
            case .p99: report.latency.p99
            case .p999: report.latency.p999
            case .max: report.latency.max
            case .mean: report.latency.mean
            case .rate: report.answeredPerSecond
            case .answered: Double(report.answered)
            case .refused: Double(report.refusals)
            case .errors: Double(report.errors.total)
            case .unanswered: Double(report.unanswered)
            case .unsent: Double(report.unsent)
            case .lost: report.sink.map { Double($0.lost) } ?? .infinity
            case .duplicates: report.sink.map { Double($0.duplicates) } ?? .infinity
            case .changed: report.sink.map { Double($0.changed) } ?? .infinity
            case .heldAfter: report.trojan?.heldAfterSeconds ?? .infinity
            case .passedBeforeHeld: report.trojan?.passedBeforeHeld.map(Double.init) ?? .infinity
            case .honestRefused: report.trojan.map { Double($0.honestRefused) } ?? .infinity
            }
        }
    }

    let description: String
    private let figure: Figure
    private let isAbove: Bool
    private let includesEqual: Bool
    private let value: Double
    private let isShare: Bool

    init?(argument: String) {
        guard let sign = argument.firstIndex(where: { $0 == ">" || $0 == "<" }),
            let figure = Figure(rawValue: String(argument[..<sign]))
        else { return nil }
        description = argument
        self.figure = figure
        isAbove = argument[sign] == ">"
        var rest = argument[argument.index(after: sign)...]
        includesEqual = rest.first == "="
        if includesEqual { rest = rest.dropFirst() }
        let number = rest.prefix { $0.isNumber || $0 == "." }
        guard let value = Double(number) else { return nil }
        isShare = rest.dropFirst(number.count) == "%"
        let seconds: [Substring: Double] = ["us": 1e-6, "ms": 1e-3, "s": 1]
        switch (figure.kind, rest.dropFirst(number.count)) {
        case (.latency, let unit):
            guard let factor = seconds[unit] else { return nil }
            self.value = value * factor * 1e6
        case (.seconds, let unit):
            guard let factor = seconds[unit] else { return nil }
            self.value = value * factor
        case (.number, ""), (.count, ""): self.value = value
        case (.count, "%"): self.value = value / 100
        default: return nil
        }
    }

    private func measure(_ report: LoadReport) -> Double {
        let measured = figure.value(in: report)
        return isShare ? measured / Double(max(1, report.answered)) : measured
    }

    func isBroken(by report: LoadReport) -> Bool {
        let measured = measure(report)
        if measured == value { return includesEqual }
        return measured == .infinity || (isAbove ? measured > value : measured < value)
    }

    /// The measured figure, with its unit.
    func measured(in report: LoadReport) -> String {
        let measured = measure(report)
        guard measured < .infinity else { return "\(figure.rawValue) was not measured" }
        return switch figure.kind {
        case .latency: LoadSummary.time(measured)
        case .seconds: LoadSummary.time(measured * 1e6)
        case .number: LoadSummary.decimal(measured)
        case .count: isShare ? "\(LoadSummary.decimal(measured * 100)) %" : LoadSummary.whole(measured)
        }
    }
}
