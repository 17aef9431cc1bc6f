// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics

/// The length of a window, and its division into slots.
///
/// A window of length W is divided into 60 slots. At time t, the slot of t and the 60 before it count. They cover (t -
/// W, t] completely, so no interval of length W ever holds more than the limit. A unit stays counted for at most one
/// slot longer than W.
package struct Window: Hashable, Sendable {
    package static let slots: Int64 = 60
    /// Milliseconds: one second, below which a slot is too short for the clock, to 366 days.
    package static let allowed: ClosedRange<Int64> = 1000...(366 * 86_400_000)

    package let milliseconds: Int64

    package init(milliseconds: Int64) {
        precondition(Self.allowed.contains(milliseconds))
        self.milliseconds = milliseconds
    }

    package func slot(at time: LedgerTime) -> Int64 {
        time.milliseconds * Self.slots / milliseconds
    }

    package func start(ofSlot slot: Int64) -> LedgerTime {
        LedgerTime(milliseconds: (slot * milliseconds + Self.slots - 1) / Self.slots)
    }

    /// When charges in `slot` stop counting.
    package func expiry(ofSlot slot: Int64) -> LedgerTime {
        // The smallest t with slot(t) == slot + 61, rounded up.
        LedgerTime(milliseconds: ((slot + Self.slots + 1) * milliseconds + Self.slots - 1) / Self.slots)
    }
}

/// What one key has used of several windows, in one allocation. An idle key takes a few words.
///
/// Lane i belongs to window i. The heads of all lanes come first, two words each, so most charges touch one cache line
/// for four lanes. Behind the heads, each lane has its earlier slots, oldest first.
///
///     head      capacity for earlier slots (8 bits), number in use (8 bits), sum of the lane (48 bits)
///     present   number of the slot charged last (24 bits, wrapping), amount (40 bits)
///     earlier   the same, for each earlier slot in use
///
/// Slot numbers come from `Window.slot`, and never go back. They wrap: a lane must be used at least every
/// `mostSlotsUnused` slots, or cleared when everything in it has expired.
///
/// The words are allocated by hand, because an array would take 32 bytes more for each of a million keys. `words` is
/// valid and initialised for two words a lane plus all capacities from init to deinit. Only this value, which can't be
/// copied, has the pointer.
package struct SlidingWindows: ~Copyable {
    /// The most that one slot can hold, and so the largest count of a rate.
    package static let largestAmount: UInt64 = 1 << 40 - 1

    static let mostSlotsUnused: Int64 = 1 << 21

    private static let slotMask: UInt64 = 0xff_ffff
    private static let sumMask: UInt64 = 1 << 48 - 1

    private var words: UnsafeMutablePointer<UInt64>
    private let lanes: Int

    package init(lanes: Int) {
        self.lanes = lanes
        words = .allocate(capacity: lanes * 2)
        words.initialize(repeating: 0, count: lanes * 2)
    }

    deinit {
        words.deallocate()
    }

    /// Prefetches the heads of the lanes.
    func prefetch() {
        weir_prefetch(words)
        weir_prefetch(words + 8)
    }

    /// What counts in a lane if `slot` is the present one.
    package mutating func used(lane: Int, slot: Int64) -> UInt64 {
        assert(0..<lanes ~= lane)
        let now = UInt64(bitPattern: slot) & Self.slotMask
        if words[2 &* lane &+ 1] >> 40 != now { advance(lane, to: now) }
        return words[2 &* lane] & Self.sumMask
    }

    /// What `used` returns. The lane stays at its present slot, so charges of a slot before `slot` can follow.
    func peek(lane: Int, slot: Int64) -> UInt64 {
        let now = UInt64(bitPattern: slot) & Self.slotMask
        let present = words[2 &* lane &+ 1] >> 40
        // `now` is before the present slot, and all counts.
        if (now &- present) & Self.slotMask > Self.slotMask / 2 { return words[2 &* lane] & Self.sumMask }
        var used: UInt64 = 0
        forEachSlot(lane: lane, slot: slot) { charged, amount in
            if slot - charged <= Window.slots { used &+= amount }
        }
        return used
    }

    /// - Returns: what counts in the lane afterwards.
    @discardableResult
    package mutating func charge(_ amount: UInt64, lane: Int, slot: Int64) -> UInt64 {
        let before = used(lane: lane, slot: slot)
        let room = Self.largestAmount &- words[2 &* lane &+ 1] & Self.largestAmount
        let charged = min(amount, room)
        words[2 &* lane &+ 1] &+= charged
        words[2 &* lane] &+= charged
        return before &+ charged
    }

    /// Subtracts from what was charged in `slot`. Does nothing if that has expired.
    package mutating func giveBack(_ amount: UInt64, lane: Int, chargedIn slot: Int64) {
        let charged = UInt64(bitPattern: slot) & Self.slotMask
        let earlier = earlierSlots(lane)
        var index = count(lane)
        var word = words + (2 &* lane &+ 1)
        while word.pointee >> 40 != charged {
            guard index > 0 else { return }
            index &-= 1
            word = earlier + index
        }
        let given = min(amount, word.pointee & Self.largestAmount)
        word.pointee &-= given
        words[2 &* lane] &-= given
    }

    /// The slot that must expire before `amount` more fits under `limit`; nil if it fits now.
    ///
    /// - Precondition: `amount` is not more than `limit`.
    package mutating func blockingSlot(_ amount: UInt64, under limit: UInt64, lane: Int, slot: Int64) -> Int64? {
        var sum = used(lane: lane, slot: slot)
        var blocking: Int64?
        forEachSlot(lane: lane, slot: slot) { charged, value in
            guard sum &+ amount > limit else { return }
            sum &-= value
            blocking = charged
        }
        return blocking
    }

    /// Visits the slots in use, oldest first, with their full numbers. `slot` is the present one.
    package func forEachSlot(lane: Int, slot: Int64, _ body: (_ slot: Int64, _ amount: UInt64) -> Void) {
        func visit(_ word: UInt64) {
            guard word & Self.largestAmount > 0 else { return }
            let age = (UInt64(bitPattern: slot) &- word >> 40) & Self.slotMask
            body(slot - Int64(age), word & Self.largestAmount)
        }
        let earlier = earlierSlots(lane)
        for index in 0..<count(lane) { visit(earlier[index]) }
        visit(words[2 &* lane &+ 1])
    }

    /// Restores a slot from `forEachSlot`. Slots must come oldest first.
    package mutating func restore(_ amount: UInt64, slot: Int64, lane: Int) {
        keepPresent(lane)
        words[2 * lane + 1] = (UInt64(bitPattern: slot) & Self.slotMask) << 40 | amount
        words[2 * lane] += amount
    }

    package mutating func clear() {
        for lane in 0..<lanes { clear(lane: lane) }
    }

    mutating func clear(lane: Int) {
        words[2 * lane] &= 0xff << 56
        words[2 * lane + 1] = 0
    }

    private func capacity(_ lane: Int) -> Int { Int(words[2 &* lane] >> 56) }

    private func count(_ lane: Int) -> Int { Int(words[2 &* lane] >> 48 & 0xff) }

    private func earlierSlots(_ lane: Int) -> UnsafeMutablePointer<UInt64> {
        var offset = 2 &* lanes
        for before in 0..<lane { offset &+= capacity(before) }
        return words + offset
    }

    /// Makes `now` the present slot of a lane, and drops what has expired.
    private mutating func advance(_ lane: Int, to now: UInt64) {
        let present = words[2 &* lane &+ 1]
        if words[2 &* lane] & Self.sumMask == 0 {
            words[2 &* lane] &= 0xff << 56
        } else {
            // `now` is before the present slot: charges count in the present slot, and so for longer, never shorter.
            if (now &- present >> 40) & Self.slotMask > Self.slotMask / 2 { return }
            dropExpired(lane, now: now)
            if Self.isExpired(present, now: now) {
                words[2 &* lane] &-= present & Self.largestAmount
            } else {
                keepPresent(lane)
            }
        }
        words[2 &* lane &+ 1] = now << 40
    }

    /// Appends the present slot to the earlier ones.
    private mutating func keepPresent(_ lane: Int) {
        let present = words[2 &* lane &+ 1]
        guard present & Self.largestAmount > 0 else { return }
        let count = count(lane)
        if count == capacity(lane) { grow(lane) }
        earlierSlots(lane)[count] = present
        words[2 &* lane] &+= 1 << 48
    }

    private static func isExpired(_ word: UInt64, now: UInt64) -> Bool {
        (now &- word >> 40) & slotMask > UInt64(Window.slots)
    }

    private mutating func dropExpired(_ lane: Int, now: UInt64) {
        let (count, earlier) = (count(lane), earlierSlots(lane))
        var dropped = 0
        var amount: UInt64 = 0
        while dropped < count, Self.isExpired(earlier[dropped], now: now) {
            amount &+= earlier[dropped] & Self.largestAmount
            dropped &+= 1
        }
        guard dropped > 0 else { return }
        earlier.update(from: earlier + dropped, count: count - dropped)
        words[2 &* lane] &-= UInt64(dropped) << 48 &+ amount
    }

    /// Doubles the room for a lane's earlier slots, up to the number of slots in a window.
    private mutating func grow(_ lane: Int) {
        let before = earlierSlots(lane) - words
        let old = capacity(lane)
        let new = old == 0 ? 2 : min(2 * old, Int(Window.slots) + 1)
        let behind = (lane..<lanes).reduce(0) { $0 + capacity($1) } - old
        let grown = UnsafeMutablePointer<UInt64>.allocate(capacity: before + new + behind)
        grown.update(from: words, count: before + old)
        (grown + before + old).update(repeating: 0, count: new - old)
        (grown + before + new).update(from: words + before + old, count: behind)
        grown[2 * lane] += UInt64(new - old) << 56
        words.deallocate()
        words = grown
    }
}
