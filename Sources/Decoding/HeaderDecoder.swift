// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Decodes headers to what a mail program shows: unfolded, with encoded words (RFC 2047) and parameters (RFC 2231) as
/// UTF-8. The time is linear in the size of the header.
package final class HeaderDecoder {
    /// Bytes. The rest of a longer decoded header is left out.
    package static let mostBytes = 262_144

    private var charsets = Charsets()

    package init() {}

    /// The next header is the first of another message.
    package func beginMessage() { charsets.beginMessage() }

    /// Appends the decoded text of a logical header, whose lines end in LF. The text is UTF-8 without control
    /// characters.
    package func decode(_ header: UnsafeRawBufferPointer, into text: inout [UInt8]) {
        let form = HeaderForm(header)
        guard !form.isPlain else {
            text.append(contentsOf: header.prefix(Self.mostBytes))
            return
        }
        var bytes = Self.unfolded(header)
        if form.mayHaveParameters { bytes = ParameterDecoder(bytes).decoded(&charsets) }
        if form.mayHaveWords {
            var words = EncodedWords(bytes)
            bytes = words.decoded(&charsets)
        }
        VisibleText.append(bytes, to: &text, most: Self.mostBytes)
    }

    /// The same for an array.
    package func decode(_ header: [UInt8], into text: inout [UInt8]) {
        header.withUnsafeBytes { decode($0, into: &text) }
    }

    /// RFC 5322 2.2.3: the line ends go, the white space after them stays.
    private static func unfolded(_ header: UnsafeRawBufferPointer) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(header.count)
        for byte in header where byte != 0x0a { bytes.append(byte) }
        return bytes
    }
}

/// What a header needs, found in one look at its bytes.
private struct HeaderForm {
    /// Whether it is its own decoded text.
    let isPlain: Bool
    let mayHaveWords: Bool
    let mayHaveParameters: Bool

    init(_ header: UnsafeRawBufferPointer) {
        var (isPrintable, hasWord, hasAsterisk) = (true, false, false)
        var last: UInt8 = 0
        for byte in header {
            if byte &- 0x20 > 0x5e { isPrintable = false }
            // A fold may stand between `=?` and what comes before it, but not inside.
            if byte == UInt8(ascii: "?"), last == UInt8(ascii: "=") { hasWord = true }
            if byte == UInt8(ascii: "*") { hasAsterisk = true }
            last = byte
        }
        let isContent = header.prefix(8).equalsIgnoringCase("content-")
        (mayHaveWords, mayHaveParameters) = (hasWord, hasAsterisk && isContent)
        isPlain = isPrintable && !hasWord && !mayHaveParameters
    }
}
