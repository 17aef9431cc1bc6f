// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Filter
import Foundation
import Rules
import Settings

/// `weir check`: shows what the rules would do to messages.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Shows what the header and body checks do to messages.",
        discussion: """
            For each rule that matches, prints its class, the byte offset of the header or line, the table and line of \
            the rule, and its action; then a diff of the changes. Messages are not changed.

            Postfix passes some headers to one way in and not to another. With --as, also prints which headers the \
            rules would not get, and which rules can't apply for this reason. The first Received: header counts as the \
            one that Postfix adds.

            --as also says what is known of the messages, for checks.sets: --as sender=a@example.org,\
            recipient=b@example.com,client_address=192.0.2.1. An attribute that it does not name is empty. recipient \
            can be repeated. Prints the sets that apply to each message.

            With --decoded, prints instead what rules for decoded text see: the headers (checks.decoded_header), \
            then the lines of text of each part (checks.decoded_body), then the lines about parts and the files in \
            archives (checks.attachment). A part has a number as in IMAP, such as 2.1.

            Exit status: 0 all messages could be read, 66 one could not, 74 standard output can't be written, 78 the \
            configuration has errors.

            Example: weir check --config /etc/weir/weir.yaml ~/Maildir
            """)

    @OptionGroup var options: ConfigurationOptions

    @Flag(help: "Print a JSON object per message, one per line.")
    var json = false

    @Flag(help: "Print the decoded headers, text and parts of each message, and apply no rules.")
    var decoded = false

    @Option(
        name: .customLong("as"),
        help: ArgumentHelp(
            "Show what one way in would see: milter, filter (after the queue), proxy (before the queue) or pipe; and "
                + "check as for such a message: attributes as in `when` of a set, separated by commas.",
            valueName: "way,attribute=value"))
    var view: MessageView?

    @Argument(help: "Message files, mbox files, Maildirs or directories; - is standard input.", completion: .file())
    var messages: [String]

    mutating func run() throws {
        let rules = try loadRules()
        let view = view ?? MessageView()
        var faults: [MessageFileFault] = []
        let files = rawArguments(messages).flatMap { MessageFiles.expand($0, faults: &faults) }
        for fault in faults { complain(fault) }
        let headers = decoded ? DecodedReport(rules.checks, view.wayIn, inJSON: json) : nil
        let report: any CheckReport = json ? JSONCheckReport() : TextCheckReport(view.wayIn)
        let examination = MessageExamination(rules, view)
        var bytes = 0
        var progress = Progress(total: files.count)
        for file in files {
            progress.step()
            do {
                try MessageFiles.forEachMessage(in: file) { message in
                    if let headers {
                        try headers.add(message)
                    } else {
                        let isMuch = bytes >= Self.bytesWithoutFastPass
                        bytes += message.content.count
                        if !isMuch, bytes >= Self.bytesWithoutFastPass { rules.prepareFastPass() }
                        try report.add(message, examination.examine(message.content))
                    }
                }
            } catch let fault as MessageFileFault {
                complain(fault)
                faults.append(fault)
            }
        }
        progress.end()
        if headers == nil { try report.finish() }
        if !faults.isEmpty { throw ExitCode(EX_NOINPUT) }
    }

    /// To check so many bytes one rule after the other takes about as long as to compile all rules into one pattern,
    /// however many rules there are.
    private static let bytesWithoutFastPass = 1 << 16

    private func loadRules() throws -> ContentRules {
        let rules = try options.read().rules
        for warning in rules.warnings {
            StandardError.complain("warning: \(warning)", by: "check")
        }
        return rules
    }

    private func complain(_ fault: MessageFileFault) {
        StandardError.complain(printable("\(fault)".utf8), by: "check")
    }
}

/// Progress on a terminal, shown once a run has taken two seconds.
private struct Progress {
    let total: Int
    private var done = 0
    private var lastShown = monotonicNanoseconds() + 1_900_000_000
    private var isShown = false

    init(total: Int) { self.total = total }

    mutating func step() {
        done += 1
        guard monotonicNanoseconds() > lastShown + 100_000_000, isatty(STDERR_FILENO) == 1 else {
            return
        }
        lastShown = monotonicNanoseconds()
        isShown = true
        StandardError.write("\r\(done) of \(total) files")
    }

    func end() {
        if isShown { StandardError.write("\r\u{1b}[K") }
    }
}

// MARK: - Reports

private protocol CheckReport {
    func add(_ message: MessageFile, _ examined: ExaminedMessage) throws
    func finish() throws
}

private final class TextCheckReport: CheckReport {
    private let wayIn: WayIn?
    private let isColoured = Terminal.takesColour(STDOUT_FILENO)
    private var count = 0
    private var matched = 0
    /// In how many messages a rule could not apply.
    private var unmatched: [RuleLocation: Int] = [:]

    init(_ wayIn: WayIn?) { self.wayIn = wayIn }

    private enum Colour: String {
        case red = "31", green = "32", cyan = "36", bold = "1"
    }

    private func coloured(_ text: String, _ colour: Colour) -> String {
        isColoured ? "\u{1b}[\(colour.rawValue)m\(text)\u{1b}[0m" : text
    }

    func add(_ message: MessageFile, _ examined: ExaminedMessage) throws {
        let verdict = examined.verdict
        count += 1
        try StandardOutput.write(
            line: coloured(printable(message.name.utf8), .bold) + ": " + summary(verdict))
        if let sets = examined.sets {
            try StandardOutput.write(line: "  sets: " + (sets.isEmpty ? "none" : sets.joined(separator: ", ")))
        }
        try addUnseen(examined)
        guard !verdict.matches.isEmpty || !verdict.notes.isEmpty || !verdict.edits.isEmpty else { return }
        matched += 1
        for match in verdict.matches {
            try StandardOutput.write(
                line: "  \(match.view) offset \(match.offset) \(match.location)\(match.names): "
                    + printable(match.action))
            try StandardOutput.write(line: "    " + printable(match.content))
            if let fault = match.fault { try StandardOutput.write(line: "    warning: " + fault) }
        }
        if verdict.moreMatches > 0 { try StandardOutput.write(line: "  and \(verdict.moreMatches) more matches") }
        for note in verdict.notes { try StandardOutput.write(line: "  note: \(note)") }
        for line in MessageDifference(message.content, verdict.edits).lines {
            switch line {
            case .place(let number): try StandardOutput.write(line: coloured("@@ line \(number) @@", .cyan))
            case .context(let text): try StandardOutput.write(line: " " + printable(text))
            case .removed(let text): try StandardOutput.write(line: coloured("-" + printable(text), .red))
            case .added(let text): try StandardOutput.write(line: coloured("+" + printable(text), .green))
            }
        }
    }

    private func addUnseen(_ examined: ExaminedMessage) throws {
        for header in examined.unseen {
            try StandardOutput.write(line: "  not seen: offset \(header.offset): \(header.reason)")
            try StandardOutput.write(line: "    " + printable(header.content))
            for match in header.rules {
                try StandardOutput.write(line: "    can't apply: \(match.location): \(printable(match.action))")
            }
        }
        for rule in Set(examined.unseen.flatMap(\.rules).map(\.location)) { unmatched[rule, default: 0] += 1 }
        for text in examined.impossible { try StandardOutput.write(line: "  impossible: \(text)") }
    }

    func finish() throws {
        if count != 1 { try StandardOutput.write(line: "\(count) messages, \(matched) with findings") }
        guard let wayIn else { return }
        for (rule, count) in unmatched.sorted(by: { ($0.key.table, $0.key.line) < ($1.key.table, $1.key.line) }) {
            let messages = quantity(count, "message")
            try StandardOutput.write(line: "as \(wayIn.rawValue), \(rule) can't apply to \(messages)")
        }
    }

    private func summary(_ verdict: Verdict) -> String {
        var parts: [String] = []
        switch verdict.disposition {
        case .accept: parts.append(verdict.edits.isEmpty ? "unchanged" : "changed")
        case .refuse(let refusal): parts.append("refused: \(refusal.code) " + printable(refusal.text))
        case .discard: parts.append("discarded")
        }
        parts += verdict.effects.map { effect in
            switch effect {
            case .hold: "held"
            case .filter(let target): "filter " + printable(target)
            case .redirect(let address): "redirected to " + printable(address)
            case .bcc(let address): "bcc " + printable(address)
            }
        }
        return parts.joined(separator: ", ")
    }
}

private final class JSONCheckReport: CheckReport {
    private struct Message: Encodable {
        struct Match: Encodable {
            let `class`: String
            let offset: Int
            let table: String
            let line: Int
            let set: String?
            let tag: String?
            let action: String
            let content: String
            let part: String?
            let fault: String?
        }
        struct Unseen: Encodable {
            struct Rule: Encodable {
                let table: String
                let line: Int
                let action: String
            }
            let offset: Int
            let content: String
            let reason: String
            let rules: [Rule]
        }
        struct Change: Encodable {
            let offset: Int
            let length: Int
            /// Base64, with LF line endings.
            let replacement: Data
        }

        let name: String
        /// The sets that apply; nil without `checks.sets`.
        let sets: [String]?
        let disposition: String
        let code: Int?
        let text: String?
        var held = false
        var filter: String?
        var redirect: String?
        var bcc: [String] = []
        let matches: [Match]
        let notes: [String]
        let edits: [Change]
        let unseen: [Unseen]
        let impossible: [String]

        mutating func add(_ effect: Effect) {
            switch effect {
            case .hold: held = true
            case .filter(let target): filter = JSONCheckReport.text(target)
            case .redirect(let address): redirect = JSONCheckReport.text(address)
            case .bcc(let address): bcc.append(JSONCheckReport.text(address))
            }
        }
    }

    private let encoder = JSONEncoder()

    init() { encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes] }

    func add(_ message: MessageFile, _ examined: ExaminedMessage) throws {
        let verdict = examined.verdict
        var (disposition, refusal): (String, Refusal?) = ("accept", nil)
        switch verdict.disposition {
        case .accept: break
        case .refuse(let reason): (disposition, refusal) = ("refuse", reason)
        case .discard: disposition = "discard"
        }
        var result = Message(
            name: message.name, sets: examined.sets, disposition: disposition, code: refusal?.code,
            text: refusal.map { Self.text($0.text) },
            matches: verdict.matches.map {
                Message.Match(
                    class: $0.subject.rawValue, offset: $0.offset, table: $0.location.table,
                    line: $0.location.line, set: $0.set, tag: $0.tag, action: Self.text($0.action),
                    content: Self.text($0.content), part: $0.part.map(Self.text), fault: $0.fault)
            },
            notes: verdict.notes.map { "\($0)" },
            edits: verdict.edits.map {
                Message.Change(
                    offset: $0.range.lowerBound, length: $0.range.count,
                    replacement: Data($0.replacement))
            },
            unseen: examined.unseen.map { header in
                Message.Unseen(
                    offset: header.offset, content: Self.text(header.content), reason: header.reason,
                    rules: header.rules.map {
                        Message.Unseen.Rule(
                            table: $0.location.table, line: $0.location.line, action: Self.text($0.action))
                    })
            },
            impossible: examined.impossible)
        for effect in verdict.effects { result.add(effect) }
        try StandardOutput.write(Array(encoder.encode(result)) + [0x0a])
    }

    func finish() {}

    private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}
