// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// Which rules decide before others get to it: for all that a later pattern matches, an earlier one does.
///
/// Two cases can be proven: the very same pattern, and an earlier one that is but a text, where all that the later one
/// matches has that text in it (or begins with it, where the earlier one asks for that). Other cases are not told.
struct Shadows {
    /// A rule that decides, and the `if` it stands in.
    private struct Decider {
        let rule: Int
        let enclosing: Int?
    }

    private struct Whole: Hashable {
        let source: PatternSource
        let negated: Bool
    }

    /// A text that a rule looks for.
    private struct Text: Hashable {
        let bytes: ArraySlice<UInt8>
        /// Only at the start of the key.
        let isPrefix: Bool
        /// Then `bytes` is in lower case.
        let isCaseless: Bool
    }

    private var wholes: [Whole: [Decider]] = [:]
    private var texts: [Text: [Decider]] = [:]
    /// The lengths of `texts`.
    private var lengths: Set<Int> = []

    /// The rule that decides in place of `rule`, if there is one; where there is none, notes what `rule` decides.
    mutating func decider(
        before rule: Int, _ expression: Expression, mayDecide: Bool, in list: RuleList, subject: FastPattern.Subject
    ) -> Int? {
        let enclosing = list.enclosing(of: rule)
        func reaches(_ deciders: [Decider]?) -> Int? {
            deciders?.first { $0.enclosing.map(enclosing.contains) ?? true }?.rule
        }
        let decider = Decider(rule: rule, enclosing: enclosing.first)
        let whole = Whole(source: expression.source, negated: expression.negated)
        if let earlier = reaches(wholes[whole]) { return earlier }
        if mayDecide { wholes[whole, default: []].append(decider) }

        guard !expression.negated, let asked = AskedText(expression.source, subject: subject) else { return nil }
        for text in candidates(for: asked) {
            if let earlier = reaches(texts[text]) { return earlier }
        }
        if mayDecide, let only = asked.only {
            let text = Text(bytes: only.bytes[...], isPrefix: only.isPrefix, isCaseless: asked.isCaseless)
            texts[text, default: []].append(decider)
            lengths.insert(only.bytes.count)
        }
        return nil
    }

    /// The texts that a rule may look for which matches all that a pattern does that asks for `asked`.
    private func candidates(for asked: AskedText) -> [Text] {
        var found: [Text] = []
        for isCaseless in asked.isCaseless ? [true] : [true, false] {
            func add(_ bytes: ArraySlice<UInt8>, isPrefix: Bool) {
                for length in lengths where length <= bytes.count {
                    found.append(Text(bytes: bytes.prefix(length), isPrefix: isPrefix, isCaseless: isCaseless))
                }
            }
            // The empty text is in everything, and everything begins with it.
            add([], isPrefix: false)
            add(asked.spelling(asked.prefix ?? [], isCaseless)[...], isPrefix: true)
            for literal in asked.literals {
                let text = asked.spelling(literal, isCaseless)
                for start in text.indices { add(text[start...], isPrefix: false) }
            }
        }
        return found
    }
}

/// What a pattern asks for, as far as that is text.
private struct AskedText {
    /// Texts that are in all that it matches.
    let literals: [[UInt8]]
    /// What all that it matches begins with.
    let prefix: [UInt8]?
    /// It asks for this text, and for nothing else.
    let only: (bytes: [UInt8], isPrefix: Bool)?
    let isCaseless: Bool

    /// nil for a pattern that is not understood.
    init?(_ source: PatternSource, subject: FastPattern.Subject) {
        guard var rewriter = PatternRewriter(source, subject: subject), let result = try? rewriter.rewrite() else {
            return nil
        }
        isCaseless = rewriter.caseless
        literals = rewriter.literals.map { rewriter.caseless ? $0.map(\.lowercased) : $0 }
        prefix = rewriter.prefix.map { bytes in rewriter.caseless ? bytes.map(\.lowercased) : bytes }
        // Look-arounds, flags, repeated assertions and `^` where it holds at each fold are left out of what is rewritten.
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
