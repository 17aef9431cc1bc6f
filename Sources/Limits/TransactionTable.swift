// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import DequeModule
internal import Glibc

/// The transactions and connections that Postfix may still ask about, oldest first. Bounded in time and in number.
package struct TransactionTable: ~Copyable {
    /// Milliseconds that a transaction is kept after END-OF-MESSAGE. Only a repeated request can follow, within
    /// smtpd_policy_service_timeout (100 s).
    package static let endedLifetime: Int64 = 300_000
    /// Milliseconds that a slow client may need between two recipients, or for the content of its message after DATA.
    package static let openLifetime: Int64 = 3_600_000

    private var byID: TransactionIndex
    private var order: Deque<Transaction> = []
    /// How many have left the front of `order`. Positions count from the first that ever was in it, and so stay valid.
    private var departed = 0
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        byID = TransactionIndex(capacity: capacity)
    }

    var count: Int { byID.count }

    subscript(id: UInt64) -> Transaction? { byID[id] }

    /// Prefetches the slot of an id.
    func prefetch(_ id: UInt64) { byID.prefetch(id) }

    /// Adds a transaction whose id is not in the table.
    ///
    /// - Returns: the oldest transaction, if the table was full and it had to leave.
    mutating func insert(_ transaction: Transaction) -> Transaction? {
        let evicted = byID.count >= capacity ? popFirst() : nil
        byID.insert(transaction)
        order.append(transaction)
        return evicted
    }

    /// Removes a transaction that is past its lifetime. Looks at the `attempts` oldest.
    ///
    /// - Parameter mayReorder: whether transactions that are still open may move to the back. A checkpoint would never
    ///   reach the end of a queue to which more is added than it saves.
    mutating func popExpired(at time: LedgerTime, attempts: Int, mayReorder: Bool) -> Transaction? {
        for _ in 0..<attempts {
            guard let oldest = order.first else { return nil }
            let lifetime = oldest.isEnded ? Self.endedLifetime : Self.openLifetime
            let age = time - oldest.lastSeen
            if age > lifetime { return popFirst() }
            if oldest.isEnded || age < Self.endedLifetime || !mayReorder { return nil }
            // Still open: to the back of the queue, or it would hide expired ones behind it.
            order.removeFirst()
            departed += 1
            order.append(oldest)
        }
        return nil
    }

    /// The position of the oldest transaction, for `transaction(at:)`.
    var firstPosition: Int { departed }

    /// The transaction at a position, or the oldest one if that has left; advances the position.
    func transaction(at position: inout Int) -> Transaction? {
        position = max(position, departed)
        let index = position - departed
        guard index < order.count else { return nil }
        if index + Self.lookahead < order.count { order[index + Self.lookahead].prefetch() }
        position += 1
        return order[index]
    }

    /// How far ahead a transaction is prefetched. The oldest have left the processor's caches long ago.
    private static let lookahead = 8

    private mutating func popFirst() -> Transaction? {
        guard let oldest = order.popFirst() else { return nil }
        if order.count > Self.lookahead {
            let near = order[Self.lookahead / 2]
            byID.prefetch(near.id)
            near.charges.prefetch()
            order[Self.lookahead].prefetch()
        }
        departed += 1
        byID.remove(oldest.id)
        return oldest
    }
}

/// Transactions by id: open addressing in one allocation that never grows. An id is a keyed hash already, and so serves
/// as its own.
///
/// `slots` is valid and initialised for `mask + 1` slots from init to deinit. Only this value, which can't be copied,
/// has the pointer. Pages that were never touched take no memory: the kernel provides zeroes.
///
/// A slot has no reference of its own: the table's queue has one to each transaction that is here. So nothing has to be
/// released at the end, and pages that were never touched stay so.
private struct TransactionIndex: ~Copyable {
    private let slots: UnsafeMutablePointer<Slot>
    private let mask: Int
    private(set) var count = 0

    private struct Slot {
        /// 0 if the slot is free.
        var id: UInt64
        var transaction: Unmanaged<Transaction>?
    }

    /// - Parameter capacity: the most transactions at once. At most half of the slots are in use.
    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        mask = size - 1
        // All bits zero is a free slot: id 0, and no reference.
        slots = calloc(size, MemoryLayout<Slot>.stride)!.bindMemory(to: Slot.self, capacity: size)
    }

    deinit { free(slots) }

    func prefetch(_ id: UInt64) {
        weir_prefetch(slots + (Int(truncatingIfNeeded: id >> 1) & mask))
    }

    subscript(id: UInt64) -> Transaction? {
        let index = index(of: id)
        return slots[index].transaction?.takeUnretainedValue()
    }

    /// Adds a transaction whose id is not in the index.
    mutating func insert(_ transaction: Transaction) {
        slots[index(of: transaction.id)] = Slot(id: transaction.id, transaction: .passUnretained(transaction))
        count += 1
    }

    mutating func remove(_ id: UInt64) {
        var hole = index(of: id)
        guard slots[hole].id == id else { return }
        // Closes the gap (Knuth, TAOCP volume 3, 6.4, algorithm R).
        var next = hole
        while true {
            next = (next + 1) & mask
            guard slots[next].id != 0 else { break }
            let home = Int(truncatingIfNeeded: slots[next].id >> 1) & mask
            if (next - home) & mask >= (next - hole) & mask {
                slots[hole] = slots[next]
                hole = next
            }
        }
        slots[hole] = Slot(id: 0, transaction: nil)
        count -= 1
    }

    /// The slot of an id, or the free slot where it belongs.
    private func index(of id: UInt64) -> Int {
        // The lowest bit of every id is set.
        var index = Int(truncatingIfNeeded: id >> 1) & mask
        while slots[index].id != id, slots[index].id != 0 { index = (index &+ 1) & mask }
        return index
    }
}
