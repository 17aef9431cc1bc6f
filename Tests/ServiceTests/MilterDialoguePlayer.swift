// SPDX-License-Identifier: Apache-2.0
import Filter
import Limits
import Messages
import NIOCore
import Policy
import Rules
import Settings
import Testing
import Wire

/// Plays the events of a transcript to a dialogue with a real content filter, and describes its actions as texts.
struct MilterDialoguePlayer: ~Copyable {
    private var dialogue: MilterDialogue
    private let settings: MilterSettings
    private let rules: ContentRules
    private let terms: MilterTerms
    private var filter: MessageFilter
    private var headers = MilterHeaders()
    private var bodyStart: Int?
    private var bodySize = 0
    /// Once the message is complete.
    private var verdict: Verdict?
    private var messages = 0

    private static let edits: [String: MilterActions] = [
        "changeHeaders": .changeHeaders, "changeBody": .changeBody, "quarantine": .quarantine,
        "addRecipients": .addRecipients, "changeSender": .changeSender,
    ]

    static func isHead(_ line: String) -> Bool {
        ["| ", "header_checks ", "body_checks ", "without "].contains { line.hasPrefix($0) }
    }

    init(_ lines: [String], _ directory: TemporaryDirectory) throws {
        func arguments(_ word: String) -> [String] {
            lines.filter { $0.hasPrefix(word + " ") }.map { String($0.dropFirst(word.count + 1)) }
        }
        try directory.write(arguments("header_checks"), to: "header.pcre")
        try directory.write(arguments("body_checks"), to: "body.pcre")
        let text = """
            listen: { policy: "inet:127.0.0.1:10040", milter: "inet:127.0.0.1:10041" }
            checks:
              header: [ "pcre:\(directory.path)/header.pcre" ]
              body: [ "pcre:\(directory.path)/body.pcre" ]
              cache: "\(directory.path)"

            """
        let bytes = Array((text + arguments("|").joined(separator: "\n") + "\n").utf8)
        let outcome = try ConfigurationReader.read(bytes, file: "weir.yaml").get()
        var actions: MilterActions = [
            .addHeaders, .changeBody, .addRecipients, .deleteRecipients, .changeHeaders, .quarantine, .changeSender,
            .addRecipientsWithParameters,
        ]
        for name in arguments("without") { actions.subtract(try #require(Self.edits[name])) }
        settings = MilterSettings(outcome.configuration)
        rules = outcome.rules
        terms = MilterTerms(actions: actions, options: [.leadingSpace])
        filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        dialogue = MilterDialogue()
    }

    var isWaiting: Bool { dialogue.isWaiting }

    /// - Parameter event: one of
    ///   `connect NAME ADDRESS PORT`, `helo NAME`, `mail ADDRESS PARAMETERS`, `recipient ADDRESS PARAMETERS`,
    ///   `header NAME: VALUE`, `body TEXT`, `body to the disk`, `end`, `end of a probe`, `end of an alert`,
    ///   `end without room`, `end without a body`, `abort`, `close`; for the ledger's answers `answer ACTION` (number 7
    ///   is charged) and `charged` (by the policy server); `written`, `piece appended`, `piece read`, `drained` and
    ///   `read failed CAUSE`.
    mutating func play(_ event: String) -> [String] {
        do throws(MilterFault) {
            return describe(try handle(event))
        } catch {
            return ["! \(error.text)"]
        }
    }

    private mutating func handle(_ event: String) throws(MilterFault) -> MilterDialogue.Action {
        let words = event.split(separator: " ").map { Array($0.utf8) }
        let rest = event.drop { $0 != " " }.dropFirst()
        switch event.prefix(while: { $0 != " " }) {
        case "connect":
            var client = MilterSession.Client()
            client.name = words[1]
            client.address = words[2]
            client.port = UInt16(String(decoding: words[3], as: UTF8.self))!
            return try dialogue.connect(client)
        case "helo": return try dialogue.helo(words[1])
        case "mail":
            let action = try dialogue.mail(
                words[1], Array(words[2...]), MilterMacros(), settings: settings, terms: terms,
                instance: Array("m\(messages)".utf8))
            beginContent()
            return action
        case "recipient": return try dialogue.recipient(words[1], Array(words[2...]), MilterMacros())
        case "header":
            addHeader(rest)
            return try dialogue.header()
        case "body": return try body(rest)
        case "end": return try end(rest)
        case "abort": return dialogue.abort()
        case "close": return dialogue.close()
        case "answer": return dialogue.answered(.decision(AccessAction(Array(rest.utf8)), transaction: 7))
        case "charged":
            let known = PolicySessions.Transaction(instance: Array("p1".utf8), sender: Array("a@example.org".utf8))
            return dialogue.answered(.isCharged(known))
        case "written": return dialogue.written()
        case "drained": return dialogue.drained()
        case "read": return dialogue.readFailed(String(rest.dropFirst("failed ".count)))
        case "piece" where rest == "appended": return dialogue.pieceAppended()
        case "piece":
            dialogue.pieceRead()
            return .none
        default: preconditionFailure("unknown event: \(event)")
        }
    }

    private mutating func beginContent() {
        messages += 1
        filter.begin(rules)
        (headers, bodyStart, bodySize, verdict) = (MilterHeaders(), nil, 0, nil)
    }

    private mutating func addHeader(_ line: Substring) {
        guard verdict == nil else { return }
        let name = Array(line.prefix { $0 != ":" }.utf8)
        name.withUnsafeBytes { name in
            headers.append(name)
            Array(line.utf8.drop { $0 != UInt8(ascii: ":") }.dropFirst()).withUnsafeBytes {
                filter.addHeader(name: name, value: $0)
            }
        }
    }

    private mutating func endHeaders() {
        guard bodyStart == nil, verdict == nil else { return }
        filter.endHeaders()
        bodyStart = filter.count
    }

    private mutating func body(_ text: Substring) throws(MilterFault) -> MilterDialogue.Action {
        if text == "to the disk" { return try dialogue.body(isBeingWritten: true) }
        endHeaders()
        let bytes = Array(text.replacing("\\n", with: "\r\n").utf8)
        if verdict == nil { filter.update(bytes) }
        bodySize += bytes.count
        return try dialogue.body(isBeingWritten: false)
    }

    private mutating func end(_ how: Substring) throws(MilterFault) -> MilterDialogue.Action {
        endHeaders()
        var origin = MilterJudgement.Origin.client
        var kept = MilterJudgement.KeptBody.complete(bodySize)
        switch how {
        case "of a probe": origin = .probe
        case "of an alert": origin = .alert
        case "without room": kept = .failed("the spool is full")
        case "without a body": kept = .absent
        default: break
        }
        let verdict = verdict ?? filter.finish()
        self.verdict = verdict
        let judgement = MilterJudgement(
            verdict, origin: origin, headers: headers, bodyStart: bodyStart ?? 0, size: filter.count,
            body: kept, newHeaders: [])
        return try dialogue.endOfMessage(judgement, MilterMacros())
    }

    // MARK: Actions as texts

    private func describe(_ action: MilterDialogue.Action) -> [String] {
        switch action {
        case .none: return ["nothing"]
        case .proceed: return ["continue"]
        case .refuseRecipient(let refusal): return ["refuse the recipient: \(text(refusal.reply))"]
        case .refuseAddress(let refusal, let address):
            return ["refuse the address \(text(address)): \(text(refusal.reply))"]
        case .ask(let question): return ["ask the ledger: \(describe(question))"]
        case .conclude(let conclusion):
            var lines = begin(conclusion)
            lines.append(describe(conclusion.reply))
            return lines
        case .beginNewBody(let conclusion):
            var lines = begin(conclusion)
            lines.append("write the body to the disk")
            return lines
        case .append(.new(let bytes)): return ["append \(text(bytes).debugDescription)"]
        case .append(.original(let range)): return ["append bytes \(range.lowerBound) to \(range.upperBound)"]
        case .finishNewBody: return ["end of the new body, accept"]
        case .abandon(let question): return ["abandon the message of <\(text(Array(question.sender)))>"]
        }
    }

    /// State, name of the message and, once the policy server is known to have charged it, that server's name for it.
    private func describe(_ question: PolicyQuestion) -> String {
        let names = ["protocol_name", "recipient", "recipient_count", "size"]
        var line = question.state.rawValue
        line += " " + (question.transaction == nil ? text(question.instance) : "policy server's")
        for attribute in text(question.attributes).split(separator: "\n") where !attribute.hasSuffix("=") {
            if names.contains(String(attribute.prefix { $0 != "=" })) { line += " \(attribute)" }
        }
        return line
    }

    private func describe(_ reply: MilterConclusion.Reply) -> String {
        switch reply {
        case .accept: "accept"
        case .discard: "discard"
        case .refuse(let reply): "reply \(text(reply))"
        case .temporaryFailure: "temporary failure"
        }
    }

    private func begin(_ conclusion: MilterConclusion) -> [String] {
        var lines: [String] = []
        for remark in conclusion.remarks { lines.append(describe(remark)) }
        if let withdrawn = conclusion.withdrawn { lines.append("give back \(withdrawn)") }
        if let edits = conclusion.edits { lines += packets(edits) }
        return lines
    }

    private func describe(_ remark: MilterConclusion.Remark) -> String {
        switch remark {
        case .alertPassed: "log an alert"
        case .held(let reply): "log held: \(text(reply))"
        case .deferred(let reply): "log deferred: \(text(reply))"
        case .repaired(let old, let new, let repairs):
            "log \(text(old)) becomes \(text(new)): \(repairs)"
        case .tooManyHeaders: "log too many headers"
        case .impossible(let cause, let isDeferred): "log \(cause); \(isDeferred ? "deferred" : "passed")"
        case .unreadableSpool(let cause): "log spool: \(cause)"
        }
    }

    /// The packets of the edits: a command, then its numbers and texts.
    private func packets(_ edits: MilterEdits) -> [String] {
        var output = ByteBuffer()
        edits.write(to: &output, headers: headers, hasLeadingSpace: true)
        var packets: [String] = []
        while let length: UInt32 = output.readInteger(), var packet = output.readSlice(length: Int(length)) {
            let command = packet.readString(length: 1) ?? ""
            let number: UInt32? = command == "m" || command == "i" ? packet.readInteger() : nil
            let texts = text(packet.readableBytesView).split(separator: "\0", omittingEmptySubsequences: false)
            var line = "edit \(command)"
            if let number { line += " \(number)" }
            for text in texts.dropLast() { line += " [\(text)]" }
            packets.append(line)
        }
        return packets
    }

    private func text(_ bytes: some Sequence<UInt8>) -> String { String(decoding: Array(bytes), as: UTF8.self) }
}
