// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

extension PatternRewriter {
    /// Parses the quantifiers after an atom. `isChoice`: the atom can match in several ways at the same place.
    mutating func quantified(_ atom: Piece, isChoice: Bool) throws(Unfit) -> Piece {
        var piece = atom
        while true {
            skipExtended()
            guard let (low, high) = try quantifier() else { return piece }
            effort.repeat(low, high, ofChoice: isChoice)
            if dialect == .pcre {
                // Lazy quantifiers match the same, possessive ones less.
                skipExtended()
                if peek() == UInt8(ascii: "?") || peek() == UInt8(ascii: "+") { index += 1 }
            }
            // A repeated assertion such as `$?` need not hold.
            if piece.weight == 0 {
                if dialect == .posix { throw Unfit() }
                return .nothing
            }
            piece = repeated(piece, low, high)
            if dialect == .pcre { return piece }
        }
    }

    private func repeated(_ piece: Piece, _ low: Int, _ high: Int?) -> Piece {
        let least = min(low, Self.largestRepeat)
        let most = high.flatMap { $0 > Self.largestRepeat ? nil : $0 }
        var result = Piece(text: Array("(?:".utf8) + piece.text + Array("){".utf8))
        result.text += Array("\(least),\(most.map(String.init) ?? "")}".utf8)
        result.minimum = piece.minimum * least
        result.weight = piece.weight * max(most ?? least, 1)
        if least > 0 { (result.keyword, result.hasLiteral) = (piece.keyword, piece.hasLiteral) }
        return result
    }

    /// The bounds of `*`, `+`, `?`, `{n}`, `{n,}` or `{n,m}`; nil without a quantifier.
    private mutating func quantifier() throws(Unfit) -> (Int, Int?)? {
        switch peek() {
        case UInt8(ascii: "*"):
            index += 1
            return (0, nil)
        case UInt8(ascii: "+"):
            index += 1
            return (1, nil)
        case UInt8(ascii: "?"):
            index += 1
            return (0, 1)
        case UInt8(ascii: "{"):
            return try interval()
        default:
            return nil
        }
    }

    private mutating func interval() throws(Unfit) -> (Int, Int?)? {
        let start = index
        index += 1
        guard let low = number() else {
            // {,m} is literal text in PCRE2 before 10.43; POSIX leaves it undefined.
            if dialect == .posix || peek() == UInt8(ascii: ",") { throw Unfit() }
            index = start
            return nil
        }
        var high: Int? = low
        if peek() == UInt8(ascii: ",") {
            index += 1
            high = number()
        }
        guard peek() == UInt8(ascii: "}") else {
            if dialect == .posix { throw Unfit() }
            index = start
            return nil
        }
        index += 1
        return (low, high)
    }

    private mutating func number() -> Int? {
        let digits = source[index...].prefix { $0.isDigit }
        index += digits.count
        return Int(String(decoding: digits, as: UTF8.self))
    }
}
