// SPDX-License-Identifier: Apache-2.0
import Glibc
import LoadGenerator

/// The figures of a load as text and CSV.
enum LoadSummary {
    static func text(_ report: LoadReport) -> String {
        let latency = report.latency
        var lines = [
            "\(report.answered) answers in \(decimal(report.seconds)) s: \(whole(report.answeredPerSecond)) per second"
                + " over \(report.connections) connections to \(report.target)",
            "latency     "
                + (report.answered == 0
                    ? "not measured"
                    : "p50 \(time(latency.p50))   p90 \(time(latency.p90))   p99 \(time(latency.p99))"
                        + "   p99.9 \(time(latency.p999))   max \(time(latency.max))"),
            "actions     " + (report.actions.isEmpty ? "none" : list(report.actions)),
        ]
        if let rate = report.rate {
            lines.insert("open loop   \(whole(rate)) per second requested, \(report.unsent) due but not sent", at: 1)
        }
        if report.errors.total > 0 {
            let errors = report.errors
            lines.append(
                "errors      "
                    + list(
                        [
                            "refused": errors.refused, "closed": errors.closed,
                            "malformed reply": errors.malformed, "timeout": errors.timeout,
                        ].filter { $0.value > 0 }))
        }
        if let lastError = report.lastError { lines.append("last error  \(lastError)") }
        if let trojan = report.trojan { lines += text(trojan) }
        if let sink = report.sink { lines += text(sink) }
        if report.resent > 0 { lines.append("resent      \(report.resent)") }
        if report.unanswered > 0 { lines.append("unanswered  \(report.unanswered)") }
        return lines.joined(separator: "\n")
    }

    private static func text(_ trojan: TrojanReport) -> [String] {
        let held =
            if let seconds = trojan.heldAfterSeconds, let passed = trojan.passedBeforeHeld {
                "first refused after \(passed) passed, \(decimal(seconds)) s"
                    + (trojan.heldSinceLastPassSeconds.map { ", \(time($0 * 1e6)) after the last pass" } ?? "")
                    + "; since then \(trojan.passedAfterHeld) of \(trojan.answered - passed) passed"
            } else {
                "never refused (is the limit in shadow mode?)"
            }
        return [
            "trojan      \(held)",
            "others      \(trojan.honestRefused) of \(trojan.honestAnswered) refused",
        ]
    }

    private static func text(_ sink: SinkReport) -> [String] {
        var others = [
            "undisclosed-recipients removed": sink.undisclosedStripped, "hits changed": sink.hitsChanged,
            "repeated after a lost connection": sink.againAfterLoss, "from other runs": sink.strangers,
            "refused and arrived nevertheless": sink.arrivedAlthoughRefused,
        ]
        others = others.filter { $0.value > 0 }
        return [
            "sink        \(sink.arrived) of \(sink.accepted) accepted messages arrived: lost \(sink.lost), "
                + "duplicates \(sink.duplicates), changed \(sink.changed)",
            "            unchanged \(sink.unchanged)" + (others.isEmpty ? "" : ", " + list(others)),
        ]
    }

    /// A line per second; times in microseconds.
    static func csv(_ report: LoadReport) -> String {
        let lines = report.series.map { second in
            let latency = second.latency
            let times = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(decimal)
                .joined(separator: ",")
            return "\(second.elapsedSeconds),\(second.answered),\(times),\(second.refusals),\(second.errors)\n"
        }
        return "second,answered,p50_us,p90_us,p99_us,p999_us,max_us,refused_so_far,errors_so_far\n" + lines.joined()
    }

    static func show(_ progress: LoadProgress) {
        showLine(
            "\(progress.elapsedSeconds) s  \(progress.answered)/s  p50 \(time(progress.latency.p50))"
                + "  p99 \(time(progress.latency.p99))  refused \(progress.refusals)  errors \(progress.errors)")
    }

    /// Replaces the progress line if standard error is a terminal; `text` is cut to its width.
    static func showLine(_ text: String) {
        guard isatty(STDERR_FILENO) == 1 else { return }
        StandardError.write("\r\u{1B}[K" + text.prefix(Terminal.size(STDERR_FILENO).columns - 1))
    }

    static func clearLine() { showLine("") }

    private static func list(_ counts: [String: Int]) -> String {
        counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }
            .joined(separator: ", ")
    }

    static func time(_ microseconds: Double) -> String {
        microseconds < 1000 ? "\(whole(microseconds)) us" : "\(decimal(microseconds / 1000)) ms"
    }

    static func whole(_ number: Double) -> String {
        "\(Int(number.rounded()))"
    }

    /// With two decimals.
    static func decimal(_ number: Double) -> String {
        let hundredths = Int((number * 100).rounded())
        return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
    }
}
