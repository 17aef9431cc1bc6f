// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Decodes UTF-7 (RFC 2152), and its form for names of mailboxes (RFC 3501 5.1.3), byte by byte. iconv(3) can't be
/// used: after a surrogate without its other half, it shows nothing of the rest of the text.
///
/// Every ASCII character stands for itself outside of base64. U+FFFD stands for a byte beyond ASCII, for a surrogate
/// without its other half, for bits that are left at the end of base64, and for a `+` that nothing of base64 follows.
struct UTF7 {
    /// Begins base64.
    private let shift: UInt8
    /// The last digit of base64.
    private let lastDigit: UInt8

    private var isInBase64 = false
    /// Whether no digit has followed the shift.
    private var isEmpty = true
    /// Bits that make no unit of UTF-16 yet.
    private var bits: UInt32 = 0
    private var bitCount: UInt32 = 0
    /// The first half of a character.
    private var high: UInt16?

    init(forMailboxes: Bool) {
        shift = UInt8(ascii: forMailboxes ? "&" : "+")
        lastDigit = UInt8(ascii: forMailboxes ? "," : "/")
    }

    /// Appends `bytes` as UTF-8. The state stays for the next ones.
    mutating func decode(_ bytes: some Sequence<UInt8>, to result: inout [UInt8]) {
        for byte in bytes {
            if isInBase64 {
                if let digit = digit(byte) {
                    take(digit, to: &result)
                    continue
                }
                let isHyphen = byte == UInt8(ascii: "-")
                if isHyphen, isEmpty {
                    result.append(shift)
                    isInBase64 = false
                } else {
                    finish(to: &result)
                }
                if isHyphen { continue }
            }
            if byte == shift {
                (isInBase64, isEmpty) = (true, true)
            } else if byte < 0x80 {
                result.append(byte)
            } else {
                result += Charsets.replacement
            }
        }
    }

    /// Ends base64, or the text. The next text begins in the initial state.
    mutating func finish(to result: inout [UInt8]) {
        guard isInBase64 else { return }
        if high != nil { result += Charsets.replacement }
        // Up to five bits fill the last digit, and are zero.
        if isEmpty || bitCount > 5 || bits != 0 { result += Charsets.replacement }
        (isInBase64, bits, bitCount, high) = (false, 0, 0, nil)
    }

    private func digit(_ byte: UInt8) -> UInt32? {
        if byte == lastDigit { return 63 }
        return byte == UInt8(ascii: "/") ? nil : byte.base64Value
    }

    private mutating func take(_ digit: UInt32, to result: inout [UInt8]) {
        isEmpty = false
        bits = bits << 6 | digit
        bitCount += 6
        guard bitCount >= 16 else { return }
        bitCount -= 16
        let unit = UInt16(bits >> bitCount)
        bits &= 1 << bitCount - 1
        if UTF16.isLeadSurrogate(unit) {
            if high != nil { result += Charsets.replacement }
            high = unit
        } else if UTF16.isTrailSurrogate(unit) {
            if let high { Self.append(0x10000 + UInt32(high & 0x3ff) << 10 | UInt32(unit & 0x3ff), to: &result) }
            if high == nil { result += Charsets.replacement }
            high = nil
        } else {
            if high != nil { result += Charsets.replacement }
            high = nil
            Self.append(UInt32(unit), to: &result)
        }
    }

    private static func append(_ value: UInt32, to result: inout [UInt8]) {
        guard let scalar = Unicode.Scalar(value), let bytes = UTF8.encode(scalar) else { return }
        result += bytes
    }
}
