// SPDX-License-Identifier: Apache-2.0

/// What one key of one limit has used.
package final class Account {
    // What every request touches comes first, to share a cache line.
    let hash: KeyHash
    package let limit: LimitState
    var windows: SlidingWindows
    /// Only few keys have one.
    package internal(set) var exception: Exception?
    /// Names the account in the journal; never used again for another key.
    package let id: UInt64
    var hasWarned = false
    /// In the list of what the next checkpoint saves.
    var isDirty = false
    /// The store has a row of it.
    var isStored = false
    /// It has left memory: idle, given up, or its limit is gone. A transaction may still know it.
    var isRemoved = false
    /// Where it stands among the limit's fullest; `noPlace` where it does not.
    var place = Account.noPlace
    /// The reload up to which tables have been asked about the key.
    var generation: UInt32 = 0
    /// The request that was judged with it last.
    var request: UInt32 = 0
    package let key: [UInt8]
    /// The last batch that the stored row already holds; older journal entries are not applied again.
    var savedSequence: UInt64 = 0

    static let noPlace = UInt16.max

    /// What sets a key apart from the others of its limit.
    package final class Exception {
        /// Everything is refused until then.
        package internal(set) var blockedUntil: LedgerTime?
        /// The administrator set the block: it holds an exempt key too.
        var isBlockedByHand = false
        /// Rates in place of the table's and the limit's with the same windows, until then; set by the administrator.
        package internal(set) var raised: (rates: [Rate], until: LedgerTime)?
        /// Rates in place of the limit's with the same windows, from a table.
        package internal(set) var overridden: [Rate] = []
        /// What was charged up to then was forgotten by hand.
        var resetAt: LedgerTime?
        /// Not limited at all, says a table.
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

    // What follows is as of the limit's present slots: those of this tick.

    /// What counts in a lane.
    package func used(lane: Int) -> UInt64 {
        windows.used(lane: lane, slot: limit.terms.slots[lane])
    }

    /// Refused tries within the longest window.
    package var refusedTries: UInt64 { used(lane: limit.terms.refusedLane) }

    /// How full the fullest window is, 1 where it holds all that is admitted; nil where nothing counts any more.
    package func fullness(at time: LedgerTime) -> Double? {
        var fullest: Double?
        for lane in 0..<limit.terms.refusedLane {
            let used = used(lane: lane)
            guard used > 0 else { continue }
            fullest = max(fullest ?? 0, Double(used) / Double(max(1, admitted(lane: lane, at: time))))
        }
        // Refused tries make an account worth showing, but are no measure.
        if fullest == nil, refusedTries > 0 { fullest = .leastNonzeroMagnitude }
        if blockedUntil(at: time) != nil { fullest = max(fullest ?? 0, 1) }
        return fullest
    }

    func charge(_ amount: UInt64) {
        for lane in 0..<limit.terms.refusedLane { windows.charge(amount, lane: lane, slot: limit.terms.slots[lane]) }
    }

    /// Counts a refused try, and charges it where the limit says so.
    func addRefused(charging amount: UInt64) {
        windows.charge(1, lane: limit.terms.refusedLane, slot: limit.terms.slots[limit.terms.refusedLane])
        charge(amount)
    }

    /// Whether what was charged at `time` and what is charged now can't be told apart.
    func isOfPresentSlots(_ time: LedgerTime) -> Bool {
        for lane in 0..<limit.terms.refusedLane where limit.terms.lanes[lane].slot(at: time) != limit.terms.slots[lane]
        { return false }
        return true
    }

    func giveBack(_ amount: UInt64, chargedAt time: LedgerTime) {
        for lane in 0..<limit.terms.refusedLane {
            windows.giveBack(amount, lane: lane, chargedIn: limit.terms.lanes[lane].slot(at: time))
        }
    }

    /// Forgets what has been charged. What transactions under way were charged is nothing to give back from now on.
    func reset(at time: LedgerTime) {
        windows.clear()
        hasWarned = false
        makeException().resetAt = time
    }

    /// Lets go of what will have expired by `time`, which may be so far away that slot numbers wrap.
    func expire(by time: LedgerTime) {
        for lane in limit.terms.lanes.indices {
            if limit.terms.lanes[lane].slot(at: time) - limit.terms.slots[lane] > Window.slots {
                windows.clear(lane: lane)
            } else {
                _ = used(lane: lane)
            }
        }
    }

    /// When `amount` more fits into a window; `time` where it does now, nil where it never does.
    func fitting(_ amount: UInt64, lane: Int, at time: LedgerTime) -> LedgerTime? {
        let admitted = admitted(lane: lane, at: time)
        guard amount <= admitted else { return nil }
        let blocking = windows.blockingSlot(amount, under: admitted, lane: lane, slot: limit.terms.slots[lane])
        return blocking.map { limit.terms.lanes[lane].expiry(ofSlot: $0) } ?? time
    }

    /// What the rate of `lane` admits to this key.
    package func admitted(lane: Int, at time: LedgerTime) -> UInt64 {
        if let exception {
            let window = limit.terms.lanes[lane]
            if let raised = exception.raised, raised.until > time {
                for rate in raised.rates where rate.window == window { return rate.count }
            }
            for rate in exception.overridden where rate.window == window { return rate.count }
        }
        return limit.terms.counts[lane]
    }

    /// The exception, made where there is none yet.
    func makeException() -> Exception {
        if let exception { return exception }
        let made = Exception()
        exception = made
        return made
    }

    package func blockedUntil(at time: LedgerTime) -> LedgerTime? {
        guard exception.map({ !$0.isExempt || $0.isBlockedByHand }) ?? false, let until = exception?.blockedUntil,
            until > time
        else { return nil }
        return until
    }

    /// Other rates for a time; those of a window that the limit does not have are of an older configuration.
    func setRaised(_ rates: [Rate], until: LedgerTime) {
        let known = rates.filter { limit.limit.has($0.window) }
        guard !known.isEmpty else { return }
        makeException().raised = (known, until)
    }

    /// An administrator's block or other counts are in force, and must not be forgotten.
    func isDecidedByHand(at time: LedgerTime) -> Bool {
        guard let exception else { return false }
        return exception.isBlockedByHand && exception.blocks(at: time) || exception.raises(at: time)
    }

    /// A block or other counts are in force.
    func isSetApart(at time: LedgerTime) -> Bool {
        guard let exception else { return false }
        return exception.blocks(at: time) || exception.raises(at: time)
    }

    /// Until when everything is refused, and who said so; nil where the block is over.
    func setBlock(until: LedgerTime?, byHand: Bool) {
        // Who is let go begins anew: one more refusal must not block at once.
        if until == nil, byHand { windows.clear(lane: limit.terms.refusedLane) }
        guard until != nil || exception != nil else { return }
        makeException().blockedUntil = until
        makeException().isBlockedByHand = until != nil && byHand
    }
}
