// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// What one key of one limit has used.
package final class Account {
    /// Names the account in the journal; never used again for another key.
    package let id: UInt64
    package let key: [UInt8]
    let hash: UInt64
    package let limit: LimitState
    var windows: SlidingWindows
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
        windows = SlidingWindows(lanes: limit.terms.lanes.count)
    }

    // What follows is as of the limit's present slots: those of this tick.

    /// What counts in a lane.
    package func used(lane: Int) -> UInt64 {
        windows.used(lane: lane, slot: limit.terms.slots[lane])
    }

    /// Refused tries within the longest window.
    package var refusedTries: UInt64 { used(lane: limit.terms.refusedLane) }

    func charge(_ amount: UInt64) {
        let terms = limit.terms
        for lane in 0..<terms.refusedLane { windows.charge(amount, lane: lane, slot: terms.slots[lane]) }
    }

    /// Counts a refused try, and charges it where the limit says so.
    func addRefused(charging amount: UInt64) {
        let terms = limit.terms
        windows.charge(1, lane: terms.refusedLane, slot: terms.slots[terms.refusedLane])
        charge(amount)
    }

    func giveBack(_ amount: UInt64, chargedAt time: LedgerTime) {
        let terms = limit.terms
        for lane in 0..<terms.refusedLane {
            windows.giveBack(amount, lane: lane, chargedIn: terms.lanes[lane].slot(at: time))
        }
    }

    /// When `amount` more fits into a window; `time` where it does now, nil where it never does.
    func fitting(_ amount: UInt64, lane: Int, at time: LedgerTime) -> LedgerTime? {
        let terms = limit.terms
        let admitted = admitted(lane: lane, at: time)
        guard amount <= admitted else { return nil }
        let blocking = windows.blockingSlot(amount, under: admitted, lane: lane, slot: terms.slots[lane])
        return blocking.map { terms.lanes[lane].expiry(ofSlot: $0) } ?? time
    }

    /// What the rate of `lane` admits to this key.
    package func admitted(lane: Int, at time: LedgerTime) -> UInt64 {
        if let exception {
            if let raised = exception.raised, raised.until > time { return raised.counts[lane] }
            if let overridden = exception.overridden { return overridden[lane] }
        }
        return limit.terms.counts[lane]
    }

    /// Whether the bytes are the same; the comparison of arrays goes element by element.
    func hasKey(_ other: [UInt8]) -> Bool {
        key.count == other.count
            && key.withUnsafeBytes { mine in
                other.withUnsafeBytes { memcmp(mine.baseAddress!, $0.baseAddress!, mine.count) == 0 }
            }
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

    /// Other counts for a time; those of another number of rates than the limit has are of an older configuration.
    func setRaised(_ counts: [UInt64], until: LedgerTime) {
        guard counts.count == limit.terms.refusedLane else { return }
        makeException().raised = (counts, until)
    }

    /// Nothing counts any more, and nobody has decided anything about this key.
    func isIdle(at time: LedgerTime) -> Bool {
        if let exception {
            if exception.blockedUntil.map({ $0 > time }) ?? false { return false }
            if exception.raised.map({ $0.until > time }) ?? false { return false }
        }
        return limit.terms.lanes.indices.allSatisfy { used(lane: $0) == 0 }
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
                if account.hash == hash, account.hasKey(key) { return account }
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

