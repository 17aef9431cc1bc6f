// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

extension PatternRewriter {
    mutating func atom() throws(Unfit) -> Piece {
        let byte = source[index]
        index += 1
        switch byte {
        case UInt8(ascii: "."):
            return Piece(text: [byte], minimum: 1, weight: 1)
        case UInt8(ascii: "^"):
            return lineAssertion("^")
        case UInt8(ascii: "$"):
            return lineAssertion(endOfSubject)
        case UInt8(ascii: "["):
            return try bracketExpression()
        case UInt8(ascii: "("):
            return try group()
        case UInt8(ascii: "\\"):
            return try dialect == .pcre ? perlEscape() : posixEscape()
        case UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "?"):
            // Literal text in some dialects, an error in others.
            throw Unfit()
        case UInt8(ascii: "{") where dialect == .posix:
            throw Unfit()
        case 0x80... where isUnicode:
            return try character(byte)
        default:
            return literal(byte)
        }
    }

    /// The ranges of all characters beyond ASCII.
    static let beyondASCII = "\\x{80}-\\x{10ffff}"

    /// A character beyond ASCII that begins with `first`.
    ///
    /// Only PCRE2 knows which characters are the same but for case, so if there may be others, any character will do.
    private mutating func character(_ first: UInt8) throws(Unfit) -> Piece {
        // With the flag `x`, white space of Unicode's is ignored, too.
        guard !extended else { throw Unfit() }
        var bytes = [first]
        while let byte = peek(), byte & 0xc0 == 0x80 {
            bytes.append(byte)
            index += 1
        }
        guard let scalar = String(validating: bytes, as: UTF8.self)?.unicodeScalars.first else { throw Unfit() }
        let mayHaveCase = scalar.properties.isCased || scalar.properties.generalCategory == .unassigned
        let text = caseless && mayHaveCase ? "[\(Self.beyondASCII)]" : "\\x{\(String(scalar.value, radix: 16))}"
        return Piece(text: Array(text.utf8), minimum: 1, weight: 1)
    }

    /// Rules see no line ends, including any CRs before them.
    var endOfSubject: String { "(?:\\r*$)" }

    /// `^` or `$`. With the flag `m` they may also match at the folding of a header, so they ask for nothing there.
    private func lineAssertion(_ text: String) -> Piece {
        subject == .headers && multiline ? .nothing : assertion(text)
    }

    func assertion(_ text: String) -> Piece {
        Piece(text: Array(text.utf8), exact: [])
    }

    func literal(_ byte: UInt8) -> Piece {
        let byte = byte == 0x0a && subject == .headers ? 0x0d : byte
        let text = isUnicode && caseless ? Self.escapedCaseless(byte) : Self.escaped(byte)
        return Piece(text: text, minimum: 1, weight: 1, exact: [byte])
    }

    static func escaped(_ byte: UInt8) -> [UInt8] {
        if byte.isAlphanumeric { return [byte] }
        let digits = Array("0123456789abcdef".utf8)
        return Array("\\x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    }

    /// With all characters that are the same in Unicode but for case. Text in NFC has no Kelvin sign (U+212A).
    static func escapedCaseless(_ byte: UInt8) -> [UInt8] {
        byte | 0x20 == UInt8(ascii: "s") ? Array("[sS\\x{17f}]".utf8) : escaped(byte)
    }

    private mutating func group() throws(Unfit) -> Piece {
        var isLookaround = false
        if dialect == .pcre {
            if peek() == UInt8(ascii: "*") { throw Unfit() }
            if peek() == UInt8(ascii: "?") {
                index += 1
                switch try groupKind() {
                case .nothing: return .nothing
                case .lookaround: isLookaround = true
                case .group: break
                }
            }
        }
        var piece = try alternatives()
        guard peek() == UInt8(ascii: ")") else { throw Unfit() }
        index += 1
        if isLookaround { return .nothing }
        piece.text = Array("(?:".utf8) + piece.text + Array(")".utf8)
        return piece
    }

    private enum GroupKind { case nothing, group, lookaround }

    /// Parses what follows `(?`, up to the content of the group, or to its `)` if it has none.
    private mutating func groupKind() throws(Unfit) -> GroupKind {
        guard let byte = peek() else { throw Unfit() }
        index += 1
        switch byte {
        case UInt8(ascii: ":"), UInt8(ascii: ">"):
            return .group
        case UInt8(ascii: "="), UInt8(ascii: "!"):
            return .lookaround
        case UInt8(ascii: "<"):
            if peek() == UInt8(ascii: "=") || peek() == UInt8(ascii: "!") {
                index += 1
                return .lookaround
            }
            return try namedGroup(end: UInt8(ascii: ">"))
        case UInt8(ascii: "'"):
            return try namedGroup(end: byte)
        case UInt8(ascii: "P") where peek() == UInt8(ascii: "<"):
            index += 1
            return try namedGroup(end: UInt8(ascii: ">"))
        default:
            index -= 1
            return try inlineFlags()
        }
    }

    private mutating func namedGroup(end: UInt8) throws(Unfit) -> GroupKind {
        while let byte = peek(), byte != end { index += 1 }
        guard peek() == end else { throw Unfit() }
        index += 1
        return .group
    }

    /// `(?i)`, `(?s-m:` and so on. A flag that widens the pattern applies to all of it; one that narrows it is left
    /// out.
    private mutating func inlineFlags() throws(Unfit) -> GroupKind {
        var on = true
        while let byte = peek() {
            index += 1
            switch byte {
            case UInt8(ascii: "-"): on = false
            case UInt8(ascii: "i"): caseless = caseless || on
            case UInt8(ascii: "m"):
                // `^` and `$` before the flag were already rewritten with another meaning.
                if subject == .headers, on { throw Unfit() }
            case UInt8(ascii: "s"), UInt8(ascii: "U"), UInt8(ascii: "J"): break
            case UInt8(ascii: ":"): return .group
            case UInt8(ascii: ")"): return .nothing
            default: throw Unfit()
            }
        }
        throw Unfit()
    }
}

// MARK: - Escapes

extension PatternRewriter {
    mutating func perlEscape() throws(Unfit) -> Piece {
        guard let byte = peek() else { throw Unfit() }
        index += 1
        switch byte {
        case let byte where Self.escapedClass(byte) != nil:
            let ranges = Self.escapedClass(byte) ?? ""
            let others = isUnicode ? Self.beyondASCII : ""
            return Piece(text: Array("[\(ranges)\(others)]".utf8), minimum: 1, weight: 1)
        // Which characters are letters is for PCRE2 to say.
        case UInt8(ascii: "b") where isUnicode, UInt8(ascii: "B") where isUnicode: return .nothing
        case UInt8(ascii: "b"): return assertion("\\b")
        case UInt8(ascii: "B"): return assertion("\\B")
        case UInt8(ascii: "A"), UInt8(ascii: "G"): return assertion("^")
        case UInt8(ascii: "z"), UInt8(ascii: "Z"): return assertion(endOfSubject)
        case UInt8(ascii: "Q"): return try quoted()
        case UInt8(ascii: "1")...UInt8(ascii: "9"):
            // Two digits can be a group or an octal number.
            if peek()?.isDigit == true { throw Unfit() }
            return Piece(text: Array(".*".utf8), weight: 1)
        default:
            let unit = try codeUnit(after: byte)
            // A character beyond ASCII.
            if isUnicode, unit >= 0x80 { throw Unfit() }
            return literal(unit)
        }
    }

    /// The byte that an escape stands for, inside or outside of brackets.
    mutating func codeUnit(after byte: UInt8) throws(Unfit) -> UInt8 {
        switch byte {
        case UInt8(ascii: "n"): return 0x0a
        case UInt8(ascii: "r"): return 0x0d
        case UInt8(ascii: "t"): return 0x09
        case UInt8(ascii: "f"): return 0x0c
        case UInt8(ascii: "e"): return 0x1b
        case UInt8(ascii: "a"): return 0x07
        case UInt8(ascii: "x"): return try hexadecimal()
        default:
            if byte.isAlphanumeric { throw Unfit() }
            return byte
        }
    }

    private mutating func hexadecimal() throws(Unfit) -> UInt8 {
        let braced = peek() == UInt8(ascii: "{")
        if braced { index += 1 }
        let digits = source[index...].prefix(braced ? 8 : 2).prefix {
            $0.isDigit || 0x61...0x66 ~= ($0 | 0x20)
        }
        index += digits.count
        if braced {
            guard peek() == UInt8(ascii: "}") else { throw Unfit() }
            index += 1
        }
        guard let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16) else {
            throw Unfit()
        }
        return value
    }

    private mutating func quoted() throws(Unfit) -> Piece {
        var piece = Piece.nothing
        while let byte = peek() {
            if byte == UInt8(ascii: "\\"), index + 1 < source.count,
                source[index + 1] == UInt8(ascii: "E")
            {
                index += 2
                break
            }
            if isUnicode, byte >= 0x80 { throw Unfit() }
            let literal = literal(byte)
            piece.text += literal.text
            piece.exact? += literal.exact ?? []
            piece.minimum += 1
            piece.weight += 1
            index += 1
        }
        // A quantifier would repeat only the last byte.
        skipExtended()
        if let byte = peek(), Array("*+?{".utf8).contains(byte) { throw Unfit() }
        return piece
    }

    mutating func posixEscape() throws(Unfit) -> Piece {
        guard let byte = peek(), !byte.isAlphanumeric,
            !Array("<>`'".utf8).contains(byte)
        else { throw Unfit() }
        index += 1
        return literal(byte)
    }
}
