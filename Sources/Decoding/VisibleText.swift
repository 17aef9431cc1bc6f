// SPDX-License-Identifier: Apache-2.0
internal import Foundation

/// Text as a reader sees it: in composed characters (NFC), without what is invisible.
///
/// - Bytes that are not UTF-8 become U+FFFD.
/// - Control characters, line ends and white space of any kind become a space.
/// - What has no form of its own is left out: soft hyphens, zero-width characters, marks of direction, variation
///   selectors, Hangul fillers, tags (Unicode's Default_Ignorable_Code_Point).
/// - A base character keeps at most 30 combining marks (UAX 15, stream-safe text).
enum VisibleText {
    private static let mostMarks = 30

    /// Appends `bytes` in this form, at most `most` bytes.
    static func append(_ bytes: [UInt8], to text: inout [UInt8], most: Int) {
        guard !bytes.withUnsafeBytes(isPrintable) else {
            text += bytes.prefix(most)
            return
        }
        if bytes.count <= most, bytes.withUnsafeBytes(isPlain) {
            text += bytes
            return
        }
        if bytes.allSatisfy({ $0 < 0x80 }) {
            text += bytes.prefix(most).lazy.map { 0x20...0x7e ~= $0 ? $0 : 0x20 }
            return
        }
        var scalars = String.UnicodeScalarView()
        var (marks, mayCompose) = (0, false)
        for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
            if 0x20...0x7e ~= scalar.value {
                marks = 0
                scalars.append(scalar)
                continue
            }
            guard let visible = visible(scalar) else { continue }
            if visible.value >= 0x300 {
                mayCompose = true
                marks = visible.properties.canonicalCombiningClass == .notReordered ? 0 : marks + 1
                if marks > mostMarks { continue }
            } else {
                marks = 0
            }
            scalars.append(visible)
        }
        var visible = String(scalars)
        if mayCompose { visible = visible.precomposedStringWithCanonicalMapping }
        append(visible.utf8, to: &text, most: most)
    }

    /// Whether all bytes are printable ASCII. Looks at all of them, so that the compiler can take many at once.
    static func isPrintable(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var others: UInt8 = 0
        for byte in bytes { others |= byte &- 0x20 > 0x5e ? 1 : 0 }
        return others == 0
    }

    private static func append(_ utf8: String.UTF8View, to text: inout [UInt8], most: Int) {
        var end = utf8.index(utf8.startIndex, offsetBy: most, limitedBy: utf8.endIndex) ?? utf8.endIndex
        // Not inside a character.
        while end < utf8.endIndex, utf8[end] & 0xc0 == 0x80 { end = utf8.index(before: end) }
        text.append(contentsOf: utf8[..<end])
    }

    /// Whether the text is UTF-8 and stays as it is. Knows only the characters of common scripts; the others take the
    /// long way.
    private static func isPlain(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        while index < bytes.count {
            let first = bytes[index]
            guard first >= 0x80 else {
                guard 0x20...0x7e ~= first else { return false }
                index += 1
                continue
            }
            let length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4
            guard first >= 0xc2, first < 0xf5, index + length <= bytes.count else { return false }
            var value = UInt32(first) & (0x7f >> UInt32(length))
            for offset in 1..<length {
                let byte = bytes[index + offset]
                guard byte & 0xc0 == 0x80 else { return false }
                value = value << 6 | UInt32(byte & 0x3f)
            }
            guard isPlain(value), length == 2 || value >= (length == 3 ? 0x800 : 0x1_0000) else { return false }
            index += length
        }
        return true
    }

    /// Whether a character is visible, its own composed form, and no combining mark.
    static func isPlain(_ value: UInt32) -> Bool {
        switch value {
        // Latin without the no-break space and the soft hyphen, Greek, Cyrillic.
        case 0xa1...0xac, 0xae...0x2ff, 0x388...0x482, 0x48a...0x52f: true
        // Hebrew and Arabic letters, Thai consonants and vowels.
        case 0x5d0...0x5ea, 0x620...0x64a, 0xe01...0xe30, 0xe40...0xe46: true
        // Latin and Vietnamese; punctuation, currencies, arrows, symbols.
        case 0x1e00...0x1eff, 0x2010...0x2027, 0x2030...0x205e, 0x20a0...0x20bf, 0x2190...0x2328, 0x232b...0x2bff:
            value != 0x2adc
        // Kana, ideographs, Hangul, fullwidth forms, emoji.
        case 0x3001...0x3029, 0x3041...0x3096, 0x309b...0x30ff, 0x4e00...0x9fff, 0xac00...0xd7a3, 0xff01...0xff9f,
            0x1f300...0x1faff:
            true
        default: false
        }
    }

    /// nil for what is left out.
    private static func visible(_ scalar: Unicode.Scalar) -> Unicode.Scalar? {
        let properties = scalar.properties
        switch properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator, .spaceSeparator: return " "
        default: return properties.isDefaultIgnorableCodePoint ? nil : scalar
        }
    }
}
