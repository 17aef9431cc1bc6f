// SPDX-License-Identifier: Apache-2.0
import Sharing

/// All that was admitted, by true time. Every interval of a window's length is checked when a unit is added.
struct ExactLog {
    struct Entry {
        /// Two hosts may admit a request at the same time.
        let host: String
        let request: Int
        let time: Int64
        var units: Int64
        /// The newest reset of the key that its host knew.
        let reset: SharedChange.Version?
        /// How many times N its host admitted: a raise.
        let factor: Int64
    }

    /// What the interval of the window's length holds that ends now.
    struct Held {
        /// Of hosts that know the same reset.
        var underReset: Int64 = 0
        /// Since any host has last learned of a reset.
        var sinceReset: Int64 = 0
        /// The largest.
        var factor: Int64 = 1
    }

    private var entries: [Lane: [Entry]] = [:]
    private var firsts: [Lane: Int] = [:]
    private var learned: [UInt64: Int64] = [:]
    private(set) var admitted: [Lane: Int64] = [:]

    mutating func add(_ entry: Entry, to lane: Lane) -> Held {
        entries[lane, default: []].append(entry)
        admitted[lane, default: 0] += entry.units
        var first = firsts[lane] ?? 0
        let all = entries[lane] ?? []
        while all[first].time <= entry.time - lane.window { first += 1 }
        firsts[lane] = first
        let learned = learned[lane.key] ?? .min
        return all[first...].reduce(into: Held()) { held, other in
            if other.reset == entry.reset { held.underReset += other.units }
            if other.time > learned { held.sinceReset += other.units }
            held.factor = max(held.factor, other.factor)
        }
    }

    /// A host has learned of a reset.
    mutating func reset(_ key: UInt64, at time: Int64) { learned[key] = time }

    mutating func giveBack(_ request: Int, of host: String, in lane: Lane) {
        guard let index = entries[lane]?.lastIndex(where: { $0.host == host && $0.request == request }),
            let units = entries[lane]?[index].units
        else { return }
        entries[lane]?[index].units = 0
        admitted[lane, default: 0] -= units
    }
}
