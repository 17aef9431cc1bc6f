// SPDX-License-Identifier: Apache-2.0

/// A key of a limit, hashed with a secret to 128 bits: keys are told apart by it alone. That two of a million keys share
/// one is less likely than a fault of the memory that holds them, and nobody outside can look for such a pair.
struct KeyHash: Equatable {
    let low: UInt64
    let high: UInt64
}

/// The accounts of one limit, by key: open addressing in shards, so that growing never stops the loop for long.
struct AccountTable {
    private static let shardBits: UInt64 = 8

    private var shards = [Shard](repeating: Shard(), count: 1 << Int(shardBits))
    private(set) var count = 0

    private struct Shard {
        /// A power of two of slots, at most three quarters of them in use.
        var slots = [Slot](repeating: Slot(), count: 4)
        var count = 0
    }

    private struct Slot {
        var hash: UInt64 = 0
        var account: Account?
    }

    private static func shard(of hash: KeyHash) -> Int {
        Int(truncatingIfNeeded: hash.low &>> (64 &- shardBits))
    }

    func find(_ hash: KeyHash) -> Account? {
        shards[Self.shard(of: hash)].slots.withUnsafeBufferPointer { slots in
            let mask = slots.count &- 1
            var index = Int(truncatingIfNeeded: hash.low) & mask
            while true {
                if slots[index].hash == hash.low, let account = slots[index].account, account.hash == hash {
                    return account
                }
                if slots[index].account == nil { return nil }
                index = (index &+ 1) & mask
            }
        }
    }

    /// Adds an account whose key is not there yet.
    mutating func insert(_ account: Account) {
        let shard = Self.shard(of: account.hash)
        if (shards[shard].count + 1) * 4 > shards[shard].slots.count * 3 { Self.grow(&shards[shard]) }
        Self.place(account, in: &shards[shard].slots)
        shards[shard].count += 1
        count += 1
    }

    mutating func remove(_ account: Account) {
        let shard = Self.shard(of: account.hash)
        let mask = shards[shard].slots.count - 1
        var hole = Int(truncatingIfNeeded: account.hash.low) & mask
        while let candidate = shards[shard].slots[hole].account, candidate !== account { hole = (hole + 1) & mask }
        guard shards[shard].slots[hole].account != nil else { return }
        // Closes the gap, so that no search stops at it (Knuth, volume 3, 6.4, algorithm R).
        var next = hole
        while true {
            next = (next + 1) & mask
            let moved = shards[shard].slots[next]
            guard moved.account != nil else { break }
            let home = Int(truncatingIfNeeded: moved.hash) & mask
            if (next - home) & mask >= (next - hole) & mask {
                shards[shard].slots[hole] = moved
                hole = next
            }
        }
        shards[shard].slots[hole] = Slot()
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
                if let account = table[cursor.slot].account { body(account) }
                cursor.slot += 1
            }
            cursor.shard += 1
            cursor.slot = 0
        }
        return false
    }

    func forEach(_ body: (Account) -> Void) {
        for shard in shards {
            for slot in shard.slots {
                if let account = slot.account { body(account) }
            }
        }
    }

    private static func grow(_ shard: inout Shard) {
        let old = shard.slots
        shard.slots = Array(repeating: Slot(), count: old.count * 2)
        for slot in old {
            if let account = slot.account { place(account, in: &shard.slots) }
        }
    }

    private static func place(_ account: Account, in slots: inout [Slot]) {
        let mask = slots.count - 1
        var index = Int(truncatingIfNeeded: account.hash.low) & mask
        while slots[index].account != nil { index = (index + 1) & mask }
        slots[index] = Slot(hash: account.hash.low, account: account)
    }
}
