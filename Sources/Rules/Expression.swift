// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Patterns

/// The compiled pattern of a rule or an `if`.
package struct Expression: Sendable {
    enum Engine: Sendable {
        case pcre(Pattern)
        case posix(POSIXPattern)
    }

    let engine: Engine
    /// Whether the number of its `!` is odd.
    let negated: Bool
    /// The source, for the fast pass and the lints.
    let source: PatternSource

    var groupCount: Int {
        switch engine {
        case .pcre(let pattern): pattern.captureCount
        case .posix(let pattern): pattern.groupCount
        }
    }

    /// Whether the rule applies to `key`; nil if the engine failed. The rule then does not apply, negated or not
    /// (`dict_pcre.c` DICT_PCRE_EXEC).
    func applies(to key: UnsafeRawBufferPointer, using scratch: Scratch) -> Bool? {
        switch engine {
        case .pcre(let pattern):
            switch pattern.matches(key, using: scratch.pcre) {
            case .match: return !negated
            case .noMatch: return negated
            case .failed(let code):
                scratch.failure = errorMessage(code)
                scratch.failedAtLimit = isLimit(code)
                return nil
            }
        case .posix(let pattern):
            guard !pattern.refersBack || !scratch.isOnLoop else {
                scratch.failedAtLimit = true
                return nil
            }
            scratch.failedAtLimit = false
            switch scratch.match(pattern, key) {
            case 0: return !negated
            case Int32(_REG_NOMATCH.rawValue): return negated
            case let code:
                scratch.failure = pattern.message(code)
                return nil
            }
        }
    }

    /// The bytes of the key that the pattern has matched; nil where that is not known.
    func hit(in scratch: Scratch) -> Range<Int>? {
        guard !negated, case .pcre = engine else { return nil }
        return scratch.pcre.capture(0)
    }

    /// The bytes of a group in the key of the last match.
    func capture(_ group: Int, in scratch: Scratch) -> Range<Int>? {
        switch engine {
        case .pcre: scratch.pcre.capture(group)
        case .posix: scratch.posixCapture(group)
        }
    }
}

/// A pattern as written in its table.
package struct PatternSource: Hashable, Sendable {
    enum Syntax: Hashable {
        case pcre(PatternOptions)
        case posix(POSIXPattern.Options)
    }

    let bytes: [UInt8]
    let syntax: Syntax
}

/// The working memory of one matching thread.
package final class Scratch {
    let pcre: MatchScratch
    /// The reason of the last failure, after `applies` has returned nil.
    var failure = ""
    /// Whether it was a limit of `pcre`, or a pattern without a bound on an event loop. Both may succeed elsewhere.
    var failedAtLimit = false
    /// Whether patterns without any bound are left to other threads.
    let isOnLoop: Bool
    private var groups: UnsafeMutableBufferPointer<regmatch_t>

    package init(limits: MatchLimits = MatchLimits(), isOnLoop: Bool = false) {
        self.isOnLoop = isOnLoop
        pcre = MatchScratch(limits: limits)
        groups = .allocate(capacity: 16)
        groups.initialize(repeating: regmatch_t())
    }

    deinit { groups.deallocate() }

    func match(_ pattern: POSIXPattern, _ key: UnsafeRawBufferPointer) -> Int32 {
        if pattern.groupCount >= groups.count {
            groups.deallocate()
            groups = .allocate(capacity: pattern.groupCount + 1)
            groups.initialize(repeating: regmatch_t())
        }
        return pattern.match(key, groups: groups)
    }

    func posixCapture(_ group: Int) -> Range<Int>? {
        guard groups.indices.contains(group), groups[group].rm_so >= 0 else { return nil }
        return Int(groups[group].rm_so)..<Int(groups[group].rm_eo)
    }
}
