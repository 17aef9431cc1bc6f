// SPDX-License-Identifier: Apache-2.0
import Sharing

/// All that refused requests count, by true time, and when the engine has heard of it.
struct TriesLog {
    private struct Entry {
        let host: String
        let lane: Lane
        let time: Int64
        let units: Int64
        var heard: Int64?
    }

    private var entries: [Entry] = []

    mutating func add(_ units: Int64, to lane: Lane, by host: String, at time: Int64, longestWindow: Int64) {
        let expired = entries.prefix { $0.time < time - longestWindow }.count
        entries.removeFirst(expired)
        entries.append(Entry(host: host, lane: lane, time: time, units: units))
    }

    /// The engine has taken a call of this host, which was sent at a time.
    mutating func hear(_ lanes: Set<Lane>, of host: String, sent: Int64, at now: Int64) {
        for index in entries.indices
        where entries[index].host == host && entries[index].heard == nil && entries[index].time <= sent
            && lanes.contains(entries[index].lane)
        { entries[index].heard = now }
    }

    /// A host has forgotten what it has refused of a key; nil: of all keys.
    mutating func forget(_ key: UInt64?, of host: String) {
        entries.removeAll { $0.host == host && (key == nil || $0.lane.key == key) }
    }

    /// What counts since a time and the engine has heard before another.
    func units(of lane: Lane, since first: Int64, heardBefore end: Int64) -> Int64 {
        entries.reduce(0) { sum, entry in
            let counts = entry.lane == lane && entry.time > first && entry.heard.map { $0 < end } ?? false
            return counts ? sum + entry.units : sum
        }
    }
}
