// SPDX-License-Identifier: Apache-2.0

/// What was told lately, so that a key that stays over its limit is told once and not at every message.
package struct AlertHistory<Name: Hashable> {
    private struct Told {
        var at: ContinuousClock.Instant
        var repeats = 0
    }

    private var told: [Name: Told] = [:]

    /// Beyond, what was told longest ago is forgotten, and told again.
    private static var most: Int { 10_000 }

    package init() {}

    /// How often this has been held back since it was told last, where it is to be told now; nil where it was told within
    /// `interval`.
    package mutating func tell(_ name: Name, at now: ContinuousClock.Instant, interval: Duration) -> Int? {
        if let before = told[name], now - before.at < interval {
            told[name]?.repeats += 1
            return nil
        }
        if told.count >= Self.most { makeRoom(at: now, interval: interval) }
        return told.updateValue(Told(at: now), forKey: name)?.repeats ?? 0
    }

    package mutating func forget(_ name: Name) { told[name] = nil }

    private mutating func makeRoom(at now: ContinuousClock.Instant, interval: Duration) {
        told = told.filter { now - $0.value.at < interval }
        guard told.count >= Self.most else { return }
        // Half goes at once: sorting for each single one would cost more than it is worth.
        let newest = told.sorted { $0.value.at > $1.value.at }.prefix(Self.most / 2)
        told = Dictionary(uniqueKeysWithValues: newest.map { ($0.key, $0.value) })
    }
}
