// SPDX-License-Identifier: Apache-2.0
import Messages
import NIOCore
import Testing
import Wire

@Suite("The filter's dialogue with a client")
struct FilterDialogueTests {
    @Test("Transcripts of Fixtures/Filter", arguments: DialogueTranscript.names(in: "Filter"))
    func transcript(_ name: String) throws {
        let player = FilterPlayer()
        try DialogueTranscript.play(name, in: "Filter", awaited: { player.awaited }, tell: player.tell)
    }

    /// The events that lead to each state.
    private static let states: [(name: String, events: [String])] = {
        let envelope = ["recipient", "began fresh", "asked recipient RCPT TO:<b@example.com>"]
        let content = envelope + ["reply recipient 250 Ok", "content"]
        let judging = content + ["end-of-content"]
        let dataAsked = judging + ["judged hand-on copies"]
        let sending = dataAsked + ["reply data 354 go"]
        let twoRecipients =
            ["reply recipient 250 Ok", "reply recipient 250 Ok"] + Array(dataAsked.dropFirst(envelope.count + 1))
            + ["reply data 354 go"]
        return [
            ("idle", []), ("envelope", envelope),
            ("envelope unproven", ["recipient", "began reused", "asked recipient RCPT TO:<b@example.com>"]),
            ("content", content), ("content, lost", content + ["lost x"]), ("judging", judging),
            ("judging, lost", judging + ["lost x"]), ("data asked", dataAsked),
            ("redirect asked", judging + ["judged hand-on redirect"]), ("sending", sending),
            ("final dot", sending + ["final-dot"]), ("last reply", ["last-reply linger"]),
            ("last reply, closing", ["last-reply close"]), ("lingering", ["last-reply linger", "sent"]),
            ("closed", ["disconnected"]),
            // One recipient of two has its reply.
            ("lmtp, final dot", ["lmtp"] + envelope + twoRecipients + ["final-dot", "reply end-of-data 250 Ok"]),
            (
                "lmtp, copies asked",
                ["lmtp"] + judging + ["judged hand-on copies-first", "reply recipient 250 Ok"]
            ),
            (
                "lmtp, copies",
                ["lmtp"] + judging + ["judged hand-on copies-first", "reply recipient 250 Ok", "reply data 354 go"]
                    + ["final-dot", "reply end-of-data 250 Ok"]
            ),
        ]
    }()

    private static let events = [
        "recipient", "began fresh", "began reused", "asked mail MAIL FROM:<>", "content", "end-of-content", "rset",
        "input-ended", "last-reply close", "last-reply linger", "sent", "sent stopping", "disconnected",
        "judged 250 Ok", "judged hand-on copies", "judged hand-on redirect", "judged hand-on copies-first",
        "copy-noted", "final-dot", "spool-failed",
        "ready covers", "ready lacks", "reply xforward 250 Ok", "reply xforward 500 no", "reply mail 250 Ok",
        "reply mail 550 no", "reply recipient 250 Ok", "reply recipient 354 go", "reply recipient 421 bye",
        "reply recipient 450 later", "reply data 354 go", "reply data 250 Ok", "reply data 451 later",
        "reply end-of-data 250 Ok", "reply end-of-data 354 go", "reply end-of-data 554 no", "reply reset 250 Ok",
        "reply quit 221 Bye", "lost x",
    ]

    /// Fixtures/Filter/every-event.table has a line for each: state, event, actions, and what the filter waits for. If
    /// that differs, three values: without and with unanswered commands, and during disk work.
    @Test("Every event in every state gives the recorded actions")
    func everyEvent() throws {
        var lines: [String] = []
        for (name, events) in Self.states {
            for event in Self.events {
                let player = FilterPlayer()
                for event in events { _ = player.tell(event) }
                let actions = player.tell(event).joined(separator: ", ")
                lines.append("\(name) | \(event) | \(actions) | \(player.everyAwaited)")
            }
        }
        let expected = try DialogueTranscript.text("every-event", "table", in: "Filter").split(separator: "\n")
        #expect(lines == expected.filter { !$0.hasPrefix("#") }.map(String.init))
    }

    @Test("Disk work that finishes after its transaction writes nothing into the next one")
    func transactionNumbers() {
        let player = FilterPlayer()
        let toSending = Self.states.first { $0.name == "sending" }!.events
        for event in toSending { _ = player.tell(event) }
        let first = player.transaction
        #expect(player.isSending(first))
        for event in ["lost x"] + toSending { _ = player.tell(event) }
        #expect(!player.isSending(first))
        #expect(player.isSending(player.transaction))
    }
}

/// A dialogue whose events and actions are texts.
private final class FilterPlayer {
    private var dialogue = FilterDialogue(nextHop: .smtp)

    var transaction: UInt64 { dialogue.transaction }
    func isSending(_ transaction: UInt64) -> Bool { dialogue.isSending(transaction) }

    var awaited: String {
        let awaited = "\(dialogue.awaited(awaitsAnswer: false, isAtDisk: false))"
        return dialogue.isServing ? awaited : dialogue.mayReply ? "\(awaited), closing" : "\(awaited), mute"
    }

    /// Who is awaited; where that depends on it: who with unanswered commands, and while the disk is at work.
    var everyAwaited: String {
        let (unanswered, atDisk) = (
            dialogue.awaited(awaitsAnswer: true, isAtDisk: false), dialogue.awaited(awaitsAnswer: false, isAtDisk: true)
        )
        let awaited = dialogue.awaited(awaitsAnswer: false, isAtDisk: false)
        let differs = unanswered != awaited || atDisk != awaited
        return differs ? "\(self.awaited), \(unanswered), \(atDisk)" : self.awaited
    }

    func tell(_ event: String) -> [String] {
        let words = event.split(separator: " ", maxSplits: 1)
        let rest = words.count > 1 ? words[1] : ""
        switch words[0] {
        case "lmtp": dialogue = FilterDialogue(nextHop: .lmtp)
        case "reply":
            let parts = rest.split(separator: " ", maxSplits: 1)
            return describe(
                dialogue.nextHopAnswered(SMTPClientSession.Command(named: parts[0]), with: SMTPReply(text: parts[1])))
        case "lost": return describe(dialogue.nextHopClosed(.lost(String(rest))))
        case "judged": return describe(dialogue.judged(judgement(rest)))
        case "ready": return dialogue.nextHopReady(covers: rest == "covers").map { ["close \($0.text)"] } ?? []
        case "spool-failed": return dialogue.spoolFailed().map { ["finish, \($0)"] } ?? []
        case "final-dot": dialogue.finalDotSent()
        case "copy-noted": return describe(dialogue.copyNoted())
        default: return tellOfClient(words[0], rest)
        }
        return []
    }

    private func tellOfClient(_ event: Substring, _ rest: Substring) -> [String] {
        switch event {
        case "recipient":
            let action = dialogue.recipientGiven()
            return action == .ignore ? [] : ["\(action)"]
        case "began": dialogue.began(onReused: rest == "reused")
        case "asked":
            let parts = rest.split(separator: " ", maxSplits: 1)
            dialogue.asked(SMTPClientSession.Command(named: parts[0]), ByteBuffer(substring: parts[1]))
        case "content": dialogue.contentBegan()
        case "end-of-content": dialogue.contentEnded()
        case "rset": return describe(dialogue.transactionAborted())
        case "input-ended": dialogue.inputEnded()
        case "last-reply": return describe(dialogue.beginLastReply(rest == "linger" ? .linger : .close))
        case "sent":
            let action = dialogue.repliesSent(isStopping: rest == "stopping")
            return action == .wait ? [] : ["\(action)"]
        case "disconnected": return dialogue.disconnected().map { ["close the socket"] + describe($0) } ?? []
        default: Issue.record("no event: \(event)")
        }
        return []
    }

    private func judgement(_ text: Substring) -> FilterDialogue.Judgement {
        switch text {
        case "hand-on copies": .handOn(.copies)
        case "hand-on copies-first": .handOn(.copiesFirst)
        case "hand-on redirect": .handOn(.redirect)
        default: .answer(SMTPReply(text: text))
        }
    }

    private func describe(_ parting: FilterDialogue.Parting) -> [String] {
        parting == .none ? [] : ["leave: \(parting)"]
    }

    private func describe(_ questions: [FilterDialogue.Question]) -> String {
        questions.map { "\($0.command) \(String(buffer: $0.line))" }.joined(separator: "; ")
    }

    private func describe(_ action: FilterDialogue.JudgementAction) -> [String] {
        switch action {
        case .askData: ["askData"]
        case .deliverCopies: ["deliverCopies"]
        case .finish(let reply, let parting): ["finish \(reply.text), \(parting)"]
        case .ignore: []
        }
    }

    private func describe(_ action: FilterDialogue.ReplyAction) -> [String] {
        switch action {
        case .askAgain(let questions): ["askAgain \(describe(questions))"]
        case .answerRecipient(let reply): ["answerRecipient \(reply.text)"]
        case .logRefusedXForward, .logRefusedCopy, .sendContent: ["\(action)"]
        case .finish(let reply, let parting): ["finish \(reply.text), \(parting)"]
        case .finalReply(let reply): ["finalReply \(reply.text)"]
        case .passOn(let replies): replies.map { "passOn \($0.text)" }
        case .finalReplies(let replies, let isDeferred):
            replies.map { "finalReply \($0.text)" } + (isDeferred ? ["comes again"] : [])
        case .copyAnswered(let number, let reply): ["copyAnswered \(number) \(reply.text)"]
        case .deferWithCopies(let cause, let reply, let parting):
            ["deferWithCopies \(cause.text), \(reply.text), \(parting)"]
        case .leaveOutCopies(let cause, let parting): ["leaveOutCopies \(cause?.text ?? ""), \(parting)"]
        case .ignore: []
        }
    }

    private func describe(_ action: FilterDialogue.CopiesAction) -> [String] {
        switch action {
        case .wait: []
        case .askData(let parting): ["askData, \(parting)"]
        case .finish(let reply, let parting): ["finish \(reply.text), \(parting)"]
        }
    }

    private func describe(_ action: FilterDialogue.LossAction) -> [String] {
        switch action {
        case .askAgain(let questions): ["askAgain \(describe(questions))"]
        case .close(let reply): ["close \(reply.text)"]
        case .finish(let reply): ["finish \(reply.text)"]
        case .finishEach(let replies): replies.map { "finish \($0.text)" }
        case .wait: []
        }
    }
}
