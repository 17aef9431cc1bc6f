// SPDX-License-Identifier: Apache-2.0
import CPCRE2

/// The compile-time options of a pattern, with the letters of pcre_table(5).
package struct PatternOptions: OptionSet, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `i`: letters match either case.
    package static let caseless = PatternOptions(rawValue: PCRE2_CASELESS)
    /// `m`: `^` and `$` also match at newlines.
    package static let multiline = PatternOptions(rawValue: PCRE2_MULTILINE)
    /// `s`: `.` also matches a newline.
    package static let dotAll = PatternOptions(rawValue: PCRE2_DOTALL)
    /// `x`: white space and `#` comments in the pattern are ignored.
    package static let extended = PatternOptions(rawValue: PCRE2_EXTENDED)
    /// `A`: the match starts at the first byte.
    package static let anchored = PatternOptions(rawValue: PCRE2_ANCHORED)
    /// `E`: `$` matches at the very end only, not before a final newline.
    package static let dollarEndOnly = PatternOptions(rawValue: PCRE2_DOLLAR_ENDONLY)
    /// `U`: quantifiers are lazy, `?` makes them greedy.
    package static let ungreedy = PatternOptions(rawValue: PCRE2_UNGREEDY)
    /// Pattern and text are UTF-8: `.` is a character, and letters, digits, white space and case are Unicode's. A text
    /// that is not UTF-8 fails. Tables have no letter for it.
    package static let unicode = PatternOptions(rawValue: PCRE2_UTF | PCRE2_UCP)
}

/// Why a pattern did not compile: PCRE2's message and the byte offset in the pattern.
package struct PatternError: Error, Equatable, Sendable {
    package let message: String
    package let offset: Int
}

/// The result of one match attempt.
package enum MatchResult: Equatable, Sendable {
    case match
    case noMatch
    /// The attempt exceeded the match, depth or heap limit of the `MatchScratch`, or PCRE2 failed for another reason,
    /// such as invalid UTF-8 with a pattern that begins with (*UTF). `errorMessage` explains the code.
    case failed(code: Int32)
}

/// A compiled PCRE2 pattern, for raw bytes unless its options say `unicode`. It uses PCRE2's interpreter, as Postfix
/// does, not the JIT: that of PCRE2 10.42 does not always find the same matches, for example none of
/// `B(?i:B|)[^a]+(?:[^a]+)` in a line that ends in `BB`.
package final class Pattern: Sendable {
    // Safe to share: PCRE2 never writes to compiled code (pcre2api, "Multithreading"). Only init and deinit own it.
    nonisolated(unsafe) private let code: OpaquePointer
    /// The number of capturing groups.
    package let captureCount: Int
    /// Whether a match can begin at the start of the text only.
    private let isAnchored: Bool

    package init(_ source: [UInt8], options: PatternOptions) throws(PatternError) {
        var error: Int32 = 0
        var offset = 0
        guard
            let code = pcre2_compile_8(
                source, source.count, options.rawValue, &error, &offset, nil)
        else {
            throw PatternError(message: errorMessage(error), offset: offset)
        }
        var captures: UInt32 = 0
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_CAPTURECOUNT), &captures)
        var allOptions: UInt32 = 0
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_ALLOPTIONS), &allOptions)
        self.code = code
        self.captureCount = Int(captures)
        isAnchored = allOptions & PCRE2_ANCHORED != 0
    }

    deinit { pcre2_code_free_8(code) }

    /// Searches `bytes`. After `.match`, `scratch` holds the groups until its next use.
    package func matches(
        _ bytes: UnsafeRawBufferPointer, using scratch: MatchScratch
    ) -> MatchResult {
        scratch.prepare(captures: captureCount, positions: isAnchored ? 1 : bytes.count)
        // PCRE2 before 10.38 rejects a null pointer even for an empty subject.
        let base = bytes.baseAddress ?? UnsafeRawPointer(code)
        let subject = base.assumingMemoryBound(to: UInt8.self)
        let result = pcre2_match_8(
            code, subject, bytes.count, 0, 0, scratch.matchData, scratch.context)
        switch result {
        case 1...: return .match
        case PCRE2_ERROR_NOMATCH: return .noMatch
        default: return .failed(code: result)
        }
    }

    /// The same for an array.
    package func matches(_ bytes: [UInt8], using scratch: MatchScratch) -> MatchResult {
        bytes.withUnsafeBytes { matches($0, using: scratch) }
    }
}

/// Whether this error code of PCRE2 says that a match limit is exceeded.
package func isLimit(_ code: Int32) -> Bool {
    [PCRE2_ERROR_MATCHLIMIT, PCRE2_ERROR_DEPTHLIMIT, PCRE2_ERROR_HEAPLIMIT].contains(code)
}

/// PCRE2's message for one of its error codes.
package func errorMessage(_ code: Int32) -> String {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) { buffer in
        let length = pcre2_get_error_message_8(code, buffer.baseAddress, buffer.count)
        guard length > 0 else { return "unexpected pcre2 error code \(code)" }
        return String(decoding: buffer.prefix(Int(length)), as: UTF8.self)
    }
}
