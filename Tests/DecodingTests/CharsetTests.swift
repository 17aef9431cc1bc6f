// SPDX-License-Identifier: Apache-2.0
import Decoding
import Foundation
import Testing

/// What becomes of a text does not depend on the pieces in which it arrives, nor on the texts before, whatever iconv's
/// converters make of bytes that are not valid.
@Suite struct CharsetTests {
    private struct Collector: PartEvents {
        var text: [UInt8] = []

        mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) { text.append(contentsOf: lines) }
        mutating func attachment(_ listing: PartListing, of part: Part) {}
        mutating func limitReached(_ limit: PartLimit, in part: Part) {}
    }

    /// The character sets with a state, and some that hold back a letter until they know the next one.
    static let names = [
        "utf-7", "utf-7-imap", "utf-16", "utf-16le", "utf-32", "unicode", "ucs-2", "iso-10646", "iso-2022-jp",
        "iso-2022-jp-1", "iso-2022-jp-2", "iso-2022-jp-3", "iso-2022-jp-2004", "iso-2022-kr", "iso-2022-cn",
        "iso-2022-cn-ext", "tscii", "windows-1258", "tcvn", "big5-hkscs", "euc-jisx0213", "shift_jisx0213", "euc-tw",
        "gb18030", "johab", "t.61", "iso_6937", "ansi_x3.110", "ibm930", "ibm933", "ibm935", "ibm937", "ibm939",
        "ibm1364", "ibm1371", "ibm1388", "ibm1390", "ibm1399", "cp932", "cp949", "utf-8",
    ]

    private static let tokens: [[UInt8]] = [
        [0x1b, 0x24, 0x42], [0x1b, 0x28, 0x42], [0x1b, 0x28, 0x4a], [0x1b, 0x24, 0x29, 0x41], [0x1b, 0x24, 0x29, 0x43],
        [0x1b, 0x24, 0x29, 0x45], [0x1b, 0x24, 0x2a, 0x48], [0x1b, 0x24, 0x2b, 0x49], [0x1b, 0x2e, 0x41], [0x1b, 0x4e],
        [0x1b, 0x4f], [0x1b, 0x24], [0x1b], [0x0e], [0x0f], [0xfe, 0xff], [0xff, 0xfe], [0xff, 0xfe, 0, 0],
        [0, 0, 0xfe, 0xff], [0, 0xd8], [0xd8, 0], [0xdc, 0], [0], [0x0a], [0x80], [0x8e], [0x8e, 0xa2, 0xa1],
        [0x8f, 0xa1], [0x88, 0x62], [0x88, 0x66], [0xaa, 0xaa], [0xaa, 0xe2], [0xc1, 0xe0], [0xcc], [0xec], [0xff],
        Array("+3AA-".utf8), Array("+2AA".utf8), Array("+AGE-".utf8), Array("+".utf8), Array("-".utf8),
        Array("&3AA-".utf8), Array("!!".utf8), Array("a".utf8), Array("plain text".utf8), Array("<b>".utf8),
    ]

    private static func content(_ count: Int, _ random: inout Generator) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            bytes += tokens.randomElement(using: &random)!
            if Int.random(in: 0..<4, using: &random) == 0 { bytes.append(.random(in: 0...255, using: &random)) }
        }
        return bytes
    }

    private static func text(_ pieces: [ArraySlice<UInt8>], from name: String, _ reader: inout PartReader) -> [UInt8] {
        var collector = Collector()
        reader.reset()
        for piece in [Array("Content-Type: text/plain; charset=\(name)\n\n".utf8)[...]] + pieces {
            piece.withUnsafeBytes { reader.update($0, &collector) }
        }
        reader.finish(&collector)
        return collector.text
    }

    @Test(arguments: names) func piecesChangeNothing(_ name: String) {
        var random = Generator(state: 1)
        var reader = PartReader(wantsText: true, wantsAttachments: false)
        for _ in 0..<40 {
            let content = Self.content(30, &random)
            let whole = Self.text([content[...]], from: name, &reader)
            for index in 1..<content.count {
                let halves = [content[..<index], content[index...]]
                #expect(Self.text(halves, from: name, &reader) == whole, "\(content), \(index)")
            }
        }
        let long = Self.content(10_000, &random)
        let whole = Self.text([long[...]], from: name, &reader)
        for size in [1, 100, 4_095, 4_097] {
            let pieces = stride(from: 0, to: long.count, by: size).map { long[$0..<min($0 + size, long.count)] }
            #expect(Self.text(pieces, from: name, &reader) == whole, "pieces of \(size)")
        }
    }

    @Test(arguments: names) func textsBeforeChangeNothing(_ name: String) {
        var random = Generator(state: 2)
        var used = PartReader(wantsText: true, wantsAttachments: false)
        for _ in 0..<100 {
            // Byte order marks, and none.
            let mark: [UInt8] = [[], [], [0xfe, 0xff], [0, 0, 0xfe, 0xff]].randomElement(using: &random)!
            let content = mark + Self.content(30, &random)
            var new = PartReader(wantsText: true, wantsAttachments: false)
            let expected = Self.text([content[...]], from: name, &new)
            #expect(Self.text([content[...]], from: name, &used) == expected, "\(content)")
        }
    }

    /// HTML may be in UTF-7, and a surrogate without its other half hides nothing of it.
    @Test func htmlInUTF7() {
        let message = "Content-Type: text/html; charset=UTF-7\n\n+3AA-+ADw-p hidden+AD4APA-b>se+AGM-ret+ADw-/p>shown"
        var reader = PartReader(wantsText: true, wantsAttachments: false)
        var collector = Collector()
        Array(message.utf8).withUnsafeBytes { reader.update($0, &collector) }
        reader.finish(&collector)
        #expect(String(decoding: collector.text, as: UTF8.self) == "\u{fffd}\nhidden: secret\nshown\n")
    }

    private struct Generator: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }
}
