// SPDX-License-Identifier: Apache-2.0
import Limits
import Patterns

/// The use of each key of a limit, as if nothing had been refused.
final class LimitUsage {
    /// The windows of one key, and the peak of each.
    final class KeyUsage {
        var windows: SlidingWindows
        var peaks: [UInt64]
        var peakTimes: [LogMoment]

        init(lanes: Int) {
            windows = SlidingWindows(lanes: lanes)
            peaks = Array(repeating: 0, count: lanes)
            peakTimes = Array(repeating: .utc(0), count: lanes)
        }
    }

    let limit: Limit
    private(set) var keys: [[UInt8]: KeyUsage] = [:]
    private(set) var counted: UInt64 = 0
    private let scratch = MatchScratch(limits: Condition.matchLimits)
    private var key: [UInt8] = []

    init(_ limit: Limit) {
        self.limit = limit
    }

    /// - Parameters:
    ///   - time: on the ledger's clock, for the windows.
    ///   - moment: for the report.
    func add(_ request: Attributes, recipients: Int, messages: Int, size: Int, at time: LedgerTime, _ moment: LogMoment)
    {
        guard applies(to: request), limit.key.build(request, into: &key) else { return }
        let amount = limit.count.amount(
            recipients: UInt64(recipients), messages: UInt64(messages), bytes: UInt64(size))
        guard amount > 0 else { return }
        counted += amount
        let usage: KeyUsage
        if let existing = keys[key] {
            usage = existing
        } else {
            usage = KeyUsage(lanes: limit.rates.count)
            keys[key] = usage
        }
        for lane in limit.rates.indices {
            let used = usage.windows.charge(amount, lane: lane, slot: limit.rates[lane].window.slot(at: time))
            if used > usage.peaks[lane] {
                usage.peaks[lane] = used
                usage.peakTimes[lane] = moment
            }
        }
    }

    /// As in the ledger: not if a condition is undecided.
    private func applies(to request: Attributes) -> Bool {
        limit.conditions.allSatisfy { (try? $0.holds(request, scratch: scratch, value: &key)) ?? false }
    }
}
