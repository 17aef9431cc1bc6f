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
        guard !bytes.allSatisfy({ 0x20...0x7e ~= $0 }) else {
            text += bytes.prefix(most)
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

    private static func append(_ utf8: String.UTF8View, to text: inout [UInt8], most: Int) {
        var end = utf8.index(utf8.startIndex, offsetBy: most, limitedBy: utf8.endIndex) ?? utf8.endIndex
        // Not inside a character.
        while end < utf8.endIndex, utf8[end] & 0xc0 == 0x80 { end = utf8.index(before: end) }
        text.append(contentsOf: utf8[..<end])
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
