// SPDX-License-Identifier: Apache-2.0
import Glibc
import Messages
import Testing
import Wire

@Suite("The dialogue with the next hop")
struct NextHopDialogueTests {
    @Test("Transcripts of Fixtures/NextHop", arguments: DialogueTranscript.names(in: "NextHop"))
    func transcript(_ name: String) throws {
        let player = NextHopPlayer()
        try DialogueTranscript.play(name, in: "NextHop", awaited: { player.awaited }, tell: player.tell)
    }

    /// The events that lead to each state.
    private static let states: [(name: String, events: [String])] = {
        let start = ["new 2 transaction", "begin"]
        let envelope = start + ["received", "ready"]
        let data = envelope + ["asked data", "reply data 354 go"]
        let answered = data + ["final-dot", "reply end-of-data 250 Ok"]
        return [
            ("connecting", start), ("connecting, last address", start + ["connect-failed ECONNREFUSED"]),
            ("pausing", start + ["connect-failed EAGAIN"]), ("greeting", start + ["received"]),
            ("greeting, for capabilities", ["new 1 capabilities", "begin", "received"]),
            ("idle", answered + ["release"]), ("envelope", envelope), ("data asked", envelope + ["asked data"]),
            ("data", data), ("final dot", data + ["final-dot"]), ("answered", answered),
            ("clearing", envelope + ["reset"]), ("clearing, final reply", data + ["final-dot", "detach"]),
            ("closed", start + ["withdraw"]),
        ]
    }()

    private static let events = [
        "begin", "connect-failed EAGAIN", "connect-failed ECONNREFUSED", "pause-over", "received",
        "read-failed ECONNRESET", "ready", "reply mail 250 Ok", "reply data 354 go", "reply data 451 later",
        "reply end-of-data 250 Ok", "reply end-of-data 250 Ok, busy", "reply end-of-data 250 Ok, sending",
        "reply end-of-data 554 no, sending",
        "reply reset 250 Ok", "reply reset 250 Ok, busy", "reply reset 500 no", "acquired", "asked mail", "asked data",
        "final-dot", "reset", "disconnect", "detach", "release", "release busy", "release sending", "withdraw",
        "peer-closed",
        "timed-out", "timed-out connected", "refused 421 bye", "refused 554 no", "close x",
    ]

    /// Fixtures/NextHop/every-event.table has a line for each: state, event, actions, and what is awaited afterwards.
    @Test("Every event in every state gives the recorded actions")
    func everyEvent() throws {
        var lines: [String] = []
        for (name, events) in Self.states {
            for event in Self.events {
                let player = NextHopPlayer()
                for event in events { _ = player.tell(event) }
                let actions = player.tell(event).joined(separator: ", ")
                lines.append("\(name) | \(event) | \(actions) | \(player.awaited)")
            }
        }
        let expected = try DialogueTranscript.text("every-event", "table", in: "NextHop").split(separator: "\n")
        #expect(lines == expected.filter { !$0.hasPrefix("#") }.map(String.init))
    }
}

/// A dialogue whose events and actions are texts.
private final class NextHopPlayer {
    private var dialogue = NextHopDialogue(addresses: 1, for: .transaction)

    var awaited: String {
        dialogue.isClosed ? "closed" : dialogue.isReady ? "\(dialogue.awaited), ready" : "\(dialogue.awaited)"
    }

    func tell(_ event: String) -> [String] {
        let words = event.split(separator: " ", maxSplits: 1)
        let rest = words.count > 1 ? words[1] : ""
        switch words[0] {
        case "new":
            let isTransaction = rest.hasSuffix("transaction")
            dialogue = NextHopDialogue(
                addresses: Int(rest.prefix { $0 != " " })!, for: isTransaction ? .transaction : .capabilities)
        case "begin": return describe(dialogue.begin())
        case "connect-failed": return describe(dialogue.connectFailed(code(rest)))
        case "pause-over": return describe(dialogue.pauseOver())
        case "received": dialogue.received()
        case "read-failed": return describe(dialogue.readFailed(code(rest)))
        case "ready":
            let action = dialogue.ready()
            return action == .ignore ? [] : ["\(action)"]
        case "reply": return replied(rest)
        default: return tellOfOwner(words[0], rest)
        }
        return []
    }

    private func tellOfOwner(_ event: Substring, _ rest: Substring) -> [String] {
        switch event {
        case "acquired": dialogue.acquired()
        case "asked": dialogue.asked(SMTPClientSession.Command(named: rest))
        case "final-dot": dialogue.finalDotSent()
        case "reset": return describe(dialogue.reset())
        case "disconnect": return describe(dialogue.disconnect())
        case "detach": dialogue.detach()
        case "release": return describe(dialogue.release(isInStep: rest != "busy", isSending: rest == "sending"))
        case "withdraw": return describe(dialogue.withdraw("closed"))
        case "peer-closed": return describe(dialogue.peerClosed())
        case "timed-out": return describe(dialogue.timedOut(isConnected: rest == "connected"))
        case "refused": return describe(dialogue.refused(SMTPReply(text: rest)))
        case "close": return describe(dialogue.close(.lost(String(rest))))
        default: Issue.record("no event: \(event)")
        }
        return []
    }

    /// COMMAND CODE TEXT, optionally followed by `, sending` or `, busy`.
    private func replied(_ text: Substring) -> [String] {
        let parts = text.prefix { $0 != "," }.split(separator: " ", maxSplits: 1)
        let action = dialogue.replied(
            SMTPClientSession.Command(named: parts[0]), SMTPReply(text: parts[1]),
            isSending: text.hasSuffix(", sending"), isIdle: !text.hasSuffix(", busy"))
        switch action {
        case .tellOwner, .keep, .quit: return ["\(action)"]
        case .end(let failure): return ["end: \(failure.cause)"]
        case .ignore: return []
        }
    }

    private func code(_ name: Substring) -> Int32 {
        switch name {
        case "EAGAIN": EAGAIN
        case "ECONNREFUSED": ECONNREFUSED
        case "ECONNRESET": ECONNRESET
        default: preconditionFailure("no error: \(name)")
        }
    }

    private func describe(_ action: NextHopDialogue.ConnectAction) -> [String] {
        switch action {
        case .open(let address): ["open \(address)"]
        case .pause: ["pause"]
        case .end(let failure): ["end: \(failure.cause)"]
        case .ignore: []
        }
    }

    private func describe(_ action: NextHopDialogue.LeaveAction) -> [String] {
        switch action {
        case .reset, .keep, .quit: ["\(action)"]
        case .end(let ending): describe(ending)
        case .ignore: []
        }
    }

    private func describe(_ ending: NextHopDialogue.Ending?) -> [String] {
        ending.map { ["\($0.kind): \($0.failure.cause)"] } ?? []
    }
}
