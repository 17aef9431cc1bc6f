// SPDX-License-Identifier: Apache-2.0

/// Tokens of a structured header (Postfix `header_token.c`), up to three of an item that ends
/// at a semicolon: comments are skipped, quoted strings unquoted.
struct HeaderTokens {
    enum Token: Equatable {
        case token([UInt8])
        case quoted([UInt8])
        /// A special or a control character.
        case special(UInt8)

        func isToken(_ text: StaticString) -> Bool {
            guard case .token(let value) = self else { return false }
            return value.count == text.utf8CodeUnitCount && value.equalsIgnoringCase(text)
        }

        var text: [UInt8] {
            switch self {
            case .token(let value), .quoted(let value): value
            case .special(let byte): [byte]
            }
        }
    }

    private let text: UnsafeRawBufferPointer
    private var index: Int
    private static let largestCount = 3

    init(_ text: UnsafeRawBufferPointer, from index: Int) {
        self.text = text
        self.index = index
    }

    /// The next item; nil when nothing is left.
    mutating func nextItem() -> [Token]? {
        var tokens: [Token] = []
        while index < text.count {
            let byte = text[index]
            index += 1
            switch byte {
            case 0x20, 0x09, 0x0a, 0x0d:
                break
            case UInt8(ascii: ";"):
                return tokens
            case UInt8(ascii: "("):
                skipComment()
            case UInt8(ascii: "\""):
                let value = takeQuoted()
                if tokens.count < Self.largestCount { tokens.append(.quoted(value)) }
            case let byte where Self.isSpecial(byte):
                if tokens.count < Self.largestCount { tokens.append(.special(byte)) }
            default:
                let start = index - 1
                while index < text.count, !Self.isSpecial(text[index]), text[index] != 0x20 {
                    index += 1
                }
                if tokens.count < Self.largestCount { tokens.append(.token(Array(text[start..<index]))) }
            }
        }
        return tokens.isEmpty ? nil : tokens
    }

    /// RFC 2045 tspecials, and control characters.
    private static func isSpecial(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "<"), UInt8(ascii: ">"),
            UInt8(ascii: "@"), UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: ":"),
            UInt8(ascii: "\\"), UInt8(ascii: "\""), UInt8(ascii: "/"), UInt8(ascii: "["),
            UInt8(ascii: "]"), UInt8(ascii: "?"), UInt8(ascii: "="):
            true
        default:
            byte.isControl
        }
    }

    private mutating func skipComment() {
        var level = 1
        while index < text.count, level > 0 {
            switch text[index] {
            case UInt8(ascii: "("): level += 1
            case UInt8(ascii: ")"): level -= 1
            case UInt8(ascii: "\\"): index += 1
            default: break
            }
            index += 1
        }
        index = min(index, text.count)
    }

    private mutating func takeQuoted() -> [UInt8] {
        var value: [UInt8] = []
        while index < text.count {
            var byte = text[index]
            index += 1
            if byte == UInt8(ascii: "\"") { break }
            if byte == 0x0a {
                // Unfolding: white space around the newline goes.
                while let last = value.last, last.isSpace, last != 0x0b, last != 0x0c {
                    value.removeLast()
                }
                continue
            }
            if byte == UInt8(ascii: "\\") {
                guard index < text.count else { break }
                byte = text[index]
                index += 1
            }
            value.append(byte)
        }
        return value
    }
}

/// What a Content-Type header says about where headers may follow (`mime_state.c`).
enum ContentType: Equatable {
    case text
    /// Begins with headers of its own: message/rfc822 or message/global.
    case message
    /// message/partial and others, whose content is taken for text.
    case otherMessage
    case multipart
    case other
}
