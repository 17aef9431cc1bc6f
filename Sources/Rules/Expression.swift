// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Patterns

/// The compiled pattern of a rule or an `if`, with the parity of its `!`.
package struct Expression: Sendable {
    enum Engine: Sendable {
        case pcre(Pattern)
        case posix(POSIXPattern)
    }

    let engine: Engine
    let negated: Bool
    /// What was compiled, for the fast pass and the lints.
    let source: PatternSource

    var groupCount: Int {
        switch engine {
        case .pcre(let pattern): pattern.captureCount
        case .posix(let pattern): pattern.groupCount
        }
    }

    /// Whether the rule applies to `key`; nil when the engine gave up, which counts as no,
    /// negated or not (`dict_pcre.c` DICT_PCRE_EXEC).
    func applies(to key: UnsafeRawBufferPointer, using scratch: Scratch) -> Bool? {
        switch engine {
        case .pcre(let pattern):
            switch pattern.matches(key, using: scratch.pcre) {
            case .match: return !negated
            case .noMatch: return negated
            case .failed(let code):
                scratch.failure = errorMessage(code)
                return nil
            }
        case .posix(let pattern):
            switch scratch.match(pattern, key) {
            case 0: return !negated
            case Int32(_REG_NOMATCH.rawValue): return negated
            case let code:
                scratch.failure = pattern.message(code)
                return nil
            }
        }
    }

    /// Bytes of a group in the key of the last match.
    func capture(_ group: Int, in scratch: Scratch) -> Range<Int>? {
        switch engine {
        case .pcre: scratch.pcre.capture(group)
        case .posix: scratch.posixCapture(group)
        }
    }
}

/// A pattern as its table has it.
package struct PatternSource: Hashable, Sendable {
    enum Syntax: Hashable {
        case pcre(PatternOptions)
        case posix(POSIXPattern.Options)
    }

    let bytes: [UInt8]
    let syntax: Syntax
}

/// The working memory of one thread of matching.
package final class Scratch {
    let pcre: MatchScratch
    /// Why the engine gave up, after `applies` returned nil.
    var failure = ""
    private var groups: UnsafeMutableBufferPointer<regmatch_t>

    package init(limits: MatchLimits = MatchLimits()) {
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
