// SPDX-License-Identifier: Apache-2.0
import CPCRE2

/// Bounds on one try of one pattern.
package struct MatchLimits: Hashable, Sendable {
    /// Backtracking steps.
    package var steps: UInt32
    /// Memory for backtracking, in KiB.
    package var heapKiB: UInt32

    package init(steps: UInt32 = 1_000_000, heapKiB: UInt32 = 65_536) {
        self.steps = steps
        self.heapKiB = heapKiB
    }

    /// PCRE2's own, which Postfix has.
    package static var library: MatchLimits {
        var limits = MatchLimits()
        pcre2_config_8(UInt32(PCRE2_CONFIG_MATCHLIMIT), &limits.steps)
        pcre2_config_8(UInt32(PCRE2_CONFIG_HEAPLIMIT), &limits.heapKiB)
        return limits
    }
}

/// The working memory of matching: one for each owner (an event loop, a thread), used by any
/// number of patterns one after the other. It grows to the largest of them and stays there,
/// so that matching does not allocate.
package final class MatchScratch {
    private(set) var matchData: OpaquePointer
    let context: OpaquePointer
    package let limits: MatchLimits
    private var capacity: Int
    /// Groups of the pattern that was matched last; the rest of the vector is older than that.
    private var captureCount = 0

    package init(limits: MatchLimits = MatchLimits()) {
        self.limits = limits
        capacity = 16
        // PCRE2's constructors return null only when malloc does.
        matchData = pcre2_match_data_create_8(UInt32(capacity), nil)!
        context = pcre2_match_context_create_8(nil)!
        pcre2_set_match_limit_8(context, limits.steps)
        pcre2_set_depth_limit_8(context, limits.steps)
        pcre2_set_heap_limit_8(context, limits.heapKiB)
    }

    deinit {
        pcre2_match_data_free_8(matchData)
        pcre2_match_context_free_8(context)
    }

    /// Byte range of a group in the subject of the last match; nil when the group took no
    /// part in it, or is no group of that pattern.
    package func capture(_ group: Int) -> Range<Int>? {
        guard 0...captureCount ~= group,
            let vector = pcre2_get_ovector_pointer_8(matchData)
        else { return nil }
        let (start, end) = (vector[2 * group], vector[2 * group + 1])
        // Unset groups are ~0; \K can put the start behind the end.
        guard start <= end, start != Int(bitPattern: UInt.max) else { return nil }
        return start..<end
    }

    /// Makes room for a pattern's groups before it is matched.
    func reserve(captures: Int) {
        captureCount = captures
        guard captures >= capacity else { return }
        capacity = captures + 1
        pcre2_match_data_free_8(matchData)
        matchData = pcre2_match_data_create_8(UInt32(capacity), nil)!
    }
}
