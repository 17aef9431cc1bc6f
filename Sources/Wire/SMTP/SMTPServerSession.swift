// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// Our side of a connection from a client, in SMTP (RFC 5321) or LMTP (RFC 2033): commands in, replies and steps out.
/// Steps are for the caller, which talks to the next hop.
///
///               EHLO: needsCapabilities         MAIL             RCPT: recipient
///     connected ------------------------> ready -----> mail  <---------------------+
///                                           ^           |  |                       |
///              RSET, EHLO: aborted          |           |  +-- answerRecipient ----+
///              <----------------------------+-----------+
///                                           |           | DATA, with an accepted recipient
///                                  finish   |           v
///                                           +-- ended <--- data
///                                                   CRLF.CRLF: endOfContent
///
/// The session accepts MAIL by itself. The caller sends it to the next hop with the first recipient, and answers RCPT
/// with the refusal if the next hop refuses MAIL. RCPT commands don't wait for each other's replies; any other command
/// waits until all of them are answered. Replies are sent in the order of the commands.
///
/// Reset for each message (RSET, EHLO, the final reply): `mail`, `xforward`, the numbers of recipients, the decoder.
/// Kept for the connection: the greeting, the offered capabilities, the errors since the last accepted message.
package struct SMTPServerSession: ~Copyable {
    package enum Variant: String, CaseIterable, Sendable {
        case smtp, lmtp
    }

    /// What the caller must do next.
    package enum Step: Equatable, Sendable {
        /// EHLO: call `offer`, or `close` with a reply.
        case needsCapabilities
        /// RCPT: send this line to the next hop, then call `answerRecipient`.
        case recipient(ByteBuffer)
        /// A command was answered, and there is nothing to do.
        case answered
        /// DATA was answered with 354; content follows.
        case beginContent
        /// Content was appended to the caller's buffer.
        case content
        /// The content is complete: call `finish`.
        case endOfContent
        /// The client has aborted the transaction: abort it at the next hop, too.
        case aborted
        /// Close the connection once the replies are sent.
        case closed
    }

    private enum State: Equatable {
        case ready, mail, data, ended, closed
        /// EHLO has arrived; `offer` is due.
        case offering
    }

    /// Bytes of a command line. RFC 5321 4.5.3.1.4 requires at least 512, and extensions add to that.
    package static let longestLine = 4_096
    /// The maximum of `unanswered`.
    private static let mostUnanswered = 100
    /// Recipients that the next hop may accept in one transaction.
    private let mostRecipients: Int
    /// Postfix's default for `smtpd_hard_error_limit`.
    private static let mostErrors = 20

    private let variant: Variant
    private let hostName: [UInt8]
    private var state = State.ready
    private var input = ByteBuffer()
    private var decoder = SMTPDataDecoder()
    private var errors = 0
    private var hasGreeted = false
    /// Recipients that the next hop has not answered yet.
    package private(set) var unanswered = 0
    /// Recipients that it has accepted.
    package private(set) var accepted = 0
    /// Accepted recipients for which an LMTP client has its final reply.
    private var answered = 0
    /// The capabilities in the reply to EHLO; nil after HELO.
    package private(set) var offered: SMTPCapabilities?
    /// The MAIL command of the transaction, including CRLF.
    package private(set) var mail = ByteBuffer()
    /// The XFORWARD commands before MAIL, including CRLF.
    package private(set) var xforward: [ByteBuffer] = []
    /// Bytes for the client. The caller sends them and removes what was sent.
    package var output = ByteBuffer()

    /// - Parameters:
    ///   - mostRecipients: the maximum of accepted recipients. Further ones are deferred, and the client sends the
    ///     message again for them (RFC 5321 4.5.3.1.10).
    ///   - token: a word of the greeting, by which `SMTPClientSession` detects a loop.
    package init(variant: Variant, mostRecipients: Int = .max, hostName: [UInt8], token: [UInt8]) {
        self.variant = variant
        self.mostRecipients = mostRecipients
        self.hostName = hostName
        output.reserveCapacity(hostName.count + token.count + 16)
        output.writeStaticString("220 ")
        output.writeBytes(hostName)
        output.writeStaticString(variant == .smtp ? " ESMTP " : " LMTP ")
        output.writeBytes(token)
        output.writeStaticString("\r\n")
    }

    package var isClosed: Bool { state == .closed }
    /// Whether the client has sent QUIT.
    package private(set) var hasQuit = false
    /// Whether no transaction is open.
    package var isIdle: Bool { state == .ready }
    package var isReceivingContent: Bool { state == .data }
    /// Whether the session waits for `offer`, `answerRecipient` or `finish`.
    package var awaitsAnswer: Bool { state == .ended || state == .offering || unanswered > 0 }
    package var contentHasLeadingDot: Bool { decoder.hasLeadingDot }
    /// Received bytes that wait until earlier commands are answered.
    package var waitingBytes: Int { input.readableBytes }

    /// Adds received bytes, as `ByteBuffer.receive` does.
    package mutating func receive(upTo most: Int, _ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        input.receive(upTo: most, read)
    }

    /// The next step; nil until more bytes arrive, or the caller answers.
    package mutating func next(into content: inout ByteBuffer) -> Step? {
        let step = advance(into: &content)
        if step == nil { input.giveUpRead() }
        return step
    }

    private mutating func advance(into content: inout ByteBuffer) -> Step? {
        switch state {
        case .offering, .ended, .closed: return nil
        case .data:
            guard input.readableBytes > 0 else { return nil }
            guard decoder.decode(&input, into: &content) else { return .content }
            state = .ended
            return .endOfContent
        case .ready, .mail:
            guard let line = peekLine() else { return isClosed ? .closed : nil }
            let verb = SMTPVerb(line)
            let isRecipient = verb == .rcpt && argument(of: line).isRecipient
            guard unanswered == 0 || isRecipient && unanswered < min(Self.mostUnanswered, mostRecipients) else {
                return nil
            }
            input.moveReaderIndex(forwardBy: line.count + 2)
            return handle(verb, line)
        }
    }

    /// The command at the front without its line end, which must be CRLF; nil if it is incomplete or not acceptable.
    private mutating func peekLine() -> ByteBufferView? {
        let view = input.readableBytesView
        guard let newline = view.prefix(Self.longestLine).firstIndex(of: 0x0a) else {
            if view.count >= Self.longestLine { closeInTurn("4.5.2 Error: line too long") }
            return nil
        }
        let line = view[..<newline]
        // Servers disagree about a bare LF: one reads two commands where another reads one.
        guard line.last == 0x0d, !line.dropLast().contains(where: { $0 < 0x20 && $0 != 0x09 || $0 == 0x7f }) else {
            closeInTurn("4.5.2 Error: control character or bare <LF> in a command")
            return nil
        }
        return line.dropLast()
    }

    /// Closes the connection because of an invalid command, once the valid commands before it are answered.
    private mutating func closeInTurn(_ text: String) {
        if unanswered == 0 { close(SMTPReply(421, text)) }
    }

    private func argument(of line: ByteBufferView) -> ByteBufferView {
        line.drop { $0 != UInt8(ascii: " ") }.drop { $0 == UInt8(ascii: " ") }
    }

    private mutating func handle(_ verb: SMTPVerb, _ line: ByteBufferView) -> Step {
        // Any command may be one error too many.
        carryOut(verb, line, argument(of: line)) ?? (isClosed ? .closed : .answered)
    }

    private mutating func carryOut(_ verb: SMTPVerb, _ line: ByteBufferView, _ argument: ByteBufferView) -> Step? {
        switch verb {
        case .ehlo, .lhlo, .helo: return greet(verb, argument)
        case .mail: beginMail(line, argument)
        case .rcpt: return recipient(line, argument)
        case .data: return beginData(argument)
        case .xforward: addXForward(line)
        case .rset: return abort(argument)
        case .noop: reply(250, "2.0.0 Ok")
        case .vrfy: reply(252, "2.0.0 try it with RCPT")
        case .quit:
            hasQuit = true
            close(SMTPReply(221, "2.0.0 Bye"))
        case .unknown: fail(502, "5.5.2 Error: command not recognized")
        }
        return nil
    }

    private mutating func greet(_ verb: SMTPVerb, _ argument: ByteBufferView) -> Step? {
        guard (verb == .lhlo) == (variant == .lmtp) else {
            fail(500, variant == .lmtp ? "5.5.1 Error: this is LMTP, say LHLO" : "5.5.1 Error: this is SMTP, say EHLO")
            return nil
        }
        guard !argument.isEmpty else {
            fail(501, "5.5.4 Syntax: EHLO hostname")
            return nil
        }
        // EHLO aborts the transaction (RFC 5321 4.1.4). Return `aborted` first, and parse the same line again later.
        if state == .mail {
            reset()
            var line = ByteBuffer()
            line.writeStaticString(verb == .helo ? "HELO " : verb == .lhlo ? "LHLO " : "EHLO ")
            line.writeBytes(argument)
            line.writeStaticString("\r\n")
            line.writeImmutableBuffer(input)
            input = line
            return .aborted
        }
        xforward = []
        hasGreeted = true
        if verb == .helo {
            offered = nil
            reply(250, hostName)
            return nil
        }
        state = .offering
        return .needsCapabilities
    }

    /// Answers EHLO with these capabilities.
    package mutating func offer(_ capabilities: SMTPCapabilities) {
        guard state == .offering else { return }
        offered = capabilities
        capabilities.write(to: &output, host: hostName)
        state = .ready
    }

    private mutating func beginMail(_ line: ByteBufferView, _ argument: ByteBufferView) {
        guard hasGreeted else { return fail(503, "5.5.1 Error: send HELO/EHLO first") }
        guard state == .ready else { return fail(503, "5.5.1 Error: nested MAIL command") }
        guard argument.count > 5, argument.prefix(5).isWord("FROM:") else {
            return fail(501, "5.5.4 Syntax: MAIL FROM:<address>")
        }
        mail = ByteBuffer(command: line)
        state = .mail
        reply(250, "2.1.0 Ok")
    }

    private mutating func recipient(_ line: ByteBufferView, _ argument: ByteBufferView) -> Step? {
        guard state == .mail else { fail(503, "5.5.1 Error: need MAIL command"); return nil }
        guard argument.isRecipient else { fail(501, "5.5.4 Syntax: RCPT TO:<address>"); return nil }
        guard accepted < mostRecipients else { reply(452, "4.5.3 Error: too many recipients"); return nil }
        unanswered += 1
        return .recipient(ByteBuffer(command: line))
    }

    /// Answers the oldest unanswered RCPT.
    package mutating func answerRecipient(_ reply: SMTPReply) {
        guard unanswered > 0 else { return }
        unanswered -= 1
        if reply.isPositive { accepted += 1 }
        output.writeImmutableBuffer(reply.bytes)
    }

    private mutating func beginData(_ argument: ByteBufferView) -> Step? {
        guard argument.isEmpty else { fail(501, "5.5.4 Syntax: DATA"); return nil }
        guard state == .mail else { fail(503, "5.5.1 Error: need RCPT command"); return nil }
        guard accepted > 0 else { fail(554, "5.5.1 Error: no valid recipients"); return nil }
        reply(354, "End data with <CR><LF>.<CR><LF>")
        decoder = SMTPDataDecoder()
        state = .data
        return .beginContent
    }

    /// Sends the final reply; to an LMTP client once for each accepted recipient that has none (RFC 2033 4.2).
    package mutating func finish(_ reply: SMTPReply) {
        guard state == .ended else { return }
        for _ in 0..<finalReplies { output.writeImmutableBuffer(reply.bytes) }
        if reply.isPositive { errors = 0 }
        reset()
    }

    /// Sends final replies to an LMTP client, for its next accepted recipients. Others follow with `finish`.
    package mutating func answerContent(_ replies: some Collection<SMTPReply>) {
        guard state == .ended else { return }
        for reply in replies.prefix(finalReplies) {
            output.writeImmutableBuffer(reply.bytes)
            if reply.isPositive { errors = 0 }
        }
        answered += min(replies.count, finalReplies)
    }

    /// Sends the rest of the final replies of a next hop that answers for each accepted recipient.
    ///
    /// - Parameter replies: in the order of the recipients; the last one is for all further ones.
    package mutating func finish(_ replies: [SMTPReply]) {
        guard let last = replies.last else { return }
        answerContent(replies.dropLast())
        finish(last)
    }

    /// Final replies that the client does not have.
    private var finalReplies: Int { variant == .lmtp ? accepted - answered : 1 }

    private mutating func addXForward(_ line: ByteBufferView) {
        guard let offered, !offered.xforward.isEmpty else { return fail(502, "5.5.1 Error: XFORWARD is not offered") }
        guard state == .ready else { return fail(503, "5.5.1 Error: XFORWARD within a transaction") }
        let attributes = line.split(separator: UInt8(ascii: " ")).dropFirst()
        let areKnown = attributes.allSatisfy { attribute in
            let name = attribute.prefix { $0 != UInt8(ascii: "=") }
            return name.count < attribute.count && offered.xforward.contains { name.isWord($0.word) }
        }
        guard areKnown, !attributes.isEmpty else { return fail(501, "5.5.4 Error: bad XFORWARD attribute") }
        guard xforward.count < XForwardAttribute.allCases.count else {
            return fail(503, "5.5.1 Error: too many XFORWARD commands")
        }
        xforward.append(ByteBuffer(command: line))
        reply(250, "2.0.0 Ok")
    }

    private mutating func abort(_ argument: ByteBufferView) -> Step? {
        guard argument.isEmpty else { fail(501, "5.5.4 Syntax: RSET"); return nil }
        reply(250, "2.0.0 Ok")
        let hadTransaction = state == .mail
        reset()
        return hadTransaction ? .aborted : nil
    }

    private mutating func reset() {
        state = .ready
        mail = ByteBuffer()
        xforward = []
        accepted = 0
        answered = 0
        decoder = SMTPDataDecoder()
    }

    /// Closes the session with a last reply, which also answers all unanswered commands.
    package mutating func close(_ reply: SMTPReply) {
        guard state != .closed else { return }
        let lines =
            switch state {
            case .ended: max(1, finalReplies)
            case .mail, .ready: max(1, unanswered)
            case .data, .offering: 1
            case .closed: 0
            }
        for _ in 0..<lines { output.writeImmutableBuffer(reply.bytes) }
        unanswered = 0
        state = .closed
    }

    private mutating func reply(_ code: Int, _ text: some Collection<UInt8>) {
        output.writeSMTPReply(code, text)
    }

    private mutating func reply(_ code: Int, _ text: String) { reply(code, text.utf8) }

    /// Refuses a command. Closes the connection after too many errors since the last accepted message.
    private mutating func fail(_ code: Int, _ text: String) {
        errors += 1
        guard errors <= Self.mostErrors else { return close(SMTPReply(421, "4.7.0 Error: too many errors")) }
        reply(code, text)
    }
}

/// The verb of a command.
private enum SMTPVerb {
    case helo, ehlo, lhlo, mail, rcpt, data, rset, noop, vrfy, quit, xforward, unknown

    init(_ line: ByteBufferView) {
        let word = line.prefix { $0 != UInt8(ascii: " ") }
        self =
            if word.isWord("MAIL") { .mail } else if word.isWord("RCPT") { .rcpt } else if word.isWord("DATA") {
                .data
            } else if word.isWord("XFORWARD") { .xforward } else if word.isWord("EHLO") {
                .ehlo
            } else if word.isWord("LHLO") { .lhlo } else if word.isWord("HELO") { .helo } else if word.isWord("RSET") {
                .rset
            } else if word.isWord("NOOP") { .noop } else if word.isWord("VRFY") { .vrfy } else if word.isWord("QUIT") {
                .quit
            } else { .unknown }
    }
}

extension ByteBufferView {
    /// Whether this can be the argument of RCPT.
    fileprivate var isRecipient: Bool { count > 3 && prefix(3).isWord("TO:") }
}

extension ByteBuffer {
    /// A command, with CRLF added.
    fileprivate init(command line: ByteBufferView) {
        self.init()
        reserveCapacity(line.count + 2)
        writeBytes(line)
        writeStaticString("\r\n")
    }
}
