// SPDX-License-Identifier: Apache-2.0
internal import Patterns

/// A limit in use, with its accounts and counters.
package final class LimitState {
    /// A reload replaces them by terms with the same signature.
    private(set) var terms: LimitTerms
    /// The id of the limit in the store.
    let storedID: UInt64
    var accounts = AccountTable()
    var fullest = FullestAccounts()
    package internal(set) var refusals: UInt64 = 0
    /// Keys that the limit has blocked; one counts as often as that happens.
    package internal(set) var blocks: UInt64 = 0
    /// Requests to which the limit did not apply because a condition was undecided.
    package internal(set) var undecided: UInt64 = 0
    private var peak: Peak?
    private var peakFullness = 0.0

    /// The fullest that a window has been since the last summary, as anvil(8) logs it.
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

    /// Removes all accounts. They refer to the limit, and it to them: without this, neither is freed.
    func removeAccounts() {
        accounts = AccountTable()
        fullest = FullestAccounts()
    }

    /// The peak since the last call.
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

    /// Replaces the terms. Windows of the same length keep their counts.
    ///
    /// - Parameter changed: called for each account whose windows or raise changed.
    func replaceTerms(with newLimit: Limit, at time: LedgerTime, changed: (Account) -> Void) {
        var new = LimitTerms(newLimit)
        new.setTime(time)
        for lane in new.counts.indices {
            let old = terms.lanes.dropLast().firstIndex(of: new.lanes[lane])
            new.added[lane] = old.map { terms.added[$0] } ?? time
        }
        if new.lanes != terms.lanes {
            accounts.forEach { account in
                account.windows = windows(of: account, under: new)
                account.exception?.raised?.rates.removeAll { !newLimit.has($0.window) }
                if account.exception?.raised?.rates.isEmpty ?? false { account.exception?.raised = nil }
                changed(account)
            }
        }
        terms = new
        fullest.resetThreshold()
    }

    private func windows(of account: Account, under new: borrowing LimitTerms) -> SlidingWindows {
        var windows = SlidingWindows(lanes: new.lanes.count)
        for (lane, window) in new.lanes.enumerated() {
            // The lane of refused requests is the last one, in the old terms and in the new.
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

/// A limit's configuration, laid out for deciding, and the slots of the present tick. It can't be copied, so code reads
/// it in place: retaining and releasing its arrays would cost more than reading them.
struct LimitTerms: ~Copyable {
    let limit: Limit
    /// The windows of the lanes: one for each rate, then one for refused requests, as long as the longest of them.
    let lanes: [Window]
    /// The count of each rate.
    let counts: [UInt64]
    let refusedLane: Int
    let overLetsPass: Bool
    let tooLargeLetsPass: Bool
    let blockOverLetsPass: Bool
    /// Whether several hosts hold it together.
    let isShared: Bool
    let laneHash: SipHash
    /// Whether the limit needs to know the recipient.
    let isPerRecipient: Bool
    /// Milliseconds after which slot numbers of an unused account could wrap. `Account.expire` must be called before.
    let mostUnused: Int64
    /// Whether its conditions or its key use `policy_context`.
    let looksAtContext: Bool
    /// When a reload added each lane. What was charged up to then is not in it, and is not given back there.
    var added: [LedgerTime]
    /// The present slot of each lane, computed once a tick. Valid for `lanes.count` slots from init to deinit.
    let slots: UnsafeMutablePointer<Int64>

    init(_ limit: Limit) {
        self.limit = limit
        lanes = limit.rates.map(\.window) + [limit.longestWindow]
        counts = limit.rates.map(\.count)
        refusedLane = counts.count
        overLetsPass = limit.over.letsPass
        tooLargeLetsPass = limit.tooLarge.letsPass
        blockOverLetsPass = limit.blockOver.letsPass
        isShared = limit.isShared
        laneHash = SharedCounts.laneHash(ofLimit: limit.name)
        isPerRecipient = limit.isPerRecipient
        mostUnused = lanes.reduce(.max) { min($0, $1.milliseconds) } * SlidingWindows.mostSlotsUnused / Window.slots
        looksAtContext = limit.contextAttribute != nil
        added = Array(repeating: LedgerTime(milliseconds: 0), count: lanes.count)
        slots = .allocate(capacity: lanes.count)
        slots.initialize(repeating: 0, count: lanes.count)
    }

    deinit {
        slots.deallocate()
    }

    /// Whether all conditions of the limit hold. `value` is working space.
    func holds(
        _ request: Attributes, scratch: MatchScratch, value: inout [UInt8]
    ) throws(UndecidedCondition) -> Bool {
        for index in limit.conditions.indices {
            guard try limit.conditions[index].holds(request, scratch: scratch, value: &value) else { return false }
        }
        return true
    }

    func setTime(_ time: LedgerTime) {
        for lane in lanes.indices { slots[lane] = lanes[lane].slot(at: time) }
    }
}
