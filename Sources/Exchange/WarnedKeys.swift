// SPDX-License-Identifier: Apache-2.0
package import Report

/// The keys of which a host has warned. None has a second warning within the longest window of its limit, and marks
/// that another host has sent before it knew of the warning change nothing.
package struct WarnedKeys {
    private var ends: [KeyName: ContinuousClock.Instant] = [:]

    private static let most = 10_000

    package init() {}

    package func contains(_ key: KeyName, at now: ContinuousClock.Instant) -> Bool {
        ends[key].map { now < $0 } ?? false
    }

    /// - Parameter time: until then, the key has no second warning.
    /// - Returns: false if a host has warned of the key already.
    package mutating func add(
        _ key: KeyName, until time: ContinuousClock.Instant, at now: ContinuousClock.Instant
    ) -> Bool {
        guard !contains(key, at: now) else { return false }
        if ends.count >= Self.most { ends = ends.filter { now < $0.value } }
        if ends.count >= Self.most { ends.remove(at: ends.startIndex) }
        ends[key] = time
        return true
    }
}
