// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// Our side of a connection to the next hop, in SMTP (RFC 5321) or LMTP (RFC 2033): sends commands, and matches replies
/// to them.
///
///     connected -- 220 --> EHLO -- 250 --> ready <--> commands, each answered in turn
///                           |                ^
///                           | 500, 502, 504  | 250
///                           +---> HELO ------+
///
/// LMTP says LHLO instead of EHLO, and does without HELO. It answers the final dot once for each recipient that it has
/// accepted.
///
/// Commands wait until the next hop is ready. If it offers PIPELINING (RFC 2920), they are sent in groups; DATA, the
/// end of data and QUIT must be the last of a group. The caller writes the content itself, after the reply 354 to
/// `.data`, and then calls `endData`.
///
/// Reset for each message: the number of accepted recipients. Kept for the connection: the capabilities, and the
/// unanswered commands.
package struct SMTPClientSession: ~Copyable {
    package enum Command: Equatable, Sendable {
        case greeting, ehlo, helo, xforward, mail, recipient, data, endOfData, reset, quit

        /// Whether nothing may be sent after it until its reply arrives.
        var endsGroup: Bool {
            switch self {
            case .greeting, .ehlo, .helo, .data, .endOfData, .quit: true
            case .xforward, .mail, .recipient, .reset: false
            }
        }
    }

    package enum Event: Equatable, Sendable {
        /// EHLO, HELO or LHLO was accepted; `capabilities` is set.
        case ready
        case reply(Command, SMTPReply)
        /// The next hop has refused the connection or its EHLO, HELO or LHLO, or is closing an idle connection (421).
        case refused(SMTPReply)
        /// The greeting has our own token: the next hop is this service.
        case loop
    }

    private let variant: SMTPServerSession.Variant
    private let hostName: [UInt8]
    /// A word that all our own greetings contain, to detect a loop.
    private let token: [UInt8]
    private var parser = SMTPReplyParser()
    private var input = ByteBuffer()
    /// Sent and not answered yet.
    private var unanswered: [Command] = [.greeting]
    /// Not sent yet.
    private var waiting: [(command: Command, line: ByteBuffer)] = []
    private var isReady = false
    /// Recipients of the transaction that the next hop has accepted.
    private var accepted = 0
    /// Bytes for the next hop. The caller sends them and removes what was sent.
    package var output = ByteBuffer()
    /// The next hop's capabilities, once `ready`.
    package private(set) var capabilities = SMTPCapabilities()

    package init(variant: SMTPServerSession.Variant, hostName: [UInt8], token: [UInt8]) {
        self.variant = variant
        self.hostName = hostName
        self.token = token
    }

    /// Whether the session is ready and all commands have been answered.
    package var isIdle: Bool { isReady && unanswered.isEmpty && waiting.isEmpty }

    /// Received bytes of further replies.
    package var unreadBytes: Int { input.readableBytes }

    /// Sends a command now, or as soon as its turn comes.
    ///
    /// - Parameter line: the command, including CRLF.
    package mutating func send(_ command: Command, _ line: ByteBuffer) {
        if waiting.isEmpty, maySend {
            write(command, line)
        } else {
            waiting.append((command, line))
        }
    }

    package mutating func send(_ command: Command, _ line: StaticString) {
        var buffer = ByteBuffer()
        buffer.writeStaticString(line)
        send(command, buffer)
    }

    /// Tells the session that the caller has written the content and the final dot.
    package mutating func endData() {
        let replies = variant == .lmtp ? max(1, accepted) : 1
        unanswered.append(contentsOf: repeatElement(.endOfData, count: replies))
    }

    /// Whether the next hop takes another command now.
    private var maySend: Bool {
        guard isReady else { return false }
        guard let last = unanswered.last else { return true }
        return capabilities.extensions.contains(.pipelining) && !last.endsGroup
    }

    private mutating func write(_ command: Command, _ line: ByteBuffer) {
        output.writeImmutableBuffer(line)
        unanswered.append(command)
    }

    private mutating func sendWaiting() {
        var count = 0
        while count < waiting.count, maySend {
            write(waiting[count].command, waiting[count].line)
            count += 1
        }
        waiting.removeFirst(count)
    }

    /// Adds received bytes, as `ByteBuffer.receive` does.
    package mutating func receive(upTo most: Int, _ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        input.receive(upTo: most, read)
    }

    /// The event of the next reply; nil until a reply is complete.
    package mutating func next() throws(SMTPReplyFault) -> Event? {
        guard let reply = try parser.next(&input) else {
            input.giveUpRead()
            return nil
        }
        guard let command = unanswered.first else {
            // A server may announce that it closes an idle connection (RFC 5321 3.8).
            if reply.code == 421 { return .refused(reply) }
            throw .unexpected
        }
        unanswered.removeFirst()
        defer { sendWaiting() }
        switch command {
        case .greeting:
            guard reply.code == 220 else { return .refused(reply) }
            guard !reply.bytes.readableBytesView.contains(sequence: token) else { return .loop }
            greet(.ehlo, variant == .lmtp ? "LHLO " : "EHLO ")
            return try next()
        // It does not know EHLO (RFC 5321 3.2).
        case .ehlo where variant == .smtp && [500, 502, 504].contains(reply.code):
            greet(.helo, "HELO ")
            return try next()
        case .ehlo, .helo:
            guard reply.code == 250 else { return .refused(reply) }
            if command == .ehlo { capabilities = SMTPCapabilities(reply) }
            isReady = true
            return .ready
        // What follows at once can't be the reply to content that is not sent yet.
        case .data where reply.code == 354 && input.readableBytes > 0: throw .unexpected
        case .xforward, .mail, .recipient, .data, .endOfData, .reset, .quit:
            count(command, reply)
            return .reply(command, reply)
        }
    }

    private mutating func greet(_ command: Command, _ word: StaticString) {
        output.writeStaticString(word)
        output.writeBytes(hostName)
        output.writeStaticString("\r\n")
        unanswered.append(command)
    }

    private mutating func count(_ command: Command, _ reply: SMTPReply) {
        switch command {
        case .mail, .reset: accepted = 0
        case .recipient: if reply.isPositive { accepted += 1 }
        case .greeting, .ehlo, .helo, .xforward, .data, .endOfData, .quit: break
        }
    }
}

extension ByteBufferView {
    /// Whether these bytes contain `sequence`, which must not be empty.
    fileprivate func contains(sequence: [UInt8]) -> Bool {
        indices.contains { self[$0...].starts(with: sequence) }
    }
}
