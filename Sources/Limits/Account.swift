// SPDX-License-Identifier: Apache-2.0

/// What one key of one limit has used.
package final class Account {
    /// Names the account in the journal; never used again for another key.
    package let id: UInt64
    package let key: [UInt8]
    let hash: UInt64
    package let limit: LimitState
    package internal(set) var windows: SlidingWindows
    /// Only few keys have one.
    package internal(set) var exception: Exception?
    var hasWarned = false
    /// In the list of what the next checkpoint saves.
    var isDirty = false
    /// The store has a row of it.
    var isStored = false
    /// The reload up to which tables have been asked about the key.
    var generation: UInt32 = 0
    /// The last batch that the stored row already holds; older journal entries are not applied again.
    var savedSequence: UInt64 = 0

    /// What sets a key apart from the others of its limit.
    package final class Exception {
        /// Everything is refused until then.
        package internal(set) var blockedUntil: LedgerTime?
        /// Counts in place of the limit's, one for each rate, until then; set by the administrator.
        package internal(set) var raised: (counts: [UInt64], until: LedgerTime)?
        /// Counts in place of the limit's, from a table.
        package internal(set) var overridden: [UInt64]?
        /// Not limited at all, says a table.
        package internal(set) var isExempt = false
    }

    init(id: UInt64, key: [UInt8], hash: UInt64, limit: LimitState) {
        self.id = id
        self.key = key
        self.hash = hash
        self.limit = limit
        windows = SlidingWindows(lanes: limit.lanes.count)
    }

    /// What the rate of `lane` admits to this key.
    package func admitted(lane: Int, at time: LedgerTime) -> UInt64 {
        if let exception {
            if let raised = exception.raised, raised.until > time { return raised.counts[lane] }
            if let overridden = exception.overridden { return overridden[lane] }
        }
        return limit.limit.rates[lane].count
    }

    /// The exception, made where there is none yet.
    func makeException() -> Exception {
        if let exception { return exception }
        let made = Exception()
        exception = made
        return made
    }

    package func blockedUntil(at time: LedgerTime) -> LedgerTime? {
        guard let until = exception?.blockedUntil, until > time else { return nil }
        return until
    }

    package func used(lane: Int, at time: LedgerTime) -> UInt64 {
        windows.used(lane: lane, of: limit.lanes[lane], at: time)
    }

    /// Refused tries within the longest window.
    package func refusedTries(at time: LedgerTime) -> UInt64 {
        used(lane: limit.refusedLane, at: time)
    }

    func charge(_ amount: UInt64, at time: LedgerTime) {
        for lane in 0..<limit.refusedLane { windows.charge(amount, lane: lane, of: limit.lanes[lane], at: time) }
    }

    func giveBack(_ amount: UInt64, chargedAt time: LedgerTime) {
        for lane in 0..<limit.refusedLane {
            windows.giveBack(amount, lane: lane, of: limit.lanes[lane], chargedAt: time)
        }
    }

    /// When `amount` more fits into a window; nil where it never does.
    func fitting(_ amount: UInt64, lane: Int, at time: LedgerTime) -> LedgerTime? {
        windows.fitting(
            amount, under: admitted(lane: lane, at: time), lane: lane, of: limit.lanes[lane], at: time)
    }

    /// Other counts for a time; those of another number of rates than the limit has are of an older configuration.
    func setRaised(_ counts: [UInt64], until: LedgerTime) {
        guard counts.count == limit.refusedLane else { return }
        makeException().raised = (counts, until)
    }

    /// Counts a refused try, and charges it where the limit says so.
    func addRefused(charging amount: UInt64, at time: LedgerTime) {
        windows.charge(1, lane: limit.refusedLane, of: limit.lanes[limit.refusedLane], at: time)
        charge(amount, at: time)
    }

    /// Nothing counts any more, and nobody has decided anything about this key.
    func isIdle(at time: LedgerTime) -> Bool {
        if let exception {
            if exception.blockedUntil.map({ $0 > time }) ?? false { return false }
            if exception.raised.map({ $0.until > time }) ?? false { return false }
        }
        return limit.lanes.indices.allSatisfy { used(lane: $0, at: time) == 0 }
    }
}

/// The accounts of one limit, by key: open addressing in shards, so that growing never stops the loop for long.
struct AccountTable {
    private static let shardBits: UInt64 = 8

    private var shards = [Shard](repeating: Shard(), count: 1 << Int(shardBits))
    private(set) var count = 0

    private struct Shard {
        /// A power of two of slots, at most three quarters of them in use.
        var slots: [Account?] = [nil, nil, nil, nil]
        var count = 0
    }

    func find(_ key: [UInt8], hash: UInt64) -> Account? {
        let shard = Int(truncatingIfNeeded: hash &>> (64 &- Self.shardBits))
        return shards[shard].slots.withUnsafeBufferPointer { slots in
            let mask = slots.count &- 1
            var index = Int(truncatingIfNeeded: hash) & mask
            while let account = slots[index] {
                if account.hash == hash, account.key == key { return account }
                index = (index &+ 1) & mask
            }
            return nil
        }
    }

    /// Adds an account whose key is not there yet.
    mutating func insert(_ account: Account) {
        let shard = Int(truncatingIfNeeded: account.hash &>> (64 &- Self.shardBits))
        if (shards[shard].count + 1) * 4 > shards[shard].slots.count * 3 { Self.grow(&shards[shard]) }
        Self.place(account, in: &shards[shard].slots)
        shards[shard].count += 1
        count += 1
    }

    mutating func remove(_ account: Account) {
        let shard = Int(truncatingIfNeeded: account.hash &>> (64 &- Self.shardBits))
        let mask = shards[shard].slots.count - 1
        var hole = Int(truncatingIfNeeded: account.hash) & mask
        while let candidate = shards[shard].slots[hole], candidate !== account { hole = (hole + 1) & mask }
        guard shards[shard].slots[hole] != nil else { return }
        // Closes the gap, so that no search stops at it (Knuth, volume 3, 6.4, algorithm R).
        var next = hole
        while true {
            next = (next + 1) & mask
            guard let moved = shards[shard].slots[next] else { break }
            let home = Int(truncatingIfNeeded: moved.hash) & mask
            if (next - home) & mask >= (next - hole) & mask {
                shards[shard].slots[hole] = moved
                hole = next
            }
        }
        shards[shard].slots[hole] = nil
        shards[shard].count -= 1
        count -= 1
    }

    /// A place in the table from which to go on later, over whatever has changed since.
    struct Cursor {
        fileprivate var shard = 0
        fileprivate var slot = 0
    }

    /// The accounts of the next `slots` slots; false at the end of the table.
    func visit(from cursor: inout Cursor, slots: Int, _ body: (Account) -> Void) -> Bool {
        var left = slots
        while cursor.shard < shards.count {
            let table = shards[cursor.shard].slots
            while cursor.slot < table.count {
                guard left > 0 else { return true }
                left -= 1
                if let account = table[cursor.slot] { body(account) }
                cursor.slot += 1
            }
            cursor.shard += 1
            cursor.slot = 0
        }
        return false
    }

    func forEach(_ body: (Account) -> Void) {
        for shard in shards {
            for case let account? in shard.slots { body(account) }
        }
    }

    private static func grow(_ shard: inout Shard) {
        let old = shard.slots
        shard.slots = Array(repeating: nil, count: old.count * 2)
        for case let account? in old { place(account, in: &shard.slots) }
    }

    private static func place(_ account: Account, in slots: inout [Account?]) {
        let mask = slots.count - 1
        var index = Int(truncatingIfNeeded: account.hash) & mask
        while slots[index] != nil { index = (index + 1) & mask }
        slots[index] = account
    }
}

/// A limit in use: its accounts and figures.
package final class LimitState {
    /// Replaced on reload by one that counts the same.
    package internal(set) var limit: Limit
    /// The windows of the lanes: one for each rate, and the last for refused tries.
    package private(set) var lanes: [Window]
    /// What the store calls the limit.
    let storedID: UInt64
    /// Whether the limit can only be judged where the recipient is known.
    private(set) var isPerRecipient: Bool
    var accounts = AccountTable()
    package internal(set) var refusals: UInt64 = 0
    package internal(set) var peak: Peak?

    /// The fullest any window has been since the last summary, as anvil(8) logs it.
    package struct Peak: Sendable {
        package var key: [UInt8]
        package var rate: Rate
        package var used: UInt64
    }

    init(limit: Limit, storedID: UInt64) {
        self.limit = limit
        self.storedID = storedID
        lanes = limit.rates.map(\.window) + [limit.longestWindow]
        isPerRecipient = limit.isPerRecipient
    }

    /// Takes over another wording of the limit, whose counts mean the same; windows of equal length keep theirs.
    func replace(with newLimit: Limit, at time: LedgerTime, changed: (Account) -> Void) {
        let newLanes = newLimit.rates.map(\.window) + [newLimit.longestWindow]
        if newLanes != lanes {
            accounts.forEach { account in
                account.windows = relaned(account.windows, to: newLanes, at: time)
                account.exception?.raised = nil
                changed(account)
            }
            lanes = newLanes
        }
        limit = newLimit
        isPerRecipient = newLimit.isPerRecipient
    }

    private func relaned(_ old: SlidingWindows, to newLanes: [Window], at time: LedgerTime) -> SlidingWindows {
        var old = old
        var new = SlidingWindows(lanes: newLanes.count)
        for (lane, window) in newLanes.enumerated() {
            // The lane of refused tries is the last one, before and after.
            let candidates = lane == newLanes.count - 1 ? refusedLane..<lanes.count : 0..<refusedLane
            guard let oldLane = candidates.first(where: { lanes[$0] == window }) else { continue }
            _ = old.used(lane: oldLane, of: window, at: time)
            old.forEachSlot(lane: oldLane, of: window, at: time) { slot, amount in
                new.restore(amount, slot: slot, lane: lane, of: window)
            }
        }
        return new
    }

    /// The lane of refused tries; it slides with the longest window.
    var refusedLane: Int { lanes.count - 1 }
    package var accountCount: Int { accounts.count }

    func notePeak(of account: Account, lane: Int, used: UInt64) {
        let rate = limit.rates[lane]
        if let peak, peak.used * rate.count >= used * peak.rate.count { return }
        peak = Peak(key: account.key, rate: rate, used: used)
    }
}
