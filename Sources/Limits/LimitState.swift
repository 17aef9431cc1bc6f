// SPDX-License-Identifier: Apache-2.0
internal import Patterns

/// A limit in use: its accounts and figures.
package final class LimitState {
    /// Replaced on reload by terms under which counts mean the same.
    private(set) var terms: LimitTerms
    /// What the store calls the limit.
    let storedID: UInt64
    var accounts = AccountTable()
    var fullest = FullestAccounts()
    package internal(set) var refusals: UInt64 = 0
    private var peak: Peak?
    private var peakFullness = 0.0

    /// The fullest any window has been since the last summary, as anvil(8) logs it.
    package struct Peak: Sendable {
        package var key: [UInt8]
        package var window: Window
        package var used: UInt64
        package var admitted: UInt64
        /// Milliseconds since 1970.
        package var wallTime: Int64
    }

    init(limit: Limit, storedID: UInt64) {
        terms = LimitTerms(limit)
        self.storedID = storedID
    }

    package var limit: Limit { terms.limit }
    package var accountCount: Int { accounts.count }

    /// Takes the peak since the last call.
    package func takePeak() -> Peak? {
        peakFullness = 0
        return peak.take()
    }

    func notePeak(of account: Account, lane: Int, used: UInt64, admitted: UInt64, fullness: Double, wallTime: Int64) {
        guard fullness > peakFullness else { return }
        peakFullness = fullness
        peak = Peak(
            key: account.key, window: terms.limit.rates[lane].window, used: used, admitted: admitted,
            wallTime: wallTime)
    }

    /// Takes over another wording of the limit; windows of equal length keep their counts.
    func replaceTerms(with newLimit: Limit, at time: LedgerTime, changed: (Account) -> Void) {
        let new = LimitTerms(newLimit)
        new.setTime(time)
        if new.lanes != terms.lanes {
            accounts.forEach { account in
                account.windows = relaned(account, under: new)
                account.exception?.raised?.rates.removeAll { !newLimit.has($0.window) }
                if account.exception?.raised?.rates.isEmpty ?? false { account.exception?.raised = nil }
                changed(account)
            }
        }
        terms = new
        fullest.forgetThreshold()
    }

    private func relaned(_ account: Account, under new: borrowing LimitTerms) -> SlidingWindows {
        var windows = SlidingWindows(lanes: new.lanes.count)
        for (lane, window) in new.lanes.enumerated() {
            // The lane of refused tries is the last one, before and after.
            let candidates = lane == new.refusedLane ? terms.refusedLane..<terms.lanes.count : 0..<terms.refusedLane
            guard let oldLane = candidates.first(where: { terms.lanes[$0] == window }) else { continue }
            _ = account.windows.used(lane: oldLane, slot: new.slots[lane])
            account.windows.forEachSlot(lane: oldLane, slot: new.slots[lane]) { slot, amount in
                windows.restore(amount, slot: slot, lane: lane)
            }
        }
        return windows
    }
}

/// A limit's wording, laid out for deciding, and the slots of the present tick. It stands in the limit itself, and what
/// is asked of it is read there: holding it for each question would cost more than the answer.
struct LimitTerms: ~Copyable {
    let limit: Limit
    /// The windows of the lanes: one for each rate, and the last for refused tries, as long as the longest.
    let lanes: [Window]
    /// What each rate admits.
    let counts: [UInt64]
    let refusedLane: Int
    let overLetsPass: Bool
    let tooLargeLetsPass: Bool
    /// Whether the limit can only be judged where the recipient is known.
    let isPerRecipient: Bool
    /// So many milliseconds may pass before each account has to be looked at, lest slot numbers wrap.
    let mostUnused: Int64
    /// Whether `policy_context` is in its conditions or its key.
    let looksAtContext: Bool
    /// The present slot of each lane: the division is made once a tick. Valid for `lanes.count` from init to deinit.
    let slots: UnsafeMutablePointer<Int64>

    init(_ limit: Limit) {
        self.limit = limit
        lanes = limit.rates.map(\.window) + [limit.longestWindow]
        counts = limit.rates.map(\.count)
        refusedLane = counts.count
        overLetsPass = limit.over.letsPass
        tooLargeLetsPass = limit.tooLarge.letsPass
        isPerRecipient = limit.isPerRecipient
        mostUnused = lanes.reduce(.max) { min($0, $1.milliseconds) } * SlidingWindows.mostSlotsUnused / Window.slots
        looksAtContext = limit.contextAttribute != nil
        slots = .allocate(capacity: lanes.count)
        slots.initialize(repeating: 0, count: lanes.count)
    }

    deinit {
        slots.deallocate()
    }

    /// Whether the limit applies to a request. `value` is working space.
    func holds(_ request: Attributes, scratch: MatchScratch, value: inout [UInt8]) -> Bool {
        for index in limit.conditions.indices
        where !limit.conditions[index].holds(request, scratch: scratch, value: &value) {
            return false
        }
        return true
    }

    func setTime(_ time: LedgerTime) {
        for lane in lanes.indices { slots[lane] = lanes[lane].slot(at: time) }
    }
}
