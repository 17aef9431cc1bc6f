// SPDX-License-Identifier: Apache-2.0
import CPCRE2

/// The limits of one match attempt.
package struct MatchLimits: Hashable, Sendable {
    /// Backtracking steps from one position of the text.
    package var steps: UInt32
    /// Backtracking steps from all positions together. PCRE2 counts anew at each position, so each gets an equal share.
    /// This does not concern a pattern that can match only at the start.
    package var stepsOfAll: UInt32
    /// From one position, however many there are.
    package var leastSteps: UInt32 = 1
    /// Memory for backtracking, in KiB.
    package var heapKiB: UInt32

    package init(steps: UInt32 = 1_000_000, stepsOfAll: UInt32 = .max, heapKiB: UInt32 = 65_536) {
        self.steps = steps
        self.stepsOfAll = stepsOfAll
        self.heapKiB = heapKiB
    }

    /// The steps from one of so many positions.
    package func steps(of positions: Int) -> UInt32 {
        guard stepsOfAll < .max else { return steps }
        return min(steps, max(leastSteps, stepsOfAll / UInt32(clamping: max(1, positions))))
    }

    /// The defaults of PCRE2, which apply in Postfix.
    package static var library: MatchLimits {
        var limits = MatchLimits()
        pcre2_config_8(UInt32(PCRE2_CONFIG_MATCHLIMIT), &limits.steps)
        pcre2_config_8(UInt32(PCRE2_CONFIG_HEAPLIMIT), &limits.heapKiB)
        return limits
    }
}

/// The working memory of one thread or event loop, for any number of patterns. It grows to the largest of them and
/// stays that size, so matching does not allocate.
package final class MatchScratch {
    private(set) var matchData: OpaquePointer
    let context: OpaquePointer
    package let limits: MatchLimits
    private var capacity: Int
    /// The number of groups of the last pattern. The rest of the vector belongs to older matches.
    private var captureCount = 0
    /// The steps that `context` allows.
    private var steps: UInt32

    package init(limits: MatchLimits = MatchLimits()) {
        self.limits = limits
        steps = limits.steps
        capacity = 16
        // PCRE2's constructors return null only if malloc does.
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

    /// The byte range of a group in the subject of the last match; nil if the group took no part in it, or if the
    /// pattern has no such group.
    package func capture(_ group: Int) -> Range<Int>? {
        guard 0...captureCount ~= group,
            let vector = pcre2_get_ovector_pointer_8(matchData)
        else { return nil }
        let (start, end) = (vector[2 * group], vector[2 * group + 1])
        // Unset groups are ~0; \K can put the start after the end.
        guard start <= end, start != Int(bitPattern: UInt.max) else { return nil }
        return start..<end
    }

    /// Prepares for a match of a pattern with this many groups, which may begin at so many positions.
    @inline(__always)
    func prepare(captures: Int, positions: Int) {
        if limits.stepsOfAll < .max { shareSteps(among: positions) }
        reserve(captures: captures)
    }

    private func shareSteps(among positions: Int) {
        let share = limits.steps(of: positions)
        guard share != steps else { return }
        steps = share
        pcre2_set_match_limit_8(context, share)
        pcre2_set_depth_limit_8(context, share)
    }

    private func reserve(captures: Int) {
        captureCount = captures
        guard captures >= capacity else { return }
        capacity = captures + 1
        pcre2_match_data_free_8(matchData)
        matchData = pcre2_match_data_create_8(UInt32(capacity), nil)!
    }
}
