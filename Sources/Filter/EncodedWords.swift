// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Replaces encoded words (RFC 2047) that stand for letters, digits, spaces, hyphens, underscores, dots and the end of
/// a group. All others stay: no mailbox hides in one, and no comment or quote begins in one.
func withoutEncodedWords(_ text: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    var index = 0
    while index < text.count {
        if let (decoded, end) = encodedWord(text, at: index) {
            result += decoded
            index = end
        } else {
            result.append(text[index])
            index += 1
        }
    }
    return result
}

/// The plain text of the encoded word at `start`, and where it ends.
private func encodedWord(_ text: [UInt8], at start: Int) -> (decoded: [UInt8], end: Int)? {
    guard text[start...].starts(with: "=?".utf8) else { return nil }
    // `=?charset?Q?text?=`
    let parts = text[(start + 2)...].split(
        separator: UInt8(ascii: "?"), maxSplits: 3, omittingEmptySubsequences: false)
    guard parts.count == 4, parts[3].first == UInt8(ascii: "="), !parts[0].isEmpty, parts[1].count == 1 else {
        return nil
    }
    let decoded =
        switch parts[1].first?.lowercased {
        case UInt8(ascii: "q"): quotedPrintable(parts[2])
        case UInt8(ascii: "b"): base64(parts[2])
        default: nil as [UInt8]?
        }
    guard let decoded, decoded.allSatisfy({ $0.isAlphanumeric || " -_.':;".utf8.contains($0) }) else { return nil }
    return (decoded, parts[3].startIndex + 1)
}

/// RFC 2047 4.2
private func quotedPrintable(_ text: ArraySlice<UInt8>) -> [UInt8]? {
    var result: [UInt8] = []
    var rest = text
    while let byte = rest.popFirst() {
        guard byte == UInt8(ascii: "=") else {
            result.append(byte == UInt8(ascii: "_") ? UInt8(ascii: " ") : byte)
            continue
        }
        guard rest.count >= 2, let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
            return nil
        }
        result.append(code)
        rest = rest.dropFirst(2)
    }
    return result
}

/// RFC 2045 6.8
private func base64(_ text: ArraySlice<UInt8>) -> [UInt8]? {
    let characters = text.prefix { $0 != UInt8(ascii: "=") }
    return characters.allSatisfy { $0.base64Value != nil } ? characters.base64Decoded : nil
}
