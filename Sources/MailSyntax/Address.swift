// SPDX-License-Identifier: Apache-2.0

/// A mail address from an SMTP client in its canonical form.
///
/// This removes a source route (`@a,@b:user@host`, RFC 5321 4.1.2), angle brackets, a trailing dot of the domain, and
/// quotes that the local part does not need. The domain is in lower case. The local part keeps its case: only the
/// receiving host may interpret it (RFC 5321 2.4).
package struct CanonicalAddress: Equatable, Sendable {
    package var localPart: [UInt8]
    /// Empty if the address has none.
    package var domain: [UInt8]

    /// - Parameter delimiters: Postfix's `recipient_delimiter`. The address extension after the first of them is
    ///   removed if Postfix would remove it.
    package init(_ address: UnsafeRawBufferPointer, delimiters: [UInt8] = []) {
        var bytes = address[...]
        if bytes.first == UInt8(ascii: "<"), bytes.last == UInt8(ascii: ">"), bytes.count >= 2 {
            bytes = bytes.dropFirst().dropLast()
        }
        if bytes.first == UInt8(ascii: "@"), let colon = bytes.firstIndex(of: UInt8(ascii: ":")) {
            bytes = bytes[(colon + 1)...]
        }
        let at = bytes.lastIndex(of: UInt8(ascii: "@"))
        localPart = Self.unquoted(bytes[..<(at ?? bytes.endIndex)])
        domain = at.map { Self.folded(bytes[($0 + 1)...]) } ?? []
        if let cut = localPart.firstIndex(where: delimiters.contains), cut > 0,
            !Self.isReserved(localPart, delimiters: delimiters)
        {
            localPart.removeSubrange(cut...)
        }
    }

    /// Whether Postfix never splits the local part (global/split_addr.c).
    private static func isReserved(_ localPart: [UInt8], delimiters: [UInt8]) -> Bool {
        let folded = localPart.map(asciiLowercased)
        if folded == Array("mailer-daemon".utf8) || folded == Array("double-bounce".utf8) { return true }
        guard delimiters.contains(UInt8(ascii: "-")) else { return false }
        let request = Array("-request".utf8)
        return folded.starts(with: "owner-".utf8)
            || folded.count > request.count && folded.suffix(request.count) == request[...]
    }

    /// A domain or host name in lower case, without trailing dots.
    package static func folded(_ name: some BidirectionalCollection<UInt8>) -> [UInt8] {
        var bytes = name.map(asciiLowercased)
        while bytes.count > 1, bytes.last == UInt8(ascii: ".") { bytes.removeLast() }
        return bytes
    }

    package static func asciiLowercased(_ byte: UInt8) -> UInt8 {
        byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte
    }

    /// `"a b"` stays quoted, `"ab"` becomes `ab` and `"a\b"` becomes `ab` (RFC 5321 4.1.2, Dot-string).
    private static func unquoted(_ local: Slice<UnsafeRawBufferPointer>) -> [UInt8] {
        guard local.count >= 2, local.first == UInt8(ascii: "\""), local.last == UInt8(ascii: "\"") else {
            return Array(local)
        }
        var content: [UInt8] = []
        var escaped = false
        for byte in local.dropFirst().dropLast() {
            if !escaped, byte == UInt8(ascii: "\\") {
                escaped = true
                continue
            }
            escaped = false
            content.append(byte)
        }
        return isDotString(content) ? content : Array(local)
    }

    private static func isDotString(_ bytes: [UInt8]) -> Bool {
        var afterDot = true
        for byte in bytes {
            if byte == UInt8(ascii: ".") {
                if afterDot { return false }
                afterDot = true
            } else if isAtomText(byte) {
                afterDot = false
            } else {
                return false
            }
        }
        return !afterDot
    }

    /// `atext` (RFC 5322 3.2.3) or any 8-bit byte (RFC 6531 3.3).
    private static func isAtomText(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), 0x80...:
            true
        default:
            "!#$%&'*+-/=?^_`{|}~".utf8.contains(byte)
        }
    }
}
