// SPDX-License-Identifier: Apache-2.0

/// What one key of one limit has used.
package final class Account {
    // What every request touches comes first, in one cache line.
    let hash: KeyHash
    package let limit: LimitState
    var windows: SlidingWindows
    /// Few keys have one.
    package internal(set) var exception: Exception?
    /// Identifies the account in the journal. Never reused.
    package let id: UInt64
    var hasWarned = false
    /// Whether it is in the list of accounts that the next checkpoint saves.
    var isDirty = false
    /// Whether the store has a row for it.
    var isStored = false
    /// Whether it has left the limit's table: idle, evicted, or its limit was removed. A transaction may still refer
    /// to it. Its windows are not used any more: a reload does not adapt them.
    var isRemoved = false
    /// Whether nothing counted any more when it left the table.
    var wasIdle = false
    /// Its index in the limit's `FullestAccounts`; `noPlace` if it is not in there.
    var place = Account.noPlace
    /// `Ledger.generation` when the key was last looked up in the tables.
    var generation: UInt32 = 0
    /// `Ledger.requestNumber` of the last request that used it.
    var lastRequest: UInt32 = 0
    package let key: [UInt8]
    /// The last batch whose effects its row holds. Replay does not apply these again.
    var savedSequence: UInt64 = 0

    static let noPlace = UInt16.max

    /// How a key is treated differently from the others of its limit.
    package final class Exception {
        /// Every request is refused until then.
        package internal(set) var blockedUntil: LedgerTime?
        /// The ledger's generation when the block was set; 0 if it was read from the store.
        var blockGeneration: UInt32 = 0
        /// Whether an administrator set the block. Such a block applies to an exempt key too.
        var isBlockedByHand = false
        /// Rates set by an administrator, until then. They replace the table's and the limit's rates of the same
        /// windows.
        package internal(set) var raised: (rates: [Rate], until: LedgerTime)?
        /// Rates from a table. They replace the limit's rates of the same windows.
        package internal(set) var overridden: [Rate] = []
        /// When an administrator last reset the counts: transactions give nothing back that was charged up to then.
        var resetAt: LedgerTime?
        /// Whether a table exempts the key from the limit.
        package internal(set) var isExempt = false

        func blocks(at time: LedgerTime) -> Bool { blockedUntil.map { $0 > time } ?? false }
        func raises(at time: LedgerTime) -> Bool { raised.map { $0.until > time } ?? false }
    }

    init(id: UInt64, key: [UInt8], hash: KeyHash, limit: LimitState) {
        self.id = id
        self.key = key
        self.hash = hash
        self.limit = limit
        windows = SlidingWindows(lanes: limit.terms.lanes.count)
    }

    // MARK: Counts, as of the limit's present slots

    /// What counts in a lane now.
    package func used(lane: Int) -> UInt64 {
        windows.used(lane: lane, slot: limit.terms.slots[lane])
    }

    /// What `used` returns, for an account whose windows may lack charges from before the present slots.
    func peek(lane: Int) -> UInt64 {
        windows.peek(lane: lane, slot: limit.terms.slots[lane])
    }

    /// The refused requests within the longest window.
    package var refusedTries: UInt64 { used(lane: limit.terms.refusedLane) }

    /// Whether nothing counts any more, refused tries included.
    var isEmpty: Bool { limit.terms.lanes.indices.allSatisfy { used(lane: $0) == 0 } }

    /// How full the fullest window is, as a fraction of what is admitted; nil if the account is idle.
    package func fullness(at time: LedgerTime) -> Double? {
        var fullest: Double?
        for lane in 0..<limit.terms.refusedLane {
            let used = used(lane: lane)
            guard used > 0 else { continue }
            fullest = max(fullest ?? 0, Double(used) / Double(max(1, admitted(lane: lane, at: time))))
        }
        // Refused requests keep an account in the lists, but say nothing about how full it is.
        if fullest == nil, refusedTries > 0 { fullest = .leastNonzeroMagnitude }
        if blockedUntil(at: time) != nil { fullest = max(fullest ?? 0, 1) }
        return fullest
    }

    func charge(_ amount: UInt64) {
        for lane in 0..<limit.terms.refusedLane { windows.charge(amount, lane: lane, slot: limit.terms.slots[lane]) }
    }

    /// Counts a refused request, and charges `amount` for it.
    func addRefused(charging amount: UInt64) {
        windows.charge(1, lane: limit.terms.refusedLane, slot: limit.terms.slots[limit.terms.refusedLane])
        charge(amount)
    }

    /// Whether a charge at `time` is in the same slot of every window as one now. A window that a reload has added
    /// since then does not have it.
    func isOfPresentSlots(_ time: LedgerTime) -> Bool {
        for lane in 0..<limit.terms.refusedLane
        where time <= limit.terms.added[lane] || limit.terms.lanes[lane].slot(at: time) != limit.terms.slots[lane] {
            return false
        }
        return true
    }

    func giveBack(_ amount: UInt64, chargedAt time: LedgerTime) {
        for lane in 0..<limit.terms.refusedLane where time > limit.terms.added[lane] {
            windows.giveBack(amount, lane: lane, chargedIn: limit.terms.lanes[lane].slot(at: time))
        }
    }

    /// Sets all counts to zero. What open transactions were charged is not given back later.
    func reset(at time: LedgerTime) {
        windows.clear()
        hasWarned = false
        makeException().resetAt = time
    }

    /// Removes what expires by `time`, which may be so far ahead that slot numbers wrap.
    func expire(by time: LedgerTime) {
        for lane in limit.terms.lanes.indices {
            if limit.terms.lanes[lane].slot(at: time) - limit.terms.slots[lane] > Window.slots {
                windows.clear(lane: lane)
            } else {
                _ = used(lane: lane)
            }
        }
    }

    /// When `amount` more fits into a window: `time` if it fits now, nil if it never does.
    func fitting(_ amount: UInt64, lane: Int, at time: LedgerTime) -> LedgerTime? {
        let admitted = admitted(lane: lane, at: time)
        guard amount <= admitted else { return nil }
        let blocking = windows.blockingSlot(amount, under: admitted, lane: lane, slot: limit.terms.slots[lane])
        return blocking.map { limit.terms.lanes[lane].expiry(ofSlot: $0) } ?? time
    }

    // MARK: Exceptions

    /// What this key may use of a window.
    package func admitted(lane: Int, at time: LedgerTime) -> UInt64 {
        if let exception {
            let window = limit.terms.lanes[lane]
            if let raised = exception.raised, raised.until > time {
                for rate in raised.rates where rate.window == window { return rate.count }
            }
        }
        return usual(lane: lane)
    }

    /// What this key may use of a window without a raise.
    func usual(lane: Int) -> UInt64 {
        if let exception {
            let window = limit.terms.lanes[lane]
            for rate in exception.overridden where rate.window == window { return rate.count }
        }
        return limit.terms.counts[lane]
    }

    /// The exception, created if there is none.
    func makeException() -> Exception {
        if let exception { return exception }
        let made = Exception()
        exception = made
        return made
    }

    /// When the block that is in force at `time` ends; nil if none is.
    package func blockedUntil(at time: LedgerTime) -> LedgerTime? {
        guard exception.map({ !$0.isExempt || $0.isBlockedByHand }) ?? false, let until = exception?.blockedUntil,
            until > time
        else { return nil }
        return until
    }

    /// Sets other rates until a time. Ignores those of windows that the limit does not have any more. Without rates,
    /// ends a raise.
    func setRaised(_ rates: [Rate], until: LedgerTime) {
        if rates.isEmpty { exception?.raised = nil }
        let applicable = rates.filter { limit.limit.has($0.window) }
        guard !applicable.isEmpty else { return }
        makeException().raised = (applicable, until)
    }

    /// Whether an administrator has blocked the key, now or until a while ago.
    package var isBlockedByHand: Bool { exception?.isBlockedByHand ?? false }

    /// Whether an administrator's block or raise is in force. The account must stay then.
    func isHeldByAdministrator(at time: LedgerTime) -> Bool {
        guard let exception else { return false }
        return exception.isBlockedByHand && exception.blocks(at: time) || exception.raises(at: time)
    }

    /// Whether a block or a raise is in force.
    func isBlockedOrRaised(at time: LedgerTime) -> Bool {
        guard let exception else { return false }
        return exception.blocks(at: time) || exception.raises(at: time)
    }

    /// Whether an open transaction may have charges from before a reset, under an earlier account of the key.
    func mayEndCharges(at time: LedgerTime) -> Bool {
        exception?.resetAt.map { time - $0 <= TransactionTable.openLifetime } ?? false
    }

    /// Sets a block, or ends it.
    ///
    /// - Parameter until: nil ends a block.
    func setBlock(until: LedgerTime?, byHand: Bool) {
        // Otherwise the next refused request would block the key again at once.
        if until == nil, byHand { windows.clear(lane: limit.terms.refusedLane) }
        guard until != nil || exception != nil else { return }
        makeException().blockedUntil = until
        makeException().isBlockedByHand = until != nil && byHand
    }
}
