// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// The pattern of a rule, rewritten for the multi-pattern scan. The scan finds it wherever the rule's own pattern
/// matches, and maybe elsewhere too.
///
/// It keeps the constructs that mean the same in PCRE2 (or POSIX) and libhs. Others are widened where that is safe: a
/// look-around becomes nothing, a back-reference any text, a large repeat an open one. Patterns with anything else
/// can't be rewritten.
struct FastPattern: Equatable {
    /// The text of one scan.
    enum Subject: Hashable {
        /// Logical headers, each on a line of its own. CRs replace the newlines of folding.
        case headers
        /// Decoded headers, each on a line of its own. They are UTF-8, and have no control characters.
        case decodedHeaders
        /// Body lines with their line ends, which the rules never see.
        case lines
    }

    private(set) var expression: [UInt8]
    private(set) var caseless: Bool
    /// Whether it is about characters of UTF-8 instead of bytes.
    let isUnicode: Bool
    /// Bytes in lower case that every match contains; nil if they are too few to be rare in mail.
    let keyword: [UInt8]?

    private static let leastScore = 6

    /// Reduces the pattern to its keyword, which is much faster to compile and to scan for, and nearly as rare.
    mutating func reduceToKeyword() {
        guard let keyword else { return }
        expression = keyword.flatMap { isUnicode ? PatternRewriter.escapedCaseless($0) : PatternRewriter.escaped($0) }
        caseless = true
    }

    /// nil if the pattern can't be rewritten, if it can match the empty string, or if the library may miss it.
    init?(_ source: PatternSource, subject: Subject) {
        guard var rewriter = PatternRewriter(source, subject: subject) else { return nil }
        do throws(PatternRewriter.Unfit) {
            let result = try rewriter.rewrite()
            guard result.minimum > 0 else { return nil }
            guard result.hasLiteral || ScanLibrary.findsPatternsWithoutLiteral else { return nil }
            expression = result.text
            caseless = rewriter.caseless
            isUnicode = rewriter.isUnicode
            keyword = result.keyword.score >= Self.leastScore ? result.keyword.bytes : nil
        } catch {
            return nil
        }
    }
}

/// An upper bound of PCRE2's steps on a key of length n: `factor` * n^`degree`.
struct Effort: Equatable {
    var factor = 1.0
    var degree = 0
    /// Whether something is repeated that can match in several ways. There is no polynomial bound then.
    private var isOpen = false

    mutating func `repeat`(_ low: Int, _ high: Int?, ofChoice isChoice: Bool) {
        isOpen = isOpen || isChoice && (high ?? 2) > 1
        factor *= Double(max(low, 1))
        if high == 1 { factor *= 2 } else if high != low { degree += 1 }
    }

    /// Whether a try of the pattern may exceed one of the limits.
    func mayExceed(_ limits: MatchLimits, keyLength: Int, groupCount: Int) -> Bool {
        let length = Double(keyLength + 1)
        let steps = repeatElement(length, count: degree).reduce(factor, *)
        // PCRE2 allocates a frame for each iteration of a group and each item: 128 bytes and two offsets per group.
        let frames = 4 * (length + factor) * Double(128 + 16 * groupCount)
        return isOpen || steps > Double(limits.steps(of: keyLength)) || frames > Double(limits.heapKiB) * 1_024
    }
}
