// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Filter
import Foundation
import Rules
import Service

/// `weir filter`: the content filter as a pipe(8) command (FILTER_README, "simple content filter").
///
/// Diagnostics: sysexits(3), of which Postfix's pipe(8) makes a bounce or a deferral. A message bounces only where a rule
/// says REJECT (69); whatever is wrong with Weir, its configuration or its command line is 75, and the message waits.
struct FilterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "filter",
        abstract: "Filters one message from standard input, and hands it on to sendmail.",
        discussion: """
            For master.cf, as the command of a pipe(8) service; docs/content-filter.md has the lines. The result goes to \
            `sendmail -G -i -f SENDER -- RECIPIENT...`, or to the command that --to names, in place of sendmail and its \
            options.

            Exit status: that of the command; 0 also for DISCARD; 69 for REJECT, with the text on standard output; 75 where \
            a rule defers the message, or something is wrong here.

            Example: weir filter -f alice@example.org -- bob@example.com < message.eml
            """)

    @OptionGroup var options: ConfigurationOptions

    @Option(name: .customShort("f"), parsing: .unconditional, help: "The envelope sender; empty for a bounce.")
    var sender: String

    @Option(
        name: .long, parsing: .unconditional,
        help: "A command to hand the message to; -f SENDER -- RECIPIENT... are added.")
    var to = "/usr/sbin/sendmail -G -i"

    @Argument(help: "The envelope recipients.")
    var recipients: [String]

    mutating func run() throws {
        // A sendmail that goes away is a failure to hand on, not the end of this process.
        signal(SIGPIPE, SIG_IGN)
        let (rules, logDestination) = try readConfiguration()
        let message = try readMessage()
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        filter.begin(rules)
        filter.update(message)
        let verdict = filter.finish()
        report(verdict, to: logDestination)
        switch verdict.disposition {
        case .discard: return
        case .refuse(let refusal):
            // pipe(8) takes the status code of the first line over that of the exit status.
            try StandardOutput.write(line: printable(refusal.text))
            throw ExitCode(refusal.code < 500 ? EX_TEMPFAIL : EX_UNAVAILABLE)
        case .accept: try handOn(message, verdict)
        }
    }

    private func readConfiguration() throws -> (ContentRules, Configuration.Log.Destination) {
        switch ConfigurationReader.read(path: options.config) {
        case .success(let outcome): return (outcome.rules, outcome.configuration.log.destination)
        case .failure(let faults): throw trouble("\(faults)")
        }
    }

    /// Logs what rules did. Standard error belongs to pipe(8), which shows it to the sender in a bounce.
    private func report(_ verdict: Verdict, to destination: Configuration.Log.Destination) {
        let log = EventLog(
            destination: destination == .standardError && isatty(STDERR_FILENO) == 0 ? .syslog : destination)
        log.report(verdict, of: "filter: from=<\(sender)>")
        log.flush()
    }

    private func readMessage() throws -> [UInt8] {
        do {
            return Array(try FileHandle.standardInput.readToEnd() ?? Data())
        } catch {
            throw trouble("can't read the message: \(error.localizedDescription)")
        }
    }

    /// Gives the message to the command, whose exit status is ours.
    private func handOn(_ message: [UInt8], _ verdict: Verdict) throws {
        // Anybody may write a header for sendmail, so none can tell its cleanup what to do.
        guard verdict.effects.allSatisfy({ $0.cleanupAction == nil }) else {
            throw trouble("a rule says HOLD or FILTER, which takes the SMTP filter (docs/content-filter.md)")
        }
        let words = to.split(separator: " ").map(String.init)
        guard let path = words.first else { throw trouble("--to names no command") }
        let recipients =
            switch verdict.recipients {
            case .redirect(let recipient): [try address(recipient)]
            case .envelope(let copies): try recipients + copies.map(address)
            }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = words.dropFirst() + ["-f", sender, "--"] + recipients
        let pipe = Pipe()
        process.standardInput = pipe
        do {
            try process.run()
            let ending = lineEnd(of: message)
            try pipe.fileHandleForWriting.write(contentsOf: Data(verdict.apply(to: message, lineEnd: ending)))
            try pipe.fileHandleForWriting.close()
        } catch {
            // What has got half a message must not take it for a whole one.
            if process.isRunning { kill(process.processIdentifier, SIGKILL) }
            throw trouble("can't hand the message to \(path): \(error.localizedDescription)")
        }
        process.waitUntilExit()
        guard process.terminationReason == .exit else {
            throw trouble("\(path) ended on signal \(process.terminationStatus)")
        }
        switch process.terminationStatus {
        case 0: return
        // Of these sendmail means the message; all else is trouble on this machine.
        case EX_DATAERR, EX_NOUSER, EX_NOHOST, EX_UNAVAILABLE: throw ExitCode(process.terminationStatus)
        default: throw trouble("\(path) ended with \(process.terminationStatus)")
        }
    }

    /// That of the first line: a CR elsewhere is text.
    private func lineEnd(of message: [UInt8]) -> Verdict.LineEnd {
        guard let first = message.firstIndex(of: 0x0a), first > 0 else { return .lf }
        return message[first - 1] == 0x0d ? .crlf : .lf
    }

    private func address(_ bytes: [UInt8]) throws -> String {
        guard let text = String(validating: bytes, as: UTF8.self), text.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f })
        else {
            throw trouble("a rule names no address: \(printable(bytes))")
        }
        return text
    }

    private func trouble(_ message: String) -> ExitCode {
        Self.complain(message)
    }

    /// What keeps the message in the queue.
    static func complain(_ message: String) -> ExitCode {
        StandardError.write("weir filter: \(message)\n")
        return ExitCode(EX_TEMPFAIL)
    }
}
