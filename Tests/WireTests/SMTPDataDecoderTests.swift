// SPDX-License-Identifier: Apache-2.0
import NIOCore
import Testing
import Wire

@Suite struct SMTPDataDecoderTests {
    private struct Decoded: Equatable {
        var content: [UInt8] = []
        /// The bytes after the end of the data; nil if it was not reached.
        var rest: [UInt8]?
        var hasLeadingDot = false
    }

    private func decode(_ pieces: [ArraySlice<UInt8>]) -> Decoded {
        var decoder = SMTPDataDecoder()
        var content = ByteBuffer()
        var rest: [UInt8]?
        for piece in pieces {
            if rest != nil {
                rest! += piece
                continue
            }
            var input = ByteBuffer(bytes: piece)
            if decoder.decode(&input, into: &content) { rest = Array(input.readableBytesView) }
        }
        return Decoded(content: Array(content.readableBytesView), rest: rest, hasLeadingDot: decoder.hasLeadingDot)
    }

    /// A slow model: finds the end first, then looks at each byte and its neighbours.
    private func model(_ input: [UInt8]) -> Decoded {
        let wire = [0x0d, 0x0a] + input
        let mark: [UInt8] = [0x0d, 0x0a, 0x2e, 0x0d, 0x0a]
        guard let end = wire.indices.first(where: { wire[$0...].starts(with: mark) }) else { return Decoded() }
        let text = Array(wire[..<(end + 2)])
        var content: [UInt8] = []
        var index = 2
        while index < text.count {
            if text[index] == 0x2e, text[index - 1] == 0x0a, text[index - 2] == 0x0d {
            } else if text[index] == 0x0a {
                content += [0x0d, 0x0a]
            } else if text[index] == 0x0d {
                let next = text[index...].first { $0 != 0x0d }
                if next != 0x0a { content.append(0x20) }
            } else {
                content.append(text[index])
            }
            index += 1
        }
        let hasDot = content.indices.contains { content[$0] == 0x2e && ($0 == 0 || content[$0 - 1] == 0x0a) }
        return Decoded(content: content, rest: Array(wire[(end + mark.count)...]), hasLeadingDot: hasDot)
    }

    @Test(arguments: [
        (".\r\n", "", ""),
        ("\r\n.\r\n", "\r\n", ""),
        ("a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"),
        ("..\r\n.\r\n", ".\r\n", ""),
        ("..a\r\n...\r\n.\r\n", ".a\r\n..\r\n", ""),
        // Sequences that some servers treat as the end of the data. Here they are content.
        ("a\n.\nMAIL\r\n.\r\n", "a\r\n.\r\nMAIL\r\n", ""),
        ("a\n.\r\nMAIL\r\n.\r\n", "a\r\n.\r\nMAIL\r\n", ""),
        ("a\r\n.\nMAIL\r\n.\r\n", "a\r\n\r\nMAIL\r\n", ""),
        ("a\r.\rMAIL\r\n.\r\n", "a . MAIL\r\n", ""),
        ("a\r\n.\rMAIL\r\n.\r\n", "a\r\n MAIL\r\n", ""),
        ("a\r.\r\nMAIL\r\n.\r\n", "a .\r\nMAIL\r\n", ""),
        ("a\r\n.\r\r\nMAIL\r\n.\r\n", "a\r\n\r\nMAIL\r\n", ""),
        ("a\n\n.\r\nMAIL\r\n.\r\n", "a\r\n\r\n.\r\nMAIL\r\n", ""),
        ("a\r\n\0.\r\nMAIL\r\n.\r\n", "a\r\n\0.\r\nMAIL\r\n", ""),
        ("a\r\n.\0\r\nMAIL\r\n.\r\n", "a\r\n\0\r\nMAIL\r\n", ""),
    ])
    func onlyCRLFDotCRLFEnds(_ input: String, _ content: String, _ rest: String) {
        let bytes = Array(input.utf8)
        for cut in 0...bytes.count {
            let decoded = decode([bytes[..<cut], bytes[cut...]])
            #expect(decoded.content == Array(content.utf8))
            #expect(decoded.rest == Array(rest.utf8))
        }
        #expect(decode(bytes.indices.map { bytes[$0...$0] }).content == Array(content.utf8))
    }

    @Test func sameAsTheModel() {
        var random = SystemRandomNumberGenerator()
        let alphabet: [UInt8] = [0x0d, 0x0d, 0x0a, 0x0a, 0x2e, 0x2e, 0x61, 0]
        for _ in 0..<20_000 {
            let text = (0..<Int.random(in: 0...24, using: &random)).map { _ in alphabet.randomElement(using: &random)! }
            let input = text + Array("\r\n.\r\n".utf8)
            let cuts = [Int.random(in: 0...input.count), Int.random(in: 0...input.count)].sorted()
            let decoded = decode([input[..<cuts[0]], input[cuts[0]..<cuts[1]], input[cuts[1]...]])
            #expect(decoded == model(input), "\(input)")
        }
    }

    @Test func stuffingIsTheInverse() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<5_000 {
            let lines = (0..<Int.random(in: 0...6)).map { _ in
                ["", ".", "..", "a", ".a", "a."].randomElement(using: &random)!
            }
            let content = Array(lines.map { $0 + "\r\n" }.joined().utf8)
            var wire = ByteBuffer()
            var atLineStart = true
            let cut = Int.random(in: 0...content.count)
            for part in [content[..<cut], content[cut...]] {
                part.withUnsafeBytes { wire.writeDotStuffed($0, atLineStart: &atLineStart) }
            }
            #expect(atLineStart)
            wire.writeString(".\r\n")
            let decoded = decode([Array(wire.readableBytesView)[...]])
            #expect(decoded.content == content)
            #expect(decoded.rest == [])
        }
    }

    /// A long run of CRs becomes spaces, and is not held back.
    @Test func manyCarriageReturns() {
        let input = [UInt8](repeating: 0x0d, count: 1_000) + Array("a\r\n.\r\n".utf8)
        let decoded = decode([input[...]])
        #expect(decoded.content == [UInt8](repeating: 0x20, count: 1_000) + Array("a\r\n".utf8))
        #expect(decoded.rest == [])
    }
}
