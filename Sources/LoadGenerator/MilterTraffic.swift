// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The traffic of a milter load.
package final class MilterTraffic: LoadTraffic {
    private var messages: MessageSequence
    package private(set) var outcomes = OutcomeTally()
    package private(set) var trojan: TrojanReport?

    /// - Parameters:
    ///   - run: a unique name, of letters and digits.
    ///   - date: the value of the Date: headers.
    package init(_ mix: MessageMix, population: Population, run: String, date: String) {
        messages = MessageSequence(
            MessageCorpus(mix, run: run, date: date), seed: mix.seed, population: population)
        trojan = population.trojan.map { _ in TrojanReport() }
    }

    package func makeDialogue() -> MilterDialogue { MilterDialogue(traffic: self) }

    package func save() {}

    fileprivate func nextMessage(at time: TimeAmount) -> MilterMessage {
        MilterMessage(messages.next(at: time), in: messages.corpus)
    }

    fileprivate func record(_ word: StaticString, isRefusal: Bool, for message: MilterMessage, at time: TimeAmount) {
        let bytes = word.withUTF8Buffer { Array($0) }
        _ = outcomes.count(bytes.span) { _ in isRefusal }
        trojan?.count(isTrojan: message.message.person.isTrojan, isRefused: isRefusal, at: time)
    }
}

/// A message, split as the milter protocol sends it.
private struct MilterMessage {
    let message: LoadMessage
    let sender: [UInt8]
    let recipients: [[UInt8]]
    /// Folded values have LF line endings, as in Postfix.
    let fields: [(name: [UInt8], value: [UInt8])]
    let body: ArraySlice<UInt8>

    init(_ message: LoadMessage, in corpus: MessageCorpus) {
        self.message = message
        var sender: [UInt8] = []
        corpus.writeSender(of: message, to: &sender)
        self.sender = sender
        recipients = (0..<message.recipients).map { index in
            var recipient: [UInt8] = []
            corpus.writeRecipient(index, of: message, to: &recipient)
            return recipient
        }
        var head: [UInt8] = []
        corpus.writeHead(of: message, to: &head)
        let template = corpus.templates[message.template].content
        let headerEnd = template.firstRange(of: [0x0d, 0x0a, 0x0d, 0x0a])
        head += template[..<(headerEnd?.lowerBound ?? template.endIndex)]
        body = template[(headerEnd?.upperBound ?? template.endIndex)...]
        fields = Self.fields(of: head)
    }

    private static func fields(of header: [UInt8]) -> [(name: [UInt8], value: [UInt8])] {
        var fields: [(name: [UInt8], value: [UInt8])] = []
        for line in header.split(separator: 0x0a) {
            let text = line.last == 0x0d ? line.dropLast() : line
            if let first = text.first, first == 0x20 || first == 0x09, !fields.isEmpty {
                fields[fields.count - 1].value += [0x0a] + text
            } else if let colon = text.firstIndex(of: UInt8(ascii: ":")) {
                fields.append((Array(text[..<colon]), Array(text[(colon + 1)...])))
            }
        }
        return fields
    }
}

/// Sends one message after another to a milter in one session, as Postfix does (milter8.c).
///
/// ```
/// OPTNEG -> CONNECT -> HELO -> [MAIL, RCPT..., DATA, headers, EOH, body, END] -> [MAIL, ...
/// ```
/// The milter negotiates which steps are skipped, and to which steps it doesn't reply.
package struct MilterDialogue: LoadDialogue {
    private enum Step: Equatable {
        case negotiate, connect, helo, mail, recipient(Int), data, field(Int), endOfHeader, body(Int), end
    }

    /// The protocol flags of a step: don't send it (SMFIP_NO*), and don't expect a reply (SMFIP_NR_*).
    private struct StepFlags {
        let skip: UInt32
        let noReply: UInt32
    }

    /// What became of a message.
    private struct Outcome {
        let word: StaticString
        let isRefusal: Bool

        init(word: StaticString, isRefusal: Bool) {
            self.word = word
            self.isRefusal = isRefusal
        }

        /// - Parameter code: of a reply that is final wherever it comes.
        init(final code: UInt8) {
            switch Character(UnicodeScalar(code)) {
            case "a": self.init(word: "accept", isRefusal: false)
            case "d": self.init(word: "discard", isRefusal: false)
            case "t": self.init(word: "tempfail", isRefusal: true)
            case "y": self.init(word: "replycode", isRefusal: true)
            default: self.init(word: "reject", isRefusal: true)
            }
        }
    }

    private let traffic: MilterTraffic
    private var message: MilterMessage?
    /// SMFIP_* flags of the negotiation.
    private var protocolFlags: UInt32 = 0
    /// The step whose reply is outstanding.
    private var awaited: Step?
    private var isNegotiated = false
    private var recipientsAccepted = 0

    /// SMFIP_HDR_LEADSPC: header values include the space after the colon.
    private static let leadingSpace: UInt32 = 0x10_0000
    private static let bodyChunk = 65_535
    private static let longestPacket = 64 << 20

    fileprivate init(traffic: MilterTraffic) {
        self.traffic = traffic
    }

    package mutating func connected() {
        isNegotiated = false
        awaited = nil
    }

    package mutating func begin(into output: inout ByteBuffer, at time: TimeAmount) {
        if message == nil { message = traffic.nextMessage(at: time) }
        if isNegotiated {
            send(from: .mail, into: &output)
        } else {
            output.writePacket("O") { $0.writeMultipleIntegers(UInt32(6), UInt32(0x1ff), UInt32(0x1f_ffff)) }
            awaited = .negotiate
        }
    }

    package mutating func receive(
        _ input: inout ByteBuffer, into output: inout ByteBuffer, at time: TimeAmount
    ) throws -> LoadStep {
        while let length: UInt32 = input.getInteger(at: input.readerIndex) {
            guard 1...Self.longestPacket ~= Int(length) else {
                throw MalformedReply(reason: "a packet of \(length) bytes")
            }
            guard input.readableBytes >= 4 + Int(length) else { break }
            input.moveReaderIndex(forwardBy: 4)
            guard var packet = input.readSlice(length: Int(length)), let code: UInt8 = packet.readInteger() else {
                break
            }
            guard let outcome = try handle(code, &packet, into: &output) else { continue }
            guard input.readableBytes == 0 else {
                throw MalformedReply(reason: "more than one final reply to one message")
            }
            if let message { traffic.record(outcome.word, isRefusal: outcome.isRefusal, for: message, at: time) }
            message = nil
            awaited = nil
            return .answered
        }
        return .wait
    }

    /// - Returns: what became of the message; nil if this reply does not end it.
    private mutating func handle(
        _ code: UInt8, _ packet: inout ByteBuffer, into output: inout ByteBuffer
    ) throws -> Outcome? {
        guard let step = awaited else { throw MalformedReply(reason: "unexpected reply") }
        switch (Character(UnicodeScalar(code)), step) {
        case ("O", .negotiate):
            guard let (_, _, flags) = packet.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self) else {
                throw MalformedReply(reason: "the negotiation reply is too short")
            }
            protocolFlags = flags
            isNegotiated = true
            send(from: .connect, into: &output)
        case ("p", _): break
        case ("h", .end), ("m", .end), ("i", .end), ("+", .end), ("-", .end), ("b", .end), ("q", .end), ("e", .end),
            ("2", .end):
            break
        case ("c", .end): return Outcome(word: "continue", isRefusal: false)
        case ("c", _):
            if case .recipient = step { recipientsAccepted += 1 }
            try next(after: step, into: &output)
        case ("s", .body): send(from: .end, into: &output)
        case ("r", .recipient(let index)), ("t", .recipient(let index)), ("y", .recipient(let index)):
            if index + 1 < message?.recipients.count ?? 0 || recipientsAccepted > 0 {
                try next(after: step, into: &output)
            } else {
                return abort(code, into: &output)
            }
        case ("r", .connect), ("t", .connect), ("y", .connect), ("r", .helo), ("t", .helo), ("y", .helo):
            // Postfix then refuses all mail of the session, and does not ask again.
            throw SessionRefused(reply: "\(Outcome(final: code).word) at \(step)")
        case ("a", _), ("r", _), ("t", _), ("d", _), ("y", _):
            return step == .end ? Outcome(final: code) : abort(code, into: &output)
        default: throw MalformedReply(reason: "unexpected reply '\(UnicodeScalar(code))' at \(step)")
        }
        return nil
    }

    private func abort(_ code: UInt8, into output: inout ByteBuffer) -> Outcome {
        output.writePacket("A") { _ in }
        return Outcome(final: code)
    }

    private mutating func next(after step: Step, into output: inout ByteBuffer) throws {
        guard let message else { throw MalformedReply(reason: "unexpected reply") }
        send(from: Self.following(step, of: message), into: &output)
    }

    private static func following(_ step: Step, of message: MilterMessage) -> Step {
        switch step {
        case .negotiate: .connect
        case .connect: .helo
        case .helo: .mail
        case .mail: .recipient(0)
        case .recipient(let index): index + 1 < message.recipients.count ? .recipient(index + 1) : .data
        case .data: .field(0)
        case .field(let index): index + 1 < message.fields.count ? .field(index + 1) : .endOfHeader
        case .endOfHeader: message.body.isEmpty ? .end : .body(0)
        case .body(let index): (index + 1) * bodyChunk < message.body.count ? .body(index + 1) : .end
        case .end: .end
        }
    }

    /// Sends steps from `first` up to the first one with a reply.
    private mutating func send(from first: Step, into output: inout ByteBuffer) {
        guard let message else { return }
        var step = first
        if case .mail = step { recipientsAccepted = 0 }
        while true {
            let flags = Self.flags(of: step)
            if protocolFlags & flags.skip == 0 {
                write(step, of: message, into: &output)
                if protocolFlags & flags.noReply == 0 {
                    awaited = step
                    return
                }
            }
            // A step without a reply counts as accepted.
            if case .recipient = step { recipientsAccepted += 1 }
            step = Self.following(step, of: message)
        }
    }

    private static func flags(of step: Step) -> StepFlags {
        switch step {
        case .negotiate, .end: StepFlags(skip: 0, noReply: 0)
        case .connect: StepFlags(skip: 0x1, noReply: 0x1000)
        case .helo: StepFlags(skip: 0x2, noReply: 0x2000)
        case .mail: StepFlags(skip: 0x4, noReply: 0x4000)
        case .recipient: StepFlags(skip: 0x8, noReply: 0x8000)
        case .data: StepFlags(skip: 0x200, noReply: 0x10000)
        case .field: StepFlags(skip: 0x20, noReply: 0x80)
        case .endOfHeader: StepFlags(skip: 0x40, noReply: 0x40000)
        case .body: StepFlags(skip: 0x10, noReply: 0x80000)
        }
    }

    private func write(_ step: Step, of message: MilterMessage, into output: inout ByteBuffer) {
        switch step {
        case .negotiate: break
        case .connect:
            output.writeMacros("C", [("j", Array("load.example".utf8)), ("{client_port}", Array("25000".utf8))])
            output.writePacket("C") { packet in
                packet.writeStaticString("host.isp.example\u{0}4")
                packet.writeInteger(UInt16(25_000))
                let client = message.message.person.client
                packet.writeString("198.\(18 + client >> 16).\(client >> 8 & 0xff).\(client & 0xff)\u{0}")
            }
        case .helo: output.writePacket("H") { $0.writeStaticString("host.isp.example\u{0}") }
        case .mail:
            output.writeMacros(
                "M", [("i", queueID(of: message)), ("{auth_authen}", message.sender), ("{mail_addr}", message.sender)])
            output.writePacket("M") { $0.writeAddress(message.sender) }
        case .recipient(let index):
            output.writeMacros("R", [("i", queueID(of: message)), ("{rcpt_addr}", message.recipients[index])])
            output.writePacket("R") { $0.writeAddress(message.recipients[index]) }
        case .data: output.writePacket("T") { _ in }
        case .field(let index):
            output.writePacket("L") { packet in
                packet.writeBytes(message.fields[index].name)
                packet.writeInteger(UInt8(0))
                let value = message.fields[index].value
                packet.writeBytes(protocolFlags & Self.leadingSpace != 0 ? value[...] : value.drop { $0 == 0x20 })
                packet.writeInteger(UInt8(0))
            }
        case .endOfHeader: output.writePacket("N") { _ in }
        case .body(let index):
            let start = message.body.startIndex + index * Self.bodyChunk
            let end = min(start + Self.bodyChunk, message.body.endIndex)
            output.writePacket("B") { $0.writeBytes(message.body[start..<end]) }
        case .end:
            output.writeMacros("E", [("i", queueID(of: message))])
            output.writePacket("E") { _ in }
        }
    }

    private func queueID(of message: MilterMessage) -> [UInt8] {
        var id: [UInt8] = []
        id.append(hexadecimal: 0xA_0000_0000 | UInt64(message.message.id & 0xFFFF_FFFF), ten: UInt8(ascii: "A"))
        return id
    }
}

extension ByteBuffer {
    fileprivate mutating func writePacket(_ code: Character, _ body: (inout ByteBuffer) -> Void) {
        let start = writerIndex
        writeInteger(UInt32(0))
        writeInteger(code.asciiValue ?? 0)
        body(&self)
        setInteger(UInt32(writerIndex - start - 4), at: start)
    }

    fileprivate mutating func writeMacros(_ code: Character, _ macros: [(name: StaticString, value: [UInt8])]) {
        writePacket("D") { packet in
            packet.writeInteger(code.asciiValue ?? 0)
            for macro in macros {
                packet.writeStaticString(macro.name)
                packet.writeInteger(UInt8(0))
                packet.writeBytes(macro.value)
                packet.writeInteger(UInt8(0))
            }
        }
    }

    fileprivate mutating func writeAddress(_ address: [UInt8]) {
        writeStaticString("<")
        writeBytes(address)
        writeStaticString(">\u{0}")
    }
}
