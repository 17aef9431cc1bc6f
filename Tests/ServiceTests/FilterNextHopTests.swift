// SPDX-License-Identifier: Apache-2.0
import Messages
import NIOCore
import Testing
import Wire

/// Next hops that know no EHLO, and next hops that speak LMTP: what a client hears, and what they get.
@Suite("Next hops with HELO and with LMTP", .serialized)
struct FilterNextHopTests {
    private static func envelope(_ recipients: String..., lmtp: Bool = false) -> [String] {
        [lmtp ? "LHLO x" : "EHLO x", "MAIL FROM:<a@example.org>"] + recipients.map { "RCPT TO:<\($0)@example.com>" }
    }
    private static let content = "Subject: x\r\n\r\nx\r\n."

    // MARK: HELO

    @Test("A next hop without EHLO is spoken to with HELO, one command at a time", arguments: ["500", "502", "504"])
    func helo(code: String) async throws {
        try await RunningFilter.run(hop: [["EHLO": .text("\(code) what")]]) { running in
            let client = running.connect()
            #expect(client.reply()?.prefix(3) == "220")
            client.send("EHLO x\r\n")
            _ = client.line()
            #expect(client.line() == "250 PIPELINING")
            let rest = Self.envelope("b", "c").dropFirst() + ["DATA", Self.content]
            #expect(client.go(Array(rest)) == [250, 250, 250, 354, 250])
            #expect(running.hop.messages.map(\.content) == ["Subject: x\n\nx\n"])
            #expect(running.hop.commands.prefix(2).map { String($0.prefix(5)) } == ["EHLO ", "HELO "])
        }
    }

    @Test("Any other refusal of EHLO defers the mail", arguments: ["550 5.7.1 not you", "501 what name"])
    func refusedEHLO(reply: String) async throws {
        try await RunningFilter.run(hop: [["EHLO": .text(reply)]]) { running in
            #expect(running.connect().converse(Self.envelope("b")) == [220, 421])
            #expect(!running.hop.commands.contains { $0.hasPrefix("HELO") })
        }
    }

    @Test("A next hop that forgets EHLO between two messages gets nothing that it has not offered")
    func forgetsEHLO() async throws {
        let full = ScriptedNextHop.Reply.text("250-hop\r\n250 8BITMIME")
        try await RunningFilter.run(hop: [["EHLO": full, "MAIL": .close], ["EHLO": .text("502 what")]]) { running in
            let client = running.connect()
            #expect(client.converse(["EHLO x", "MAIL FROM:<> BODY=8BITMIME"]) == [220, 250, 250])
            client.send("RCPT TO:<b@example.com>\r\n")
            #expect(client.reply() == "421 4.3.0 Error: the next hop has fewer extensions now, try again")
            #expect(running.hop.messages == [])
        }
    }

    // MARK: LMTP

    @Test("An SMTP client has one recipient at a time, and hears exactly what the LMTP server says")
    func smtpToLMTP() async throws {
        try await RunningFilter.run(hop: [[".1": .text("452 4.2.2 full")], [:]], nextHop: .lmtp) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", "c") + ["DATA"]) == [220, 250, 250, 250, 452, 354])
            client.send(Self.content + "\r\n")
            #expect(client.reply() == "452 4.2.2 full")
            #expect(running.hop.messages == [])
            #expect(running.hop.commands.first?.hasPrefix("LHLO ") == true)
            #expect(!running.hop.commands.contains("RCPT TO:<c@example.com>"))
        }
    }

    @Test("A refused recipient makes room for the next one")
    func refusedRecipient() async throws {
        let script: ScriptedNextHop.Script = ["RCPT TO:<b@example.com>": .text("550 5.1.1 unknown")]
        try await RunningFilter.run(hop: [script], nextHop: .lmtp) { running in
            let client = running.connect()
            let session = Self.envelope("b", "c", "d") + ["DATA", Self.content]
            #expect(client.converse(session) == [220, 250, 250, 550, 250, 452, 354, 250])
            #expect(running.hop.messages.map { $0.envelope[1] } == ["RCPT TO:<c@example.com>"])
        }
    }

    @Test("An LMTP client gets each recipient's own reply")
    func lmtpToLMTP() async throws {
        let script: ScriptedNextHop.Script = [".2": .text("452 4.2.2 full"), ".3": .text("550 5.2.1 closed")]
        try await RunningFilter.run(hop: [script], client: .lmtp, nextHop: .lmtp) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", "c", "d", "e", lmtp: true) + ["DATA"]).last == 354)
            client.send(Self.content + "\r\n")
            let replies = (0..<4).map { _ in client.reply() }
            #expect(replies == ["250 2.1.5 Ok", "452 4.2.2 full", "550 5.2.1 closed", "250 2.1.5 Ok"])
            #expect(
                running.hop.messages.map { $0.envelope[1] } == ["RCPT TO:<b@example.com>", "RCPT TO:<e@example.com>"])
            // The connection is used again.
            #expect(client.go(Array(Self.envelope("f", lmtp: true).dropFirst()) + ["DATA", Self.content]).last == 250)
            #expect(running.hop.connections == 1)
        }
    }

    /// Postfix waits for each reply anew, and keeps those that it has if a later one does not come.
    @Test("An LMTP client gets each reply when it comes")
    func repliesOneByOne() async throws {
        try await RunningFilter.run(hop: [[".2": .held("452 4.2.2 full")]], client: .lmtp, nextHop: .lmtp) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", "c", lmtp: true) + ["DATA"]).last == 354)
            client.send(Self.content + "\r\n")
            #expect(running.hop.waitForSilence())
            #expect(client.reply() == "250 2.1.5 Ok")
            running.hop.release()
            #expect(client.reply() == "452 4.2.2 full")
            #expect(client.go(["NOOP"]) == [250])
        }
    }

    /// The client's connection stays open: a 421 would say that it ends, and the client might miss further replies.
    @Test("A 421 for one recipient is a 451, and the others' replies follow")
    func closingReply() async throws {
        let script: ScriptedNextHop.Script = [".1": .text("421-4.3.2 going\r\n421 4.3.2 down")]
        try await RunningFilter.run(hop: [script], client: .lmtp, nextHop: .lmtp) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", "c", lmtp: true) + ["DATA"]).last == 354)
            client.send(Self.content + "\r\n")
            #expect(client.line() == "451-4.3.2 going")
            #expect(client.line() == "451 4.3.2 down")
            #expect(client.reply() == "250 2.1.5 Ok")
        }
    }

    /// Otherwise each reply would be taken for that to the next command, and one recipient's refusal for another's.
    @Test("One reply too many does not answer a command of the next transaction")
    func replyTooMany() async throws {
        let refusal: ScriptedNextHop.Script = ["RCPT TO:<e@example.com>": .text("550 5.1.1 unknown")]
        let first = refusal.merging([".2": .text("250 2.1.5 Ok\r\n250 2.1.5 Ok")]) { $1 }
        try await RunningFilter.run(hop: [first, refusal], client: .lmtp, nextHop: .lmtp) { running in
            let client = running.connect()
            let lines =
                Self.envelope("b", "c", lmtp: true) + ["DATA", Self.content]
                + Self.envelope("d", "e", lmtp: true).dropFirst() + ["DATA", Self.content, "QUIT"]
            client.send(lines.joined(separator: "\r\n") + "\r\n")
            #expect(
                client.codes() == [220, 250, 250, 250, 250, 354, 250, 250, 250, 250, 550, 354, 250, 221])
            let recipients = ["b", "c", "d"].map { "RCPT TO:<\($0)@example.com>" }
            #expect(running.hop.messages.map { $0.envelope[1] } == recipients)
        }
    }

    @Test("A stop leaves recipients of an LMTP server the replies that they have")
    func stopBetweenReplies() async throws {
        try await RunningFilter.run(
            hop: [[".2": .silence]], client: .lmtp, nextHop: .lmtp, stops: true
        ) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", "c", "d", lmtp: true) + ["DATA"]).last == 354)
            client.send(Self.content + "\r\n")
            #expect(running.hop.waitForSilence())
            #expect(client.reply() == "250 2.1.5 Ok")
            await running.filter.stop(by: .now())
            #expect(client.codes() == [421, 421])
        }
    }

    /// Who has a reply is neither lost nor doubled.
    @Test("An LMTP server that goes away keeps whom it has answered", arguments: 1...3)
    func lmtpGoesAway(at recipient: Int) async throws {
        try await RunningFilter.run(
            hop: [[".\(recipient)": .close], [:]], client: .lmtp, nextHop: .lmtp
        ) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", "c", "d", lmtp: true) + ["DATA"]).last == 354)
            client.send(Self.content + "\r\n")
            let codes = (0..<3).map { _ in client.reply()?.prefix(3) }
            #expect(codes == (1...3).map { $0 < recipient ? "250" : "451" })
            #expect(running.hop.messages.count == recipient - 1)
        }
    }

    /// Between RSET and the new recipient, the transaction has none.
    @Test("A redirected message is deferred if the LMTP server goes away before its recipient")
    func lmtpGoesAwayAtRedirect() async throws {
        let hop: [ScriptedNextHop.Script] = [["RCPT TO:<r@example.com>": .close], [:]]
        try await RunningFilter.run(
            header: "/^Subject: to/ REDIRECT r@example.com", hop: hop, client: .lmtp, nextHop: .lmtp
        ) { running in
            let client = running.connect()
            let session = Self.envelope("b", "c", lmtp: true) + ["DATA", "Subject: to\r\n\r\nx\r\n."]
            #expect(client.converse(session).last == 451)
            #expect(client.reply()?.prefix(3) == "451")
            #expect(running.hop.messages.isEmpty)
        }
    }

    @Test("New headers go to the LMTP server as written: no cleanup is behind it")
    func lmtpNewHeaders() async throws {
        let rules = "/^Subject:/ PREPEND Return-Path: <x@example.org>"
        try await RunningFilter.run(header: rules, client: .lmtp, nextHop: .lmtp) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope("b", lmtp: true) + ["DATA", Self.content]).last == 250)
            let content = try #require(running.hop.messages.first).content
            #expect(content.contains("Return-Path: <x@example.org>\n"))
            #expect(!content.contains("X-Weir-Verdict"))
        }
    }

    @Test("A copy goes to the LMTP server with the message; what it can't carry out waits")
    func lmtpVerdicts() async throws {
        let rules = "/^Subject: copy/ BCC c@example.com\n/^Subject: hold/ HOLD\n/^Subject: to/ REDIRECT r@example.com"
        try await RunningFilter.run(header: rules, client: .lmtp, nextHop: .lmtp) { running in
            let client = running.connect()
            #expect(client.converse(["LHLO x"]) == [220, 250])
            for (subject, code) in [("copy", 250), ("hold", 451), ("to", 250)] {
                let envelope = Array(Self.envelope("a", "b", lmtp: true).dropFirst())
                let end = client.go(envelope + ["DATA", "Subject: \(subject)\r\n\r\nx\r\n."])
                #expect(end == [250, 250, 250, 354, code], "\(subject)")
                // The second recipient's.
                #expect(client.reply()?.prefix(3) == "\(code)", "\(subject)")
            }
            let names = running.hop.messages.map { $0.envelope[1].dropFirst("RCPT TO:<".count).prefix(1) }
            #expect(names == ["c", "a", "b", "r"])
            #expect(!running.hop.messages.contains { $0.content.contains("X-Weir-Verdict") })
        }
    }
}
