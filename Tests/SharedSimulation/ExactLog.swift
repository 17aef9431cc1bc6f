// SPDX-License-Identifier: Apache-2.0
import Sharing

/// All that was admitted, by true time. Every interval of a window's length is checked when a unit is added.
struct ExactLog {
    struct Entry {
        let time: Int64
        var units: Int64
    }

    private var entries: [Lane: [Entry]] = [:]
    private var firsts: [Lane: Int] = [:]
    private(set) var admitted: [Lane: Int64] = [:]

    /// - Returns: what the interval of the window's length holds that ends now.
    mutating func add(_ units: Int64, to lane: Lane, at time: Int64) -> Int64 {
        entries[lane, default: []].append(Entry(time: time, units: units))
        admitted[lane, default: 0] += units
        var first = firsts[lane] ?? 0
        let all = entries[lane] ?? []
        while all[first].time <= time - lane.window { first += 1 }
        firsts[lane] = first
        return all[first...].reduce(0) { $0 + $1.units }
    }

    mutating func giveBack(_ units: Int64, in lane: Lane, admittedAt time: Int64) {
        guard let index = entries[lane]?.lastIndex(where: { $0.time == time && $0.units == units }) else { return }
        entries[lane]?[index].units = 0
        admitted[lane, default: 0] -= units
    }
}
