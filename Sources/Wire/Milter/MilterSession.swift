// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// Our side of a connection from an MTA in the milter protocol, versions 2 to 6: packets in, events out (libmilter
/// `engine.c`, Postfix `milter8.c`). Replies are written by the caller, where `needsReply` says that the MTA waits for one.
///
///     new --O--> connected --M--> envelope --L--> headers --B--> body --E--> connected
///                    ^                |              |            |
///                    +------- A, E ---+--------------+------------+
///
/// An MTA that was asked to leave out MAIL goes from connected to the headers.
///
/// Reset for each message: the macros from MAIL on. Kept for the connection: the terms, and the macros before.
package struct MilterSession: ~Copyable {
    /// One event, as the MTA tells it.
    package enum Event: Equatable, Sendable {
        case connect(Client)
        case helo([UInt8])
        /// The sender with its brackets, then the parameters of MAIL.
        case mail([UInt8], parameters: [[UInt8]])
        /// The recipient with its brackets, then the parameters of RCPT.
        case recipient([UInt8], parameters: [[UInt8]])
        case header(name: ByteBuffer, value: ByteBuffer)
        case body(ByteBuffer)
        /// The message is complete; the caller answers.
        case endOfMessage
        /// The message is given up, the connection goes on.
        case abort
        /// Nothing that matters here has come, but the MTA may wait for a word.
        case other
        case quit
    }

    package struct Client: Equatable, Sendable {
        package var name: [UInt8] = []
        /// An IP address without a prefix, or the path of a socket; empty where the MTA does not know it.
        package var address: [UInt8] = []
        package var port: UInt16 = 0

        package init() {}
    }

    /// 64 KiB of body, or one header: header_size_limit is 60000 with milters, and 102400 otherwise.
    package static let longestPacket: UInt32 = 256 << 10
    /// MILTER_CHUNK_SIZE of libmilter.
    package static let largestChunk = 65_535
    /// Of the value of a macro; addresses and subjects of certificates are far below.
    private static let longestMacro = 4_096

    private enum State { case new, connected, envelope, headers, body }

    private let wanted: MilterTerms
    private var state = State.new
    private var input = ByteBuffer()
    private var macros: [(name: [UInt8], value: [UInt8], isOfMessage: Bool)] = []
    /// With which the MTA does not wait for an answer to the last event; none: it always does. nil: it never does.
    private var reply: MilterOptions? = []
    package private(set) var terms: MilterTerms?
    /// What the MTA has not offered of what was wanted.
    package private(set) var missingActions = MilterActions()
    package var output = ByteBuffer()

    package init(wanting terms: MilterTerms) {
        wanted = terms
    }

    /// Takes what has come: `ByteBuffer.receive`.
    package mutating func receive(upTo most: Int, _ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        input.receive(upTo: most, read)
    }

    /// Bytes that have not been made events of.
    package var waitingBytes: Int { input.readableBytes }

    /// Between two messages, and nothing of the next has come.
    package var isIdle: Bool { (state == .connected || state == .new) && input.readableBytes == 0 }

    /// Whether the MTA waits for an answer to the last event.
    package var needsReply: Bool {
        guard let terms, let reply else { return false }
        return reply.isEmpty || !terms.options.contains(reply)
    }

    /// The value of a macro, named without braces.
    package func macro(_ name: String) -> [UInt8]? {
        macros.last { $0.name.elementsEqual(name.utf8) }?.value
    }

    /// The next event, or nil where its packet has not come whole.
    package mutating func next() throws(MilterFault) -> Event? {
        while let length = input.getInteger(at: input.readerIndex, as: UInt32.self) {
            guard 1...Self.longestPacket ~= length else { throw .length(length) }
            guard input.readableBytes >= MemoryLayout<UInt32>.size + Int(length) else { break }
            input.moveReaderIndex(forwardBy: MemoryLayout<UInt32>.size)
            var packet = input.readSlice(length: Int(length))!
            let command: UInt8 = packet.readInteger()!
            if let event = try event(command, packet) { return event }
        }
        input.giveUpRead()
        return nil
    }

    /// nil where a packet tells the caller nothing.
    private mutating func event(_ command: UInt8, _ packet: ByteBuffer) throws(MilterFault) -> Event? {
        guard state != .new || command == UInt8(ascii: "O") || command == UInt8(ascii: "Q") else {
            throw .outOfOrder(command)
        }
        var packet = packet
        switch Character(UnicodeScalar(command)) {
        case "O":
            try negotiate(packet)
            return nil
        case "D":
            try takeMacros(packet)
            return nil
        case "C":
            guard state == .connected else { throw .outOfOrder(command) }
            let client = try Self.client(&packet)
            macros.removeAll { $0.isOfMessage }
            return answered(.noReplyToConnect, .connect(client))
        case "H":
            guard state == .connected else { throw .outOfOrder(command) }
            guard let name = packet.readMilterText(), packet.readableBytes == 0 else { throw .malformed(command) }
            return answered(.noReplyToHelo, .helo(name))
        case "M":
            guard state == .connected else { throw .outOfOrder(command) }
            var texts = try Self.texts(&packet, command)
            guard !texts.isEmpty else { throw .malformed(command) }
            state = .envelope
            return answered(.noReplyToMail, .mail(texts.removeFirst(), parameters: texts))
        case "R":
            guard state == .envelope else { throw .outOfOrder(command) }
            var texts = try Self.texts(&packet, command)
            guard !texts.isEmpty else { throw .malformed(command) }
            return answered(.noReplyToRecipient, .recipient(texts.removeFirst(), parameters: texts))
        case "T":
            guard state == .envelope else { throw .outOfOrder(command) }
            return answered(.noReplyToData, .other)
        case "U":
            return answered(.noReplyToUnknown, .other)
        case "L":
            guard state == .headers || mayBeginContent else { throw .outOfOrder(command) }
            guard let name = packet.readMilterSlice(), let value = packet.readMilterSlice(), packet.readableBytes == 0
            else {
                throw .malformed(command)
            }
            state = .headers
            return answered(.noReplyToHeader, .header(name: name, value: value))
        case "N":
            guard state == .headers || mayBeginContent else { throw .outOfOrder(command) }
            state = .body
            return answered(.noReplyToEndOfHeaders, .other)
        case "B":
            guard state == .headers || state == .body || mayBeginContent else { throw .outOfOrder(command) }
            state = .body
            return answered(.noReplyToBody, .body(packet))
        case "E":
            guard state == .headers || state == .body || mayBeginContent else { throw .outOfOrder(command) }
            // Old MTAs send the last of the body with it, and wait for one answer.
            if packet.readableBytes > 0 {
                var end = ByteBuffer()
                end.writeInteger(UInt32(1))
                end.writeInteger(command)
                end.writeBuffer(&input)
                input = end
                state = .body
                reply = nil
                return .body(packet)
            }
            state = .connected
            return answered([], .endOfMessage)
        case "A":
            state = .connected
            return .abort
        case "K":
            state = .connected
            macros = []
            return .abort
        case "Q":
            return .quit
        default:
            throw .unknownCommand(command)
        }
    }

    private var mayBeginContent: Bool {
        state == .envelope || state == .connected && terms?.options.contains(.noMail) ?? false
    }

    /// The message is over; what was said about it means nothing for the next.
    package mutating func endMessage() {
        macros.removeAll { $0.isOfMessage }
    }

    /// - Parameter option: with which the MTA does not wait for an answer; none: it always does.
    private mutating func answered(_ option: MilterOptions, _ event: Event) -> Event {
        reply = option
        return event
    }

    private mutating func negotiate(_ packet: ByteBuffer) throws(MilterFault) {
        guard state == .new else { throw .outOfOrder(UInt8(ascii: "O")) }
        var packet = packet
        guard let version: UInt32 = packet.readInteger(), let actions: UInt32 = packet.readInteger(),
            let options: UInt32 = packet.readInteger()
        else { throw .malformed(UInt8(ascii: "O")) }
        guard version >= MilterTerms.oldestVersion else { throw .version(version) }
        let terms = wanted.limited(to: version, MilterActions(rawValue: actions), MilterOptions(rawValue: options))
        missingActions = wanted.actions.subtracting(terms.actions).subtracting(.setMacros)
        self.terms = terms
        output.writeMilterTerms(terms)
        state = .connected
    }

    private mutating func takeMacros(_ packet: ByteBuffer) throws(MilterFault) {
        var packet = packet
        guard let command: UInt8 = packet.readInteger() else { throw .malformed(UInt8(ascii: "D")) }
        let isOfMessage = command != UInt8(ascii: "C") && command != UInt8(ascii: "H")
        while packet.readableBytes > 0 {
            guard let name = packet.readMilterSlice(), let value = packet.readMilterSlice() else {
                throw .malformed(UInt8(ascii: "D"))
            }
            take(macro: Array(MilterTerms.withoutBraces(name.readableBytesView)), value, isOfMessage: isOfMessage)
        }
    }

    private mutating func take(macro name: [UInt8], _ value: ByteBuffer, isOfMessage: Bool) {
        guard wanted.macroNames.contains(name) else { return }
        macros.removeAll { $0.name == name }
        if value.readableBytes <= Self.longestMacro {
            macros.append((name, Array(value.readableBytesView), isOfMessage))
        }
    }

    private static func texts(_ packet: inout ByteBuffer, _ command: UInt8) throws(MilterFault) -> [[UInt8]] {
        var texts: [[UInt8]] = []
        while packet.readableBytes > 0 {
            guard let text = packet.readMilterText() else { throw .malformed(command) }
            texts.append(text)
        }
        return texts
    }

    /// Host name, address family, port, address (SMFIC_CONNECT).
    private static func client(_ packet: inout ByteBuffer) throws(MilterFault) -> Client {
        let command = UInt8(ascii: "C")
        var client = Client()
        guard let name = packet.readMilterText(), let family: UInt8 = packet.readInteger() else {
            throw .malformed(command)
        }
        client.name = name
        switch Character(UnicodeScalar(family)) {
        case "U": return client
        case "L", "4", "6":
            guard let port: UInt16 = packet.readInteger(), let address = packet.readMilterText(),
                packet.readableBytes == 0
            else {
                throw .malformed(command)
            }
            client.port = port
            let prefix = Array("IPv6:".utf8)
            client.address = address.starts(with: prefix) ? Array(address[prefix.count...]) : address
            return client
        default: throw .malformed(command)
        }
    }
}

extension ByteBuffer {
    /// Reads a text that a NUL ends; nil where none does.
    fileprivate mutating func readMilterSlice() -> ByteBuffer? {
        guard let end = readableBytesView.firstIndex(of: 0) else { return nil }
        let text = readSlice(length: end - readerIndex)
        moveReaderIndex(forwardBy: 1)
        return text
    }

    fileprivate mutating func readMilterText() -> [UInt8]? {
        readMilterSlice().map { Array($0.readableBytesView) }
    }
}
