// SPDX-License-Identifier: Apache-2.0
internal import Limits
package import Report

/// What a host warns of once: that all hosts together have used `warn_at` percent of a window.
package struct SharedWarning: Hashable, Sendable {
    package let name: KeyName
    /// `1h`
    package let window: String
    /// The last change of the key before it (`Ledger.lastChange`). After another change, there is another warning.
    package let change: Int64
    /// How long there is no other warning.
    package let quiet: Duration

    /// nil if no limit has such a window.
    package init?(_ name: KeyName, window: String, change: Int64) {
        guard let length = Rate.duration(window), Window.allowed.contains(length) else { return nil }
        self.name = name
        self.window = window
        self.change = change
        // A window of a second would otherwise bring a warning every second.
        quiet = .milliseconds(max(length, 60_000))
    }
}

/// The warnings that the hosts have given. None is given twice within its window, and marks that another host has sent
/// before it knew of the warning change nothing.
package struct WarnedKeys {
    private var ends: [SharedWarning: ContinuousClock.Instant] = [:]

    private static let most = 10_000

    package init() {}

    package func contains(_ warning: SharedWarning, at now: ContinuousClock.Instant) -> Bool {
        ends[warning].map { now < $0 } ?? false
    }

    /// - Returns: false if a host has given the warning already.
    package mutating func add(_ warning: SharedWarning, at now: ContinuousClock.Instant) -> Bool {
        guard !contains(warning, at: now) else { return false }
        if ends.count >= Self.most { ends = ends.filter { now < $0.value } }
        if ends.count >= Self.most { ends.remove(at: ends.startIndex) }
        ends[warning] = now + warning.quiet
        return true
    }
}
