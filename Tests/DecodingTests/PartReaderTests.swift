// SPDX-License-Identifier: Apache-2.0
import Decoding
import Foundation
import Testing

/// Plays Fixtures/parts: NAME.eml is a message, and NAME.lines what is found in it: `T PATH TEXT` for a line of text,
/// `A LINE` for a line about a part, `L PATH LIMIT` for a limit.
@Suite struct PartReaderTests {
    private struct Collector: PartEvents {
        var wantsLines = true
        var lines: [String] = []
        var bytes = 0

        mutating func add(_ text: UnsafeRawBufferPointer, _ prefix: String) {
            bytes += text.count
            #expect(text.last == 0x0a)
            guard wantsLines else { return }
            lines += text.split(separator: 0x0a).map { prefix + String(decoding: $0, as: UTF8.self) }
        }

        mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) { add(lines, "T \(path(part)) ") }
        mutating func attachment(_ listing: PartListing, of part: Part) {
            listing.lines().withUnsafeBytes { add($0, "A ") }
            if let limit = listing.limit { limitReached(limit, in: part) }
        }
        mutating func limitReached(_ limit: PartLimit, in part: Part) { lines.append("L \(path(part)) \(limit)") }

        private func path(_ part: Part) -> String { String(decoding: part.path, as: UTF8.self) }
    }

    private static let directory = Bundle.module.url(
        forResource: "parts", withExtension: nil, subdirectory: "Fixtures")!

    static let names: [String] = try! FileManager.default.contentsOfDirectory(atPath: directory.path)
        .filter { $0.hasSuffix(".eml") }.map { String($0.dropLast(4)) }.sorted()

    private static func found(
        _ message: [UInt8], inPieces size: Int, reader: inout PartReader
    ) -> [String] {
        var collector = Collector()
        message.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: bytes.count, by: size) {
                let end = min(start + size, bytes.count)
                reader.update(UnsafeRawBufferPointer(rebasing: bytes[start..<end]), &collector)
            }
        }
        reader.finish(&collector)
        return collector.lines
    }

    @Test(arguments: names) func parts(_ name: String) throws {
        let message = [UInt8](try Data(contentsOf: Self.directory.appending(path: "\(name).eml")))
        let file = try String(contentsOf: Self.directory.appending(path: "\(name).lines"), encoding: .utf8)
        let expected = file.split(separator: "\n").map(String.init)
        let withCRLF = message.flatMap { $0 == 0x0a ? [0x0d, 0x0a] : [$0] }
        // One reader for all: nothing of a message may be left to the next one.
        var reader = PartReader(wantsText: true, wantsAttachments: true)
        for content in [message, withCRLF] {
            for size in [1, 3, 64, 1 << 20] where size > 1 || content.count < 1_000 {
                #expect(Self.found(content, inPieces: size, reader: &reader) == expected)
                reader.reset()
            }
        }
        for wantsText in [true, false] {
            var reader = PartReader(wantsText: wantsText, wantsAttachments: !wantsText)
            let kept = expected.filter { line in
                wantsText ? !line.hasPrefix("A") && !line.hasSuffix(" archive") : !line.hasPrefix("T")
            }
            #expect(Self.found(message, inPieces: 100, reader: &reader) == kept)
        }
    }

    /// Whole lines, groups of base64 and tags are read at once where a piece has them.
    @Test(arguments: ["plain", "plain; charset=iso-8859-1", "html", "html; charset=utf-8"], ["8bit", "base64"])
    func piecesChangeNothing(_ type: String, _ encoding: String) {
        var random = Generator(state: 1)
        let tokens = [
            "word", "two words", " ", "  ", "\t", "é", "\n", "\n", "\n\n", "\r", "\r\n", "--b", "\0", "-", "\u{a0}",
            String(repeating: "plain text in lines\n", count: 30), String(repeating: "plain text\r\n", count: 40),
            String(repeating: "long ", count: 2_000), "<p>", "</P>", "<b>", "<td>", "<h1>", "</h1>", "<br/>", "<pre>",
            "</pre>", "<title>", "</title>", "<script>", "</script>", "<a href='x &amp; y'>", "<a href=x  y>", "<",
            "&lt;", "&", "<div style=\"display : none\">", "<p style='FONT-SIZE:0px!x; a:b'>", "</div>",
            "<blockquote>", "<img alt=x>", "<1>", "</>", "<verylongname>", "<!-- -->", "<h-1>", "<a href=' x '>",
            "<a href=\"x\ty\">", "<img src='/x' alt='y'>", "<p hidden>", "<!--[if x]>", "<![endif]-->", "<!--[",
            "<!-->",
        ]
        var reader = PartReader(wantsText: true, wantsAttachments: true)
        for _ in 0..<25 {
            var text = ""
            for _ in 0..<Int.random(in: 1...40, using: &random) { text += tokens.randomElement(using: &random)! }
            var content = Array(text.utf8)
            if encoding == "base64" {
                let line = Bool.random(using: &random) ? 76 : Int.random(in: 1...30, using: &random) * 4
                content = Array(Data(content).base64EncodedString().utf8)
                for index in stride(from: content.count / line * line, to: 0, by: -line) {
                    content.insert(contentsOf: "\r\n".utf8, at: index)
                }
                if let index = content.indices.randomElement(using: &random), Bool.random(using: &random) {
                    content.insert(contentsOf: " *".utf8, at: index)
                }
            }
            let head = "Content-Type: text/\(type)\nContent-Transfer-Encoding: \(encoding)\n\n"
            let message = Array(head.utf8) + content
            let found = [1, 90, 1 << 20].map { size in
                defer { reader.reset() }
                return Self.found(message, inPieces: size, reader: &reader)
            }
            #expect(found[0] == found[1] && found[0] == found[2], "\(text.debugDescription)")
        }
    }

    private struct Generator: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    // MARK: - Bounds

    /// Repeats `unit` until `count` bytes have gone in. Returns what comes out.
    private static func pour(
        _ head: String, _ unit: String, _ count: Int, wantsAttachments: Bool = false
    ) -> (lines: [String], bytes: Int) {
        var reader = PartReader(wantsText: true, wantsAttachments: wantsAttachments)
        var collector = Collector(wantsLines: false)
        Array(head.utf8).withUnsafeBytes { reader.update($0, &collector) }
        let piece = Array(String(repeating: unit, count: max(1, 65_536 / unit.utf8.count)).utf8)
        piece.withUnsafeBytes { bytes in
            for _ in 0..<max(1, count / bytes.count) { reader.update(bytes, &collector) }
        }
        reader.finish(&collector)
        return (collector.lines, collector.bytes)
    }

    /// The first part ends in the middle of a shift, and beyond the bound.
    @Test func characterSetStateEndsWithItsPart() {
        let begin = "Content-Type: text/plain; charset=iso-2022-jp\n\n"
        let head = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\(begin)\u{1b}$B"
        let message = head + String(repeating: "$3$l", count: 400_000) + "\n--b\n\(begin)buy it\n--b--\n"
        var reader = PartReader(wantsText: true, wantsAttachments: false)
        let lines = Self.found(Array(message.utf8), inPieces: 1 << 16, reader: &reader)
        #expect(lines.suffix(2) == ["L 1 text", "T 2 buy it"])
    }

    /// 40 MB without a line end.
    @Test func quotedPrintableWithoutLineEnds() {
        let head = "Content-Transfer-Encoding: quoted-printable\n\n"
        let (lines, bytes) = Self.pour(head, "=41=", 40 << 20)
        #expect(lines == ["L 1 text"])
        #expect(bytes < 2 << 20)
    }

    @Test(arguments: [
        ("<div>", 1), ("<b", 0), ("<!-", 0), ("&amp", 1 << 20), ("<a href=", 1 << 20), ("<p hidden>", 0), ("</", 0),
        ("<script>", 0), ("x<br>", 1 << 20), ("<a href=x>", 1 << 20), ("&#x41;", 1 << 20), ("<!-- ", 0),
    ]) func htmlOfAnyDepth(_ unit: String, _ most: Int) {
        let (lines, bytes) = Self.pour("Content-Type: text/html\n\n", unit, 1_200_000)
        #expect(lines == ["L 1 text"])
        #expect(bytes <= most * 2)
    }

    @Test func aPartWithoutItsBoundaryIsBounded() {
        let (lines, bytes) = Self.pour("Content-Type: multipart/mixed; boundary=b\n\n", "text\n", 2 << 20)
        #expect(lines == ["L 1 boundary"])
        #expect(262_100...262_150 ~= bytes)
    }

    @Test func theTextOfAMessageIsBounded() {
        let part = "--b\n\n" + String(repeating: "text\n", count: 100_000) + "\n"
        let (lines, bytes) = Self.pour("Content-Type: multipart/mixed; boundary=b\n\n", part, 12 * part.utf8.count)
        #expect(lines.first == "L 9 text" && lines.allSatisfy { $0.hasSuffix(" text") })
        #expect(bytes <= 5 << 20)
    }

    @Test func thePartsOfAMessageAreBounded() {
        let (lines, _) = Self.pour(
            "Content-Type: multipart/mixed; boundary=b\n\n", "--b\n\nx\n", 10_000, wantsAttachments: true)
        #expect(lines == ["L 1001 parts"])
    }

    @Test(arguments: ["Content-Type: message/rfc822\n\n"]) func theDepthOfPartsIsBounded(_ unit: String) {
        let (lines, _) = Self.pour("", unit, 10_000)
        #expect(lines.count == 1 && lines[0].hasSuffix(" depth"))
    }

    /// Fields of any number are no fault, but one without end is.
    @Test(arguments: [
        ("X: y\n", []), ("Content-Type: a; b=c\n", []), ("x", ["L 1 header"]), (" folded\n", ["L 1 header"]),
        ("Content-Disposition: x; filename*1*=a; ", ["L 1 header"]),
    ]) func headersOfAnySize(_ unit: String, expected: [String]) {
        let head = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html;"
        let (lines, bytes) = Self.pour(head, unit, 1 << 20)
        #expect(lines == expected && bytes == 0)
    }

    @Test func boundariesOfAnySize() {
        for unit in ["--", "--\n"] {
            let (lines, bytes) = Self.pour("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n", unit, 4 << 20)
            #expect(lines == ["L 1 text"] && bytes > 0)
        }
    }
}
