// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// A shell pattern over keys, as in glob(7): `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character that stands for
/// itself. It must match the whole key, in upper or lower case. `*` and `?` match any character.
///
/// Beyond ASCII, it matches as keys are formed: without distinction of case, width and composition, and whole labels of
/// a domain also as A-labels. Members of a set must be ASCII characters.
///
/// Matching takes at most the product of the lengths of pattern and key.
package struct KeyPattern: Equatable, Sendable {
    private enum Token: Equatable {
        case byte(UInt8)
        /// One character, which may have several bytes.
        case anyCharacter
        case anyText
        case set([ClosedRange<UInt8>], isNegated: Bool)
    }

    /// In bytes.
    package static let longest = 256

    /// As the administrator wrote it.
    package let text: String
    private let tokens: [Token]
    /// The same with A-labels; nil if there are none, for example if all is ASCII.
    private let domainTokens: [Token]?
    private let isASCII: Bool

    /// nil if the text is empty, too long, or has a `[` without `]`, or ends in `\`.
    package init?(_ text: String) {
        guard 1...Self.longest ~= text.utf8.count else { return nil }
        let bytes = text.utf8.map(\.lowercased)
        isASCII = InternationalText.isASCII(bytes)
        let folded = isASCII ? bytes : Self.unlessSpecial(InternationalText.folded(bytes), bytes)
        guard let tokens = Self.tokens(of: folded) else { return nil }
        self.text = text
        self.tokens = tokens
        domainTokens = isASCII ? nil : Self.tokens(of: Self.unlessSpecial(Self.withALabels(folded), folded))
    }

    /// Matches keys that contain `text`, in which no character is special; nil if it is empty or too long.
    package init?(containing text: String) {
        guard 1...Self.longest ~= text.utf8.count else { return nil }
        func containing(_ bytes: [UInt8]) -> [Token] { [.anyText] + bytes.map(Token.byte) + [.anyText] }
        let bytes = text.utf8.map(\.lowercased)
        isASCII = InternationalText.isASCII(bytes)
        let folded = isASCII ? bytes : InternationalText.folded(bytes)
        self.text = text
        tokens = containing(folded)
        domainTokens = isASCII ? nil : containing(Self.withALabels(folded))
    }

    /// `folded`, unless folding has made other characters special: a wide asterisk becomes `*`.
    private static func unlessSpecial(_ folded: [UInt8], _ original: [UInt8]) -> [UInt8] {
        let special = Array("*?[]\\".utf8)
        return folded.filter(special.contains) == original.filter(special.contains) ? folded : original
    }

    /// The last domain of each part of the key in A-labels. A label with a wildcard stays.
    private static func withALabels(_ pattern: [UInt8]) -> [UInt8] {
        let parts = pattern.split(separator: UInt8(ascii: "|"), omittingEmptySubsequences: false).map { part in
            let start = part.lastIndex(of: UInt8(ascii: "@")).map { $0 + 1 } ?? part.startIndex
            return part[..<start] + InternationalText.asciiDomain(Array(part[start...]))
        }
        return Array(parts.joined(separator: [UInt8(ascii: "|")]))
    }

    private static func tokens(of pattern: [UInt8]) -> [Token]? {
        var tokens: [Token] = []
        var rest = pattern[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "*"):
                if tokens.last != .anyText { tokens.append(.anyText) }
            case UInt8(ascii: "?"): tokens.append(.anyCharacter)
            case UInt8(ascii: "["):
                guard let set = set(&rest) else { return nil }
                tokens.append(set)
            case UInt8(ascii: "\\"):
                guard let escaped = rest.popFirst() else { return nil }
                tokens.append(.byte(escaped))
            default: tokens.append(.byte(byte))
            }
        }
        return tokens
    }

    /// The set whose `[` has been read. A `]` that comes first is a member.
    private static func set(_ rest: inout ArraySlice<UInt8>) -> Token? {
        var ranges: [ClosedRange<UInt8>] = []
        let isNegated = rest.first == UInt8(ascii: "!") || rest.first == UInt8(ascii: "^")
        if isNegated { rest.removeFirst() }
        while let first = rest.popFirst() {
            if first == UInt8(ascii: "]"), !ranges.isEmpty { return .set(ranges, isNegated: isNegated) }
            let end = rest.dropFirst().first
            if rest.first == UInt8(ascii: "-"), let end, end != UInt8(ascii: "]") {
                guard first <= end else { return nil }
                ranges.append(first...end)
                rest.removeFirst(2)
            } else {
                ranges.append(first...first)
            }
        }
        return nil
    }

    package func matches(_ key: [UInt8]) -> Bool {
        if isASCII { return Self.match(tokens, key) }
        let key = InternationalText.isASCII(key) ? key : InternationalText.folded(key)
        return Self.match(tokens, key) || domainTokens.map { Self.match($0, key) } ?? false
    }

    private static func match(_ tokens: [Token], _ key: [UInt8]) -> Bool {
        var (token, index) = (0, 0)
        // Where to go on if the text that the last `*` stands for is too short.
        var retry: (token: Int, index: Int)?
        while true {
            if token < tokens.count, tokens[token] == .anyText {
                token += 1
                retry = (token, index)
            } else if token == tokens.count, index == key.count {
                return true
            } else if token < tokens.count, index < key.count, let next = match(tokens[token], key, index) {
                (token, index) = (token + 1, next)
            } else if let last = retry, last.index < key.count {
                retry = (last.token, last.index + 1)
                (token, index) = (last.token, last.index + 1)
            } else {
                return false
            }
        }
    }

    /// The index after the character at `index` if it matches.
    private static func match(_ token: Token, _ key: [UInt8], _ index: Int) -> Int? {
        let byte = key[index].lowercased
        switch token {
        case .byte(let expected): return byte == expected ? index + 1 : nil
        case .anyText: return nil
        case .anyCharacter: return characterEnd(in: key, after: index)
        case .set(let ranges, let isNegated):
            guard ranges.contains(where: { $0.contains(byte) }) != isNegated else { return nil }
            return isNegated ? characterEnd(in: key, after: index) : index + 1
        }
    }

    /// Skips the continuation bytes of UTF-8.
    private static func characterEnd(in key: [UInt8], after index: Int) -> Int {
        key[(index + 1)...].firstIndex { $0 & 0xc0 != 0x80 } ?? key.count
    }
}
