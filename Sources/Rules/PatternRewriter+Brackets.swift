// SPDX-License-Identifier: Apache-2.0

extension PatternRewriter {
    /// The ranges of a POSIX class in the C locale.
    private static func namedRanges(_ name: [UInt8]) -> String? {
        switch String(decoding: name, as: UTF8.self) {
        case "alpha": "A-Za-z"
        case "digit": "0-9"
        case "alnum": "0-9A-Za-z"
        case "upper": "A-Z"
        case "lower": "a-z"
        case "space": "\\x09-\\x0d\\x20"
        case "blank": "\\x09\\x20"
        case "punct": "\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e"
        case "print": "\\x20-\\x7e"
        case "graph": "\\x21-\\x7e"
        case "cntrl": "\\x00-\\x1f\\x7f"
        case "xdigit": "0-9A-Fa-f"
        default: nil
        }
    }

    /// The ranges of `\d` and the like, spelled out because the engines differ.
    static func escapedClass(_ letter: UInt8) -> String? {
        switch letter {
        case UInt8(ascii: "d"): "0-9"
        case UInt8(ascii: "D"): "\\x00-\\x2f\\x3a-\\xff"
        case UInt8(ascii: "s"): "\\x09-\\x0d\\x20"
        case UInt8(ascii: "S"): "\\x00-\\x08\\x0e-\\x1f\\x21-\\xff"
        case UInt8(ascii: "w"): "0-9A-Z_a-z"
        case UInt8(ascii: "W"): "\\x00-\\x2f\\x3a-\\x40\\x5b-\\x5e\\x60\\x7b-\\xff"
        default: nil
        }
    }

    mutating func bracketExpression() throws(Unfit) -> Piece {
        var text: [UInt8] = [UInt8(ascii: "[")]
        let isNegated = peek() == UInt8(ascii: "^")
        if isNegated {
            text.append(UInt8(ascii: "^"))
            index += 1
        }
        let start = index
        var lineEnds = LineEndMembers()
        // Whether it may match characters beyond ASCII, if it is not negated.
        var isOpen = false
        while let byte = peek(), byte != UInt8(ascii: "]") || index == start {
            index += 1
            switch byte {
            case UInt8(ascii: "\\") where dialect == .pcre:
                guard let next = peek() else { throw Unfit() }
                index += 1
                if let ranges = Self.escapedClass(next) {
                    text += try classInBrackets(inASCII(ranges), after: text)
                    isOpen = true
                } else {
                    let unit = try unitInBrackets(next)
                    lineEnds.add(unit)
                    text += Self.escaped(unit)
                }
            case UInt8(ascii: "[") where Array(":.=".utf8).contains(peek() ?? 0):
                text += try classInBrackets(try namedClass(), after: text)
                isOpen = true
            case UInt8(ascii: "-"):
                // At either end of the brackets, a hyphen is literal.
                let isLiteral = index == start + 1 || peek() == UInt8(ascii: "]")
                if isUnicode, !isLiteral, source[index - 2] >= 0x80 || peek() ?? 0 >= 0x80 { throw Unfit() }
                text += isLiteral ? Self.escaped(byte) : [byte]
                if !isLiteral { lineEnds.beginRange() }
            case 0x80... where isUnicode: isOpen = true
            default:
                lineEnds.add(byte)
                text += Self.escaped(byte)
            }
        }
        guard peek() == UInt8(ascii: "]") else { throw Unfit() }
        index += 1
        if subject == .headers {
            // CRs replace newlines in the scanned text, so brackets that match a newline must match a CR.
            if isNegated, lineEnds.hasCR, !lineEnds.hasNewline { throw Unfit() }
            if !isNegated, lineEnds.hasNewline { text += Self.escaped(0x0d) }
        }
        if isUnicode { text += others(isNegated: isNegated, isOpen: isOpen, isEmpty: text.count == 2) }
        return Piece(text: text + [UInt8(ascii: "]")], minimum: 1, weight: 1)
    }

    private mutating func unitInBrackets(_ escape: UInt8) throws(Unfit) -> UInt8 {
        let unit = try escape == UInt8(ascii: "b") ? 0x08 : codeUnit(after: escape)
        // A character beyond ASCII.
        if isUnicode, unit >= 0x80 { throw Unfit() }
        return unit
    }

    /// What brackets need for characters beyond ASCII. Negated ones match all of those; PCRE2 decides.
    private func others(isNegated: Bool, isOpen: Bool, isEmpty: Bool) -> [UInt8] {
        if isNegated { return isEmpty ? Self.escaped(0) : [] }
        // U+017F is an s, but for case.
        return Array((isOpen ? Self.beyondASCII : caseless ? "\\x{17f}" : "").utf8)
    }

    /// The ASCII part of ranges that end with the last byte.
    private func inASCII(_ ranges: String) -> String {
        isUnicode && ranges.hasSuffix("-\\xff") ? ranges.dropLast(2) + "7f" : ranges
    }

    /// Whether the bytes and ranges of brackets include LF and CR. Every named class has both or neither.
    private struct LineEndMembers {
        private(set) var hasNewline = false
        private(set) var hasCR = false
        private var last: UInt8 = 0
        private var isRange = false

        mutating func beginRange() { isRange = true }

        mutating func add(_ byte: UInt8) {
            let range = isRange && last <= byte ? last...byte : byte...byte
            hasNewline = hasNewline || range.contains(0x0a)
            hasCR = hasCR || range.contains(0x0d)
            (last, isRange) = (byte, false)
        }
    }

    /// The text of a class inside brackets. The meaning of a hyphen next to it differs between engines, so that is
    /// refused.
    private func classInBrackets(_ ranges: String, after text: [UInt8]) throws(Unfit) -> [UInt8] {
        let hyphen = UInt8(ascii: "-")
        let isFollowed =
            peek() == hyphen && index + 1 < source.count
            && source[index + 1] != UInt8(ascii: "]")
        guard text.last != hyphen, !isFollowed else { throw Unfit() }
        return Array(ranges.utf8)
    }

    /// The ranges of `[:alpha:]` and the like; its `[` is already consumed.
    private mutating func namedClass() throws(Unfit) -> String {
        guard peek() == UInt8(ascii: ":"),
            let end = source[(index + 1)...].firstIndex(of: UInt8(ascii: ":")),
            end + 1 < source.count, source[end + 1] == UInt8(ascii: "]"),
            let ranges = Self.namedRanges(Array(source[index + 1..<end]))
        else { throw Unfit() }
        index = end + 2
        return ranges
    }
}
