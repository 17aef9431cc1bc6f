// SPDX-License-Identifier: Apache-2.0
import Foundation
import NIOCore
import Testing
import Wire

/// Plays the transcripts of Fixtures/SMTP. Lines:
///
///     C: TEXT      the client sends a line            C< TEXT    it sends these bytes; \r \n \0 \\ are escapes
///     S: TEXT      a line of the session's replies    > STEP     a step for the caller
///     ! offer EHLO-KEYWORDS, separated by commas      ! answer CODE TEXT   of a recipient
///     ! finish CODE TEXT   of the message; several, separated by commas, for the recipients
///     ! pass CODE TEXT     of the message for the next recipient
///     ! close CODE TEXT    of the connection
///
/// `> endOfContent TEXT` shows all content of the message. At the end of the transcript, no reply or step may be left.
@Suite struct SMTPServerSessionTests {
    static let transcripts = Bundle.module.urls(forResourcesWithExtension: "transcript", subdirectory: "Fixtures/SMTP")!
        .compactMap { $0.lastPathComponent }.map { String($0.dropLast(".transcript".count)) }.sorted()

    @Test(arguments: transcripts, [true, false])
    func transcript(_ name: String, byteByByte: Bool) throws {
        let url = Bundle.module.url(forResource: name, withExtension: "transcript", subdirectory: "Fixtures/SMTP")!
        let player = Player(
            variant: name.hasPrefix("lmtp") ? .lmtp : .smtp,
            mostRecipients: name == "one-recipient-at-a-time" ? 1 : .max, byteByByte: byteByByte)
        for (index, line) in try String(contentsOf: url, encoding: .utf8).split(separator: "\n").enumerated() {
            if line.hasPrefix("#") { continue }
            let (mark, text) = (line.prefix(2), String(line.dropFirst(3)))
            let place = "\(name), command \(index + 1): \(line)"
            switch mark {
            case "C:": player.send(Array((text + "\r\n").utf8))
            case "C<": player.send(unescaped(text))
            case "S:": #expect(player.takeReply() == text, "\(place)")
            case "> ": #expect(player.takeStep() == String(line.dropFirst(2)), "\(place)")
            case "! ": player.call(String(line.dropFirst(2)))
            default: Issue.record("\(place): not a line of a transcript")
            }
        }
        #expect(player.takeReply() == nil)
        #expect(player.takeStep() == nil)
    }

    private final class Player {
        private var session: SMTPServerSession
        private let byteByByte: Bool
        private var content = ByteBuffer()
        private var replies: [String] = []
        private var steps: [String] = []

        init(variant: SMTPServerSession.Variant, mostRecipients: Int, byteByByte: Bool) {
            self.byteByByte = byteByByte
            session = SMTPServerSession(
                variant: variant, mostRecipients: mostRecipients, hostName: Array("mx.example.org".utf8),
                token: Array("token".utf8))
            run()
        }

        func send(_ bytes: [UInt8]) {
            for piece in byteByByte ? bytes.map({ [$0] }) : [bytes] {
                session.receive(all: piece)
                run()
            }
        }

        func call(_ text: String) {
            let words = text.split(separator: " ", maxSplits: 2).map(String.init)
            switch words[0] {
            case "offer":
                let lines = text.dropFirst(6).split(separator: ",").map { "250-\($0)\r\n" }.joined()
                session.offer(SMTPCapabilities(SMTPReply(code: 250, bytes: ByteBuffer(string: "250-x\r\n\(lines)"))))
            case "answer": session.answerRecipient(SMTPReply(Int(words[1])!, words[2]))
            case "finish" where text.contains(","):
                session.finish(
                    text.dropFirst("finish ".count).split(separator: ",").map {
                        SMTPReply(Int($0.prefix(3))!, String($0.dropFirst(4)))
                    })
            case "pass": session.answerContent([SMTPReply(Int(words[1])!, words[2])])
            case "finish": session.finish(SMTPReply(Int(words[1])!, words[2]))
            case "close": session.close(SMTPReply(Int(words[1])!, words[2]))
            default: Issue.record("unknown call: \(text)")
            }
            run()
        }

        private func run() {
            while let step = session.next(into: &content) {
                switch step {
                case .content, .answered: break
                case .recipient(let line): steps.append("recipient \(escaped(line))")
                case .endOfContent:
                    steps.append("endOfContent \(escaped(content))")
                    content.clear()
                default: steps.append("\(step)")
                }
            }
            guard session.output.readableBytes > 0 else { return }
            let text = String(buffer: session.output)
            session.output.clear()
            #expect(text.hasSuffix("\r\n"))
            replies += text.components(separatedBy: "\r\n").dropLast()
        }

        func takeReply() -> String? { replies.isEmpty ? nil : replies.removeFirst() }
        func takeStep() -> String? { steps.isEmpty ? nil : steps.removeFirst() }
    }

    /// Too many errors, endless lines and control characters close the connection.
    @Test func rubbishClosesTheConnection() {
        for (rubbish, reply) in [
            (String(repeating: "x", count: 5_000), "421 4.5.2 Error: line too long\r\n"),
            ("EHLO " + String(repeating: "x", count: 1 << 20), "421 4.5.2 Error: line too long\r\n"),
            (String(repeating: "X\r\n", count: 21), "421 4.7.0 Error: too many errors\r\n"),
            ("NOOP\n", "421 4.5.2 Error: control character or bare <LF> in a command\r\n"),
            ("NOOP\0\r\n", "421 4.5.2 Error: control character or bare <LF> in a command\r\n"),
            ("NO\rOP\r\n", "421 4.5.2 Error: control character or bare <LF> in a command\r\n"),
        ] {
            var session = SMTPServerSession(variant: .smtp, hostName: [0x61], token: [0x62])
            var content = ByteBuffer()
            session.receive(all: Array(rubbish.utf8))
            while session.next(into: &content) != nil {}
            #expect(session.isClosed == true)
            #expect(String(buffer: session.output).hasSuffix(reply))
        }
    }

    /// One error too many closes the session, whatever the command.
    @Test(arguments: [
        "X", "RSET x", "EHLO", "HELO", "LHLO x", "MAIL", "RCPT", "RCPT TO:<a@example.org>", "DATA", "DATA x",
        "XFORWARD",
    ])
    func oneErrorTooMany(_ command: String) {
        var session = SMTPServerSession(variant: .smtp, hostName: [0x61], token: [0x62])
        var content = ByteBuffer()
        session.receive(all: Array((String(repeating: "X\r\n", count: 20) + command + "\r\n").utf8))
        for _ in 1...20 { #expect(session.next(into: &content) == .answered) }
        #expect(session.next(into: &content) == .closed)
        #expect(session.isClosed == true)
        #expect(session.next(into: &content) == nil)
    }

    /// The bound on errors applies between accepted messages, not to the whole connection.
    @Test func anAcceptedMessageResetsTheErrors() {
        var session = SMTPServerSession(variant: .smtp, hostName: [0x61], token: [0x62])
        var content = ByteBuffer()
        func run(_ text: String) {
            session.receive(all: Array(text.utf8))
            while let step = session.next(into: &content) {
                if case .recipient = step { session.answerRecipient(SMTPReply(250, "2.1.5 Ok")) }
                if step == .endOfContent { session.finish(SMTPReply(250, "2.0.0 Ok")) }
            }
        }
        run("HELO a\r\n")
        for _ in 0..<50 { run("X\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n.\r\n") }
        #expect(session.isClosed == false)
        run(String(repeating: "X\r\n", count: 21))
        #expect(session.isClosed == true)
    }
}

@Suite struct SMTPClientSessionTests {
    private let ehlo =
        "250-sink.example.org\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250-CHUNKING\r\n250 8BITMIME\r\n"

    private func session(_ extensions: String) throws -> SMTPClientSession {
        var session = SMTPClientSession(
            variant: .smtp, hostName: Array("mx.example.org".utf8), token: Array("token".utf8))
        session.receive(all: Array("220 sink.example.org ESMTP\r\n".utf8))
        #expect(try session.next() == nil)
        #expect(takeOutput(&session) == "EHLO mx.example.org\r\n")
        session.receive(all: Array(extensions.utf8))
        #expect(try session.next() == .ready)
        return session
    }

    private func takeOutput(_ session: inout SMTPClientSession) -> String {
        defer { session.output.clear() }
        return String(buffer: session.output)
    }

    private func replies(_ session: inout SMTPClientSession, _ bytes: String) throws -> [SMTPClientSession.Event] {
        var events: [SMTPClientSession.Event] = []
        for byte in bytes.utf8 {
            session.receive(all: [byte])
            while let event = try session.next() { events.append(event) }
        }
        return events
    }

    @Test func commandsAreGroupedWithPipelining() throws {
        var session = try session("250-x\r\n250 PIPELINING\r\n")
        session.send(.mail, "MAIL FROM:<>\r\n")
        session.send(.recipient, "RCPT TO:<a@example.org>\r\n")
        session.send(.data, "DATA\r\n")
        session.send(.reset, "RSET\r\n")
        #expect(takeOutput(&session) == "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n")
        let events = try replies(&session, "250 a\r\n250-b\r\n250 c\r\n354 d\r\n")
        #expect(
            events == [
                .reply(.mail, SMTPReply(250, "a")),
                .reply(.recipient, SMTPReply(code: 250, bytes: ByteBuffer(string: "250-b\r\n250 c\r\n"))),
                .reply(.data, SMTPReply(354, "d")),
            ])
        #expect(takeOutput(&session) == "RSET\r\n")
    }

    @Test func commandsGoOneByOneWithoutPipelining() throws {
        var session = try session(ehlo)
        #expect(session.capabilities.extensions == [.size, .eightBitMIME])
        #expect(session.capabilities.size == 1000)
        session.send(.mail, "MAIL FROM:<>\r\n")
        session.send(.recipient, "RCPT TO:<a@example.org>\r\n")
        #expect(takeOutput(&session) == "MAIL FROM:<>\r\n")
        #expect(try replies(&session, "550 5.1.8 no\r\n") == [.reply(.mail, SMTPReply(550, "5.1.8 no"))])
        #expect(takeOutput(&session) == "RCPT TO:<a@example.org>\r\n")
        #expect(session.isIdle == false)
    }

    @Test(arguments: ["500 5.5.1 what", "502 no", "504-no\r\n504 no"])
    func sendsHELOIfEHLOIsUnknown(_ refusal: String) throws {
        var session = greeted(.smtp)
        #expect(takeOutput(&session) == "EHLO mx.example.org\r\n")
        #expect(try replies(&session, refusal + "\r\n") == [])
        #expect(takeOutput(&session) == "HELO mx.example.org\r\n")
        // Extensions in the reply to HELO are ignored.
        #expect(try replies(&session, "250-x\r\n250-PIPELINING\r\n250 8BITMIME\r\n") == [.ready])
        #expect(session.capabilities == SMTPCapabilities())
        session.send(.mail, "MAIL FROM:<>\r\n")
        session.send(.recipient, "RCPT TO:<a@example.org>\r\n")
        #expect(takeOutput(&session) == "MAIL FROM:<>\r\n")
    }

    @Test(arguments: [
        ("EHLO", "550 5.7.1 not you"), ("EHLO", "421 busy"), ("EHLO", "501 what name"), ("HELO", "502 no"),
        ("LHLO", "500 this is SMTP"), ("LHLO", "502 no"),
    ])
    func isRefused(at command: String, _ refusal: String) throws {
        var session = greeted(command == "LHLO" ? .lmtp : .smtp)
        if command == "HELO" { #expect(try replies(&session, "502 no\r\n") == []) }
        #expect(takeOutput(&session).contains(command))
        let reply = SMTPReply(Int(refusal.prefix(3))!, String(refusal.dropFirst(4)))
        #expect(try replies(&session, refusal + "\r\n") == [.refused(reply)])
        #expect(takeOutput(&session) == "")
    }

    /// LMTP answers for each recipient that it has accepted since MAIL or RSET.
    @Test func finalRepliesOfLMTP() throws {
        var session = greeted(.lmtp)
        #expect(takeOutput(&session) == "LHLO mx.example.org\r\n")
        #expect(try replies(&session, "250-x\r\n250 PIPELINING\r\n") == [.ready])
        for verdicts in ["250", "250 450 250 550", "550 250"] {
            session.send(.mail, "MAIL FROM:<>\r\n")
            for _ in verdicts.split(separator: " ") { session.send(.recipient, "RCPT TO:<a@example.org>\r\n") }
            let codes = verdicts.split(separator: " ")
            _ = try replies(&session, "250 Ok\r\n" + codes.map { "\($0) x\r\n" }.joined())
            session.endData()
            for count in stride(from: codes.count { $0 == "250" }, to: 0, by: -1) {
                #expect(session.isIdle == false, "\(verdicts), \(count) left")
                #expect(try replies(&session, "250 Ok\r\n") == [.reply(.endOfData, SMTPReply(250, "Ok"))])
            }
            #expect(session.isIdle == true, "\(verdicts)")
        }
    }

    private func greeted(_ variant: SMTPServerSession.Variant) -> SMTPClientSession {
        var session = SMTPClientSession(
            variant: variant, hostName: Array("mx.example.org".utf8), token: Array("token".utf8))
        session.receive(all: Array("220 sink.example.org\r\n".utf8))
        #expect(throws: Never.self) { try session.next() }
        return session
    }

    @Test func detectsALoop() throws {
        var session = SMTPClientSession(variant: .smtp, hostName: [0x61], token: Array("token".utf8))
        session.receive(all: Array("220 a ESMTP token\r\n".utf8))
        #expect(try session.next() == .loop)
    }

    @Test(arguments: [
        ("250 a\r\n", SMTPReplyFault.unexpected), ("hello\r\n", .notReply), ("199 a\r\n", .notReply),
        ("600 a\r\n", .notReply), ("250x\r\n", .notReply), ("25\r\n", .notReply),
        ("250-a\r\n251 b\r\n", .codesDiffer), ("250 " + String(repeating: "x", count: 3_000), .tooLong),
        (String(repeating: "250-" + String(repeating: "x", count: 1_000) + "\r\n", count: 100), .tooLong),
    ])
    func invalidReplies(_ bytes: String, _ fault: SMTPReplyFault) throws {
        var session = try session(ehlo)
        if fault != .unexpected { session.send(.mail, "MAIL FROM:<>\r\n") }
        #expect(throws: fault) { try replies(&session, bytes) }
    }

    @Test func controlCharactersInRepliesAreNotRelayed() throws {
        var session = try session(ehlo)
        session.send(.mail, "MAIL FROM:<>\r\n")
        let events = try replies(&session, "250 a\rb\0c\n")
        #expect(events == [.reply(.mail, SMTPReply(code: 250, bytes: ByteBuffer(string: "250 a b c\r\n")))])
        #expect(SMTPReply(550, "a\r\n250 b").bytes == ByteBuffer(string: "550 a  250 b\r\n"))
    }
}

extension SMTPClientSessionTests {
    @Test func offeredExtensionsMustBeCovered() {
        func capabilities(_ lines: String) -> SMTPCapabilities {
            SMTPCapabilities(SMTPReply(code: 250, bytes: ByteBuffer(string: "250-x\r\n\(lines)")))
        }
        let full = capabilities(
            "250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250-pipelining\r\n250 XFORWARD NAME SOURCE\r\n")
        #expect(full.covers(capabilities("250 DSN\r\n")))
        #expect(full.covers(full))
        #expect(!capabilities("250 DSN\r\n").covers(full))
        #expect(!capabilities("250 XFORWARD NAME\r\n").covers(capabilities("250 XFORWARD SOURCE\r\n")))
        var text = ByteBuffer()
        full.write(to: &text, host: "h".utf8)
        #expect(
            String(buffer: text)
                == "250-h\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 XFORWARD NAME SOURCE\r\n")
    }
}

private func unescaped(_ text: String) -> [UInt8] {
    Array(text.replacing("\\r", with: "\r").replacing("\\n", with: "\n").replacing("\\0", with: "\0").utf8)
}

private func escaped(_ buffer: ByteBuffer) -> String {
    String(buffer: buffer).replacing("\r\n", with: "\\r\\n").replacing("\0", with: "\\0")
}

extension SMTPServerSession {
    fileprivate mutating func receive(all bytes: [UInt8]) {
        _ = receive(upTo: bytes.count) {
            $0.copyBytes(from: bytes); return bytes.count
        }
    }
}

extension SMTPClientSession {
    fileprivate mutating func receive(all bytes: [UInt8]) {
        _ = receive(upTo: bytes.count) {
            $0.copyBytes(from: bytes); return bytes.count
        }
    }
}
