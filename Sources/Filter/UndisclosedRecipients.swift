// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Whether a recipient header consists only of empty groups (RFC 5322 3.4), so that it names nobody.
///
/// - Parameter anyName: whatever the groups are called. Otherwise they must be called "undisclosed recipients", or
///   "unlisted recipients" (Sendmail), in any case, with hyphens, underscores, dots or spaces, folded, quoted, as
///   encoded words (RFC 2047), and with comments.
func isEmptyGroup(_ header: some Collection<UInt8>, anyName: Bool) -> Bool {
    // Most recipient headers have no group.
    guard
        header.contains(UInt8(ascii: ";")) || header.contains(UInt8(ascii: "?")) && !header.contains(UInt8(ascii: "@")),
        let colon = header.firstIndex(of: UInt8(ascii: ":"))
    else { return false }
    var parser = EmptyGroups(withoutEncodedWords(Array(header[header.index(after: colon)...])), anyName: anyName)
    return parser.parse()
}

/// `name : [CFWS ,]* ;` one or more times, with commas between.
private struct EmptyGroups {
    private let text: [UInt8]
    private let anyName: Bool
    private var index = 0

    init(_ text: [UInt8], anyName: Bool) {
        self.text = text
        self.anyName = anyName
    }

    mutating func parse() -> Bool {
        var groups = 0
        while true {
            skip(",")
            guard index < text.count else { return groups > 0 }
            guard readName(), read(":") else { return false }
            skip(",")
            guard read(";") else { return false }
            groups += 1
        }
    }

    /// Reads a display name, and returns whether it is one that is sought.
    private mutating func readName() -> Bool {
        let start = index
        var letters: [UInt8] = []
        var isQuoted = false
        while true {
            if !isQuoted { skip("") }
            guard index < text.count else { return false }
            switch text[index] {
            case UInt8(ascii: "\""): isQuoted.toggle()
            case let byte where isQuoted && byte.isSpace: break
            case UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "'"): break
            case let byte where byte.isAlphanumeric: letters.append(byte)
            case UInt8(ascii: "\\") where anyName && isQuoted: index += 1
            case let byte where anyName && (isQuoted || byte.isAtomText): break
            default:
                return !isQuoted && (anyName ? index > start : Self.known.contains { letters.equalsIgnoringCase($0) })
            }
            index += 1
        }
    }

    /// The letters of the known names.
    private static let known: [StaticString] = [
        "undisclosedrecipients", "undisclosedrecipient", "unlistedrecipients", "unlistedrecipient",
    ]

    private mutating func read(_ byte: Unicode.Scalar) -> Bool {
        skip("")
        guard index < text.count, text[index] == UInt8(ascii: byte) else { return false }
        index += 1
        return true
    }

    /// Skips white space, comments and the bytes of `also`.
    private mutating func skip(_ also: String) {
        while index < text.count {
            if text[index].isSpace || also.utf8.contains(text[index]) {
                index += 1
            } else if text[index] == UInt8(ascii: "(") {
                guard skipComment() else { return }
            } else {
                return
            }
        }
    }

    /// Skips a comment. Returns false, and skips nothing, if it has no end.
    private mutating func skipComment() -> Bool {
        var (level, position) = (0, index)
        while position < text.count {
            switch text[position] {
            case UInt8(ascii: "("): level += 1
            case UInt8(ascii: ")"): level -= 1
            case UInt8(ascii: "\\"): position += 1
            default: break
            }
            position += 1
            if level == 0 {
                index = min(position, text.count)
                return true
            }
        }
        return false
    }
}

/// The recipient headers that the `h=` tag of a DKIM-Signature covers (RFC 6376 3.5).
func signedRecipientHeaders(_ signature: UnsafeRawBufferPointer) -> [HeaderName] {
    var names: [HeaderName] = []
    for tag in signature.dropFirst("DKIM-Signature:".utf8.count).split(separator: UInt8(ascii: ";")) {
        let tag = tag.filter { !$0.isSpace }
        guard tag.starts(with: Array("h=".utf8)) else { continue }
        for name in tag.dropFirst(2).split(separator: UInt8(ascii: ":")) {
            let header = (Array(name) + [UInt8(ascii: ":")]).withUnsafeBytes { HeaderName(of: $0) }
            if header.isVisibleRecipient { names.append(header) }
        }
    }
    return names
}

extension UInt8 {
    /// A byte of an atom (RFC 5322 3.2.3) that is neither letter nor digit, or of UTF-8.
    fileprivate var isAtomText: Bool { self >= 0x80 || "!#$%&*+/=?^`{|}~".utf8.contains(self) }
}
