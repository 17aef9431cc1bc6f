// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The traffic of an SMTP load.
package final class SMTPTraffic: LoadTraffic {
    fileprivate let corpus: MessageCorpus
    private var messages: MessageSequence
    private let arrivals: Arrivals
    private var text: [UInt8] = []
    package private(set) var outcomes = OutcomeTally()
    package private(set) var trojan: TrojanReport?

    /// - Parameter arrivals: of the same mix; records what is sent.
    package init(_ mix: MessageMix, population: Population, arrivals: Arrivals) {
        corpus = arrivals.corpus
        messages = MessageSequence(arrivals.corpus, seed: mix.seed, population: population)
        trojan = population.trojan.map { _ in TrojanReport() }
        self.arrivals = arrivals
    }

    package func makeDialogue() -> SMTPDialogue { SMTPDialogue(traffic: self) }

    package func save() {}

    fileprivate func nextMessage(at time: TimeAmount) -> LoadMessage {
        let message = messages.next(at: time)
        arrivals.sent(message)
        return message
    }

    fileprivate func sentAgain(_ message: LoadMessage) { arrivals.sentAgain(message) }

    fileprivate func refused(recipient index: Int, of message: LoadMessage) {
        arrivals.refused(recipient: index, of: message)
    }

    /// Writes with one copy (see Bytes+Text.swift).
    fileprivate func write(into output: inout ByteBuffer, _ body: (inout [UInt8]) -> Void) {
        text.removeAll(keepingCapacity: true)
        body(&text)
        output.writeBytes(text)
    }

    fileprivate func writeContent(of message: LoadMessage, into output: inout ByteBuffer) {
        write(into: &output) { corpus.writeHead(of: message, to: &$0) }
        output.writeBytes(corpus.templates[message.template].stuffed)
        output.writeStaticString(".\r\n")
    }

    fileprivate func record(code: Int, for message: LoadMessage, at time: TimeAmount) {
        let word = Array("\(code)".utf8)
        let isRefused = outcomes.count(word.span) { $0.first != "2" }
        if isRefused { arrivals.refused(message) } else { arrivals.accepted(message) }
        trojan?.count(isTrojan: message.person.isTrojan, isRefused: isRefused, at: time)
    }
}

/// Sends one message after another in one session.
///
/// ```
/// greeting -> EHLO (HELO) -> [MAIL, RCPT..., DATA] -> content -> [MAIL, ...
/// ```
/// With PIPELINING (RFC 2920) the envelope is sent at once, otherwise command by command. A transaction that fails
/// before the content ends with RSET.
package struct SMTPDialogue: LoadDialogue {
    /// What the server replies to.
    private enum Awaited: String {
        case greeting = "the connection", ehlo = "EHLO", helo = "HELO", mail = "MAIL", recipient = "RCPT", data = "DATA"
        case final = "the content", reset = "RSET"
    }

    private let traffic: SMTPTraffic
    private var message: LoadMessage?
    /// Whether an operation is in progress.
    private var isPending = false
    /// Outstanding replies, in order.
    private var awaited = CircularBuffer<Awaited>()
    private var pipelines = false
    private var isGreeted = false
    private var recipientsSent = 0
    private var recipientsAnswered = 0
    private var recipientsAccepted = 0
    /// The first negative reply of the transaction.
    private var refusal: Int?

    fileprivate init(traffic: SMTPTraffic) {
        self.traffic = traffic
    }

    package mutating func connected() {
        awaited = [.greeting]
        isGreeted = false
        pipelines = false
        isPending = false
    }

    package mutating func begin(into output: inout ByteBuffer, at time: TimeAmount) {
        if let message { traffic.sentAgain(message) } else { message = traffic.nextMessage(at: time) }
        isPending = true
        if isGreeted { sendEnvelope(into: &output) }
    }

    package mutating func receive(
        _ input: inout ByteBuffer, into output: inout ByteBuffer, at time: TimeAmount
    ) throws -> LoadStep {
        // The text is needed only for errors that refuse the session.
        while let reply = try SMTPReplyReader.next(from: &input, withText: !isGreeted) {
            guard let step = awaited.popFirst() else { throw MalformedReply(reason: "unexpected reply") }
            guard 400..<600 ~= reply.code || (step == .data ? 354...354 : 200...299) ~= reply.code else {
                throw MalformedReply(reason: "reply \(reply.code) to \(step.rawValue)")
            }
            if let code = try handle(reply, to: step, into: &output) {
                guard let message else { throw MalformedReply(reason: "unexpected reply") }
                // A server may end the session with 421 at any time.
                guard input.readableBytes == 0 || input.readableBytesView.starts(with: "421".utf8) else {
                    throw MalformedReply(reason: "more than one reply to one message")
                }
                traffic.record(code: code, for: message, at: time)
                self.message = nil
                isPending = false
                return .answered
            }
        }
        return .wait
    }

    /// - Returns: the final reply code of the message; nil if more replies follow.
    private mutating func handle(
        _ reply: SMTPReplyReader.Reply, to step: Awaited, into output: inout ByteBuffer
    ) throws -> Int? {
        let isPositive = 200..<300 ~= reply.code
        switch step {
        case .greeting:
            guard isPositive else { throw SessionRefused(reply: reply.text) }
            send("EHLO [127.0.0.1]\r\n", awaiting: .ehlo, into: &output)
        case .ehlo where 500..<600 ~= reply.code:
            send("HELO [127.0.0.1]\r\n", awaiting: .helo, into: &output)
        case .ehlo, .helo:
            guard isPositive else { throw SessionRefused(reply: reply.text) }
            pipelines = reply.hasPipelining
            isGreeted = true
            if isPending { sendEnvelope(into: &output) }
        case .mail:
            if !isPositive { refuse(reply.code) }
            if !pipelines { if isPositive { sendRecipient(into: &output) } else { return reply.code } }
        case .recipient:
            countRecipient(reply.code, isAccepted: isPositive)
            if !pipelines {
                if recipientsSent < message?.recipients ?? 0 {
                    sendRecipient(into: &output)
                } else if recipientsAccepted > 0 {
                    send("DATA\r\n", awaiting: .data, into: &output)
                } else {
                    send("RSET\r\n", awaiting: .reset, into: &output)
                }
            }
        case .data:
            guard let message else { throw MalformedReply(reason: "unexpected reply") }
            if reply.code == 354 {
                awaited.append(.final)
                if recipientsAccepted > 0 {
                    traffic.writeContent(of: message, into: &output)
                } else {
                    output.writeStaticString(".\r\n")
                }
            } else {
                refuse(reply.code)
                send("RSET\r\n", awaiting: .reset, into: &output)
            }
        case .final:
            return recipientsAccepted > 0 ? reply.code : refusal ?? reply.code
        case .reset:
            return refusal ?? reply.code
        }
        return nil
    }

    private mutating func countRecipient(_ code: Int, isAccepted: Bool) {
        if isAccepted {
            recipientsAccepted += 1
        } else {
            refuse(code)
            if let message { traffic.refused(recipient: recipientsAnswered, of: message) }
        }
        recipientsAnswered += 1
    }

    private mutating func refuse(_ code: Int) {
        if refusal == nil { refusal = code }
    }

    private mutating func send(_ line: StaticString, awaiting step: Awaited, into output: inout ByteBuffer) {
        output.writeStaticString(line)
        awaited.append(step)
    }

    private mutating func sendEnvelope(into output: inout ByteBuffer) {
        guard let message else { return }
        recipientsSent = 0
        recipientsAnswered = 0
        recipientsAccepted = 0
        refusal = nil
        traffic.write(into: &output) { bytes in
            bytes.append("MAIL FROM:<")
            traffic.corpus.writeSender(of: message, to: &bytes)
            bytes.append(">\r\n")
        }
        awaited.append(.mail)
        guard pipelines else { return }
        for _ in 0..<message.recipients { sendRecipient(into: &output) }
        send("DATA\r\n", awaiting: .data, into: &output)
    }

    private mutating func sendRecipient(into output: inout ByteBuffer) {
        guard let message else { return }
        let index = recipientsSent
        traffic.write(into: &output) { bytes in
            bytes.append("RCPT TO:<")
            traffic.corpus.writeRecipient(index, of: message, to: &bytes)
            bytes.append(">\r\n")
        }
        recipientsSent += 1
        awaited.append(.recipient)
    }
}

/// Parses SMTP replies (RFC 5321 4.2).
enum SMTPReplyReader {
    struct Reply {
        var code: Int
        var hasPipelining: Bool
        /// The last line; empty unless requested.
        var text = ""
    }

    private static let longest = 65_536

    /// Removes and returns the next complete reply; nil if there is none.
    static func next(from input: inout ByteBuffer, withText: Bool) throws(MalformedReply) -> Reply? {
        guard let (reply, length) = try first(in: input.readableBytesUInt8Span, withText: withText) else { return nil }
        input.moveReaderIndex(forwardBy: length)
        return reply
    }

    private static func first(in bytes: Span<UInt8>, withText: Bool) throws(MalformedReply) -> (Reply, length: Int)? {
        var reply = Reply(code: 0, hasPipelining: false)
        var start = 0
        while let end = bytes.firstIndex(of: UInt8(ascii: "\n"), from: start) {
            var line = bytes.extracting(start..<end)
            if line.count > 0, line[line.count - 1] == UInt8(ascii: "\r") { line = line.extracting(0..<line.count - 1) }
            guard line.count >= 3, let code = number(line.extracting(0..<3)) else {
                throw MalformedReply(reason: "a line without a reply code")
            }
            reply.code = code
            if line.count == 14, line.extracting(4..<14).isEqual(to: pipelining) { reply.hasPipelining = true }
            start = end + 1
            if line.count == 3 || line[3] != UInt8(ascii: "-") {
                if withText { reply.text = String(decoding: line.indices.map { line[$0] }, as: UTF8.self) }
                return (reply, start)
            }
        }
        guard bytes.count <= longest else { throw MalformedReply(reason: "longer than \(longest) bytes") }
        return nil
    }

    private static let pipelining = Array("PIPELINING".utf8)

    private static func number(_ digits: Span<UInt8>) -> Int? {
        var number = 0
        for index in digits.indices {
            guard UInt8(ascii: "0")...UInt8(ascii: "9") ~= digits[index] else { return nil }
            number = number * 10 + Int(digits[index] - UInt8(ascii: "0"))
        }
        return number
    }
}

extension Span<UInt8> {
    func firstIndex(of byte: UInt8, from start: Int) -> Int? {
        for index in start..<count where self[index] == byte { return index }
        return nil
    }
}
