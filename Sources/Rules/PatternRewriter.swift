// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// A recursive-descent parser of patterns that writes the wider pattern on its way.
struct PatternRewriter {
    enum Dialect { case pcre, posix }
    /// The pattern has a construct that can't be rewritten.
    struct Unfit: Error {}

    /// A rewritten part of the pattern.
    struct Piece {
        var text: [UInt8] = []
        /// The smallest number of bytes that it matches.
        var minimum = 0
        /// Roughly the number of positions that it compiles to; 0 for `^`, `$`, `\b` and other assertions.
        var weight = 0
        /// The bytes that it matches, if there is only one possibility.
        var exact: [UInt8]?
        /// Whether every match contains two adjacent literal bytes.
        var hasLiteral = false
        var keyword = Keyword()

        /// Matches the empty string everywhere.
        static let nothing = Piece(exact: [])
    }

    /// Bytes that every match of a piece contains.
    struct Keyword {
        var bytes: [UInt8] = []
        /// The number of significant bytes: a header's name and a URL's scheme do not count.
        var score = 0
    }

    /// Literal bytes that are matched one after the other.
    private struct Run {
        var bytes: [UInt8] = []
        /// Whether it begins its sequence.
        var isFirst = true
        var isAnchored = false
    }

    /// Larger repeats become open ones, which cost less: `.{0,200}` becomes `.*`.
    static let largestRepeat = 32
    /// Patterns with a larger weight are left to PCRE2 alone, which bounds the time to compile the database.
    static let largestWeight = 3_000
    static let deepestNesting = 60

    let source: [UInt8]
    let subject: FastPattern.Subject
    let dialect: Dialect
    var index = 0
    var depth = 0
    let extended: Bool
    let multiline: Bool
    /// Whether pattern and text are characters of UTF-8.
    let isUnicode: Bool
    var caseless: Bool
    /// Texts that every match contains.
    private(set) var literals: [[UInt8]] = []
    /// The text that every match begins with.
    private(set) var prefix: [UInt8]?
    var effort = Effort()

    /// nil for basic POSIX expressions.
    init?(_ pattern: PatternSource, subject: FastPattern.Subject) {
        source = pattern.bytes
        self.subject = subject
        switch pattern.syntax {
        case .pcre(let options):
            dialect = .pcre
            extended = options.contains(.extended)
            caseless = options.contains(.caseless)
            multiline = options.contains(.multiline)
            isUnicode = options.contains(.unicode)
        case .posix(let options):
            // Basic expressions are too rare to be worth a parser.
            guard options.contains(.extended) else { return nil }
            dialect = .posix
            extended = false
            caseless = options.contains(.caseless)
            multiline = options.contains(.newlines)
            isUnicode = false
        }
    }

    mutating func rewrite() throws(Unfit) -> Piece {
        // (*UTF) and the like change the meaning of the whole pattern.
        if dialect == .pcre, source.starts(with: Array("(*".utf8)) { throw Unfit() }
        let result = try alternatives()
        guard index == source.count, result.weight <= Self.largestWeight else { throw Unfit() }
        return result
    }

    mutating func alternatives() throws(Unfit) -> Piece {
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
                record(run)
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
                record(run)
                run = Run(isFirst: false)
            }
            result.text += piece.text
            result.minimum += piece.minimum
            result.weight += piece.weight
            guard result.weight <= Self.largestWeight else { throw Unfit() }
        }
    }

    /// Adds the run to the literals and the prefix of the whole pattern.
    private mutating func record(_ run: Run) {
        guard depth == 1 else { return }
        if !run.bytes.isEmpty { literals.append(run.bytes) }
        if run.isFirst, run.isAnchored { prefix = run.bytes }
    }

    private func rarer(_ one: Keyword, _ other: Keyword) -> Keyword { one.score > other.score ? one : other }

    private func keyword(_ run: Run) -> Keyword {
        let bytes = run.bytes.map(\.lowercased)
        var rest = bytes[...]
        switch subject {
        case .headers where run.isFirst, .decodedHeaders where run.isFirst:
            if let colon = rest.firstIndex(of: UInt8(ascii: ":")) {
                rest = rest[(colon + 1)...].drop(while: \.isBlank)
            } else if run.isAnchored {
                return Keyword()
            }
        case .headers, .decodedHeaders: break
        case .lines:
            let scheme = Array("://".utf8)
            if let end = rest.indices.first(where: { rest[$0...].starts(with: scheme) }) { rest = rest[(end + 3)...] }
        }
        return Keyword(bytes: bytes, score: rest.count)
    }

    /// The steps that PCRE2 may need to find that the pattern does not match; nil if it can't be rewritten.
    static func effort(of pattern: PatternSource, subject: FastPattern.Subject) -> Effort? {
        guard var rewriter = PatternRewriter(pattern, subject: subject), (try? rewriter.rewrite()) != nil else {
            return nil
        }
        // PCRE2 tries an unanchored pattern at each byte of the key.
        let isAnchored = pattern.bytes.first == UInt8(ascii: "^") && rewriter.prefix != nil
        rewriter.effort.degree += isAnchored ? 0 : 1
        rewriter.effort.factor *= Double(pattern.bytes.count)
        return rewriter.effort
    }

    func peek() -> UInt8? { index < source.count ? source[index] : nil }

    /// With the flag `x`, skips white space and comments between items.
    mutating func skipExtended() {
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
