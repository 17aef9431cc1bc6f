// SPDX-License-Identifier: Apache-2.0

/// The length of a window and the way it is cut into slots.
///
/// A window of length W is cut into 60 slots. What counts at time t is the slot of t and the 60 before it: these
/// cover (t - W, t] whole, so no interval of length W holds more than what was admitted against their sum, and a unit
/// stays counted for at most one slot longer than W.
package struct Window: Hashable, Sendable {
    package static let slots: Int64 = 60
    /// One second to 366 days: below, a slot is shorter than the clock can tell; above, slot numbers outlast nobody.
    package static let allowed: ClosedRange<Int64> = 1000...(366 * 86_400_000)

    package let milliseconds: Int64

    package init(milliseconds: Int64) {
        precondition(Self.allowed.contains(milliseconds))
        self.milliseconds = milliseconds
    }

    package func slot(at time: LedgerTime) -> Int64 {
        time.milliseconds * Self.slots / milliseconds
    }

    /// When what was charged in `slot` stops to count.
    package func expiry(ofSlot slot: Int64) -> LedgerTime {
        // The smallest time t with slot(t) == slot + 61, rounded up.
        LedgerTime(milliseconds: ((slot + Self.slots + 1) * milliseconds + Self.slots - 1) / Self.slots)
    }
}

/// What one key has used of several windows, in one allocation of a few words while the key is quiet.
///
/// Lane i belongs to window i. A lane holds a header word (number of used slots and their sum) and its used slots,
/// oldest first, each a word of slot number (24 bits, wrapping) and amount (40 bits). All lanes have the same
/// capacity, which grows with use up to 61 slots. Slot numbers come from `Window.slot`, and never go back.
///
/// The words are allocated by hand: an array would take 32 bytes more for each of a million keys. `words` is valid for
/// `lanes * laneLength` words from init to deinit, and only this value, which can't be copied, knows it.
package struct SlidingWindows: ~Copyable {
    /// The most that one slot, and so one limit, can hold.
    package static let largestAmount: UInt64 = 1 << 40 - 1

    private static let slotMask: UInt64 = 0xff_ffff
    private static let sumMask: UInt64 = 1 << 56 - 1
    private static let longestLane = Int(Window.slots) + 2

    private var words: UnsafeMutablePointer<UInt64>
    private let lanes: Int32
    /// Words from one lane to the next.
    private var laneLength: Int32 = 2

    package init(lanes: Int) {
        self.lanes = Int32(lanes)
        words = .allocate(capacity: lanes * 2)
        words.initialize(repeating: 0, count: lanes * 2)
    }

    deinit {
        words.deallocate()
    }

    private func lane(_ lane: Int) -> UnsafeMutablePointer<UInt64> {
        assert(0..<Int(lanes) ~= lane)
        return words + lane &* Int(laneLength)
    }

    /// What counts in the window when `slot` is the present one.
    package mutating func used(lane number: Int, slot: Int64) -> UInt64 {
        let lane = lane(number)
        if lane[0] == 0 { return 0 }
        let now = UInt64(bitPattern: slot) & Self.slotMask
        if Self.isExpired(lane[1], now: now) { Self.dropExpired(lane, now: now) }
        return lane[0] & Self.sumMask
    }

    /// - Returns: what counts in the window afterwards.
    @discardableResult
    package mutating func charge(_ amount: UInt64, lane number: Int, slot: Int64) -> UInt64 {
        let before = used(lane: number, slot: slot)
        guard amount > 0 else { return before }
        let now = UInt64(bitPattern: slot) & Self.slotMask
        var lane = lane(number)
        let count = Int(lane[0] >> 56)
        if count > 0, lane[count] >> 40 == now {
            lane[count] &+= amount
        } else {
            if count &+ 1 == laneLength {
                grow()
                lane = self.lane(number)
            }
            lane[count &+ 1] = now << 40 | amount
            lane[0] &+= 1 << 56
        }
        lane[0] &+= amount
        return before &+ amount
    }

    /// Takes back what was charged in `slot`; what has expired since stays gone.
    package mutating func giveBack(_ amount: UInt64, lane number: Int, chargedIn slot: Int64) {
        let charged = UInt64(bitPattern: slot) & Self.slotMask
        let lane = lane(number)
        for index in stride(from: Int(lane[0] >> 56), to: 0, by: -1) where lane[index] >> 40 == charged {
            let taken = min(amount, lane[index] & Self.largestAmount)
            lane[index] &-= taken
            lane[0] &-= taken
            return
        }
    }

    /// The slot with which, when it has expired, `amount` more fits under `limit`; nil where it fits already.
    ///
    /// - Precondition: `amount` is not more than `limit`.
    package mutating func blockingSlot(_ amount: UInt64, under limit: UInt64, lane number: Int, slot: Int64) -> Int64? {
        var sum = used(lane: number, slot: slot)
        var blocking: Int64?
        forEachSlot(lane: number, slot: slot) { charged, value in
            guard sum &+ amount > limit else { return }
            sum &-= value
            blocking = charged
        }
        return blocking
    }

    /// The used slots, oldest first, by their full numbers; `slot` is the present one.
    package func forEachSlot(lane number: Int, slot: Int64, _ body: (_ slot: Int64, _ amount: UInt64) -> Void) {
        let lane = lane(number)
        let count = Int(lane[0] >> 56)
        var index = 1
        while index <= count {
            let age = (UInt64(bitPattern: slot) &- lane[index] >> 40) & Self.slotMask
            body(slot - Int64(age), lane[index] & Self.largestAmount)
            index += 1
        }
    }

    /// Puts back a slot as `forEachSlot` gave it; slots come oldest first.
    package mutating func restore(_ amount: UInt64, slot: Int64, lane number: Int) {
        if Int(lane(number)[0] >> 56) + 1 == laneLength { grow() }
        let lane = lane(number)
        lane[Int(lane[0] >> 56) + 1] = (UInt64(bitPattern: slot) & Self.slotMask) << 40 | amount
        lane[0] += 1 << 56 + amount
    }

    package mutating func clear() {
        words.update(repeating: 0, count: Int(lanes * laneLength))
    }

    private static func isExpired(_ word: UInt64, now: UInt64) -> Bool {
        (now &- word >> 40) & slotMask > UInt64(Window.slots)
    }

    private static func dropExpired(_ lane: UnsafeMutablePointer<UInt64>, now: UInt64) {
        let count = Int(lane[0] >> 56)
        var dropped = 0
        var amount: UInt64 = 0
        while dropped < count, isExpired(lane[1 &+ dropped], now: now) {
            amount &+= lane[1 &+ dropped] & largestAmount
            dropped &+= 1
        }
        (lane + 1).update(from: lane + 1 + dropped, count: count - dropped)
        lane[0] &-= UInt64(dropped) << 56 &+ amount
    }

    private mutating func grow() {
        let oldLength = Int(laneLength)
        let newLength = min(2 * oldLength, Self.longestLane)
        let grown = UnsafeMutablePointer<UInt64>.allocate(capacity: Int(lanes) * newLength)
        grown.initialize(repeating: 0, count: Int(lanes) * newLength)
        for lane in 0..<Int(lanes) {
            (grown + lane * newLength).update(from: words + lane * oldLength, count: oldLength)
        }
        words.deallocate()
        words = grown
        laneLength = Int32(newLength)
    }
}
