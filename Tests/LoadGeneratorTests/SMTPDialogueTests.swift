// SPDX-License-Identifier: Apache-2.0
import LoadGenerator
import NIOCore
import Testing

@Suite struct SMTPDialogueTests {
    private static let greeting = "220 hello\r\n"
    private static let ehlo = "250-hello\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n"

    /// A session: the replies of the server, and the verbs sent after each. `<` is content.
    private struct Session {
        let traffic: SMTPTraffic
        var dialogue: SMTPDialogue
        var codes: [String: Int] { traffic.outcomes.counts }

        init(recipients: Int = 1) {
            var mix = MessageMix()
            mix.content = .text(size: 100)
            mix.recipients = recipients
            let arrivals = Arrivals(mix, run: "1x1", date: "Mon, 23 Nov 2026 12:00:00 +0000")
            traffic = SMTPTraffic(mix, population: Population(), arrivals: arrivals)
            dialogue = traffic.makeDialogue()
            dialogue.connected()
        }

        mutating func begin() -> String {
            var output = ByteBuffer()
            dialogue.begin(into: &output, at: .zero)
            return Self.verbs(output)
        }

        /// - Returns: the verbs, and a dot at the end of a message.
        mutating func say(_ text: String) throws -> String {
            var input = ByteBuffer(string: text), output = ByteBuffer()
            let step = try dialogue.receive(&input, into: &output, at: .zero)
            return Self.verbs(output) + (step == .answered ? "." : "")
        }

        private static func verbs(_ output: ByteBuffer) -> String {
            let text = String(buffer: output)
            if text.hasSuffix("\r\n.\r\n") { return "<" }
            return text.split(separator: "\r\n").map { $0.prefix { $0 != " " && $0 != "." } }.joined(separator: " ")
        }
    }

    @Test func `sends the envelope at once with PIPELINING`() throws {
        var session = Session(recipients: 2)
        #expect(session.begin() == "")
        #expect(try session.say(Self.greeting) == "EHLO")
        #expect(try session.say(Self.ehlo) == "MAIL RCPT RCPT DATA")
        #expect(try session.say("250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n") == "<")
        #expect(try session.say("250 taken\r\n") == ".")
        #expect(session.begin() == "MAIL RCPT RCPT DATA")
        #expect(session.codes == ["250": 1])
    }

    @Test(arguments: ["250 ok\r\n250 ok\r\n250 ok\r\n", "354 ok\r\n", "250 ok\r\n250 ok\r\n399 go\r\n"])
    func `a reply that does not fit its command is malformed`(replies: String) throws {
        var session = Session()
        _ = session.begin()
        _ = try session.say(Self.greeting)
        _ = try session.say(Self.ehlo)
        #expect(throws: MalformedReply.self) { try session.say(replies) }
        #expect(session.codes.isEmpty)
    }

    @Test(arguments: ["354 what\r\n", "250 taken\r\n250 taken\r\n"])
    func `so is one to the content, and a second one`(replies: String) throws {
        var session = Session()
        _ = session.begin()
        _ = try session.say(Self.greeting)
        _ = try session.say(Self.ehlo)
        #expect(try session.say("250 ok\r\n250 ok\r\n354 go\r\n") == "<")
        #expect(throws: MalformedReply.self) { try session.say(replies) }
        #expect(session.codes.isEmpty)
    }

    @Test func `the server may end the session after a message`() throws {
        var session = Session()
        _ = session.begin()
        _ = try session.say(Self.greeting)
        _ = try session.say(Self.ehlo)
        #expect(try session.say("250 ok\r\n250 ok\r\n354 go\r\n") == "<")
        #expect(try session.say("250 taken\r\n421 bye\r\n") == ".")
        #expect(session.codes == ["250": 1])
    }

    @Test func `sends command by command without PIPELINING, and HELO after a refused EHLO`() throws {
        var session = Session(recipients: 2)
        #expect(try session.say(Self.greeting) == "EHLO")
        #expect(try session.say("502 what\r\n") == "HELO")
        #expect(try session.say("250 hello\r\n") == "")
        #expect(session.begin() == "MAIL")
        #expect(try session.say("250 ok\r\n") == "RCPT")
        #expect(try session.say("250 ok\r\n") == "RCPT")
        #expect(try session.say("250 ok\r\n") == "DATA")
        #expect(try session.say("354 go\r\n") == "<")
        #expect(try session.say("250-two\r\n250 lines\r\n") == ".")
        #expect(session.codes == ["250": 1])
    }

    @Test func `ends a failed transaction with RSET, and counts its first refusal`() throws {
        var session = Session()
        #expect(session.begin() == "")
        _ = try session.say(Self.greeting)
        _ = try session.say(Self.ehlo)
        #expect(try session.say("250 ok\r\n450 4.7.1 later\r\n554 no recipients\r\n") == "RSET")
        #expect(try session.say("250 ok\r\n") == ".")
        #expect(session.begin() == "MAIL RCPT DATA")
        #expect(try session.say("250 ok\r\n550 no\r\n354 go\r\n") == "")
        #expect(try session.say("554 no recipients\r\n") == ".")
        #expect(session.begin() == "MAIL RCPT DATA")
        #expect(try session.say("250 ok\r\n250 ok\r\n354 go\r\n") == "<")
        #expect(try session.say("550 5.7.1 spam\r\n") == ".")
        #expect(session.codes == ["450": 1, "550": 2])
        #expect(session.traffic.outcomes.refusals == 3)
    }

    @Test func `resends the same message over a new connection`() throws {
        var session = Session()
        _ = session.begin()
        _ = try session.say(Self.greeting)
        _ = try session.say(Self.ehlo)
        _ = try session.say("250 ok\r\n250 ok\r\n")
        session.dialogue.connected()
        #expect(session.begin() == "")
        #expect(try session.say(Self.greeting + Self.ehlo) == "EHLO MAIL RCPT DATA")
    }

    @Test(arguments: ["hello\r\n", "2\r\n", "250-\r\nrubbish\r\n"])
    func `what is no greeting ends the session`(text: String) {
        var session = Session()
        #expect(throws: MalformedReply.self) { try session.say(text) }
    }

    @Test(arguments: ["421 4.3.2 go away\r\n", "554-one\r\n554 4.3.2 go away\r\n"])
    func `a greeting that refuses is told in its words`(text: String) {
        var session = Session()
        #expect(throws: SessionRefused(reply: "\(text.prefix(3)) 4.3.2 go away")) { try session.say(text) }
    }

    @Test(arguments: ["421 4.3.2 too busy\r\n", "450 4.3.2 too busy\r\n"])
    func `a server that is busy at EHLO is not asked by HELO`(text: String) throws {
        var session = Session()
        _ = try session.say(Self.greeting)
        #expect(throws: SessionRefused(reply: "\(text.prefix(3)) 4.3.2 too busy")) { try session.say(text) }
    }

    @Test func `a refused HELO is reported with its reply`() throws {
        var session = Session()
        _ = try session.say(Self.greeting)
        #expect(try session.say("502 what\r\n") == "HELO")
        #expect(throws: SessionRefused(reply: "550 not you")) { try session.say("550 not you\r\n") }
    }

    @Test func `replies may arrive in pieces`() throws {
        var session = Session()
        _ = session.begin()
        var input = ByteBuffer(), output = ByteBuffer()
        for byte in (Self.greeting + Self.ehlo + "250 ok\r\n250 ok\r\n354 go\r\n").utf8 {
            input.writeInteger(byte)
            _ = try session.dialogue.receive(&input, into: &output, at: .zero)
        }
        #expect(input.readableBytes == 0)
        #expect(String(buffer: output).hasSuffix("\r\n.\r\n"))
    }
}

@Suite struct MilterDialogueTests {
    /// A packet: length, command and payload.
    private func packet(_ text: String, _ numbers: UInt32...) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(text.utf8.count + 4 * numbers.count))
        buffer.writeString(text)
        for number in numbers { buffer.writeInteger(number) }
        return buffer
    }

    private func letters(_ output: ByteBuffer) throws -> String {
        var (output, letters) = (output, "")
        while let length: UInt32 = output.readInteger() {
            let bytes = output.readBytes(length: Int(length))
            let packet = try #require(bytes)
            letters.append(Character(UnicodeScalar(packet[0])))
        }
        return letters
    }

    private func makeDialogue(
        recipients: Int = 1, content: MessageMix.Content = .text(size: 100)
    ) -> (MilterTraffic, MilterDialogue) {
        var mix = MessageMix()
        mix.content = content
        mix.recipients = recipients
        let traffic = MilterTraffic(
            mix, population: Population(), run: "1x1", date: "Mon, 23 Nov 2026 12:00:00 +0000")
        return (traffic, traffic.makeDialogue())
    }

    @Test func `sends all steps and waits for each reply`() throws {
        var (traffic, dialogue) = makeDialogue(recipients: 2)
        dialogue.connected()
        var output = ByteBuffer()
        dialogue.begin(into: &output, at: .zero)
        #expect(try letters(output) == "O")
        var shown: [String] = []
        var reply = packet("O", 6, 0x1ff, 0)
        for _ in 0..<40 {
            output.clear()
            let step = try dialogue.receive(&reply, into: &output, at: .zero)
            shown.append(try letters(output))
            if step == .answered { break }
            reply = packet("c")
        }
        let fields = Array(repeating: "L", count: 8)
        #expect(shown == ["DC", "H", "DM", "DR", "DR", "T"] + fields + ["N", "B", "DE", ""])
        #expect(traffic.outcomes.counts == ["continue": 1])
        output.clear()
        dialogue.begin(into: &output, at: .zero)
        #expect(try letters(output) == "DM")
    }

    @Test func `skips declined steps, and does not wait where the milter does not reply`()
        throws
    {
        var (traffic, dialogue) = makeDialogue(content: .text(size: 200_000))
        dialogue.connected()
        var output = ByteBuffer()
        dialogue.begin(into: &output, at: .zero)
        output.clear()
        // No CONNECT, HELO and DATA; no replies to headers and body.
        var reply = packet("O", 6, 0x1ff, 0x1 | 0x2 | 0x200 | 0x80 | 0x40000 | 0x80000)
        #expect(try dialogue.receive(&reply, into: &output, at: .zero) == .wait)
        #expect(try letters(output) == "DM")
        output.clear()
        reply = packet("c")
        _ = try dialogue.receive(&reply, into: &output, at: .zero)
        #expect(try letters(output) == "DR")
        output.clear()
        reply = packet("c")
        _ = try dialogue.receive(&reply, into: &output, at: .zero)
        #expect(try letters(output) == "LLLLLLLLNBBBBDE")
        // Modifications, then the final reply.
        var replies = packet("mSubject\u{0}x\u{0}")
        replies.writeImmutableBuffer(packet("p"))
        replies.writeImmutableBuffer(packet("a"))
        #expect(try dialogue.receive(&replies, into: &output, at: .zero) == .answered)
        #expect(traffic.outcomes.counts == ["accept": 1])
    }

    @Test func `a second final reply is malformed`() throws {
        var (traffic, dialogue) = makeDialogue()
        dialogue.connected()
        var output = ByteBuffer()
        dialogue.begin(into: &output, at: .zero)
        var reply = packet("O", 6, 0x1ff, 0x1 | 0x2 | 0x200 | 0x80 | 0x40000 | 0x80000)
        _ = try dialogue.receive(&reply, into: &output, at: .zero)
        for _ in 0..<2 {
            reply = packet("c")
            _ = try dialogue.receive(&reply, into: &output, at: .zero)
        }
        var replies = packet("a")
        replies.writeImmutableBuffer(packet("a"))
        #expect(throws: MalformedReply.self) { try dialogue.receive(&replies, into: &output, at: .zero) }
        #expect(traffic.outcomes.counts.isEmpty)
    }

    @Test(arguments: ["r", "t", "y451 later\u{0}"])
    func `a milter that refuses the connection refuses the session`(reply: String) throws {
        var (traffic, dialogue) = makeDialogue()
        dialogue.connected()
        var output = ByteBuffer()
        dialogue.begin(into: &output, at: .zero)
        var input = packet("O", 6, 0x1ff, 0)
        _ = try dialogue.receive(&input, into: &output, at: .zero)
        input = packet(reply)
        #expect(throws: SessionRefused.self) { try dialogue.receive(&input, into: &output, at: .zero) }
        #expect(traffic.outcomes.counts.isEmpty)
    }

    @Test func `a refusal ends the message, unless another recipient is accepted`() throws {
        var (traffic, dialogue) = makeDialogue(recipients: 2)
        dialogue.connected()
        var output = ByteBuffer()
        dialogue.begin(into: &output, at: .zero)
        func answer(_ reply: ByteBuffer) throws -> String {
            var reply = reply
            output.clear()
            let step = try dialogue.receive(&reply, into: &output, at: .zero)
            return try letters(output) + (step == .answered ? "." : "")
        }
        _ = try answer(packet("O", 6, 0x1ff, 0x3))
        #expect(try answer(packet("c")) == "DR")
        #expect(try answer(packet("y451 later\u{0}")) == "DR")
        #expect(try answer(packet("c")) == "T")
        #expect(try answer(packet("r")) == "A.")
        dialogue.begin(into: &output, at: .zero)
        #expect(try answer(packet("c")) == "DR")
        #expect(try answer(packet("t")) == "DR")
        #expect(try answer(packet("t")) == "A.")
        #expect(traffic.outcomes.counts == ["reject": 1, "tempfail": 1])
        #expect(traffic.outcomes.refusals == 2)
    }

    @Test func `malformed replies end the session`() {
        for reply in [packet(""), packet("x"), packet("O", 6), packet("h")] {
            var (_, dialogue) = makeDialogue()
            dialogue.connected()
            var output = ByteBuffer(), input = reply
            dialogue.begin(into: &output, at: .zero)
            #expect(throws: MalformedReply.self) { try dialogue.receive(&input, into: &output, at: .zero) }
        }
    }
}
