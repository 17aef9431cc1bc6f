// SPDX-License-Identifier: Apache-2.0

/// A text with mail addresses as Postfix's RFC 822 parser splits it (global/tok822_parse.c): words, operators and
/// addresses.
///
/// RFC 822 is read generously. `%`, `!` and `|` are operators too, and a missing bracket or comma ends an address where
/// one word follows another.
struct AddressTokens {
    struct Token {
        /// 0 for a word: an atom, a quoted string or a domain literal.
        let symbol: UInt8
        /// Where it ends in `content`. It begins where the token before it ends.
        let end: Int
    }

    /// Without comments, which belong to no address.
    private(set) var tokens: [Token] = []
    /// The text of all tokens without quotes, escapes and the blanks between tokens.
    private var content: [UInt8] = []
    private(set) var hasComments = false
    /// Outside of words and comments.
    private(set) var hasBlanks = false
    /// Whether a comment, a quoted string or a domain literal does not end.
    private(set) var isUnterminated = false

    init(_ text: Slice<UnsafeRawBufferPointer>) {
        content.reserveCapacity(text.count)
        var position = text.startIndex
        while position < text.endIndex {
            let byte = text[position]
            switch byte {
            case _ where Self.isBlank(byte):
                hasBlanks = true
                position += 1
            case UInt8(ascii: "("):
                hasComments = true
                position = commentEnd(text, position + 1)
            case UInt8(ascii: "\""):
                position = appendWord(text, position + 1) { $0 == UInt8(ascii: "\"") } + 1
                if position > text.endIndex { isUnterminated = true }
                endToken()
            case UInt8(ascii: "["):
                content.append(byte)
                position = appendWord(text, position + 1) { $0 == UInt8(ascii: "]") } + 1
                if position > text.endIndex { isUnterminated = true }
                content.append(UInt8(ascii: "]"))
                endToken()
            case _ where Self.isOperator(byte):
                content.append(byte)
                position += 1
                endToken(byte)
            default:
                position = appendWord(text, position) { Self.isBlank($0) || Self.isOperator($0) }
                endToken()
            }
        }
    }

    private mutating func endToken(_ symbol: UInt8 = 0) { tokens.append(Token(symbol: symbol, end: content.count)) }

    /// Appends bytes up to one that ends the word, without their escapes.
    ///
    /// - Returns: the position of that byte, or the end of the text.
    private mutating func appendWord(
        _ text: Slice<UnsafeRawBufferPointer>, _ start: Int, until isEnd: (UInt8) -> Bool
    ) -> Int {
        var position = start
        while position < text.endIndex {
            if text[position] == UInt8(ascii: "\\") {
                position += 1
                guard position < text.endIndex else { break }
            } else if isEnd(text[position]) {
                break
            }
            content.append(Self.isBlank(text[position]) ? 0x20 : text[position])
            position += 1
        }
        return position
    }

    /// Comments can be nested.
    private mutating func commentEnd(_ text: Slice<UnsafeRawBufferPointer>, _ start: Int) -> Int {
        var (position, depth) = (start, 1)
        while position < text.endIndex, depth > 0 {
            switch text[position] {
            case UInt8(ascii: "("): depth += 1
            case UInt8(ascii: ")"): depth -= 1
            case UInt8(ascii: "\\"): position += 1
            default: break
            }
            position += 1
        }
        if depth > 0 { isUnterminated = true }
        return position
    }

    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d }

    /// A word is all that is no operator. `"` and the opening ones begin other tokens, but end a word as well.
    private static func isOperator(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "<"), UInt8(ascii: ">"), UInt8(ascii: "["),
            UInt8(ascii: "]"), UInt8(ascii: "\""), UInt8(ascii: ","), UInt8(ascii: ":"), UInt8(ascii: ";"),
            UInt8(ascii: "@"), UInt8(ascii: "."), UInt8(ascii: "%"), UInt8(ascii: "!"), UInt8(ascii: "|"):
            true
        default: false
        }
    }

    var isEmpty: Bool { tokens.isEmpty && !isUnterminated }

    /// The last address, in its internal form; empty if there is none.
    var lastAddress: ArraySlice<UInt8> {
        addresses(most: 1).first.map(text) ?? []
    }

    /// The text of adjacent tokens.
    func text(_ range: Range<Int>) -> ArraySlice<UInt8> {
        content[start(of: range.lowerBound)..<start(of: range.upperBound)]
    }

    private func start(of token: Int) -> Int { token == 0 ? 0 : tokens[token - 1].end }

    /// Finds the tokens of each address, from the last address to the first, and no more than `most`.
    ///
    /// Postfix reads from right to left: where a `>` ends an address, all to the left of its `<` is a phrase, and a `;`
    /// tells that the next `:` ends the name of a group.
    func addresses(most: Int) -> [Range<Int>] {
        var addresses: [Range<Int>] = []
        // The first token of what is to the right, and belongs to no address to come.
        var end = tokens.count
        var index = tokens.count - 1
        var (maySeeWord, isInGroup) = (true, false)
        func endAddress() { if index + 1 < end { addresses.append(index + 1..<end) } }
        func skip(to isGoal: (UInt8) -> Bool) { while index >= 0, !isGoal(tokens[index].symbol) { index -= 1 } }
        while index >= 0, addresses.count < most {
            switch tokens[index].symbol {
            case 0:
                // Two words side by side: a comma is missing.
                if !maySeeWord {
                    endAddress()
                    end = index + 1
                }
                maySeeWord = false
            case UInt8(ascii: ">"):
                endAddress()
                end = index
                skip { $0 == UInt8(ascii: "<") }
                endAddress()
                skip { ">;,:".utf8.contains($0) }
                end = index
                maySeeWord = true
                continue
            case UInt8(ascii: ":") where isInGroup:
                endAddress()
                skip { $0 == UInt8(ascii: ",") }
                end = index
                continue
            case UInt8(ascii: ","), UInt8(ascii: ";"):
                endAddress()
                end = index
                maySeeWord = true
                if tokens[index].symbol == UInt8(ascii: ";") { isInGroup = true }
            default: maySeeWord = true
            }
            index -= 1
        }
        if addresses.count < most { endAddress() }
        return addresses
    }
}
