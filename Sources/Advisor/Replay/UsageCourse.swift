// SPDX-License-Identifier: Apache-2.0
import Limits
import Patterns

/// What each key of a limit would have used of its windows if nothing had been refused.
final class UsageCourse {
    /// Of one key: its windows, and the most that was in each.
    final class Peaks {
        var windows: SlidingWindows
        var most: [UInt64]
        /// Milliseconds since 1970.
        var at: [Int64]

        init(lanes: Int) {
            windows = SlidingWindows(lanes: lanes)
            most = Array(repeating: 0, count: lanes)
            at = Array(repeating: 0, count: lanes)
        }
    }

    let limit: Limit
    private(set) var keys: [[UInt8]: Peaks] = [:]
    private(set) var counted: UInt64 = 0
    private let scratch = MatchScratch()
    private var key: [UInt8] = []

    init(_ limit: Limit) {
        self.limit = limit
    }

    func take(_ request: Attributes, recipients: Int, messages: Int, size: Int, at time: LedgerTime, wall: Int64) {
        guard limit.conditions.allSatisfy({ $0.holds(request, scratch: scratch, value: &key) }),
            limit.key.build(request, into: &key)
        else { return }
        let amount = limit.count.amount(
            recipients: UInt64(recipients), messages: UInt64(messages), bytes: UInt64(size))
        guard amount > 0 else { return }
        counted += amount
        let peaks: Peaks
        if let known = keys[key] {
            peaks = known
        } else {
            peaks = Peaks(lanes: limit.rates.count)
            keys[key] = peaks
        }
        for lane in limit.rates.indices {
            let used = peaks.windows.charge(amount, lane: lane, slot: limit.rates[lane].window.slot(at: time))
            if used > peaks.most[lane] {
                peaks.most[lane] = used
                peaks.at[lane] = wall
            }
        }
    }
}
