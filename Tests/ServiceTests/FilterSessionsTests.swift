// SPDX-License-Identifier: Apache-2.0
import Foundation
import Messages
import NIOCore
import Testing

/// Whole sessions on sockets: what the client and the next hop receive. No message is acknowledged before the next hop
/// has accepted it.
@Suite("Sessions of the filter", .serialized)
struct FilterSessionsTests {
    private static let envelope = ["EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"]
    private static let session = envelope + ["DATA", "Subject: x\r\n\r\nx\r\n."]
    private static let accepted = [220, 250, 250, 250, 354, 250]
    private static let stages = ["", "EHLO", "MAIL", "RCPT", "DATA", "content", "."]

    // MARK: The next hop

    /// Connections that close at `stage`. The first is asked for its capabilities, and used again for the transaction.
    @Test("A next hop that disconnects at any stage costs no mail", arguments: stages, ["close", "421", "garbage"])
    func nextHopGoesAway(stage: String, how: String) async throws {
        let reply: ScriptedNextHop.Reply =
            switch how {
            case "close": .close
            case "421": .text("421 4.3.2 stopping")
            default: .text("garbage")
            }
        guard stage != "content" || how == "close" else { return }
        try await RunningFilter.run(hop: [[stage: reply]]) { running in
            let codes = running.connect().converse(Self.session)
            #expect(codes.first == 220)
            // After DATA the session continues. Before DATA the session is closed, or the recipient deferred.
            let last = try #require(codes.dropFirst().first { $0 >= 400 }, "\(codes)")
            #expect([421, 451].contains(last), "\(codes)")
            #expect(!codes.dropFirst(5).contains(250), "\(codes)")
            #expect(running.hop.messages == [])
        }
    }

    @Test("A reused connection that closes before its first answer is replaced", arguments: ["close", "421"])
    func reusedConnection(how: String) async throws {
        let reply: ScriptedNextHop.Reply = how == "close" ? .close : .text("421 4.4.2 timeout exceeded")
        try await RunningFilter.run(hop: [["MAIL": reply], [:]]) { running in
            #expect(running.connect().converse(Self.session) == Self.accepted)
            #expect(running.hop.messages.count == 1)
            #expect(running.hop.connections == 2)
        }
    }

    @Test("A connection that has answered once is not replaced")
    func reusedConnectionThatAnswered() async throws {
        try await RunningFilter.run(hop: [["RCPT": .close], [:]]) { running in
            #expect(running.connect().converse(Self.envelope) == [220, 250, 250, 421])
            #expect(running.hop.messages == [])
        }
    }

    @Test("A final dot without a reply is deferred once, and the next message uses a fresh connection")
    func lostFinalReply() async throws {
        try await RunningFilter.run(hop: [[".": .close], [:]]) { running in
            let client = running.connect()
            #expect(client.converse(Self.session) == [220, 250, 250, 250, 354, 451])
            #expect(client.go(Array(Self.session.dropFirst())) == [250, 250, 354, 250])
            #expect(running.hop.messages.count == 1)
        }
    }

    // MARK: The client

    @Test("A client that disconnects before the final dot leaves nothing behind", arguments: 0...5)
    func clientDisconnects(after steps: Int) async throws {
        try await RunningFilter.run { running in
            do {
                let client = running.connect()
                _ = client.converse(Array(Self.session.prefix(min(steps, 4))))
                if steps == 5 { client.send("Subject: half\r\n\r\nx\r\n.") }
                try await running.settle()
            }
            try await running.settle()
            #expect(running.connect().converse(Self.session) == Self.accepted)
            #expect(running.hop.messages.map(\.content) == ["Subject: x\n\nx\n"])
        }
    }

    /// Two messages, a refused command, and QUIT, all sent without waiting.
    private static let pipelined =
        "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n"
        + "Subject: one\r\n\r\n..dot\r\n.\r\nNOPE\r\nMAIL FROM:<>\r\nRCPT TO:<d@example.com>\r\nDATA\r\n"
        + "A: b\r\n\r\n.\r\nMAIL FROM:<a@example.org>\r\nRSET\r\nQUIT\r\n"

    @Test("Wherever the client's bytes are split, the replies and the messages are the same")
    func cuts() async throws {
        try await RunningFilter.run { running in
            let bytes = Self.pipelined
            for cut in 0...bytes.utf8.count {
                let client = running.connect()
                let place = bytes.utf8.index(bytes.startIndex, offsetBy: cut)
                if cut > 0 { client.send(String(bytes[..<place])) }
                try await running.settle()
                if cut < bytes.utf8.count { client.send(String(bytes[place...])) }
                #expect(
                    client.codes()
                        == [220, 250, 250, 250, 250, 354, 250, 502, 250, 250, 354, 250, 250, 250, 221], "cut at \(cut)")
            }
            let messages = running.hop.messages
            #expect(messages.count == 2 * (bytes.utf8.count + 1))
            for (index, message) in messages.enumerated() {
                let isFirst = index % 2 == 0
                #expect(message.content == (isFirst ? "Subject: one\n\n..dot\n" : "A: b\n\n"))
                #expect(message.envelope.count == (isFirst ? 3 : 2))
            }
        }
    }

    // MARK: Verdicts

    @Test("The verdict decides what the client and the next hop receive")
    func verdicts() async throws {
        let rules = """
            /^Subject: refuse/ REJECT 5.7.1 no
            /^Subject: discard/ DISCARD
            /^Subject: edit/ PREPEND X-Checked: yes
            /^Subject: redirect/ REDIRECT r@example.com
            /^Subject: copy/ BCC c@example.com
            /^Subject: hold/ HOLD
            """
        try await RunningFilter.run(header: rules) { running in
            let client = running.connect()
            #expect(client.converse(["EHLO x"]) == [220, 250])
            for subject in ["refuse", "discard", "edit", "redirect", "copy", "hold"] {
                let end = client.go(Self.session.dropFirst().dropLast() + ["Subject: \(subject)\r\n\r\nx\r\n."])
                #expect(end == [250, 250, 354, subject == "refuse" ? 550 : 250], "\(subject)")
            }
            let (mail, own) = ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>")
            #expect(
                running.hop.messages == [
                    .init(envelope: [mail, own], content: "X-Checked: yes\nSubject: edit\n\nx\n"),
                    .init(envelope: [mail, "RCPT TO:<r@example.com>"], content: "Subject: redirect\n\nx\n"),
                    .init(envelope: [mail, own, "RCPT TO:<c@example.com>"], content: "Subject: copy\n\nx\n"),
                    .init(envelope: [mail, own], content: "X-Weir-Verdict: HOLD\nSubject: hold\n\nx\n"),
                ])
        }
    }

    @Test("A spooled message arrives whole, or not at all", arguments: [false, true])
    func spooled(hopCloses: Bool) async throws {
        let lines = String(repeating: "0123456789\r\n", count: 60_000)
        try await RunningFilter.run(
            header: "/^Subject:/ PREPEND X-Checked: yes", hop: [hopCloses ? ["content": .close] : [:]]
        ) { running in
            let codes = running.connect().converse(Self.session.dropLast() + ["Subject: x\r\n\r\n\(lines)."])
            #expect(codes == [220, 250, 250, 250, 354, hopCloses ? 451 : 250])
            let content = "X-Checked: yes\nSubject: x\n\n" + lines.replacing("\r\n", with: "\n")
            #expect(running.hop.messages.map { $0.content == content } == (hopCloses ? [] : [true]))
        }
    }

    // MARK: The end of the service

    @Test("An immediate stop defers messages in progress", arguments: 0...5)
    func stop(after steps: Int) async throws {
        try await RunningFilter.run(hop: [[".": .silence]], stops: true) { running in
            let client = running.connect()
            let codes = client.converse(Array(Self.session.prefix(min(steps, 4))))
            #expect(codes.count == min(steps, 4) + 1)
            if steps == 5 {
                client.send(Self.session[4] + "\r\n")
                #expect(running.hop.waitForSilence())
            }
            await running.filter.stop(by: .now())
            #expect(client.codes() == [421])
            #expect(running.hop.messages == [])
        }
    }

    // MARK: Time

    @Test("A next hop that stops replying times out", arguments: ["", "EHLO", "MAIL", "RCPT", "DATA", "."])
    func nextHopFallsSilent(step: String) async throws {
        try await RunningFilter.run(hop: [[step: .silence]]) { running in
            let before = NIODeadline.now()
            let client = running.connect()
            client.send((Self.session + ["QUIT"]).joined(separator: "\r\n") + "\r\n")
            #expect(running.hop.waitForSilence())
            try await running.settle()
            await running.filter.sweep(at: before + .seconds(300))
            #expect(running.hop.connections == 1)
            try await running.pass(.seconds(step == "." ? 601 : 301))
            if step == "MAIL" {
                // The silent connection was a reused one, so the command is sent again on a fresh one.
                #expect(running.hop.waitForSilence())
                try await running.settle()
                try await running.pass(.seconds(301))
            }
            let codes = client.codes()
            #expect(codes.contains { [421, 451].contains($0) }, "\(codes)")
            #expect(!codes.contains { 500..<600 ~= $0 }, "\(codes)")
            #expect(!codes.dropFirst(5).contains(250), "\(codes)")
        }
    }

    @Test("An idle client is disconnected", arguments: 0...4)
    func clientFallsSilent(after steps: Int) async throws {
        try await RunningFilter.run { running in
            let before = NIODeadline.now()
            let client = running.connect()
            #expect(client.converse(Array(Self.session.prefix(steps))).count == steps + 1)
            await running.filter.sweep(at: before + .seconds(300))
            #expect(client.isSilent)
            try await running.pass(.seconds(301))
            #expect(client.codes() == [421])
            #expect(running.hop.messages == [])
        }
    }

    @Test("A message that arrives too slowly is refused, and a client that does not disconnect is cut off")
    func slowContent() async throws {
        try await RunningFilter.run(timeouts: { $0.linger = .hours(2) }) { running in
            let client = running.connect()
            #expect(client.converse(Array(Self.session.prefix(4))).last == 354)
            client.send("x")
            try await running.pass(.seconds(3_601))
            #expect(client.reply() == "421 4.4.2 Error: the message takes too long")
            #expect(client.line() == nil)
            // The filter keeps reading for a while. Otherwise the client might lose the reply to a reset.
            try await running.pass(.seconds(1))
            #expect(client.send("x"))
            try await running.pass(.hours(3))
            #expect(!client.send("x"))
        }
    }

    @Test("Archives are kept in the memory of all messages") func archives() async throws {
        try await RunningFilter.run(attachment: "/^1; application.zip;.*; limit/ REJECT", memory: 0) { running in
            let content = "Content-Type: application/zip\r\n\r\nPK\u{3}\u{4}xxx\r\n."
            #expect(running.connect().converse(Self.envelope + ["DATA", content]).last == 550)
            #expect(running.logged("filter.most_memory is used up"))
        }
    }
}
