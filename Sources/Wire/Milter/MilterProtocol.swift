// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The edits that a milter may request (SMFIF_*).
package struct MilterActions: OptionSet, Equatable, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let addHeaders = Self(rawValue: 0x01)
    package static let changeBody = Self(rawValue: 0x02)
    package static let addRecipients = Self(rawValue: 0x04)
    package static let deleteRecipients = Self(rawValue: 0x08)
    package static let changeHeaders = Self(rawValue: 0x10)
    package static let quarantine = Self(rawValue: 0x20)
    package static let changeSender = Self(rawValue: 0x40)
    package static let addRecipientsWithParameters = Self(rawValue: 0x80)
    /// Not an edit: the milter names the macros that it wants.
    package static let setMacros = Self(rawValue: 0x100)
}

/// Events that the MTA does not send, and events after which it does not wait for a reply (SMFIP_*).
package struct MilterOptions: OptionSet, Equatable, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let noConnect = Self(rawValue: 0x1)
    package static let noHelo = Self(rawValue: 0x2)
    package static let noMail = Self(rawValue: 0x4)
    package static let noRecipient = Self(rawValue: 0x8)
    package static let noBody = Self(rawValue: 0x10)
    package static let noHeaders = Self(rawValue: 0x20)
    package static let noEndOfHeaders = Self(rawValue: 0x40)
    package static let noReplyToHeader = Self(rawValue: 0x80)
    package static let noUnknown = Self(rawValue: 0x100)
    package static let noData = Self(rawValue: 0x200)
    package static let noReplyToConnect = Self(rawValue: 0x1000)
    package static let noReplyToHelo = Self(rawValue: 0x2000)
    package static let noReplyToMail = Self(rawValue: 0x4000)
    package static let noReplyToRecipient = Self(rawValue: 0x8000)
    package static let noReplyToData = Self(rawValue: 0x1_0000)
    package static let noReplyToUnknown = Self(rawValue: 0x2_0000)
    package static let noReplyToEndOfHeaders = Self(rawValue: 0x4_0000)
    package static let noReplyToBody = Self(rawValue: 0x8_0000)
    /// Header values include the space after the colon, in both directions.
    package static let leadingSpace = Self(rawValue: 0x10_0000)
}

/// The events with which an MTA sends macros (SMFIM_*).
package enum MilterStage: UInt32, CaseIterable, Sendable {
    case connect, helo, mail, recipient, data, endOfMessage, endOfHeaders
}

/// The outcome of a connection's negotiation (SMFIC_OPTNEG).
package struct MilterTerms: Equatable, Sendable {
    package static let newestVersion: UInt32 = 6
    package static let oldestVersion: UInt32 = 2

    package var version = newestVersion
    package var actions: MilterActions
    package var options: MilterOptions
    /// Names of macros, separated by spaces. An MTA without `setMacros` sends those of its own configuration.
    package private(set) var macros: [MilterStage: String]
    /// All requested names, without braces.
    let macroNames: Set<[UInt8]>

    /// A macro that no MTA defines. For an empty list, Postfix sends the macros of its own configuration.
    private static let noMacro = "{none}"

    /// - Parameter macros: an empty text requests no macros.
    package init(actions: MilterActions, options: MilterOptions, macros: [MilterStage: String] = [:]) {
        self.actions = actions
        self.options = options
        self.macros = macros.mapValues { $0.isEmpty ? Self.noMacro : $0 }
        macroNames = Set(
            macros.values.flatMap { $0.utf8.split(separator: UInt8(ascii: " ")).map { Array(Self.withoutBraces($0)) } })
    }

    /// `{mail_addr}` and `mail_addr` are the same macro.
    static func withoutBraces<Name: BidirectionalCollection<UInt8>>(_ name: Name) -> Name.SubSequence {
        name.first == UInt8(ascii: "{") && name.last == UInt8(ascii: "}") ? name.dropFirst().dropLast() : name[...]
    }

    /// The part of these terms that an MTA with this offer can meet.
    func limited(to version: UInt32, _ offeredActions: MilterActions, _ offeredOptions: MilterOptions) -> MilterTerms {
        var terms = self
        terms.version = min(version, Self.newestVersion)
        terms.actions.formIntersection(offeredActions)
        terms.options.formIntersection(offeredOptions)
        if !terms.actions.contains(.setMacros) { terms.macros = [:] }
        return terms
    }
}

/// A fault that closes the connection: a protocol violation, or an exceeded bound.
package enum MilterFault: Error, Equatable, Sendable {
    /// An empty packet, or one longer than `MilterSession.longestPacket`.
    case length(UInt32)
    /// A packet that is too short or too long, or lacks a NUL; its command.
    case malformed(UInt8)
    case unknownCommand(UInt8)
    /// A command that is not allowed in this state.
    case outOfOrder(UInt8)
    /// Older than protocol version 2.
    case version(UInt32)
    /// The recipients of a message need too much memory.
    case tooMuch

    package var text: String {
        switch self {
        case .length(let length): "a packet of \(length) bytes; 1 to \(MilterSession.longestPacket) are allowed"
        case .malformed(let command): "a malformed packet \(Self.name(command))"
        case .unknownCommand(let command): "an unknown command \(Self.name(command))"
        case .outOfOrder(let command): "a command \(Self.name(command)) out of order"
        case .version(let version): "protocol version \(version); Weir supports \(MilterTerms.oldestVersion) and later"
        case .tooMuch: "too many recipients for the memory of one message"
        }
    }

    private static func name(_ command: UInt8) -> String {
        0x21..<0x7f ~= command ? "'\(UnicodeScalar(command))'" : "0x\(String(command, radix: 16))"
    }
}

/// Replies of the milter (SMFIR_*): edits, and verdicts on messages.
extension ByteBuffer {
    /// A packet: its length, the command byte, the payload (libmilter `comm.c`).
    private mutating func writeMilterPacket(_ command: Character, _ payload: (inout ByteBuffer) -> Void) {
        let start = writerIndex
        writeInteger(UInt32(0))
        writeInteger(command.asciiValue!)
        payload(&self)
        setInteger(UInt32(writerIndex - start - MemoryLayout<UInt32>.size), at: start)
    }

    private mutating func writeMilterText(_ text: some Collection<UInt8>) {
        writeBytes(text.lazy.filter { $0 != 0 })
        writeInteger(UInt8(0))
    }

    package mutating func writeMilterContinue() { writeMilterPacket("c") { _ in } }
    package mutating func writeMilterDiscard() { writeMilterPacket("d") { _ in } }
    package mutating func writeMilterTemporaryFailure() { writeMilterPacket("t") { _ in } }

    /// - Parameter reply: `550 5.7.1 text`, of one line; a 4NN or 5NN code.
    package mutating func writeMilterReply(_ reply: some Collection<UInt8>) {
        writeMilterPacket("y") { packet in
            var text: [UInt8] = []
            for byte in reply {
                // A reply line can't have control characters, and the MTA uses the text as a format string.
                text.append(byte < 0x20 || byte == 0x7f ? UInt8(ascii: " ") : byte)
                if byte == UInt8(ascii: "%") { text.append(byte) }
            }
            packet.writeMilterText(text)
        }
    }

    /// - Parameter reason: Postfix keeps the first 100 bytes.
    package mutating func writeMilterQuarantine(_ reason: some Collection<UInt8>) {
        writeMilterPacket("q") { $0.writeMilterText(reason) }
    }

    /// Changes the `index`th header of this name, counted from 1. An empty value deletes it.
    package mutating func writeMilterChange(
        header name: some Collection<UInt8>, _ index: Int, to value: some Collection<UInt8>
    ) {
        writeMilterPacket("m") { packet in
            packet.writeInteger(UInt32(index))
            packet.writeMilterText(name)
            packet.writeMilterText(value)
        }
    }

    /// Inserts a header at a position, counted from 0 over all headers, the MTA's own Received: included.
    package mutating func writeMilterInsert(
        header name: some Collection<UInt8>, at position: Int, value: some Collection<UInt8>
    ) {
        writeMilterPacket("i") { packet in
            packet.writeInteger(UInt32(position))
            packet.writeMilterText(name)
            packet.writeMilterText(value)
        }
    }

    /// Adds a header after all others.
    package mutating func writeMilterAdd(header name: some Collection<UInt8>, value: some Collection<UInt8>) {
        writeMilterPacket("h") { packet in
            packet.writeMilterText(name)
            packet.writeMilterText(value)
        }
    }

    /// - Parameter recipient: exactly as in RCPT, with brackets.
    package mutating func writeMilterDelete(recipient: some Collection<UInt8>) {
        writeMilterPacket("-") { $0.writeMilterText(recipient) }
    }

    /// - Parameter recipient: with brackets.
    package mutating func writeMilterAdd(recipient: some Collection<UInt8>) {
        writeMilterPacket("+") { $0.writeMilterText(recipient) }
    }

    /// - Parameter parameters: parameters of RCPT, separated by spaces.
    package mutating func writeMilterAdd(recipient: some Collection<UInt8>, parameters: some Collection<UInt8>) {
        writeMilterPacket("2") { packet in
            packet.writeMilterText(recipient)
            packet.writeMilterText(parameters)
        }
    }

    /// - Parameter sender: with brackets.
    package mutating func writeMilterChange(sender: some Collection<UInt8>) {
        writeMilterPacket("e") { $0.writeMilterText(sender) }
    }

    /// A piece of a new body, at most `MilterSession.largestChunk` bytes. No other edit may come between the pieces.
    package mutating func writeMilterBody(_ piece: UnsafeRawBufferPointer) {
        writeMilterPacket("b") { $0.writeBytes(piece) }
    }

    mutating func writeMilterTerms(_ terms: MilterTerms) {
        writeMilterPacket("O") { packet in
            packet.writeInteger(terms.version)
            packet.writeInteger(terms.actions.rawValue)
            packet.writeInteger(terms.options.rawValue)
            for (stage, names) in terms.macros.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
                packet.writeInteger(stage.rawValue)
                packet.writeMilterText(names.utf8)
            }
        }
    }
}
