// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// A rule's pattern made ready for the multi-pattern scan: a regular expression that matches
/// within all that the rule's own does. It may match more, never less.
///
/// Only constructs known to mean the same to PCRE2 (or POSIX) and libhs are carried over;
/// what can't be is widened where that is safe (a look-around becomes nothing, a back-reference
/// any text, a large repeat an open one) and otherwise the pattern is not taken at all.
struct FastPattern: Equatable {
    /// What is scanned at once.
    enum Subject: Hashable {
        /// Logical headers, each a line of its own: CRs stand for the newlines at its folds.
        case headers
        /// Many body lines with their line ends, which the rules never see.
        case lines
    }

    private(set) var expression: [UInt8]
    private(set) var caseless: Bool
    /// Bytes that are in all that it matches, in lower case, where there are enough of them to be rare in mail.
    let keyword: [UInt8]?

    private static let leastScore = 6

    /// Scans for the keyword alone: much faster to build and to scan for, and nearly as rare.
    mutating func reduceToKeyword() {
        guard let keyword else { return }
        expression = keyword.flatMap(PatternRewriter.escaped)
        caseless = true
    }

    /// nil when the pattern can't be taken, or can match nothing at all and so everywhere, or when the library can't be
    /// trusted with it.
    init?(_ source: PatternSource, subject: Subject) {
        guard var rewriter = PatternRewriter(source, subject: subject) else { return nil }
        do throws(PatternRewriter.Unfit) {
            let result = try rewriter.rewrite()
            guard result.minimum > 0 else { return nil }
            guard result.hasLiteral || ScanLibrary.findsPatternsWithoutLiteral else { return nil }
            expression = result.text
            caseless = rewriter.caseless
            keyword = result.keyword.score >= Self.leastScore ? result.keyword.bytes : nil
        } catch {
            return nil
        }
    }
}

/// A bound on the ways to match that PCRE2 tries: `factor`, times the key's length to the power of `degree`.
struct Effort: Equatable {
    var factor = 1.0
    var degree = 0
    /// A repeat of what can match in more than one way: their number has no such bound.
    private var isOpen = false

    mutating func `repeat`(_ low: Int, _ high: Int?, ofChoice isChoice: Bool) {
        isOpen = isOpen || isChoice && (high ?? 2) > 1
        factor *= Double(max(low, 1))
        if high == 1 { factor *= 2 } else if high != low { degree += 1 }
    }

    /// Whether trying a pattern on a key may end in one of the limits.
    func mayExceed(_ limits: MatchLimits, keyLength: Int, groupCount: Int) -> Bool {
        let length = Double(keyLength + 1)
        let steps = repeatElement(length, count: degree).reduce(factor, *)
        // PCRE2 keeps a frame for each repeat of a group and each item; more than one of 128 bytes and two offsets a group.
        let frames = 4 * (length + factor) * Double(128 + 16 * groupCount)
        return isOpen || steps > Double(limits.steps) || frames > Double(limits.heapKiB) * 1_024
    }
}

/// Recursive descent over a pattern, writing the wider one as it goes.
struct PatternRewriter {
    enum Dialect { case pcre, posix }
    /// The pattern has something that can't be carried over.
    struct Unfit: Error {}

    /// A piece of the pattern, rewritten.
    struct Piece {
        var text: [UInt8] = []
        /// Least number of bytes it matches.
        var minimum = 0
        /// Number of positions it compiles to, about; 0 for `^`, `$`, `\b` and the like.
        var weight = 0
        /// The bytes that it matches, where it can match no others.
        var exact: [UInt8]?
        /// Whether all it matches holds two bytes in a row that are known.
        var hasLiteral = false
        var keyword = Keyword()

        /// What asks for nothing, and takes nothing.
        static let nothing = Piece(exact: [])
    }

    /// Bytes that are in all that a piece matches.
    struct Keyword {
        var bytes: [UInt8] = []
        /// How many of them tell this pattern from others: a header's name does not, nor does a scheme.
        var score = 0
    }

    /// Bytes that are matched one after the other, with nothing between.
    private struct Run {
        var bytes: [UInt8] = []
        /// At the start of its sequence.
        var isFirst = true
        var isAnchored = false
    }

    /// Repeats beyond this are opened: `.{0,200}` scans as `.*`, and costs as little.
    static let largestRepeat = 32
    /// A pattern that compiles to more positions than this is left to PCRE2 alone, which keeps
    /// the time that compiling takes in bounds.
    static let largestWeight = 3_000
    static let deepestNesting = 60

    private let source: [UInt8]
    private let subject: FastPattern.Subject
    private let dialect: Dialect
    private var index = 0
    private var depth = 0
    private let extended: Bool
    private let multiline: Bool
    private(set) var caseless: Bool
    /// Texts that are in all that the pattern matches.
    private(set) var literals: [[UInt8]] = []
    /// What all that it matches begins with.
    private(set) var prefix: [UInt8]?
    private var effort = Effort()

    /// nil for a pattern in a syntax that is not taken.
    init?(_ pattern: PatternSource, subject: FastPattern.Subject) {
        source = pattern.bytes
        self.subject = subject
        switch pattern.syntax {
        case .pcre(let options):
            dialect = .pcre
            extended = options.contains(.extended)
            caseless = options.contains(.caseless)
            multiline = options.contains(.multiline)
        case .posix(let options):
            // Basic expressions are rare enough to go unfiltered.
            guard options.contains(.extended) else { return nil }
            dialect = .posix
            extended = false
            caseless = options.contains(.caseless)
            multiline = options.contains(.newlines)
        }
    }

    mutating func rewrite() throws(Unfit) -> Piece {
        // (*UTF) and its like change the meaning of all that follows.
        if dialect == .pcre, source.starts(with: Array("(*".utf8)) { throw Unfit() }
        let result = try alternatives()
        guard index == source.count, result.weight <= Self.largestWeight else { throw Unfit() }
        return result
    }

    private mutating func alternatives() throws(Unfit) -> Piece {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.deepestNesting else { throw Unfit() }
        var result = try sequence()
        var branches = 1.0
        while peek() == UInt8(ascii: "|") {
            index += 1
            let next = try sequence()
            result.text += [UInt8(ascii: "|")] + next.text
            result.exact = nil
            result.hasLiteral = result.hasLiteral && next.hasLiteral
            result.keyword = Keyword()
            result.minimum = min(result.minimum, next.minimum)
            result.weight += next.weight
            if depth == 1 { (literals, prefix) = ([], nil) }
            branches += 1
        }
        effort.factor *= branches
        return result
    }

    private mutating func sequence() throws(Unfit) -> Piece {
        var result = Piece.nothing
        var run = Run()
        while true {
            skipExtended()
            guard let byte = peek(), byte != UInt8(ascii: "|"), byte != UInt8(ascii: ")") else {
                if result.exact != nil { result.exact = run.bytes }
                result.hasLiteral = result.hasLiteral || run.bytes.count > 1
                result.keyword = rarer(keyword(run), result.keyword)
                note(run)
                return result
            }
            let before = effort
            let piece = try quantified(try atom(), isChoice: effort != before)
            if let exact = piece.exact {
                if run.bytes.isEmpty { run.isAnchored = run.isAnchored || piece.text == [UInt8(ascii: "^")] }
                run.bytes += exact
            } else {
                result.exact = nil
                result.hasLiteral = result.hasLiteral || run.bytes.count > 1 || piece.hasLiteral
                result.keyword = rarer(rarer(keyword(run), piece.keyword), result.keyword)
                note(run)
                run = Run(isFirst: false)
            }
            result.text += piece.text
            result.minimum += piece.minimum
            result.weight += piece.weight
            guard result.weight <= Self.largestWeight else { throw Unfit() }
        }
    }

    private mutating func note(_ run: Run) {
        guard depth == 1 else { return }
        if !run.bytes.isEmpty { literals.append(run.bytes) }
        if run.isFirst, run.isAnchored { prefix = run.bytes }
    }

    private func rarer(_ one: Keyword, _ other: Keyword) -> Keyword { one.score > other.score ? one : other }

    private func keyword(_ run: Run) -> Keyword {
        let bytes = run.bytes.map(\.lowercased)
        var rest = bytes[...]
        switch subject {
        case .headers where run.isFirst:
            if let colon = rest.firstIndex(of: UInt8(ascii: ":")) {
                rest = rest[(colon + 1)...].drop(while: \.isBlank)
            } else if run.isAnchored {
                return Keyword()
            }
        case .headers: break
        case .lines:
            let scheme = Array("://".utf8)
            if let end = rest.indices.first(where: { rest[$0...].starts(with: scheme) }) { rest = rest[(end + 3)...] }
        }
        return Keyword(bytes: bytes, score: rest.count)
    }

    /// What PCRE2 may need to tell that the pattern does not match.
    static func effort(of pattern: PatternSource, subject: FastPattern.Subject) -> Effort? {
        guard var rewriter = PatternRewriter(pattern, subject: subject), (try? rewriter.rewrite()) != nil else {
            return nil
        }
        // Otherwise it is tried at each byte of the key.
        let isAnchored = pattern.bytes.first == UInt8(ascii: "^") && rewriter.prefix != nil
        rewriter.effort.degree += isAnchored ? 0 : 1
        rewriter.effort.factor *= Double(pattern.bytes.count)
        return rewriter.effort
    }

    // MARK: - Quantifiers

    /// `isChoice`: there is more than one way to match the atom at the same place.
    private mutating func quantified(_ atom: Piece, isChoice: Bool) throws(Unfit) -> Piece {
        var piece = atom
        while true {
            skipExtended()
            guard let (low, high) = try quantifier() else { return piece }
            effort.repeat(low, high, ofChoice: isChoice)
            if dialect == .pcre {
                // Lazy ones match the same, possessive ones less.
                skipExtended()
                if peek() == UInt8(ascii: "?") || peek() == UInt8(ascii: "+") { index += 1 }
            }
            // A repeated assertion, such as `$?`, may hold or not: assume it does.
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

    /// `*`, `+`, `?`, `{n}`, `{n,}` or `{n,m}` as its bounds, nil when there is none here.
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
            // PCRE2 before 10.43 takes {,m} for text; POSIX refuses or guesses.
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

    // MARK: - Atoms

    private mutating func atom() throws(Unfit) -> Piece {
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
            // Text in some dialects, an error in others.
            throw Unfit()
        case UInt8(ascii: "{") where dialect == .posix:
            throw Unfit()
        default:
            return literal(byte)
        }
    }

    /// The rules never see a line's end, any CR before it included.
    private let endOfSubject = "(?:\\r*$)"

    /// `^` or `$`, which under `m` may hold at each fold of a header: there nothing is asked for.
    private func lineAssertion(_ text: String) -> Piece {
        subject == .headers && multiline ? .nothing : assertion(text)
    }

    private func assertion(_ text: String) -> Piece {
        Piece(text: Array(text.utf8), exact: [])
    }

    private func literal(_ byte: UInt8) -> Piece {
        let byte = byte == 0x0a && subject == .headers ? 0x0d : byte
        return Piece(text: Self.escaped(byte), minimum: 1, weight: 1, exact: [byte])
    }

    static func escaped(_ byte: UInt8) -> [UInt8] {
        if byte.isAlphanumeric { return [byte] }
        let digits = Array("0123456789abcdef".utf8)
        return Array("\\x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
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

    /// What follows `(?`: consumed up to the group's content, or with its `)`.
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

    /// `(?i)`, `(?s-m:` and so on: every flag is taken for the whole pattern if it widens it,
    /// and left out if it narrows it.
    private mutating func inlineFlags() throws(Unfit) -> GroupKind {
        var on = true
        while let byte = peek() {
            index += 1
            switch byte {
            case UInt8(ascii: "-"): on = false
            case UInt8(ascii: "i"): caseless = caseless || on
            case UInt8(ascii: "m"):
                // What comes before was taken for something else.
                if subject == .headers, on { throw Unfit() }
            case UInt8(ascii: "s"), UInt8(ascii: "U"), UInt8(ascii: "J"): break
            case UInt8(ascii: ":"): return .group
            case UInt8(ascii: ")"): return .nothing
            default: throw Unfit()
            }
        }
        throw Unfit()
    }

    private func peek() -> UInt8? { index < source.count ? source[index] : nil }

    /// Under `x`, white space and comments between items are nothing.
    private mutating func skipExtended() {
        guard extended else { return }
        while let byte = peek() {
            if byte.isSpace {
                index += 1
            } else if byte == UInt8(ascii: "#") {
                while let byte = peek(), byte != UInt8(ascii: "\n") { index += 1 }
            } else {
                return
            }
        }
    }
}

// MARK: - Escapes

extension PatternRewriter {
    private mutating func perlEscape() throws(Unfit) -> Piece {
        guard let byte = peek() else { throw Unfit() }
        index += 1
        switch byte {
        case let byte where Self.escapedClass(byte) != nil:
            let ranges = Self.escapedClass(byte) ?? ""
            return Piece(text: Array("[\(ranges)]".utf8), minimum: 1, weight: 1)
        case UInt8(ascii: "b"): return assertion("\\b")
        case UInt8(ascii: "B"): return assertion("\\B")
        case UInt8(ascii: "A"), UInt8(ascii: "G"): return assertion("^")
        case UInt8(ascii: "z"), UInt8(ascii: "Z"): return assertion(endOfSubject)
        case UInt8(ascii: "Q"): return try quoted()
        case UInt8(ascii: "1")...UInt8(ascii: "9"):
            // Two digits may be a group or an octal number.
            if peek()?.isDigit == true { throw Unfit() }
            return Piece(text: Array(".*".utf8), weight: 1)
        default:
            return literal(try codeUnit(after: byte))
        }
    }

    /// The byte that an escape stands for, in a class or outside of one.
    private mutating func codeUnit(after byte: UInt8) throws(Unfit) -> UInt8 {
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
            let literal = literal(byte)
            piece.text += literal.text
            piece.exact? += literal.exact ?? []
            piece.minimum += 1
            piece.weight += 1
            index += 1
        }
        // A quantifier here would repeat the last byte only.
        skipExtended()
        if let byte = peek(), Array("*+?{".utf8).contains(byte) { throw Unfit() }
        return piece
    }

    private mutating func posixEscape() throws(Unfit) -> Piece {
        guard let byte = peek(), !byte.isAlphanumeric,
            !Array("<>`'".utf8).contains(byte)
        else { throw Unfit() }
        index += 1
        return literal(byte)
    }
}

// MARK: - Bracket expressions

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

    /// The ranges of `\d` and its like, written out so that both engines mean the same by them.
    private static func escapedClass(_ letter: UInt8) -> String? {
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

    private mutating func bracketExpression() throws(Unfit) -> Piece {
        var text: [UInt8] = [UInt8(ascii: "[")]
        let isNegated = peek() == UInt8(ascii: "^")
        if isNegated {
            text.append(UInt8(ascii: "^"))
            index += 1
        }
        let start = index
        var lineEnds = LineEndMembers()
        while let byte = peek(), byte != UInt8(ascii: "]") || index == start {
            index += 1
            switch byte {
            case UInt8(ascii: "\\") where dialect == .pcre:
                guard let next = peek() else { throw Unfit() }
                index += 1
                if let ranges = Self.escapedClass(next) {
                    text += try classInBrackets(ranges, after: text)
                } else {
                    let unit = try next == UInt8(ascii: "b") ? 0x08 : codeUnit(after: next)
                    lineEnds.add(unit)
                    text += Self.escaped(unit)
                }
            case UInt8(ascii: "[") where Array(":.=".utf8).contains(peek() ?? 0):
                text += try classInBrackets(try namedClass(), after: text)
            case UInt8(ascii: "-"):
                // At either end of the brackets a hyphen is itself.
                let isLiteral = index == start + 1 || peek() == UInt8(ascii: "]")
                text += isLiteral ? Self.escaped(byte) : [byte]
                if !isLiteral { lineEnds.beginRange() }
            default:
                lineEnds.add(byte)
                text += Self.escaped(byte)
            }
        }
        guard peek() == UInt8(ascii: "]") else { throw Unfit() }
        index += 1
        if subject == .headers {
            // A CR stands for a newline: where that may match, it must.
            if isNegated, lineEnds.hasCR, !lineEnds.hasNewline { throw Unfit() }
            if !isNegated, lineEnds.hasNewline { text += Self.escaped(0x0d) }
        }
        return Piece(text: text + [UInt8(ascii: "]")], minimum: 1, weight: 1)
    }

    /// Which line ends are among the bytes and ranges of brackets. Of the classes, each has both or none.
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

    /// A class among the brackets; what a hyphen beside one means differs, so that is not taken.
    private func classInBrackets(_ ranges: String, after text: [UInt8]) throws(Unfit) -> [UInt8] {
        let hyphen = UInt8(ascii: "-")
        let isFollowed =
            peek() == hyphen && index + 1 < source.count
            && source[index + 1] != UInt8(ascii: "]")
        guard text.last != hyphen, !isFollowed else { throw Unfit() }
        return Array(ranges.utf8)
    }

    /// The ranges of `[:alpha:]`, from after its `[`.
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
