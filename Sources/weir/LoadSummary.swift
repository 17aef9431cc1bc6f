// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import LoadGenerator

/// A load's figures as a person or a script reads them.
enum LoadSummary {
    static func json(_ report: LoadReport) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return String(decoding: try encoder.encode(report), as: UTF8.self)
    }

    static func text(_ report: LoadReport) -> String {
        let latency = report.latency
        var lines = [
            "\(report.answered) answers in \(decimal(report.seconds)) s: \(whole(report.answeredPerSecond)) a second"
                + " over \(report.connections) connections to \(report.target)",
            "latency     p50 \(time(latency.p50))   p90 \(time(latency.p90))   p99 \(time(latency.p99))"
                + "   p99.9 \(time(latency.p999))   max \(time(latency.max))",
            "actions     " + list(report.actions),
        ]
        if let rate = report.rate {
            lines.insert("open loop   \(whole(rate)) a second meant, \(report.unsent) due and not sent", at: 1)
        }
        if report.errors.total > 0 {
            let errors = report.errors
            lines.append(
                "errors      " + list([
                    "refused connect": errors.refused, "closed": errors.closed,
                    "malformed reply": errors.malformed, "timeout": errors.timeout,
                ].filter { $0.value > 0 }))
        }
        if let lastError = report.lastError { lines.append("last error  \(lastError)") }
        if report.resent > 0 { lines.append("sent again  \(report.resent)") }
        if report.unanswered > 0 { lines.append("unanswered  \(report.unanswered)") }
        return lines.joined(separator: "\n")
    }

    /// Rewrites the live line on the terminal.
    static func show(_ progress: LoadProgress) {
        StandardError.write(
            "\r\u{1B}[K\(progress.elapsedSeconds) s  \(progress.answered)/s  p50 \(time(progress.latency.p50))"
                + "  p99 \(time(progress.latency.p99))  refused \(progress.refusals)  errors \(progress.errors)")
    }

    static func clearLine() {
        StandardError.write("\r\u{1B}[K")
    }

    private static func list(_ counts: [String: Int]) -> String {
        counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }
            .joined(separator: ", ")
    }

    private static func time(_ microseconds: Double) -> String {
        microseconds < 1000 ? "\(whole(microseconds)) us" : "\(decimal(microseconds / 1000)) ms"
    }

    private static func whole(_ number: Double) -> String {
        "\(Int(number.rounded()))"
    }

    /// With two decimals.
    private static func decimal(_ number: Double) -> String {
        let hundredths = Int((number * 100).rounded())
        return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
    }
}
