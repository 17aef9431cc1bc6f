// SPDX-License-Identifier: Apache-2.0
import Advisor
import ArgumentParser
import Foundation
import Limits
import Rules
import Settings

struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Runs the limits of a configuration over yesterday's mail.",
        discussion: """
            Reads what log.capture of weir.yaml has kept, or Postfix's logs, plain or packed by gzip, rotated ones in any order, or the output of journalctl -o export, and says who would have \
            been refused when and why, how much the keys of each limit used, and which numbers would have caught the outliers and nobody else. \
            Nothing is written, and no service is asked.

            Exit status: 0, 66 a file can't be read or is named twice, 74 the figures can't be written, 78 the configuration has faults.

            Example: weir replay --config new.yaml /var/log/mail.log.1 /var/log/mail.log
            """)

    @OptionGroup var options: ConfigurationOptions

    @Argument(help: "Log files; - is standard input.")
    var logs: [String]

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: ArgumentHelp("Write a page with plots.", valueName: "file"))
    var html: String?

    func run() throws {
        let configuration = try options.read().configuration
        let report: ReplayReport
        do {
            report = try Replay(configuration, over: logs).run()
        } catch {
            StandardError.write("weir replay: \(error)\n")
            throw ExitCode(EX_NOINPUT)
        }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            encoder.keyEncodingStrategy = .convertToSnakeCase
            try StandardOutput.write(line: String(decoding: encoder.encode(report), as: UTF8.self))
        } else {
            try StandardOutput.write(line: Self.text(report))
        }
        if let html {
            do {
                try Data(ReplayPage.html(report).utf8).write(to: URL(fileURLWithPath: html))
            } catch {
                StandardError.write("weir replay: can't write \(html): \(error.localizedDescription)\n")
                throw ExitCode(EX_IOERR)
            }
        }
    }

    private static let mostShown = 10

    static func text(_ report: ReplayReport) -> String {
        var lines = logLines(report.log)
        for name in report.limitsLeftOut { lines.append("limit \(name): left out, as it asks for what no log tells") }
        for limit in report.limits { lines += limitLines(limit) }
        return lines.joined(separator: "\n")
    }

    private static func logLines(_ log: LogFigures) -> [String] {
        var lines = [
            "\(log.requests > 0 ? "\(log.requests) requests and " : "")\(log.messages) messages to \(log.recipients) recipients in \(log.lines) lines"
        ]
        if let first = log.first, let last = log.last { lines[0] += ", \(time(first)) to \(time(last))" }
        let skipped = [
            (log.linesWithoutTime, "lines whose time can't be read"),
            (log.localMessages, "messages of sendmail(1), about which nobody is asked"),
            (log.reinjectedMessages, "messages that came back from a content filter"),
            (log.messagesWithoutClient, "messages whose client is not in what was read"),
        ].filter { $0.0 > 0 }
        lines += skipped.map { "  not counted: \($0.0) \($0.1)" }
        if log.linesOutOfOrder > 0 {
            lines.append("  counted at the time of a later one before them: \(log.linesOutOfOrder) lines")
        }
        lines += log.faults.map { "  \($0)" }
        return lines
    }

    private static func limitLines(_ limit: LimitReplay) -> [String] {
        let verb = limit.mode == "shadow" ? "would be refused" : "refused"
        var lines = [
            "",
            "limit \(limit.name): \(limit.counted) \(limit.count) of \(limit.keys) keys; \(limit.refused) requests of \(limit.keysRefused) keys \(verb)",
        ]
        for key in limit.refusals.prefix(mostShown) {
            lines.append(
                "  \(printable(key.key.utf8)): \(key.refused) \(verb), first at \(time(key.first)): \(key.reason)")
        }
        if limit.keysRefused > mostShown { lines.append("  and \(limit.keysRefused - mostShown) more") }
        for window in limit.windows where limit.keys > 0 {
            lines.append(
                "  in \(window.window), at most: half of the keys \(window.p50), 90 % \(window.p90), 99 % \(window.p99), 99.9 % \(window.p999), all \(window.max)"
            )
            if let suggested = window.suggested {
                lines.append(
                    "    \(suggested)/\(window.window) would have caught \(window.caught.isEmpty ? "nobody" : keys(window.caught)); set is \(window.rate)"
                )
            }
        }
        return lines
    }

    private static func keys(_ keys: [WindowReplay.Key]) -> String {
        let shown = keys.prefix(5).map { "\(printable($0.key.utf8)) (\($0.peak) at \(time($0.at)))" }.joined(
            separator: ", ")
        return keys.count > 5 ? "\(shown) and \(keys.count - 5) more" : shown
    }

    /// As the log has it.
    static func time(_ milliseconds: Int64) -> String {
        var seconds = time_t(milliseconds / 1000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        var text = [CChar](repeating: 0, count: 64)
        let length = strftime(&text, text.count, "%Y-%m-%d %H:%M:%S", &parts)
        return String(decoding: text[..<length].map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
