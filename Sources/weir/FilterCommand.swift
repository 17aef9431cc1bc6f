// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Filter
import Foundation
import Limits
import Messages
import Patterns
import Report
import Rules
import Settings

/// `weir filter`: the content filter as a pipe(8) command (FILTER_README, "simple content filter").
///
/// Exit statuses are those of sysexits.h, from which pipe(8) makes a bounce or a deferral. A message bounces only if a
/// rule rejects it (69). Any problem with Weir, its configuration or its command line is 75: the message is deferred.
struct FilterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "filter",
        abstract: "Filters one message from standard input and passes it to sendmail.",
        discussion: """
            Use it in master.cf as the command of a pipe(8) service; see docs/content-filter.md. The result is piped \
            to sendmail -G -i -f SENDER -- RECIPIENT..., or to the command of --to.

            Exit status: that of the command; 0 also if a rule discards the message; 69 if a rule rejects it, with the \
            reply on standard output; 75 if a rule defers it, or on any error.

            Example: weir filter -f alice@example.org -- bob@example.com < message.eml
            """)

    @OptionGroup var options: ConfigurationOptions

    @Option(
        name: .customShort("f"), parsing: .unconditional,
        help: ArgumentHelp("Envelope sender; empty for a bounce.", valueName: "sender"))
    var sender: String

    @Option(name: .long, parsing: .unconditional, help: "Queue ID of the message, ${queue_id} in master.cf.")
    var queueID = ""

    @Option(
        name: .long, parsing: .unconditional,
        help: "Command that takes the message; -f SENDER -- RECIPIENT... is appended.")
    var to = "/usr/sbin/sendmail -G -i"

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Time for all of this, at most 86400, and less than command_time_limit of pipe(8). After it, the command "
                + "is ended and the message deferred.", valueName: "seconds"))
    var timeLimit = 900

    @Option(
        name: .long, parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "What is known of the message, for checks.sets, such as client_address=${client_address} in master.cf. "
                + "Can be repeated.", valueName: "name=value"))
    var attribute: [KnownAttribute] = []

    @Argument(help: "Envelope recipients.")
    var recipients: [String]

    func validate() throws {
        guard 1...86_400 ~= timeLimit else { throw ValidationError("--time-limit must be from 1 to 86400 seconds") }
    }

    mutating func run() throws {
        MessageCommand.limitTime(to: timeLimit)
        let (rules, logDestination) = try readConfiguration()
        let message = try readMessage()
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        filter.begin(rules)
        if rules.areConditional { filter.select(chooseSets(of: rules)) }
        filter.wasQueued(as: Array(queueID.utf8))
        if OwnReceived(in: message, queueID: Array(queueID.utf8))?.isFromPickup == true { filter.cameWithoutSMTP() }
        filter.update(message)
        var verdict = filter.finish()
        report(verdict, to: logDestination)
        switch verdict.disposition {
        case .discard: return
        case .refuse(let refusal):
            // pipe(8) prefers the enhanced status code of the first line to the exit status.
            try StandardOutput.write(line: printable(refusal.text))
            throw ExitCode(refusal.code < 500 ? EX_TEMPFAIL : EX_UNAVAILABLE)
        case .accept:
            addMissingHeaders(message, &verdict)
            try handOn(message, verdict)
        }
    }

    private func chooseSets(of rules: ContentRules) -> ChosenSets {
        var known = MessageAttributes()
        for attribute in attribute { known[attribute.name] = attribute.value }
        known["sender"] = Array(sender.utf8)
        var selection = SetSelection(rules, known, MatchScratch(limits: Condition.matchLimits))
        for recipient in recipients { selection.add(recipient: Array(recipient.utf8)) }
        return selection.finish()
    }

    /// Adds the headers that cleanup(8) would add again if its own checks had removed them. sendmail -G does not.
    private func addMissingHeaders(_ message: [UInt8], _ verdict: inout Verdict) {
        guard let removed = verdict.removed,
            let client = LocalClient(
                ofReceivedIn: message, queueID: Array(queueID.utf8), sender: Array(sender.utf8),
                isKnownLocal: removed.isClientLocal)
        else { return }
        verdict.append(client.replacements(of: removed, at: time(nil)))
    }

    private func readConfiguration() throws -> (ContentRules, Configuration.Log.Destination) {
        switch ConfigurationReader.read(path: options.config) {
        case .success(let outcome): return (outcome.rules, outcome.configuration.log.destination)
        case .failure(let faults): throw Self.deferral("\(faults)")
        }
    }

    /// Logs what the rules did. Not to standard error, unless it is a terminal: pipe(8) shows that to the sender in a
    /// bounce.
    private func report(_ verdict: Verdict, to destination: Configuration.Log.Destination) {
        let isTerminal = isatty(STDERR_FILENO) == 1
        let log = EventLog(
            destination: destination == .standardError && !isTerminal ? .syslog : destination,
            standardError: isTerminal ? STDERR_FILENO : nil)
        log.report(verdict, of: "filter: \(queueID.isEmpty ? "" : "\(queueID): ")from=<\(sender)>")
        log.flush()
    }

    private func readMessage() throws -> [UInt8] {
        do {
            return Array(try FileHandle.standardInput.readToEnd() ?? Data())
        } catch {
            throw Self.deferral("can't read the message: \(error.localizedDescription)")
        }
    }

    /// Pipes the message to the command. On success the exit status is 0, else that of the command or 75.
    private func handOn(_ message: [UInt8], _ verdict: Verdict) throws {
        // Anybody can send a header to sendmail, so cleanup(8) can't trust a verdict header there.
        guard verdict.effects.allSatisfy({ $0.cleanupAction == nil }) else {
            throw Self.deferral("a rule says HOLD or FILTER; only the SMTP filter can do that (docs/content-filter.md)")
        }
        let words = to.split(separator: " ").map(String.init)
        guard let path = words.first else { throw Self.deferral("--to is empty") }
        let recipients =
            switch verdict.recipients {
            case .redirect(let recipient): [try address(recipient)]
            case .envelope(let copies): try recipients + copies.map(address)
            }
        let ending = lineEnd(of: message)
        try MessageCommand.run(
            path, words.dropFirst() + ["-f", sender, "--"] + recipients, verdict.apply(to: message, lineEnd: ending))
    }

    /// The line ending of the first line; a CR elsewhere is text.
    private func lineEnd(of message: [UInt8]) -> Verdict.LineEnd {
        guard let first = message.firstIndex(of: 0x0a), first > 0 else { return .lf }
        return message[first - 1] == 0x0d ? .crlf : .lf
    }

    private func address(_ bytes: [UInt8]) throws -> String {
        guard let text = String(validating: bytes, as: UTF8.self)
        else {
            throw Self.deferral("a rule's REDIRECT or BCC is not an address: \(printable(bytes))")
        }
        return text
    }

    /// Prints an error, and makes pipe(8) keep the message in the queue.
    static func deferral(_ message: String) -> ExitCode {
        StandardError.complain(message, by: "filter")
        return ExitCode(EX_TEMPFAIL)
    }
}
