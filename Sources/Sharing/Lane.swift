// SPDX-License-Identifier: Apache-2.0

/// One window of one key: what has a share on each host and a pool in the engine.
package struct Lane: Hashable, Comparable, Sendable {
    package let key: UInt64
    /// Milliseconds.
    package let window: Int64

    package init(key: UInt64, window: Int64) {
        self.key = key
        self.window = window
    }

    package static func < (a: Lane, b: Lane) -> Bool { (a.key, a.window) < (b.key, b.window) }

    package func slot(at time: Int64) -> Int64 { SlotCounts.floorDivide(time * SlotCounts.slots, window) }
}

/// Units by slot. A window has 60 slots. One more than that counts beside the present one, because a clock may be slow:
/// a unit counts for at least W and a slot less what the clock lags.
package struct SlotCounts: Sendable {
    package static let slots: Int64 = 60
    package static let held: Int64 = slots + 1

    /// The most that one slot can hold of refused requests.
    package static let mostRefused: Int64 = 1 << 40 - 1

    package struct Slot: Sendable {
        package let number: Int64
        package internal(set) var units: Int64
        /// What refused requests count (`SharedLedger.chargeRefused`), beside `units`.
        package internal(set) var refused: Int64

        package init(number: Int64, units: Int64, refused: Int64 = 0) {
            self.number = number
            self.units = units
            self.refused = refused
        }
    }

    /// Oldest first.
    package private(set) var entries: [Slot] = []
    /// Without what refused requests count.
    package private(set) var total: Int64 = 0

    package init() {}

    package static func floorDivide(_ dividend: Int64, _ divisor: Int64) -> Int64 {
        let quotient = dividend / divisor
        return dividend % divisor < 0 ? quotient - 1 : quotient
    }

    /// Drops what has expired if `slot` is the present one.
    package mutating func expire(at slot: Int64) {
        guard let oldest = entries.first, oldest.number < slot - Self.held else { return }
        entries.removeAll { $0.number < slot - Self.held }
        total = entries.reduce(0) { $0 + $1.units }
    }

    package mutating func charge(_ units: Int64, slot: Int64) {
        total += units
        if let last = entries.last, last.number >= slot {
            entries[entries.count - 1].units += units
        } else {
            entries.append(Slot(number: slot, units: units))
        }
    }

    package mutating func chargeRefused(_ units: Int64, slot: Int64) {
        if entries.last.map({ $0.number < slot }) ?? true { entries.append(Slot(number: slot, units: 0)) }
        let last = entries.count - 1
        entries[last].refused = min(entries[last].refused + min(units, Self.mostRefused), Self.mostRefused)
    }

    /// - Returns: what was still counted, and is free now.
    @discardableResult
    package mutating func giveBack(_ units: Int64, slot: Int64) -> Int64 {
        guard let index = entries.lastIndex(where: { $0.number == slot }) else { return 0 }
        let given = min(units, entries[index].units)
        entries[index].units -= given
        total -= given
        if entries[index].units == 0, entries[index].refused == 0 { entries.remove(at: index) }
        return given
    }
}
