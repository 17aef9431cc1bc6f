// SPDX-License-Identifier: Apache-2.0
import Advisor
import ArgumentParser
import Foundation
import Limits
import Report
import Rules
import Settings

struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Applies the limits of a configuration to logged mail.",
        discussion: """
            Reads Postfix logs (plain or compressed, rotated files in any order) in the forms of syslog, journalctl \
            and docker compose logs, or a capture made with log.capture of weir.yaml. Reports which keys each limit \
            would have refused, when and why, how much its keys used, and which rate would have caught only the \
            outliers. Doesn't contact the service.

            Exit status: 0 success, 65 no line of the logs is Postfix's in a known form, 66 a file can't be read or is \
            given twice, 74 the report can't be written, 78 the configuration has errors.

            Example: weir replay --config new.yaml /var/log/mail.log.1 /var/log/mail.log
            """)

    @OptionGroup var options: ConfigurationOptions

    @Argument(help: "Log or capture files; - is standard input.", completion: .file())
    var logs: [String]

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: ArgumentHelp("Write an HTML page with plots.", valueName: "file"), completion: .file())
    var html: String?

    func run() throws {
        let configuration = try options.read().configuration
        let report: ReplayReport
        do {
            report = try Replay(configuration, over: logs).run()
        } catch let error as UnreadableLog {
            StandardError.complain("\(error); the first lines:", by: "replay")
            for line in error.examples { StandardError.write("  \(printable(line))\n") }
            throw ExitCode(EX_DATAERR)
        } catch {
            StandardError.complain("\(error)", by: "replay")
            throw ExitCode(EX_NOINPUT)
        }
        try StandardOutput.write(line: json ? JSONText.figures(report) : Self.text(report))
        guard let html else { return }
        do {
            try OutputFile.write(ReplayPage.html(report), to: html)
        } catch {
            StandardError.complain(error.description, by: "replay")
            throw ExitCode(EX_IOERR)
        }
    }

    private static let mostShown = 10

    static func text(_ report: ReplayReport) -> String {
        var lines = logLines(report.log)
        for name in report.limitsLeftOut {
            lines.append("limit \(name): left out, as it uses attributes that logs don't have")
        }
        for limit in report.limits { lines += limitLines(limit) }
        return lines.joined(separator: "\n")
    }

    private static func logLines(_ log: LogFigures) -> [String] {
        var lines = [
            (log.requests > 0 ? "\(quantity(log.requests, "request")) and " : "")
                + "\(quantity(log.messages, "message")) to \(quantity(log.recipients, "recipient")) in "
                + quantity(log.lines, "line")
        ]
        if let first = log.first, let last = log.last {
            lines[0] += ", \(time(first, log.firstZone)) to \(time(last, log.lastZone))"
        }
        let skipped = [
            (log.linesWithoutTime, "line", "without a readable time"),
            (log.localMessages, "message", "of sendmail(1), which causes no policy requests"),
            (log.reinjectedMessages, "message", "returned by a content filter"),
            (log.messagesWithoutClient, "message", "without smtpd's line about the client"),
        ].filter { $0.0 > 0 }
        lines += skipped.map { "  not counted: \(quantity($0.0, $0.1)) \($0.2)" }
        if log.linesOutOfOrder > 0 {
            let count = quantity(log.linesOutOfOrder, "line")
            lines.append("  out of order, counted at the latest time before them: \(count)")
        }
        lines += log.faults.map { "  \($0)" }
        return lines
    }

    private static func limitLines(_ limit: LimitReplay) -> [String] {
        let verb = limit.mode == "shadow" ? "would be refused" : "refused"
        var lines = [
            "",
            "limit \(limit.name): \(limit.counted) \(limit.count) of \(quantity(limit.keys, "key")); "
                + "\(quantity(limit.refused, "request")) of \(quantity(limit.keysRefused, "key")) \(verb)",
        ]
        for key in limit.refusals.prefix(mostShown) {
            let first = "\(time(key.first, key.firstZone)): \(key.reason)"
            lines.append("  \(printable(key.key.utf8)): \(key.refused) \(verb), first at \(first)")
        }
        if limit.keysRefused > mostShown { lines.append("  and \(limit.keysRefused - mostShown) more") }
        for mask in limit.masked {
            let requests = quantity(mask.requests, "request")
            lines.append("  masked by \(mask.by): it refused \(requests) that \(limit.name) alone would refuse")
        }
        for window in limit.windows where limit.keys > 0 {
            lines.append(
                "  highest use in \(window.window), by key: p50 \(window.p50), p90 \(window.p90), p99 \(window.p99), "
                    + "p99.9 \(window.p999), max \(window.max)")
            if let suggested = window.suggested {
                lines.append(
                    "    suggested: \(suggested)/\(window.window), which catches "
                        + (window.caught.isEmpty ? "no key" : keys(window.caught))
                        + "; configured: \(window.rate)")
            }
        }
        return lines
    }

    private static func keys(_ keys: [WindowReplay.Key]) -> String {
        let shown = keys.prefix(5).map { "\(printable($0.key.utf8)) (\($0.peak) at \(time($0.at, $0.zone)))" }.joined(
            separator: ", ")
        return keys.count > 5 ? "\(shown) and \(keys.count - 5) more" : shown
    }

    /// - Parameter zone: in minutes east of UTC; nil if the log has no zone.
    static func time(_ milliseconds: Int64, _ zone: Int?) -> String {
        let seconds = time_t(milliseconds / 1000) + time_t(zone ?? 0) * 60
        let text = utcText(seconds, format: "%Y-%m-%d %H:%M:%S")
        guard let zone else { return text }
        let twoDigits = { (number: Int) in number < 10 ? "0\(number)" : "\(number)" }
        return "\(text) \(zone < 0 ? "-" : "+")\(twoDigits(abs(zone) / 60)):\(twoDigits(abs(zone) % 60))"
    }
}
