// SPDX-License-Identifier: Apache-2.0
internal import Foundation

/// Values beyond ASCII in one form each, so that nobody gets a second key by another spelling. Text that is not UTF-8
/// stays as it is, and so does text of more than `longest` bytes.
package enum InternationalText {
    /// In bytes. A path has at most 256 octets (RFC 5321, 4.5.3.1.3), but a policy request can have any value.
    package static let longest = 1024

    private static func text(_ bytes: [UInt8]) -> String? {
        bytes.count <= longest ? String(validating: bytes, as: UTF8.self) : nil
    }

    package static func isASCII(_ bytes: some Sequence<UInt8>) -> Bool { bytes.allSatisfy { $0 < 0x80 } }

    /// The A-labels of a domain (RFC 5890), after the mapping of UTS 46, which is how Postfix looks domains up: without
    /// distinction of case, width and composition. ASCII labels stay as they are.
    package static func asciiDomain(_ domain: [UInt8]) -> [UInt8] {
        guard let text = text(domain) else { return domain }
        // UTS 46 keeps the two joiners, and takes the ideographic full stop for a dot.
        let scalars = text.unicodeScalars.filter { scalar in
            !scalar.properties.isDefaultIgnorableCodePoint || scalar == "\u{200c}" || scalar == "\u{200d}"
        }
        let mapped = folded(String(String.UnicodeScalarView(scalars))).unicodeScalars
        let labels = mapped.split(omittingEmptySubsequences: false) { $0 == "." || $0 == "\u{3002}" }
        return Array(labels.map(asciiLabel).joined(separator: [UInt8(ascii: ".")]))
    }

    /// Without distinction of case, width and composition, as SASL servers compare logins (RFC 8265, 3.3).
    package static func folded(_ text: [UInt8]) -> [UInt8] {
        self.text(text).map { Array(folded($0).utf8) } ?? text
    }

    /// In composed characters (NFC), as RFC 6532 asks for in mailboxes. Only the receiving host may fold their case.
    package static func composed(_ text: [UInt8]) -> [UInt8] {
        self.text(text).map { Array($0.precomposedStringWithCanonicalMapping.utf8) } ?? text
    }

    private static func folded(_ text: String) -> String {
        // Lower case can come apart again, as that of U+0130.
        text.precomposedStringWithCompatibilityMapping.lowercased().precomposedStringWithCompatibilityMapping
    }

    private static func asciiLabel(_ label: Substring.UnicodeScalarView.SubSequence) -> [UInt8] {
        let scalars = label.map(\.value)
        // No name has a longer label, and the encoder takes time and numbers with the square of the length.
        guard scalars.count <= 63, scalars.contains(where: { $0 >= 0x80 }), label.allSatisfy(isOfNames) else {
            return Array(String(label).utf8)
        }
        return Array("xn--".utf8) + Punycode(scalars).output
    }

    /// False for what no name has: blanks, control characters and ASCII punctuation, such as a second `@`.
    private static func isOfNames(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "0"..."9", "-", "_": true
        default: !scalar.isASCII && !scalar.properties.isWhitespace && scalar.properties.generalCategory != .control
        }
    }
}

/// A label in the encoding of RFC 3492.
package struct Punycode {
    package private(set) var output: [UInt8]
    /// Scalars that were looked at. At most twice the square of the label's length, and once the length.
    package private(set) var steps: Int

    private static let (base, lowest, highest, skew, damp): (UInt32, UInt32, UInt32, UInt32, UInt32) = (
        36, 1, 26, 38, 700
    )

    package init(_ scalars: [UInt32]) {
        output = scalars.filter { $0 < 0x80 }.map(UInt8.init)
        steps = scalars.count
        let basic = UInt32(output.count)
        if basic > 0 { output.append(UInt8(ascii: "-")) }
        var (handled, next, delta, bias) = (basic, UInt32(0x80), UInt32(0), UInt32(72))
        while handled < scalars.count {
            steps += 2 * scalars.count
            // A scalar has 21 bits and the length 6, so nothing overflows.
            let least = scalars.filter { $0 >= next }.min()!
            delta += (least - next) * (handled + 1)
            next = least
            for scalar in scalars {
                if scalar < next { delta += 1 }
                guard scalar == next else { continue }
                Self.appendNumber(delta, bias, to: &output)
                bias = Self.adapted(delta, isFirst: handled == basic, length: handled + 1)
                delta = 0
                handled += 1
            }
            delta += 1
            next += 1
        }
    }

    private static func appendNumber(_ number: UInt32, _ bias: UInt32, to output: inout [UInt8]) {
        var rest = number
        var place = base
        while true {
            let threshold = place <= bias ? lowest : min(max(place - bias, lowest), highest)
            guard rest >= threshold else { break }
            output.append(digit(threshold + (rest - threshold) % (base - threshold)))
            rest = (rest - threshold) / (base - threshold)
            place += base
        }
        output.append(digit(rest))
    }

    private static func adapted(_ delta: UInt32, isFirst: Bool, length: UInt32) -> UInt32 {
        var delta = isFirst ? delta / damp : delta / 2
        delta += delta / length
        var bias: UInt32 = 0
        while delta > (base - lowest) * highest / 2 {
            delta /= base - lowest
            bias += base
        }
        return bias + (base - lowest + 1) * delta / (delta + skew)
    }

    private static func digit(_ value: UInt32) -> UInt8 {
        UInt8(value < 26 ? UInt32(UInt8(ascii: "a")) + value : UInt32(UInt8(ascii: "0")) + value - 26)
    }
}
