// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The mail of all sessions of a milter load.
package final class MilterTraffic: LoadTraffic {
    private let corpus: MessageCorpus
    private var people: PopulationDraw
    private var random: SplitMix64
    private var nextID = 0
    package private(set) var outcomes = OutcomeTally()
    package private(set) var trojan: TrojanReport?

    /// - Parameters:
    ///   - run: Letters and digits that no other run has.
    ///   - date: As in a Date: header.
    package init(_ mix: MessageMix, population: Population, honestRate: Double?, run: String, date: String) {
        corpus = MessageCorpus(mix, run: run, date: date)
        people = PopulationDraw(population, honestRate: honestRate)
        random = SplitMix64(seed: mix.seed)
        trojan = population.trojan.map { _ in TrojanReport() }
    }

    package func makeDialogue() -> MilterDialogue { MilterDialogue(traffic: self) }

    package func save() {}

    fileprivate func nextMessage(at time: TimeAmount) -> MilterMessage {
        defer { nextID += 1 }
        return MilterMessage(
            corpus.next(id: nextID, person: people.next(at: time, using: &random), using: &random), in: corpus)
    }

    fileprivate func record(_ word: StaticString, isRefusal: Bool, for message: MilterMessage, at time: TimeAmount) {
        let bytes = word.withUTF8Buffer { Array($0) }
        _ = outcomes.count(bytes.span) { _ in isRefusal }
        trojan?.count(isTrojan: message.message.person.isTrojan, isRefused: isRefusal, at: time)
    }
}

/// A message in the pieces in which an MTA shows it.
private struct MilterMessage {
    let message: LoadMessage
    let sender: [UInt8]
    let recipients: [[UInt8]]
    /// Folded values with LF, as Postfix has them.
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

/// Shows one message after the other to a milter, over one session, as Postfix does (milter8.c).
///
/// ```
/// OPTNEG -> CONNECT -> HELO -> [MAIL, RCPT..., DATA, headers, EOH, body, END] -> [MAIL, ...
/// ```
/// What the milter does not want to see is left out; where it wants to answer to nothing, nothing is waited for.
package struct MilterDialogue: LoadDialogue {
    private enum Step: Equatable {
        case negotiate, connect, helo, mail, recipient(Int), data, field(Int), endOfHeader, body(Int), end
    }

    /// What a milter asks to be spared of (SMFIP_*): not to see a step, and not to answer to it.
    private struct Spared {
        let unseen: UInt32
        let unanswered: UInt32
    }

    private let traffic: MilterTraffic
    private var message: MilterMessage?
    private var isAsked = false
    private var terms: UInt32 = 0
    /// The step whose answer is outstanding.
    private var awaited: Step?
    private var isReady = false
    private var recipientsTaken = 0

    /// SMFIP_HDR_LEADSPC: values as they stand behind the colon.
    private static let keepsLeadingSpace: UInt32 = 0x10_0000
    private static let bodyChunk = 65_535
    private static let longestPacket = 64 << 20

    fileprivate init(traffic: MilterTraffic) {
        self.traffic = traffic
    }

    package mutating func connected() {
        isReady = false
        isAsked = false
        awaited = nil
    }

    package mutating func begin(into output: inout ByteBuffer, at time: TimeAmount) {
        if message == nil { message = traffic.nextMessage(at: time) }
        isAsked = true
        if isReady {
            go(on: .mail, into: &output)
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
            if try take(code, &packet, into: &output, at: time) { return .answered }
        }
        return .wait
    }

    /// - Returns: whether the message has come to its end.
    private mutating func take(
        _ code: UInt8, _ packet: inout ByteBuffer, into output: inout ByteBuffer, at time: TimeAmount
    ) throws -> Bool {
        guard let step = awaited else { throw MalformedReply(reason: "a reply to nothing") }
        switch (Character(UnicodeScalar(code)), step) {
        case ("O", .negotiate):
            guard let (_, _, terms) = packet.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self) else {
                throw MalformedReply(reason: "a short negotiation")
            }
            self.terms = terms
            isReady = true
            go(on: .connect, into: &output)
        case ("p", _): break
        case ("h", .end), ("m", .end), ("i", .end), ("+", .end), ("-", .end), ("b", .end), ("q", .end), ("e", .end),
            ("2", .end):
            break
        case ("c", .end): return end("continue", isRefusal: false, at: time)
        case ("c", _):
            if case .recipient = step { recipientsTaken += 1 }
            try next(after: step, into: &output)
        case ("s", .body): go(on: .end, into: &output)
        case ("r", .recipient(let index)), ("t", .recipient(let index)), ("y", .recipient(let index)):
            if index + 1 < message?.recipients.count ?? 0 || recipientsTaken > 0 {
                try next(after: step, into: &output)
            } else {
                return abort(code, into: &output, at: time)
            }
        case ("a", _), ("r", _), ("t", _), ("d", _), ("y", _):
            return step == .end ? endAs(code, at: time) : abort(code, into: &output, at: time)
        default: throw MalformedReply(reason: "the reply '\(UnicodeScalar(code))' at \(step)")
        }
        return false
    }

    private mutating func abort(_ code: UInt8, into output: inout ByteBuffer, at time: TimeAmount) -> Bool {
        output.writePacket("A") { _ in }
        return endAs(code, at: time)
    }

    private mutating func endAs(_ code: UInt8, at time: TimeAmount) -> Bool {
        switch Character(UnicodeScalar(code)) {
        case "a": end("accept", isRefusal: false, at: time)
        case "d": end("discard", isRefusal: false, at: time)
        case "t": end("tempfail", isRefusal: true, at: time)
        case "y": end("replycode", isRefusal: true, at: time)
        default: end("reject", isRefusal: true, at: time)
        }
    }

    private mutating func end(_ word: StaticString, isRefusal: Bool, at time: TimeAmount) -> Bool {
        if let message { traffic.record(word, isRefusal: isRefusal, for: message, at: time) }
        message = nil
        isAsked = false
        awaited = nil
        return true
    }

    private mutating func next(after step: Step, into output: inout ByteBuffer) throws {
        guard let message else { throw MalformedReply(reason: "a reply to no message") }
        go(on: Self.following(step, of: message), into: &output)
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

    /// Shows steps from `first` on, up to one that is answered.
    private mutating func go(on first: Step, into output: inout ByteBuffer) {
        guard let message else { return }
        var step = first
        if case .mail = step { recipientsTaken = 0 }
        while true {
            let spared = Self.spared(step)
            if terms & spared.unseen == 0 {
                write(step, of: message, into: &output)
                if terms & spared.unanswered == 0 {
                    awaited = step
                    return
                }
            }
            // What is not answered is taken.
            if case .recipient = step { recipientsTaken += 1 }
            step = Self.following(step, of: message)
        }
    }

    private static func spared(_ step: Step) -> Spared {
        switch step {
        case .negotiate, .end: Spared(unseen: 0, unanswered: 0)
        case .connect: Spared(unseen: 0x1, unanswered: 0x1000)
        case .helo: Spared(unseen: 0x2, unanswered: 0x2000)
        case .mail: Spared(unseen: 0x4, unanswered: 0x4000)
        case .recipient: Spared(unseen: 0x8, unanswered: 0x8000)
        case .data: Spared(unseen: 0x200, unanswered: 0x10000)
        case .field: Spared(unseen: 0x20, unanswered: 0x80)
        case .endOfHeader: Spared(unseen: 0x40, unanswered: 0x40000)
        case .body: Spared(unseen: 0x10, unanswered: 0x80000)
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
                packet.writeString(
                    "198.\(18 + message.message.person.client >> 16).\(message.message.person.client >> 8 & 0xff).\(message.message.person.client & 0xff)\u{0}"
                )
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
                packet.writeBytes(terms & Self.keepsLeadingSpace != 0 ? value[...] : value.drop { $0 == 0x20 })
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
