// SPDX-License-Identifier: Apache-2.0

/// The tokens of a structured header (Postfix `header_token.c`), in items separated by semicolons. Comments are
/// skipped, and a quoted string is one token. Of each item, only the first three tokens are kept.
struct HeaderTokens {
    struct Token {
        enum Kind { case token, quoted, special }

        let kind: Kind
        /// Its bytes in the header; those of a quoted string are without the quotes.
        let range: Range<Int>
    }

    /// The first three tokens of an item.
    struct Item {
        private(set) var count = 0
        private(set) var first: Token?
        private(set) var second: Token?
        private(set) var third: Token?

        mutating func add(_ token: Token) {
            switch count {
            case 0: first = token
            case 1: second = token
            case 2: third = token
            default: return
            }
            count += 1
        }
    }

    private let text: UnsafeRawBufferPointer
    private var index: Int

    init(_ text: UnsafeRawBufferPointer, from index: Int) {
        self.text = text
        self.index = index
    }

    /// Whether a token is `value`, which is in lower case, regardless of case.
    func isToken(_ token: Token?, _ value: StaticString) -> Bool {
        guard let token, token.kind == .token else { return false }
        return UnsafeRawBufferPointer(rebasing: text[token.range]).equalsIgnoringCase(value)
    }

    func isSpecial(_ token: Token?, _ byte: UInt8) -> Bool {
        guard let token, token.kind == .special else { return false }
        return text[token.range.lowerBound] == byte
    }

    /// The next item; nil at the end.
    mutating func nextItem() -> Item? {
        var item = Item()
        while index < text.count {
            let byte = text[index]
            index += 1
            switch byte {
            case 0x20, 0x09, 0x0a, 0x0d:
                break
            case UInt8(ascii: ";"):
                return item
            case UInt8(ascii: "("):
                skipComment()
            case UInt8(ascii: "\""):
                item.add(Token(kind: .quoted, range: readQuoted()))
            case let byte where Self.isSpecial(byte):
                item.add(Token(kind: .special, range: index - 1..<index))
            default:
                let start = index - 1
                var end = index
                while end < text.count, !Self.isSpecial(text[end]), text[end] != 0x20 { end += 1 }
                item.add(Token(kind: .token, range: start..<end))
                index = end
            }
        }
        return item.count == 0 ? nil : item
    }

    /// RFC 2045 `tspecials` and control characters.
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

    private mutating func readQuoted() -> Range<Int> {
        let start = index
        while index < text.count, text[index] != UInt8(ascii: "\"") {
            index += text[index] == UInt8(ascii: "\\") ? 2 : 1
        }
        let end = min(index, text.count)
        index = min(index + 1, text.count)
        return start..<end
    }

    /// Appends the value of a token. A quoted string is unfolded and loses its escapes.
    func appendValue(of token: Token, to value: inout [UInt8]) {
        guard token.kind == .quoted else { return value.append(contentsOf: text[token.range]) }
        let start = value.count
        var index = token.range.lowerBound
        while index < token.range.upperBound {
            let byte = text[index]
            index += 1
            switch byte {
            case 0x0a:
                // White space before the newline is removed with it.
                while value.count > start, let last = value.last, [0x20, 0x09, 0x0a, 0x0d].contains(last) {
                    value.removeLast()
                }
            case UInt8(ascii: "\\"):
                if index < token.range.upperBound { value.append(text[index]) }
                index += 1
            default:
                value.append(byte)
            }
        }
    }
}

/// The type of an entity, as far as it decides where headers may follow (`mime_state.c`).
enum ContentType: Equatable {
    case text
    /// message/rfc822 or message/global: begins with headers of its own.
    case message
    /// message/partial and others: the content is treated as text.
    case otherMessage
    case multipart
    case other
}
