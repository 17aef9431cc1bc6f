// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Wire

extension Target {
    /// The session must report the same events for packets that come whole and in pieces, and the same as a reader that
    /// knows no states, up to a fault.
    ///
    /// The first byte is the size of the pieces; the rest is what an MTA sends.
    static let milter = Target(name: "milter") { input in
        var choices = Choices(input)
        let size = choices.size()
        let whole = events(choices.rest, pieces: choices.rest.count + 1)
        precondition(whole == events(choices.rest, pieces: size))
        let expected = MilterPackets(choices.rest)
        let known = expected.events.prefix(whole.events.count)
        precondition(whole.events.map(\.text).elementsEqual(known))
        // Without a fault, nothing complete is left.
        precondition(
            whole.fault != nil || whole.events.last?.isQuit ?? false || whole.events.count == expected.events.count)
    }
}

private let terms = MilterTerms(
    actions: [.addHeaders, .changeBody, .changeHeaders, .setMacros],
    options: [.noMail, .noReplyToHelo, .noReplyToHeader, .leadingSpace],
    macros: [.connect: "j {client_name}", .mail: "i {auth_authen}", .recipient: ""])

private struct Outcome: Equatable {
    var events: [Event] = []
    var fault: MilterFault?
    var output = ByteBuffer()
    var terms: MilterTerms?
    var macros: [[UInt8]?] = []
}

private struct Event: Equatable {
    let event: MilterSession.Event
    let needsReply: Bool
}

private func events(_ bytes: UnsafeRawBufferPointer, pieces size: Int) -> Outcome {
    var session = MilterSession(wanting: terms)
    var outcome = Outcome()
    reading: for piece in pieces(bytes, of: size) {
        _ = session.receive(upTo: piece.count, received(piece))
        do throws(MilterFault) {
            while let event = try session.next() {
                if event == .macros { continue }
                outcome.events.append(Event(event: event, needsReply: session.needsReply))
                outcome.macros += ["j", "client_name", "i", "auth_authen"].map { session.macros[$0] }
                if event == .endOfMessage || event == .abort { session.endMessage() }
                if event == .quit { break reading }
            }
        } catch {
            outcome.fault = error
            break
        }
    }
    outcome.output = session.output
    outcome.terms = session.terms
    return outcome
}

extension Event {
    var isQuit: Bool { event == .quit }

    /// As `MilterPackets` writes it.
    var text: [[UInt8]] {
        switch event {
        case .connect(let client): [Array("C".utf8), client.name, client.address, Array("\(client.port)".utf8)]
        case .helo(let name): [Array("H".utf8), name]
        case .mail(let address, let parameters): [Array("M".utf8), address] + parameters
        case .recipient(let address, let parameters): [Array("R".utf8), address] + parameters
        case .header(let name, let value):
            [Array("L".utf8), Array(name.readableBytesView), Array(value.readableBytesView)]
        case .body(let body): [Array("B".utf8), Array(body.readableBytesView)]
        case .endOfMessage: [Array("E".utf8)]
        case .abort: [Array("A".utf8)]
        case .macros: []
        case .other: [Array("?".utf8)]
        case .quit: [Array("Q".utf8)]
        }
    }
}

/// Reads packets as smfi.h and milter8.c describe them, without any state: what each says, if it is valid.
private struct MilterPackets {
    private(set) var events: [[[UInt8]]] = []

    init(_ bytes: UnsafeRawBufferPointer) {
        var rest = Array(bytes)[...]
        while rest.count >= 4 {
            let length = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
            guard length >= 1, rest.count >= 4 + length else { return }
            let packet = rest.dropFirst(4).prefix(length)
            rest = rest.dropFirst(4 + length)
            read(packet.first!, packet.dropFirst())
        }
    }

    private mutating func read(_ command: UInt8, _ payload: ArraySlice<UInt8>) {
        let texts = Self.texts(payload)
        switch command {
        case UInt8(ascii: "O"), UInt8(ascii: "D"): break
        case UInt8(ascii: "C"): events.append(Self.client(payload))
        case UInt8(ascii: "H"), UInt8(ascii: "M"), UInt8(ascii: "R"), UInt8(ascii: "L"):
            events.append([[command]] + texts)
        case UInt8(ascii: "B"): events.append([[command], Array(payload)])
        case UInt8(ascii: "E"):
            if !payload.isEmpty { events.append([Array("B".utf8), Array(payload)]) }
            events.append([[command]])
        case UInt8(ascii: "A"), UInt8(ascii: "K"): events.append([Array("A".utf8)])
        case UInt8(ascii: "Q"): events.append([[command]])
        default: events.append([Array("?".utf8)])
        }
    }

    private static func texts(_ payload: ArraySlice<UInt8>) -> [[UInt8]] {
        payload.split(separator: 0, omittingEmptySubsequences: false).dropLast().map(Array.init)
    }

    private static func client(_ payload: ArraySlice<UInt8>) -> [[UInt8]] {
        let name = payload.prefix { $0 != 0 }
        var rest = payload.dropFirst(name.count + 1)
        guard let family = rest.popFirst(), family != UInt8(ascii: "U") else {
            return [Array("C".utf8), Array(name), [], Array("0".utf8)]
        }
        let port = rest.prefix(2).reduce(0) { $0 << 8 | Int($1) }
        let address = Array(rest.dropFirst(2).dropLast())
        let bare = address.starts(with: "IPv6:".utf8) ? Array(address.dropFirst(5)) : address
        return [Array("C".utf8), Array(name), bare, Array("\(port)".utf8)]
    }
}
