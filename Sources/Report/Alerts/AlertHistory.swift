// SPDX-License-Identifier: Apache-2.0

/// The alerts sent recently. A key that stays over its limit makes one alert, not one for each message.
package struct AlertHistory<Name: Hashable> {
    private struct Sent {
        var at: ContinuousClock.Instant
        var repeats = 0
    }

    private var sent: [Name: Sent] = [:]

    /// Bound of remembered alerts. The oldest are forgotten first, and may be sent again early.
    private static var most: Int { 10_000 }

    package init() {}

    /// Counts an alert that was raised, and decides whether to send it.
    ///
    /// - Returns: nil if the alert was sent within `interval` and is suppressed; else how often it was suppressed since
    ///   it was last sent.
    package mutating func record(_ name: Name, at now: ContinuousClock.Instant, interval: Duration) -> Int? {
        if let before = sent[name], now - before.at < interval {
            sent[name]?.repeats += 1
            return nil
        }
        if sent.count >= Self.most { makeRoom(at: now, interval: interval) }
        return sent.updateValue(Sent(at: now), forKey: name)?.repeats ?? 0
    }

    package mutating func forget(_ name: Name) { sent[name] = nil }

    private mutating func makeRoom(at now: ContinuousClock.Instant, interval: Duration) {
        sent = sent.filter { now - $0.value.at < interval }
        guard sent.count >= Self.most else { return }
        // Half of them, so that sorting is rare.
        let newest = sent.sorted { $0.value.at > $1.value.at }.prefix(Self.most / 2)
        sent = Dictionary(uniqueKeysWithValues: newest.map { ($0.key, $0.value) })
    }
}
