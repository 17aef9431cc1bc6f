// SPDX-License-Identifier: Apache-2.0

/// Texts that show before any mail arrives whether a pattern may backtrack without a reasonable bound.
package enum BacktrackingProbe {
    /// A warning about a pattern that takes more than `steps` steps on a short text; nil if none of the texts does.
    ///
    /// - Parameter source: of the pattern. For a pattern with a repeated group, its own bytes are tried as well.
    package static func warning(about pattern: Pattern, source: [UInt8], steps: UInt32) -> String? {
        let scratch = MatchScratch(limits: MatchLimits(steps: steps))
        for text in texts + ownTexts(source) {
            guard case .failed = pattern.matches(text, using: scratch) else { continue }
            return "catastrophic backtracking: more than \(steps) steps on \(text.count) bytes"
        }
        return nil
    }

    /// Text on which catastrophic patterns backtrack: many repeats of a unit, then a byte that no pattern expects. The
    /// printable bytes at the end are there because PCRE2 does not try a pattern whose required bytes are missing.
    private static func text(_ unit: [UInt8]) -> [UInt8] {
        Array(repeatElement(unit, count: 40).joined()) + [0x01] + Array(0x20...0x7e)
    }

    private static let texts = ["a", "0", " ", "ab", "-", "x."].map { text(Array($0.utf8)) }

    private static func ownTexts(_ source: [UInt8]) -> [[UInt8]] {
        let repeatsGroup = zip(source, source.dropFirst()).contains {
            $0 == UInt8(ascii: ")") && "*+{".utf8.contains($1)
        }
        return repeatsGroup ? Set(source.filter { 0x21...0x7e ~= $0 }).sorted().map { text([$0]) } : []
    }
}
