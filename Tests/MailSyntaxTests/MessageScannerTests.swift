// SPDX-License-Identifier: Apache-2.0
import MailSyntax
import Testing

/// Records the scanner's events, one line each.
private struct Transcript: ScannerEvents {
    var lines: [String] = []
    mutating func headers(_ block: HeaderBlock) {
        for header in block.headers {
            let mark = header.isVerbatim && !header.isCut ? "" : " altered"
            lines.append("\(header.checkedAs) \(header.range)\(mark) \(text(block.text(of: header)))")
        }
    }

    mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool) {
        lines.append("end of headers \(offset)\(needsEmptyLine ? " text" : "")")
    }

    /// Splits body text into lines. It does not matter how many lines arrive at once.
    mutating func body(_ body: BodyText) {
        var start = 0
        while start < body.text.count {
            let end =
                body.isRecord ? body.text.count : (body.text[start...].firstIndex(of: 0x0a) ?? body.text.count - 1) + 1
            let line = UnsafeRawBufferPointer(rebasing: body.text[start..<end])
            let key = line.withoutLineEnd
            if !key.isEmpty { lines.append("body \(body.offset + start) \(text(key))") }
            start = end
        }
    }

    private func text(_ bytes: UnsafeRawBufferPointer) -> String {
        bytes.count > 80 ? "\(bytes.count) bytes" : String(decoding: bytes, as: UTF8.self)
    }
}

private func scan(
    _ message: [UInt8], pieces: Int = .max, limits: ScannerLimits = ScannerLimits(), dotsWereDoubled: Bool = true
) -> [String] {
    var scanner = MessageScanner(limits: limits)
    scanner.dotsWereDoubled = dotsWereDoubled
    var transcript = Transcript()
    var start = 0
    while start < message.count {
        let end = min(message.count, start + min(pieces, message.count))
        message[start..<end].withUnsafeBytes { scanner.update($0, &transcript) }
        start = end
    }
    scanner.finish(&transcript)
    return transcript.lines + (scanner.nestingExceeded ? ["nesting exceeded"] : [])
}

private func scan(_ message: String, limits: ScannerLimits = ScannerLimits()) -> [String] {
    scan(Array(message.utf8), limits: limits)
}

@Suite struct MessageScannerTests {
    /// More headers than fit into one block, by number and by size.
    @Test(arguments: [1, 400]) func manyHeaders(length: Int) {
        let value = String(repeating: "x", count: length)
        let message = (0..<300).map { "H\($0): \(value)\n" }.joined() + "\nbody\n"
        let headers = scan(message).prefix { !$0.hasPrefix("end") }
        #expect(headers.count == 300)
        #expect(
            headers.enumerated().allSatisfy {
                $1.hasPrefix("primary ") && (length > 80 || $1.hasSuffix(" H\($0): \(value)"))
            })
    }

    @Test func classesOfHeaders() {
        let message =
            "To: a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\nX-A : 1\r\n"
            + "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n here\r\n\r\nnested\r\n--b-- x\r\npost\r\n"
        #expect(
            scan(message) == [
                "primary 0..<7 To: a", "mime 7..<50 Content-Type: multipart/mixed; boundary=b",
                "end of headers 50", "body 52 pre", "body 57 --b", "mime 62..<71 altered X-A: 1",
                "mime 71..<101 Content-Type: message/rfc822", "nested 103..<123 Subject: in\n here",
                "body 125 nested", "body 133 --b-- x", "body 142 post",
            ])
    }

    @Test(
        arguments: [
            ("", ["end of headers 0"]),
            ("\r\n", ["end of headers 0"]),
            ("A: b", ["primary 0..<4 A: b", "end of headers 4"]),
            ("text\r\n", ["end of headers 0", "body 0 text"]),
            (" text\n", ["end of headers 0 text", "body 0  text"]),
            (
                "From x\r\nA: b\r\n",
                ["primary 0..<8 altered X-Mailbox-Line: From x", "primary 8..<14 A: b", "end of headers 14"]
            ),
            ("A: b\0c\r\n d\r\n", ["primary 0..<12 altered A: b\n d", "end of headers 12"]),
            ("A: b\rc\r\r\n", ["primary 0..<9 A: b c", "end of headers 9"]),
            ("A: b\n\nx\ry\n", ["primary 0..<5 A: b", "end of headers 5", "body 6 x y"]),
        ] as [(String, [String])])
    func oddMessages(message: String, expected: [String]) {
        #expect(scan(message) == expected)
    }

    /// smtpd looks for white space before cleanup replaces stray CRs with spaces.
    @Test(
        arguments: [
            (
                "\rfoo\r\n bar\r\nA: b\r\n c\r\n\r\n d\r\n",
                ["primary 12..<22 A: b\n c", "end of headers 22", "body 24  d"]
            ),
            ("\rfoo\r\ntext\r\n", ["end of headers 6", "body 6 text"]),
            (
                "From x\r\n\rfoo\r\nA: b\r\n",
                ["primary 0..<14 altered X-Mailbox-Line: From x\n foo", "primary 14..<20 A: b", "end of headers 20"]
            ),
            ("From\rx\r\nA: b\r\n", ["end of headers 0 text", "body 0 From x", "body 8 A: b"]),
            (
                "From x\r\n foo\r\n",
                ["primary 0..<8 altered X-Mailbox-Line: From x", "end of headers 8 text", "body 8  foo"]
            ),
        ] as [(String, [String])])
    func strayCRsAtTheStart(message: String, expected: [String]) {
        #expect(scan(message) == expected)
    }

    /// If the first line is longer than a record, its pieces continue the header that it becomes.
    @Test(arguments: [(" tail", 1), ("From tail", 16), (">From tail", 16), ("tail", 0), ("\rtail", 0), ("", 0)])
    func pieceBehindFrom(piece: String, more: Int) {
        let line = "From " + String(repeating: "x", count: 2_043)
        let message = line + piece + "\r\nA: b\r\n\r\nbody\r\n"
        let end = 2_048 + piece.utf8.count + 2
        #expect(
            scan(message) == [
                "primary 0..<\(end) altered \(16 + 2_048 + more + piece.utf8.count) bytes",
                "primary \(end)..<\(end + 6) A: b", "end of headers \(end + 6)", "body \(end + 8) body",
            ])
    }

    /// Newer versions of smtpd look at the first record only.
    @Test(
        arguments: [
            (
                "From x\r\nA: b\r\n",
                ["primary 0..<8 altered X-Mailbox-Line: From x", "primary 8..<14 A: b", "end of headers 14"]
            ),
            (
                "From x\r\nFrom y\r\nA: b\r\n",
                [
                    "primary 0..<8 altered X-Mailbox-Line: From x", "end of headers 8 text", "body 8 From y",
                    "body 16 A: b",
                ]
            ),
            (
                "From x\r\n foo\r\nA: b\r\n",
                ["primary 0..<14 altered X-Mailbox-Line: From x\n foo", "primary 14..<20 A: b", "end of headers 20"]
            ),
        ] as [(String, [String])])
    func onlyTheFirstFromLine(message: String, expected: [String]) {
        var limits = ScannerLimits()
        limits.fromLines = .first
        #expect(scan(message, limits: limits) == expected)
    }

    @Test(arguments: [true, false]) func aLeadingDotCountsTwiceIfItWasDoubled(dotsWereDoubled: Bool) {
        let message = Array(("\r\n." + String(repeating: "y", count: 2_046) + "z\r\n..\r\n").utf8)
        let pieces = dotsWereDoubled ? ["body 2 2047 bytes", "body 2049 z"] : ["body 2 2048 bytes"]
        for size in [1, 2_047, 2_048, 10_000] {
            let found = scan(message, pieces: size, dotsWereDoubled: dotsWereDoubled)
            #expect(found == ["end of headers 0"] + pieces + ["body 2052 .."])
        }
    }

    @Test func longLinesAreSplit() {
        let lines = scan(
            "\r\n" + String(repeating: "x", count: 5_000) + "\r\n." + String(repeating: "y", count: 2_047) + "\r\n")
        #expect(
            lines == [
                "end of headers 0", "body 2 2048 bytes", "body 2050 2048 bytes", "body 4098 904 bytes",
                "body 5004 2047 bytes", "body 7051 y",
            ])
    }

    @Test func bodyIsCheckedUpToTheLimitOfEachSegment() {
        var limits = ScannerLimits()
        limits.bodyChecksSize = 10
        let message = "Content-Type: multipart/mixed; boundary=b\n\n12345678\nx\ny\n--b\n\nz\n"
        #expect(scan(message, limits: limits).dropFirst(2) == ["body 43 12345678", "body 61 z"])
    }

    @Test func nestingIsBounded() {
        let part = "Content-Type: multipart/mixed; boundary=b\n\n--b\n"
        #expect(!scan(String(repeating: part, count: 102)).contains("nesting exceeded"))
        #expect(scan(String(repeating: part, count: 103)).contains("nesting exceeded"))
        #expect(scan(String(repeating: part, count: 10_000)).last == "nesting exceeded")
    }

    @Test func headerIsBounded() {
        let message = "A: x\n" + String(repeating: " " + String(repeating: "y", count: 999) + "\n", count: 10_000)
        let lines = scan(message)
        #expect(Int(lines[0].split(separator: " ")[3]).map { $0 < 102_400 + 2_048 + 1 } == true)
        #expect(lines.count == 2)
    }

    private static let samples: [[UInt8]] = [
        "To: a\r\nContent-Type: multipart/mixed;\r\n boundary=\"b\"\r\n\r\npre\r\n"
            + "--b\r\nX-A : 1\r\n\r\n.dot\r\n-\r\n--\r\n--b--\r\nx\ry\r\n",
        "A: b\r\n\r\n" + String(repeating: "e", count: 2_047) + "\r\n" + String(repeating: "f", count: 2_046) + "\r\nq",
        "." + String(repeating: "d", count: 2_046) + "\r\n\r\n\r\n",
        String(repeating: "N: " + String(repeating: "v", count: 3_000) + "\r\n w\r\n", count: 3) + "\r\n\0\r\r\n",
    ].map { Array($0.utf8) }

    /// A message in pieces of any small size gives the same events as the whole message.
    @Test(arguments: 0..<4)
    func piecesOfAnySize(sample: Int) {
        let message = Self.samples[sample]
        let whole = scan(message)
        for size in Array(1...70) + [2_047, 2_048, 2_049] {
            #expect(scan(message, pieces: size) == whole, "pieces of \(size)")
        }
    }

    /// Whole lines are searched many bytes at once, and incomplete lines byte by byte.
    @Test(arguments: [0x00, 0x09, 0x0a, 0x0d, 0x20, 0x3a, 0x7f, 0x80] as [UInt8])
    func specialBytesAreFoundAtAnyPosition(byte: UInt8) {
        for position in 0..<70 {
            var line = [UInt8](repeating: UInt8(ascii: "x"), count: 70)
            line[position] = byte
            let message =
                Array("A: b\r\nX: ".utf8) + line + Array("\r\n".utf8) + line + Array(": c\r\n\r\n".utf8) + line
                + Array("\r\nend\r\n".utf8)
            #expect(scan(message) == scan(message, pieces: 1), "at \(position)")
        }
    }

    @Test func headerNamesEndAtAColon() {
        for byte in UInt8.min...UInt8.max {
            for position in 0..<40 {
                var line = [UInt8](repeating: UInt8(ascii: "n"), count: 40) + Array(": value".utf8)
                line[position] = byte
                let isPart = 0x21...0x7e ~= byte && byte != UInt8(ascii: ":")
                // White space is allowed before the colon, which is at 40.
                let endsThere = byte == UInt8(ascii: ":") || (byte == 0x20 || byte == 0x09) && position == 39
                let expected = isPart ? 40 : endsThere ? position : 0
                #expect(line.withUnsafeBytes(headerNameLength) == expected, "\(byte) at \(position)")
            }
        }
    }
}
