// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics

/// The hash of a limit's key: 128 bits, computed with a secret. Accounts are found by it alone; keys are not compared.
/// A collision among a million keys is less likely than a memory error, and without the secret nobody can search for
/// one.
struct KeyHash: Hashable {
    let low: UInt64
    let high: UInt64
}

/// The accounts of one limit by key: open addressing in 256 shards, each of which grows by itself, so that no growth
/// takes long.
///
/// `shards` is valid and initialised for `shardCount` shards from init to deinit, and each shard's `slots` for `mask +
/// 1` slots. Only this value, which can't be copied, has the pointers. A slot holds one reference to its account.
struct AccountTable: ~Copyable {
    private static let shardBits: UInt64 = 8
    private static let shardCount = 1 << Int(shardBits)

    private let shards: UnsafeMutablePointer<Shard>
    private(set) var count = 0

    private struct Shard {
        var slots = Self.allocate(4)
        /// The number of slots, a power of two, minus one. At most three quarters of the slots are in use.
        var mask = 3
        var count = 0

        static func allocate(_ count: Int) -> UnsafeMutablePointer<Slot> {
            let slots = UnsafeMutablePointer<Slot>.allocate(capacity: count)
            slots.initialize(repeating: Slot(hash: 0, account: nil), count: count)
            return slots
        }
    }

    private struct Slot {
        var hash: UInt64
        var account: Unmanaged<Account>?
    }

    init() {
        shards = .allocate(capacity: Self.shardCount)
        for index in 0..<Self.shardCount { (shards + index).initialize(to: Shard()) }
    }

    deinit {
        forEach { Unmanaged.passUnretained($0).release() }
        for index in 0..<Self.shardCount { shards[index].slots.deallocate() }
        shards.deallocate()
    }

    private func shard(of hash: KeyHash) -> UnsafeMutablePointer<Shard> {
        shards + Int(truncatingIfNeeded: hash.low &>> (64 &- Self.shardBits))
    }

    func find(_ hash: KeyHash) -> Account? {
        let shard = shard(of: hash)
        let (slots, mask) = (shard.pointee.slots, shard.pointee.mask)
        var index = Int(truncatingIfNeeded: hash.low) & mask
        while let account = slots[index].account {
            if slots[index].hash == hash.low {
                let account = account.takeUnretainedValue()
                if account.hash == hash { return account }
            }
            index = (index &+ 1) & mask
        }
        return nil
    }

    /// Prefetches the slot where the search for a key starts.
    func prefetchSlot(_ hash: KeyHash) {
        let shard = shard(of: hash)
        weir_prefetch(shard.pointee.slots + (Int(truncatingIfNeeded: hash.low) & shard.pointee.mask))
    }

    /// Prefetches the account of a key. Its slot should be in the cache.
    func prefetchAccount(_ hash: KeyHash) {
        guard let account = candidate(hash) else { return }
        weir_prefetch(account.toOpaque())
        weir_prefetch(account.toOpaque() + 64)
    }

    /// Prefetches the windows of a key. Its account should be in the cache.
    func prefetchWindows(_ hash: KeyHash) {
        candidate(hash)?._withUnsafeGuaranteedRef { $0.windows.prefetch() }
    }

    /// The account that is probably the key's: compares half of the hash, and does not read the account.
    private func candidate(_ hash: KeyHash) -> Unmanaged<Account>? {
        let shard = shard(of: hash)
        let (slots, mask) = (shard.pointee.slots, shard.pointee.mask)
        var index = Int(truncatingIfNeeded: hash.low) & mask
        while let account = slots[index].account {
            if slots[index].hash == hash.low { return account }
            index = (index &+ 1) & mask
        }
        return nil
    }

    /// Adds an account whose key is not in the table.
    mutating func insert(_ account: Account) {
        let shard = shard(of: account.hash)
        if (shard.pointee.count + 1) * 4 > (shard.pointee.mask + 1) * 3 { Self.grow(&shard.pointee) }
        Self.place(Slot(hash: account.hash.low, account: .passRetained(account)), in: shard.pointee)
        shard.pointee.count += 1
        count += 1
    }

    mutating func remove(_ account: Account) {
        let shard = shard(of: account.hash)
        let (slots, mask) = (shard.pointee.slots, shard.pointee.mask)
        let wanted = Unmanaged.passUnretained(account).toOpaque()
        var hole = Int(truncatingIfNeeded: account.hash.low) & mask
        while let candidate = slots[hole].account, candidate.toOpaque() != wanted { hole = (hole + 1) & mask }
        guard let found = slots[hole].account else { return }
        // Closes the gap, where searches would stop (Knuth, TAOCP volume 3, 6.4, algorithm R).
        var next = hole
        while true {
            next = (next + 1) & mask
            let moved = slots[next]
            guard moved.account != nil else { break }
            let home = Int(truncatingIfNeeded: moved.hash) & mask
            if (next - home) & mask >= (next - hole) & mask {
                slots[hole] = moved
                hole = next
            }
        }
        slots[hole] = Slot(hash: 0, account: nil)
        shard.pointee.count -= 1
        count -= 1
        found.release()
    }

    /// A position in the table. It stays valid when the table changes; accounts that have moved may be missed or
    /// visited twice.
    struct Cursor {
        fileprivate var shard = 0
        fileprivate var slot = 0
    }

    /// Visits the accounts in the next `slots` slots. `body` must not add or remove accounts.
    ///
    /// - Returns: false at the end of the table.
    func visit(from cursor: inout Cursor, slots: Int, _ body: (Account) -> Void) -> Bool {
        var left = slots
        while cursor.shard < Self.shardCount {
            let shard = shards[cursor.shard]
            while cursor.slot <= shard.mask {
                guard left > 0 else { return true }
                left -= 1
                if let account = shard.slots[cursor.slot].account { body(account.takeUnretainedValue()) }
                cursor.slot += 1
            }
            cursor.shard += 1
            cursor.slot = 0
        }
        return false
    }

    /// A walk through the accounts that visits none twice, and each that stays in the table until its end, however the
    /// table changes meanwhile.
    struct Walk {
        fileprivate var shard = 0
        /// Half of the hash of each account that the shard before `shard` had, and that the walk has not visited yet.
        fileprivate var hashes: [UInt64] = []
    }

    /// Continues a walk. An account counts as one step, and so do 16 slots that are searched for accounts.
    ///
    /// - Returns: false at the end of the table.
    func advance(_ walk: inout Walk, steps: Int, _ body: (Account) -> Void) -> Bool {
        var left = steps
        while true {
            while let hash = walk.hashes.last {
                guard left > 0 else { return true }
                left -= 1
                walk.hashes.removeLast()
                candidate(KeyHash(low: hash, high: 0)).map { body($0.takeUnretainedValue()) }
            }
            guard walk.shard < Self.shardCount else { return false }
            guard left > 0 else { return true }
            let shard = shards[walk.shard]
            left -= 1 + shard.mask / 16
            walk.shard += 1
            walk.hashes.reserveCapacity(shard.count)
            for slot in 0...shard.mask where shard.slots[slot].account != nil {
                walk.hashes.append(shard.slots[slot].hash)
            }
        }
    }

    /// `body` must not add or remove accounts.
    func forEach(_ body: (Account) -> Void) {
        for index in 0..<Self.shardCount {
            let shard = shards[index]
            for slot in 0...shard.mask {
                if let account = shard.slots[slot].account { body(account.takeUnretainedValue()) }
            }
        }
    }

    private static func grow(_ shard: inout Shard) {
        let (old, oldMask) = (shard.slots, shard.mask)
        shard.mask = 2 * oldMask + 1
        shard.slots = Shard.allocate(shard.mask + 1)
        for index in 0...oldMask where old[index].account != nil { place(old[index], in: shard) }
        old.deallocate()
    }

    private static func place(_ slot: Slot, in shard: Shard) {
        var index = Int(truncatingIfNeeded: slot.hash) & shard.mask
        while shard.slots[index].account != nil { index = (index + 1) & shard.mask }
        shard.slots[index] = slot
    }
}
