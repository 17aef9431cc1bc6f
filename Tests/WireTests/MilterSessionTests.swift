// SPDX-License-Identifier: Apache-2.0
import Foundation
import NIOCore
import Testing
import Wire

/// Plays the transcripts of Fixtures/Milter. Lines:
///
///     > COMMAND PAYLOAD    the MTA sends a packet; \0 and \xNN are escapes, N:NUMBER is 32 bits and S:NUMBER 16;
///                          a comma may end the number
///     >> BYTES             it sends these bytes, with the same escapes
///     EVENT                the session's event, followed by `?` if the MTA waits for a reply
///     ! FAULT              the fault that ends the connection
///     < COMMAND PAYLOAD    a packet that the session sends
@Suite struct MilterSessionTests {
    static let transcripts = Bundle.module.urls(
        forResourcesWithExtension: "transcript", subdirectory: "Fixtures/Milter")!
        .compactMap { $0.lastPathComponent }.map { String($0.dropLast(".transcript".count)) }.sorted()

    private static let terms = MilterTerms(
        actions: [.changeHeaders, .quarantine, .setMacros],
        options: [.noData, .noReplyToMail, .noReplyToHeader, .leadingSpace],
        macros: [.mail: "i {auth_authen}", .endOfMessage: "i"])

    @Test(arguments: transcripts, [true, false])
    func transcript(_ name: String, byteByByte: Bool) throws {
        let url = Bundle.module.url(forResource: name, withExtension: "transcript", subdirectory: "Fixtures/Milter")!
        var session = MilterSession(wanting: Self.terms)
        var events: [String] = []
        func run() {
            do throws(MilterFault) {
                while let event = try session.next() {
                    if event == .macros { continue }
                    events.append(describe(event) + (session.needsReply && isAnswered(event) ? " ?" : ""))
                }
            } catch {
                events.append("! \(error.text)")
            }
        }
        for (index, line) in try String(contentsOf: url, encoding: .utf8).split(separator: "\n").enumerated() {
            if line.hasPrefix("#") { continue }
            let place = "\(name), line \(index + 1): \(line)"
            if line.hasPrefix("> ") || line.hasPrefix(">> ") {
                var bytes = line.hasPrefix(">>") ? unescaped(line.dropFirst(3)) : packet(line.dropFirst(2))
                while !bytes.isEmpty {
                    let piece = byteByByte ? bytes.prefix(1) : bytes[...]
                    #expect(
                        session.receive(upTo: piece.count) {
                            $0.copyBytes(from: piece); return piece.count
                        } == piece.count)
                    bytes.removeFirst(piece.count)
                    if events.last?.hasPrefix("!") ?? false { break }
                    run()
                }
            } else if line.hasPrefix("< ") {
                let expected = packet(line.dropFirst(2))
                #expect(session.output.readBytes(length: expected.count) == expected, "\(place)")
            } else {
                #expect((events.isEmpty ? nil : events.removeFirst()) == String(line), "\(place)")
            }
        }
        #expect(events == [])
        #expect(session.output.readableBytes == 0)
    }

    /// Postfix treats an empty list as no list, and would send the macros of its own configuration.
    @Test func stagesWithoutMacros() throws {
        var session = MilterSession(
            wanting: MilterTerms(actions: [.setMacros], options: [], macros: [.connect: "", .endOfMessage: "i"]))
        let offer = packet("O N:6,N:511,N:2097151") + packet("D C{none}\\0x\\0i\\04ABC\\0")
        _ = session.receive(upTo: offer.count) {
            $0.copyBytes(from: offer); return offer.count
        }
        #expect(try session.next() == .macros)
        #expect(try session.next() == nil)
        let expected = packet("O N:6,N:256,N:0,N:0,{none}\\0N:5,i\\0")
        #expect(Array(session.output.readableBytesView) == expected)
        #expect(session.macros["none"] == nil)
        #expect(session.macros["i"] == Array("4ABC".utf8))
    }

    @Test func lengthOfNextPacket() {
        var session = MilterSession(wanting: Self.terms)
        let offer = packet("O N:6,N:511,N:2097151")
        for byte in offer {
            #expect(session.nextLength == 0)
            _ = session.receive(upTo: 1) {
                $0[0] = byte; return 1
            }
        }
        #expect(session.nextLength == offer.count - 4)
    }

    @Test func replies() {
        var buffer = ByteBuffer()
        buffer.writeMilterReply("550 5.7.1 100%\r\nsure".utf8)
        buffer.writeMilterChange(header: "Subject".utf8, 2, to: " x\n\ty".utf8)
        buffer.writeMilterInsert(header: "X".utf8, at: 0, value: "".utf8)
        buffer.writeMilterQuarantine("a\0b".utf8)
        buffer.writeMilterAdd(recipient: "<a@example.org>".utf8, parameters: "NOTIFY=NEVER ORCPT=rfc822;b".utf8)
        let expected =
            packet("y 550 5.7.1 100%%  sure\\0") + packet("m N:2,Subject\\0 x\\x0a\\x09y\\0") + packet("i N:0,X\\0\\0")
            + packet("q ab\\0")
            + packet("2 <a@example.org>\\0NOTIFY=NEVER ORCPT=rfc822;b\\0")
        #expect(Array(buffer.readableBytesView) == expected)
    }

    private func isAnswered(_ event: MilterSession.Event) -> Bool {
        switch event {
        case .abort, .quit: false
        default: true
        }
    }

    private func describe(_ event: MilterSession.Event) -> String {
        func text(_ bytes: some Sequence<UInt8>) -> String {
            String(decoding: Array(bytes), as: UTF8.self).replacing("\n", with: "\\x0a").replacing("\t", with: "\\x09")
        }
        return switch event {
        case .connect(let client): "connect \(text(client.name)) [\(text(client.address))]:\(client.port)"
        case .helo(let name): "helo \(text(name))"
        case .mail(let sender, let parameters): (["mail \(text(sender))"] + parameters.map(text)).joined(separator: " ")
        case .recipient(let address, let parameters):
            (["recipient \(text(address))"] + parameters.map(text)).joined(separator: " ")
        case .header(let name, let value): "header \(text(name.readableBytesView)):\(text(value.readableBytesView))"
        case .body(let piece): "body \(text(piece.readableBytesView))"
        case .endOfMessage: "end"
        case .abort: "abort"
        case .macros: "macros"
        case .other: "other"
        case .quit: "quit"
        }
    }
}

private func packet(_ text: some StringProtocol) -> [UInt8] {
    let payload = unescaped(text.dropFirst(2))
    let length = UInt32(payload.count + 1)
    return (0..<4).map { UInt8(truncatingIfNeeded: length >> (24 - 8 * $0)) } + [text.utf8.first!] + payload
}

private func unescaped(_ text: some StringProtocol) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = Substring(text)
    while let character = rest.first {
        let number = rest.dropFirst(2).prefix { $0.isNumber }
        if rest.hasPrefix("N:") || rest.hasPrefix("S:") {
            let width = character == "N" ? 4 : 2
            let value = UInt32(number)!
            bytes += (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * (width - 1 - $0))) }
            rest = rest.dropFirst(2 + number.count)
            if rest.first == "," { rest = rest.dropFirst() }
        } else if rest.hasPrefix("\\0") {
            bytes.append(0)
            rest = rest.dropFirst(2)
        } else if rest.hasPrefix("\\x") {
            bytes.append(UInt8(rest.dropFirst(2).prefix(2), radix: 16)!)
            rest = rest.dropFirst(4)
        } else {
            bytes += Array(String(character).utf8)
            rest = rest.dropFirst()
        }
    }
    return bytes
}
