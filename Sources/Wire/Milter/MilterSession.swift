// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore

/// Our side of a connection from an MTA in the milter protocol, versions 2 to 6: packets in, events out (libmilter
/// `engine.c`, Postfix `milter8.c`). The caller writes replies, where `needsReply` says that the MTA waits for one.
///
///     new --O--> connected --M--> envelope --L--> headers --B--> body --E--> connected
///                    ^                |              |            |
///                    +------- A, E ---+--------------+------------+
///
/// Without MAIL events (`SMFIP_NOMAIL`), a message begins with its first header.
///
/// Reset for each message: the macros from MAIL on. Kept for the connection: the terms, and the macros of CONNECT and
/// HELO.
package struct MilterSession: ~Copyable {
    package enum Event: Equatable, Sendable {
        case connect(Client)
        case helo([UInt8])
        /// The reverse-path with its brackets, then the parameters of MAIL.
        case mail([UInt8], parameters: [[UInt8]])
        /// The recipient with its brackets, then the parameters of RCPT.
        case recipient([UInt8], parameters: [[UInt8]])
        case header(name: ByteBuffer, value: ByteBuffer)
        case body(ByteBuffer)
        /// The message is complete, and the MTA waits for the verdict.
        case endOfMessage
        /// The message is aborted; the connection stays open.
        case abort
        /// Macros of later events, which are now in `macros`. They need no reply.
        case macros
        /// An event that Weir does not use, but that may need a reply.
        case other
        case quit
    }

    package struct Client: Equatable, Sendable {
        package var name: [UInt8] = []
        /// An IP address without a prefix, or the path of a socket; empty if the MTA does not know it.
        package var address: [UInt8] = []
        package var port: UInt16 = 0

        package init() {}
    }

    /// Commands of the MTA (SMFIC_*).
    private enum Command: UInt8 {
        case abort = 0x41  // A
        case body = 0x42  // B
        case connect = 0x43  // C
        case macros = 0x44  // D
        case endOfMessage = 0x45  // E, SMFIC_BODYEOB
        case helo = 0x48  // H
        /// The client has left, and the next one uses the same connection.
        case quitNewConnection = 0x4b  // K, SMFIC_QUIT_NC
        case header = 0x4c  // L
        case mail = 0x4d  // M
        case endOfHeaders = 0x4e  // N
        case negotiate = 0x4f  // O, SMFIC_OPTNEG
        case quit = 0x51  // Q
        case recipient = 0x52  // R
        case data = 0x54  // T
        case unknown = 0x55  // U
    }

    /// 64 KiB of body, or one header: header_size_limit is 60000 with milters, and 102400 otherwise.
    package static let longestPacket: UInt32 = 256 << 10
    /// MILTER_CHUNK_SIZE of libmilter.
    package static let largestChunk = 65_535

    private enum State { case new, connected, envelope, headers, body }

    /// Whether the MTA waits for a reply to the last event.
    private enum Reply {
        case always
        case never
        /// Unless this was negotiated.
        case unless(MilterOptions)
    }

    private let wanted: MilterTerms
    private var state = State.new
    private var input = ByteBuffer()
    private var reply = Reply.always
    package private(set) var macros = MilterMacros()
    package private(set) var terms: MilterTerms?
    /// The wanted actions that the MTA has not offered.
    package private(set) var missingActions = MilterActions()
    package var output = ByteBuffer()

    package init(wanting terms: MilterTerms) {
        wanted = terms
    }

    /// Adds received bytes, as `ByteBuffer.receive` does.
    package mutating func receive(upTo most: Int, _ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        input.receive(upTo: most, read)
    }

    /// Received bytes of packets that `next` has not returned yet.
    package var waitingBytes: Int { input.readableBytes }

    /// Whether no message is open, and no part of the next one was received.
    package var isIdle: Bool { (state == .connected || state == .new) && input.readableBytes == 0 }

    /// Whether the MTA waits for a reply to the last event.
    package var needsReply: Bool {
        guard let terms else { return false }
        switch reply {
        case .always: return true
        case .never: return false
        case .unless(let option): return !terms.options.contains(option)
        }
    }

    /// The length of the next packet if it is complete, otherwise 0.
    package var nextLength: Int {
        guard let length = input.getInteger(at: input.readerIndex, as: UInt32.self) else { return 0 }
        return input.readableBytes >= MemoryLayout<UInt32>.size + Int(length) ? Int(length) : 0
    }

    /// The next event; nil until its packet is complete.
    package mutating func next() throws(MilterFault) -> Event? {
        while let length = input.getInteger(at: input.readerIndex, as: UInt32.self) {
            guard 1...Self.longestPacket ~= length else { throw .length(length) }
            guard input.readableBytes >= MemoryLayout<UInt32>.size + Int(length) else { break }
            input.moveReaderIndex(forwardBy: MemoryLayout<UInt32>.size)
            var packet = input.readSlice(length: Int(length))!
            let byte: UInt8 = packet.readInteger()!
            let command = Command(rawValue: byte)
            guard state != .new || command == .negotiate || command == .quit else { throw .outOfOrder(byte) }
            guard let command else { throw .unknownCommand(byte) }
            if let event = try event(command, &packet) { return event }
        }
        input.giveUpRead()
        return nil
    }

    /// nil if the packet is not an event for the caller.
    private mutating func event(_ command: Command, _ packet: inout ByteBuffer) throws(MilterFault) -> Event? {
        switch command {
        case .negotiate:
            try negotiate(&packet)
            return nil
        case .macros:
            try readMacros(&packet)
            return .macros
        case .connect: return try connect(&packet)
        case .helo: return try helo(&packet)
        case .mail: return try mail(&packet)
        case .recipient: return try recipient(&packet)
        case .data:
            try require(state == .envelope, command)
            return expecting(.unless(.noReplyToData), .other)
        case .unknown: return expecting(.unless(.noReplyToUnknown), .other)
        case .header: return try header(&packet)
        case .endOfHeaders:
            try require(state == .headers || mayBeginContent, command)
            state = .body
            return expecting(.unless(.noReplyToEndOfHeaders), .other)
        case .body:
            try require(mayEndContent, command)
            state = .body
            return expecting(.unless(.noReplyToBody), .body(packet))
        case .endOfMessage: return try endOfMessage(packet)
        case .abort:
            state = .connected
            return .abort
        case .quitNewConnection:
            state = .connected
            macros = MilterMacros()
            return .abort
        case .quit: return .quit
        }
    }

    private func require(_ isInOrder: Bool, _ command: Command) throws(MilterFault) {
        guard isInOrder else { throw .outOfOrder(command.rawValue) }
    }

    private var mayBeginContent: Bool {
        state == .envelope || state == .connected && terms?.options.contains(.noMail) ?? false
    }

    private var mayEndContent: Bool { state == .headers || state == .body || mayBeginContent }

    private mutating func expecting(_ reply: Reply, _ event: Event) -> Event {
        self.reply = reply
        return event
    }

    private mutating func connect(_ packet: inout ByteBuffer) throws(MilterFault) -> Event {
        try require(state == .connected, .connect)
        let client = try Self.client(&packet)
        macros.endMessage()
        return expecting(.unless(.noReplyToConnect), .connect(client))
    }

    private mutating func helo(_ packet: inout ByteBuffer) throws(MilterFault) -> Event {
        try require(state == .connected, .helo)
        guard let name = packet.readMilterText(), packet.readableBytes == 0 else {
            throw .malformed(Command.helo.rawValue)
        }
        return expecting(.unless(.noReplyToHelo), .helo(name))
    }

    private mutating func mail(_ packet: inout ByteBuffer) throws(MilterFault) -> Event {
        try require(state == .connected, .mail)
        let (reversePath, parameters) = try Self.address(&packet, .mail)
        state = .envelope
        return expecting(.unless(.noReplyToMail), .mail(reversePath, parameters: parameters))
    }

    private mutating func recipient(_ packet: inout ByteBuffer) throws(MilterFault) -> Event {
        try require(state == .envelope, .recipient)
        let (recipient, parameters) = try Self.address(&packet, .recipient)
        return expecting(.unless(.noReplyToRecipient), .recipient(recipient, parameters: parameters))
    }

    private mutating func header(_ packet: inout ByteBuffer) throws(MilterFault) -> Event {
        try require(state == .headers || mayBeginContent, .header)
        guard let name = packet.readMilterSlice(), let value = packet.readMilterSlice(), packet.readableBytes == 0
        else {
            throw .malformed(Command.header.rawValue)
        }
        state = .headers
        return expecting(.unless(.noReplyToHeader), .header(name: name, value: value))
    }

    /// Old MTAs send the last piece of the body with this packet, and wait for one reply. It becomes two events.
    private mutating func endOfMessage(_ packet: ByteBuffer) throws(MilterFault) -> Event {
        try require(mayEndContent, .endOfMessage)
        guard packet.readableBytes > 0 else {
            state = .connected
            return expecting(.always, .endOfMessage)
        }
        var rest = ByteBuffer()
        rest.writeInteger(UInt32(1))
        rest.writeInteger(Command.endOfMessage.rawValue)
        rest.writeBuffer(&input)
        input = rest
        state = .body
        return expecting(.never, .body(packet))
    }

    /// Ends the message, and drops its macros.
    package mutating func endMessage() { macros.endMessage() }

    private mutating func negotiate(_ packet: inout ByteBuffer) throws(MilterFault) {
        try require(state == .new, .negotiate)
        guard let version: UInt32 = packet.readInteger(), let actions: UInt32 = packet.readInteger(),
            let options: UInt32 = packet.readInteger()
        else { throw .malformed(Command.negotiate.rawValue) }
        guard version >= MilterTerms.oldestVersion else { throw .version(version) }
        let terms = wanted.limited(to: version, MilterActions(rawValue: actions), MilterOptions(rawValue: options))
        missingActions = wanted.actions.subtracting(terms.actions).subtracting(.setMacros)
        self.terms = terms
        output.writeMilterTerms(terms)
        state = .connected
    }

    /// SMFIC_MACRO: the command that the macros belong to, then names and values in turn.
    private mutating func readMacros(_ packet: inout ByteBuffer) throws(MilterFault) {
        guard let command: UInt8 = packet.readInteger() else { throw .malformed(Command.macros.rawValue) }
        let scope: MilterMacros.Scope =
            command == Command.connect.rawValue || command == Command.helo.rawValue ? .connection : .message
        while packet.readableBytes > 0 {
            guard let name = packet.readMilterSlice(), let value = packet.readMilterSlice() else {
                throw .malformed(Command.macros.rawValue)
            }
            let bareName = Array(MilterTerms.withoutBraces(name.readableBytesView))
            if wanted.macroNames.contains(bareName) { macros.set(bareName, to: value, for: scope) }
        }
    }

    /// An address, then parameters of MAIL or RCPT.
    private static func address(
        _ packet: inout ByteBuffer, _ command: Command
    ) throws(MilterFault) -> ([UInt8], parameters: [[UInt8]]) {
        guard let address = packet.readMilterText() else { throw .malformed(command.rawValue) }
        var parameters: [[UInt8]] = []
        while packet.readableBytes > 0 {
            guard let parameter = packet.readMilterText() else { throw .malformed(command.rawValue) }
            parameters.append(parameter)
        }
        return (address, parameters)
    }

    /// Host name, address family, port, address (SMFIC_CONNECT).
    private static func client(_ packet: inout ByteBuffer) throws(MilterFault) -> Client {
        let command = Command.connect.rawValue
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
    /// Reads a text that ends in a NUL; nil if there is no NUL.
    fileprivate mutating func readMilterSlice() -> ByteBuffer? {
        let length: Int? = withUnsafeReadableBytes { bytes in
            guard let base = bytes.baseAddress, let end = memchr(base, 0, bytes.count) else { return nil }
            return UnsafeRawPointer(end) - UnsafeRawPointer(base)
        }
        guard let length else { return nil }
        let text = readSlice(length: length)
        moveReaderIndex(forwardBy: 1)
        return text
    }

    fileprivate mutating func readMilterText() -> [UInt8]? {
        readMilterSlice().map { Array($0.readableBytesView) }
    }
}
