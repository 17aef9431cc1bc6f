// SPDX-License-Identifier: Apache-2.0

/// The character classes of Postfix's `ISSPACE`, `ISALNUM` and friends: ASCII, C locale.
extension UInt8 {
    /// Space, tab, newline, vertical tab, form feed or carriage return.
    @inlinable package var isSpace: Bool { self == 0x20 || (0x09...0x0d ~= self) }
    /// Space or tab.
    @inlinable package var isBlank: Bool { self == 0x20 || self == 0x09 }
    @inlinable package var isDigit: Bool { 0x30...0x39 ~= self }
    @inlinable package var isAlphanumeric: Bool { isDigit || 0x61...0x7a ~= (self | 0x20) }
    @inlinable package var isControl: Bool { self < 0x20 || self == 0x7f }
    @inlinable package var lowercased: UInt8 { 0x41...0x5a ~= self ? self | 0x20 : self }
}

extension Collection<UInt8> {
    /// The name of a header: what comes before its colon, without the blanks before that.
    @inlinable package var fieldName: SubSequence { prefix { $0 != UInt8(ascii: ":") && !$0.isBlank } }

    /// Whether the bytes are `text`, which is in lower case, regardless of ASCII case.
    @inlinable package func equalsIgnoringCase(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        var expected = text.utf8Start
        for byte in self {
            guard byte.lowercased == expected.pointee else { return false }
            expected += 1
        }
        return true
    }
}

extension UInt8 {
    /// The six bits that this character of base64 stands for (RFC 4648 4); nil for `=` and all others.
    package var base64Value: UInt32? {
        switch self {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(self - UInt8(ascii: "A"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(self - UInt8(ascii: "a")) + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(self - UInt8(ascii: "0")) + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}

extension Sequence<UInt8> {
    /// The bytes that these characters of base64 stand for (RFC 2045 6.8). Others are skipped. After padding, the next
    /// four characters begin anew.
    package var base64Decoded: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(underestimatedCount / 4 * 3)
        var (bits, count): (UInt32, UInt32) = (0, 0)
        for byte in self {
            if byte == UInt8(ascii: "=") { (bits, count) = (0, 0) }
            guard let value = byte.base64Value else { continue }
            bits = bits << 6 | value
            count += 6
            if count >= 8 {
                count -= 8
                result.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        return result
    }
}
