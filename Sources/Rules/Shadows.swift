// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// Finds rules that can never match first, because an earlier rule matches whatever they match.
///
/// It finds two cases: an earlier rule with the same pattern, and an earlier rule whose pattern is literal text that
/// every match of the later one contains, or begins with if the earlier one is anchored.
struct Shadows {
    /// A rule with an action, and the `if` around it.
    private struct Decider {
        let rule: Int
        let enclosing: Int?
    }

    private struct WholePattern: Hashable {
        let source: PatternSource
        let negated: Bool
    }

    /// The text of a literal pattern.
    private struct Text: Hashable {
        let bytes: ArraySlice<UInt8>
        /// Whether it matches only at the start of the key.
        let isPrefix: Bool
        /// If so, `bytes` is in lower case.
        let isCaseless: Bool
    }

    private var patterns: [WholePattern: [Decider]] = [:]
    private var texts: [Text: [Decider]] = [:]
    /// The lengths of `texts`.
    private var lengths: Set<Int> = []

    /// The earlier rule that always matches before `rule`; if there is none, remembers `rule`.
    mutating func decider(
        before rule: Int, _ expression: Expression, mayDecide: Bool, in list: RuleList, subject: FastPattern.Subject
    ) -> Int? {
        let enclosing = list.enclosing(of: rule)
        func reaches(_ deciders: [Decider]?) -> Int? {
            deciders?.first { $0.enclosing.map(enclosing.contains) ?? true }?.rule
        }
        let decider = Decider(rule: rule, enclosing: enclosing.first)
        let pattern = WholePattern(source: expression.source, negated: expression.negated)
        if let earlier = reaches(patterns[pattern]) { return earlier }
        if mayDecide { patterns[pattern, default: []].append(decider) }

        guard !expression.negated, let required = RequiredText(expression.source, subject: subject) else { return nil }
        for text in candidates(for: required) {
            if let earlier = reaches(texts[text]) { return earlier }
        }
        if mayDecide, let only = required.only {
            let text = Text(bytes: only.bytes[...], isPrefix: only.isPrefix, isCaseless: required.isCaseless)
            texts[text, default: []].append(decider)
            lengths.insert(only.bytes.count)
        }
        return nil
    }

    /// The literal patterns that match whatever a pattern with `required` matches.
    private func candidates(for required: RequiredText) -> [Text] {
        var found: [Text] = []
        for isCaseless in required.isCaseless ? [true] : [true, false] {
            func add(_ bytes: ArraySlice<UInt8>, isPrefix: Bool) {
                for length in lengths where length <= bytes.count {
                    found.append(Text(bytes: bytes.prefix(length), isPrefix: isPrefix, isCaseless: isCaseless))
                }
            }
            // Every key contains the empty text.
            add([], isPrefix: false)
            add(required.spelling(required.prefix ?? [], isCaseless)[...], isPrefix: true)
            for literal in required.literals {
                let text = required.spelling(literal, isCaseless)
                for start in text.indices { add(text[start...], isPrefix: false) }
            }
        }
        return found
    }
}

/// The text that every match of a pattern must have.
private struct RequiredText {
    /// Texts that every match contains.
    let literals: [[UInt8]]
    /// The text that every match begins with.
    let prefix: [UInt8]?
    /// The text of the whole pattern, if that is literal.
    let only: (bytes: [UInt8], isPrefix: Bool)?
    let isCaseless: Bool

    /// nil for a pattern that `PatternRewriter` can't parse.
    init?(_ source: PatternSource, subject: FastPattern.Subject) {
        guard var rewriter = PatternRewriter(source, subject: subject), let result = try? rewriter.rewrite() else {
            return nil
        }
        isCaseless = rewriter.caseless
        literals = rewriter.literals.map { rewriter.caseless ? $0.map(\.lowercased) : $0 }
        prefix = rewriter.prefix.map { bytes in rewriter.caseless ? bytes.map(\.lowercased) : bytes }
        // Rewriting leaves out look-arounds, flags, repeated assertions, and `^` that matches at the folding of a
        // header.
        guard let exact = result.exact, !source.hasGroupOrRepeat, !source.isMultiline else {
            only = nil
            return
        }
        let text = exact.flatMap(PatternRewriter.escaped)
        let isPrefix = result.text == [UInt8(ascii: "^")] + text
        guard isPrefix || result.text == text else {
            only = nil
            return
        }
        only = (isCaseless ? exact.map(\.lowercased) : exact, isPrefix || source.isAnchored)
    }

    func spelling(_ text: [UInt8], _ isCaseless: Bool) -> [UInt8] {
        isCaseless && !self.isCaseless ? text.map(\.lowercased) : text
    }
}

extension PatternSource {
    fileprivate var hasGroupOrRepeat: Bool {
        var isEscaped = false
        return bytes.contains { byte in
            defer { isEscaped = byte == UInt8(ascii: "\\") && !isEscaped }
            return !isEscaped && "(*+?{".utf8.contains(byte)
        }
    }

    fileprivate var isMultiline: Bool {
        switch syntax {
        case .pcre(let options): options.contains(.multiline)
        case .posix(let options): options.contains(.newlines)
        }
    }

    fileprivate var isAnchored: Bool {
        switch syntax {
        case .pcre(let options): options.contains(.anchored)
        case .posix: false
        }
    }
}

extension RuleList {
    /// The `if`s around a rule, the innermost first.
    fileprivate func enclosing(of rule: Int) -> [Int] {
        Array(
            sequence(state: entries[rule].enclosing) { [entries] enclosing in
                defer { enclosing = enclosing.flatMap { entries[$0].enclosing } }
                return enclosing
            })
    }
}
