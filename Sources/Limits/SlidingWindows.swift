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
/// capacity, which grows with use up to 61 slots.
package struct SlidingWindows: Sendable {
    /// The most that one slot, and so one limit, can hold.
    package static let largestAmount: UInt64 = 1 << 40 - 1

    private static let slotMask: UInt64 = 0xff_ffff
    private static let sumMask: UInt64 = 1 << 56 - 1
    private static let longestLane = Int(Window.slots) + 2

    private var words: [UInt64]
    private let lanes: Int32
    /// Words from one lane to the next.
    private var laneLength: Int32 = 2

    package init(lanes: Int) {
        self.lanes = Int32(lanes)
        words = Array(repeating: 0, count: lanes * 2)
    }

    private func start(ofLane lane: Int) -> Int {
        lane &* Int(laneLength)
    }

    /// What counts in the window at `time`.
    package mutating func used(lane: Int, of window: Window, at time: LedgerTime) -> UInt64 {
        let base = start(ofLane: lane)
        let header = words[base]
        if header == 0 { return 0 }
        let now = UInt64(bitPattern: window.slot(at: time)) & Self.slotMask
        if isExpired(words[base &+ 1], now: now) { dropExpired(base: base, now: now) }
        return words[base] & Self.sumMask
    }

    package mutating func charge(_ amount: UInt64, lane: Int, of window: Window, at time: LedgerTime) {
        guard amount > 0 else { return }
        let slot = UInt64(bitPattern: window.slot(at: time)) & Self.slotMask
        _ = used(lane: lane, of: window, at: time)
        var base = start(ofLane: lane)
        var count = Int(words[base] >> 56)
        if count > 0, words[base &+ count] >> 40 == slot {
            words[base &+ count] &+= amount
        } else {
            if count &+ 1 == laneLength {
                grow()
                base = start(ofLane: lane)
            }
            count &+= 1
            words[base &+ count] = slot << 40 | amount
            words[base] &+= 1 << 56
        }
        words[base] &+= amount
    }

    /// Takes back what was charged at `time`; what has expired since stays gone.
    package mutating func giveBack(_ amount: UInt64, lane: Int, of window: Window, chargedAt time: LedgerTime) {
        let slot = UInt64(bitPattern: window.slot(at: time)) & Self.slotMask
        let base = start(ofLane: lane)
        let count = Int(words[base] >> 56)
        for index in stride(from: base &+ count, to: base, by: -1) where words[index] >> 40 == slot {
            let taken = min(amount, words[index] & Self.largestAmount)
            words[index] &-= taken
            words[base] &-= taken
            return
        }
    }

    /// When `amount` more will fit under `limit`, or nil where it can never fit.
    package mutating func fitting(
        _ amount: UInt64, under limit: UInt64, lane: Int, of window: Window, at time: LedgerTime
    ) -> LedgerTime? {
        guard amount <= limit else { return nil }
        var sum = used(lane: lane, of: window, at: time)
        if sum &+ amount <= limit { return time }
        var fitting = time
        forEachSlot(lane: lane, of: window, at: time) { slot, charged in
            guard sum &+ amount > limit else { return }
            sum &-= charged
            fitting = window.expiry(ofSlot: slot)
        }
        return fitting
    }

    /// The used slots, oldest first, by their full numbers. `time` must not be before the last charge.
    package func forEachSlot(
        lane: Int, of window: Window, at time: LedgerTime, _ body: (_ slot: Int64, _ amount: UInt64) -> Void
    ) {
        let base = start(ofLane: lane)
        let now = window.slot(at: time)
        for index in base + 1..<base + 1 + Int(words[base] >> 56) {
            let age = (UInt64(bitPattern: now) &- words[index] >> 40) & Self.slotMask
            body(now - Int64(age), words[index] & Self.largestAmount)
        }
    }

    /// Puts back a slot as `forEachSlot` gave it; slots come oldest first.
    package mutating func restore(_ amount: UInt64, slot: Int64, lane: Int, of window: Window) {
        if Int(words[start(ofLane: lane)] >> 56) + 1 == laneLength { grow() }
        let base = start(ofLane: lane)
        let count = Int(words[base] >> 56)
        words[base + count + 1] = (UInt64(bitPattern: slot) & Self.slotMask) << 40 | amount
        words[base] += 1 << 56 + amount
    }

    package mutating func clear() {
        words = Array(repeating: 0, count: words.count)
    }

    private func isExpired(_ word: UInt64, now: UInt64) -> Bool {
        (now &- word >> 40) & Self.slotMask > UInt64(Window.slots)
    }

    private mutating func dropExpired(base: Int, now: UInt64) {
        let count = Int(words[base] >> 56)
        var dropped = 0
        var amount: UInt64 = 0
        while dropped < count, isExpired(words[base &+ 1 &+ dropped], now: now) {
            amount &+= words[base &+ 1 &+ dropped] & Self.largestAmount
            dropped &+= 1
        }
        for index in base &+ 1 ..< base &+ 1 &+ count &- dropped {
            words[index] = words[index &+ dropped]
        }
        words[base] &-= UInt64(dropped) << 56 &+ amount
    }

    private mutating func grow() {
        let old = words
        let oldLength = Int(laneLength)
        let newLength = min(2 * oldLength, Self.longestLane)
        words = Array(repeating: 0, count: Int(lanes) * newLength)
        for lane in 0..<Int(lanes) {
            for index in 0..<oldLength { words[lane * newLength + index] = old[lane * oldLength + index] }
        }
        laneLength = Int32(newLength)
    }
}
