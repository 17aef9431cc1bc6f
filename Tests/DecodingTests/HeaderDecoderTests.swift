// SPDX-License-Identifier: Apache-2.0
import Decoding
import Foundation
import Testing

/// Plays Fixtures/headers: lines with a raw header, each followed by `> ` and its decoded text. `#` begins a comment.
/// `\n`, `\t`, `\\` and `\xNN` stand for bytes in both, `\u{N}` for a character.
@Suite struct HeaderDecoderTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let raw: String
        let decoded: String
        var testDescription: String { raw }
    }

    static let cases: [Case] = {
        let url = Bundle.module.url(forResource: "headers", withExtension: nil, subdirectory: "Fixtures")!
        let lines = try! String(contentsOf: url, encoding: .utf8).split(separator: "\n").filter { !$0.hasPrefix("#") }
        return stride(from: 0, to: lines.count, by: 2).map { index in
            precondition(lines[index + 1].hasPrefix("> "), "no decoded text for \(lines[index])")
            return Case(raw: String(lines[index]), decoded: String(lines[index + 1].dropFirst(2)))
        }
    }()

    @Test(arguments: cases) func headers(_ header: Case) {
        #expect(text(decoded(bytes(header.raw))) == text(bytes(header.decoded)))
    }

    @Test(arguments: cases) func decodedTextStays(_ header: Case) {
        let once = decoded(bytes(header.raw))
        guard !once.contains(UInt8(ascii: "?")), !once.contains(UInt8(ascii: "*")) else { return }
        #expect(text(decoded(once)) == text(once))
    }

    @Test func theStateOfADecoderDoesNotMatter() {
        let decoder = HeaderDecoder()
        for header in Self.cases + Self.cases.reversed() {
            var result: [UInt8] = []
            decoder.beginMessage()
            decoder.decode(bytes(header.raw), into: &result)
            #expect(text(result) == text(bytes(header.decoded)))
        }
    }

    /// Each would take minutes if the time were not linear in the length.
    @Test(arguments: [
        "=?a?q?", "=?utf-8?q?", "=?", "=?x", "?=", "=?utf-8?b?YQ==?= ", "=?a?b?YQ?=", "\u{300}", "a\u{301}\u{323}",
        "=?iso-2022-jp?b?GyRC?=", "=?utf-7?q?+?=", " =?tscii?q?=aa=aa=aa=aa=aa?=", "=?utf-8?q?=CC=80?=",
        "\u{1d160}",
    ]) func longHeaders(_ unit: String) {
        let header = Array("Subject: \(String(repeating: unit, count: Self.longLength / unit.utf8.count))".utf8)
        #expect(decoded(header).count <= HeaderDecoder.mostBytes)
    }

    @Test(arguments: ["; a*=x", "; a*0=\"x", "; a*1*=%", ";", "; a*\(1)=", "\""]) func longParameters(_ unit: String) {
        let header = Array("Content-Type: x\(String(repeating: unit, count: Self.longLength / unit.utf8.count))".utf8)
        #expect(decoded(header).count <= HeaderDecoder.mostBytes)
    }

    private static let longLength = 300_000

    @Test func manyParametersWithNamesOfTheirOwn() {
        let header = "Content-Type: x" + (0..<10_000).map { "; a\($0)*0=x; a\($0)*1=y" }.joined()
        #expect(decoded(Array(header.utf8)).starts(with: Array("Content-Type: x; a0=\"xy\"; a1=\"xy\"".utf8)))
    }

    @Test func theCutIsNotInsideACharacter() {
        for padding in 0..<4 {
            let text = String(repeating: "a", count: padding) + String(repeating: "\u{1f600}", count: 100_000)
            let result = decoded(Array(text.utf8))
            #expect(HeaderDecoder.mostBytes - 3...HeaderDecoder.mostBytes ~= result.count)
            #expect(String(validating: result, as: UTF8.self) != nil)
        }
    }

    /// Whatever character sets the system has: the result is UTF-8, and no state is left behind.
    @Test func manyCharsetsInAHeader() {
        let words = (0..<100).map { "=?cp\($0 + 850)?q?=e4?=" }.joined(separator: " ")
        #expect(String(validating: decoded(Array("Subject: \(words)".utf8)), as: UTF8.self) != nil)
    }

    /// The allowance is that of a message, and what an earlier message has left open does not add to it.
    @Test func aMessageOpensFewCharsets() {
        let decoder = HeaderDecoder()
        func texts(_ codePages: ClosedRange<Int>) -> [String] {
            decoder.beginMessage()
            return codePages.map { page in
                var result: [UInt8] = []
                decoder.decode(Array("Subject: =?cp\(page)?q?=e4?=".utf8), into: &result)
                return String(decoding: result, as: UTF8.self)
            }
        }
        let first = texts(1250...1258)
        #expect(!first.contains("Subject: \u{fffd}"))
        // Names that iconv does not know count, too.
        let many = texts(1201...1258)
        #expect(many.last == "Subject: \u{fffd}")
        #expect(texts(1250...1258) == first)
    }

    private func decoded(_ header: [UInt8]) -> [UInt8] {
        let decoder = HeaderDecoder()
        var result: [UInt8] = []
        decoder.decode(header, into: &result)
        return result
    }

    private func text(_ bytes: [UInt8]) -> String {
        String(decoding: bytes, as: UTF8.self).unicodeScalars.map { scalar in
            scalar.isASCII && scalar.value >= 0x20 ? "\(scalar)" : scalar.escaped(asASCII: true)
        }.joined()
    }

    private func bytes(_ text: String) -> [UInt8] {
        var result: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\"), let letter = rest.popFirst() else {
                result.append(byte)
                continue
            }
            switch letter {
            case UInt8(ascii: "n"): result.append(0x0a)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "x"):
                result.append(UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)!)
                rest = rest.dropFirst(2)
            case UInt8(ascii: "u"):
                let digits = rest.dropFirst().prefix { $0 != UInt8(ascii: "}") }
                let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)!
                result += Array(String(Unicode.Scalar(value)!).utf8)
                rest = rest.dropFirst(digits.count + 2)
            default: result.append(letter)
            }
        }
        return result
    }
}
