// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Decodes the encoded words (RFC 2047) of an unfolded header wherever they stand: in quoted strings, inside other
/// words, with blanks in them. Mail programs show them so. What is no encoded word stays.
struct EncodedWords {
    private let text: [UInt8]
    /// No `?=` comes from this index on.
    private var lastEnd = Int.max

    /// `=?charset*language?encoding?text?=`
    private struct Word {
        /// In lower case.
        let charset: [UInt8]
        let isBase64: Bool
        let text: ArraySlice<UInt8>
        let end: Int
    }

    /// Bytes. No name of a character set is longer, even with a language.
    private static let longestCharset = 64

    init(_ text: [UInt8]) { self.text = text }

    /// The text with its words as UTF-8. Other bytes beyond ASCII stay as they are.
    mutating func decoded(_ charsets: inout Charsets) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        // Where the word before ends, as long as only blanks have followed it.
        var wordEnd: Int?
        // Bytes of a character that continues in the next word, and their character set.
        var (rest, restCharset): ([UInt8], [UInt8]) = ([], [])
        var index = 0
        while index < text.count {
            if text[index] == UInt8(ascii: "="), let word = word(at: index) {
                // Blanks between encoded words are not shown (RFC 2047 6.2).
                if !rest.isEmpty, restCharset != word.charset { Self.flush(&rest, to: &result) }
                rest += word.isBase64 ? word.text.base64Decoded : Self.quotedPrintable(word.text)
                restCharset = word.charset
                rest = charsets.convert(rest, from: word.charset, to: &result)
                index = word.end
                wordEnd = index
                continue
            }
            if let end = wordEnd, !text[index].isBlank {
                Self.flush(&rest, to: &result)
                result += text[end..<index]
                wordEnd = nil
            }
            if wordEnd == nil { result.append(text[index]) }
            index += 1
        }
        Self.flush(&rest, to: &result)
        if let wordEnd { result += text[wordEnd...] }
        return result
    }

    /// An incomplete character.
    private static func flush(_ rest: inout [UInt8], to result: inout [UInt8]) {
        guard !rest.isEmpty else { return }
        result += Charsets.replacement
        rest = []
    }

    private mutating func word(at start: Int) -> Word? {
        let charsetStart = start + 2
        guard charsetStart < text.count, text[start + 1] == UInt8(ascii: "?") else { return nil }
        let most = min(text.count, charsetStart + Self.longestCharset)
        var end = charsetStart
        while end < most, text[end] != UInt8(ascii: "?"), 0x21...0x7e ~= text[end] { end += 1 }
        // The encoding, its `?` and the final `?=`.
        guard end > charsetStart, end + 4 < text.count, text[end] == UInt8(ascii: "?"),
            text[end + 2] == UInt8(ascii: "?")
        else { return nil }
        let encoding = text[end + 1].lowercased
        guard encoding == UInt8(ascii: "b") || encoding == UInt8(ascii: "q") else { return nil }
        let textStart = end + 3
        guard let textEnd = endOfText(from: textStart) else { return nil }
        let name = text[charsetStart..<end]
        return Word(
            charset: name.prefix { $0 != UInt8(ascii: "*") }.map(\.lowercased), isBase64: encoding == UInt8(ascii: "b"),
            text: text[textStart..<textEnd], end: textEnd + 2)
    }

    /// The index of the next `?=`. A search that finds none is not repeated, so that time stays linear.
    private mutating func endOfText(from start: Int) -> Int? {
        guard start < lastEnd else { return nil }
        var index = start
        while index + 1 < text.count {
            if text[index] == UInt8(ascii: "?"), text[index + 1] == UInt8(ascii: "=") { return index }
            index += 1
        }
        lastEnd = start
        return nil
    }

    /// RFC 2047 4.2. A `=` without two hexadecimal digits stays.
    private static func quotedPrintable(_ text: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var index = text.startIndex
        while index < text.endIndex {
            let byte = text[index]
            if byte == UInt8(ascii: "="), let code = hexadecimal(text, at: index + 1) {
                result.append(code)
                index += 3
            } else {
                result.append(byte == UInt8(ascii: "_") ? 0x20 : byte)
                index += 1
            }
        }
        return result
    }
}

/// The byte that two hexadecimal digits at `index` stand for; nil if there are none.
func hexadecimal(_ text: ArraySlice<UInt8>, at index: Int) -> UInt8? {
    guard index + 1 < text.endIndex, let high = hexadecimalDigit(text[index]),
        let low = hexadecimalDigit(text[index + 1])
    else { return nil }
    return high << 4 | low
}

func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "A")...UInt8(ascii: "F"), UInt8(ascii: "a")...UInt8(ascii: "f"):
        (byte | 0x20) - UInt8(ascii: "a") + 10
    default: nil
    }
}
