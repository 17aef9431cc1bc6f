// SPDX-License-Identifier: Apache-2.0

/// What all hosts must agree on before the sum of their shares and the pool is N.
package struct Terms: Hashable, Sendable {
    package let hosts: [String]
    /// The part of N that is divided among the hosts' shares, in thousandths.
    package let share: Int64
    /// Identifies the limits: another N or window is another number.
    package let limits: UInt64
    /// For the engine, which only compares terms and hands them to new hosts.
    package let text: String

    package init(hosts: [String], share: Int64, limits: UInt64) {
        self.hosts = hosts
        self.share = share
        self.limits = limits
        text = "\(share);\(limits);\(hosts.joined(separator: ","))"
    }

    /// What `host` may use of `most` units without asking.
    func share(of host: String, in most: Int64) -> Int64 { hosts.contains(host) ? each(most) : 0 }

    /// What is left of `most` units for the engine to grant, if each host has its share of `divided` units.
    func pool(of most: Int64, divided: Int64) -> Int64 { most - each(divided) * Int64(hosts.count) }

    private func each(_ most: Int64) -> Int64 { most * share / 1000 / Int64(max(hosts.count, 1)) }

    /// Which parts are others.
    package func differences(from other: Terms) -> [String] {
        [("limits", limits != other.limits), ("share", share != other.share), ("hosts", hosts != other.hosts)]
            .filter(\.1).map(\.0)
    }

    package init?(text: String) {
        let parts = text.split(separator: ";", omittingEmptySubsequences: false)
        guard parts.count == 3, let share = Int64(parts[0]), 0...1000 ~= share, let limits = UInt64(parts[1])
        else { return nil }
        self.init(hosts: parts[2].split(separator: ",").map(String.init), share: share, limits: limits)
    }
}

/// What holds for the times in a group of hosts and its engine. Milliseconds.
package struct Timing: Sendable {
    /// The longest window of any shared limit.
    package var longestWindow: Int64
    /// How long a grant may be spent.
    package var validity: Int64
    /// How long an old primary may take calls after another server has taken over (`min-replicas-max-lag`).
    package var oldPrimary: Int64
    /// How long a request waits for the engine.
    package var timeout: Int64
    /// A host calls at least this often, well within the engine's cap.
    package var heartbeat: Int64
    /// The most changes in a call, and in an answer.
    package var changesPerCall = 100

    package init(
        longestWindow: Int64, validity: Int64, oldPrimary: Int64 = 30_000, timeout: Int64 = 50, heartbeat: Int64 = 250
    ) {
        self.longestWindow = longestWindow
        self.validity = validity
        self.oldPrimary = oldPrimary
        self.timeout = timeout
        self.heartbeat = heartbeat
    }

    /// The longest time between two calls that counts for the engine.
    package static let cap: Int64 = 1000

    /// At least `time` by any clock, if it is measured by another. No clock gains or loses more than a thousandth, and
    /// so two of them differ by less than four.
    static func atLeast(_ time: Int64) -> Int64 { time + time / 250 + 1 }

    /// At most `time` by any clock, if it is measured by another.
    static func atMost(_ time: Int64) -> Int64 { max(0, time - time / 250 - 1) }

    /// How long a unit counts in the longest window, wherever it is counted.
    private var held: Int64 { longestWindow + 2 * (longestWindow / SlotCounts.slots + 1) }

    /// How long older terms matter after the last host has given them up.
    var termsMatter: Int64 { Self.atLeast(held) + Self.cap }

    /// How long a host that does not register may hide what it has used.
    var hidden: Int64 { Self.atLeast(held + validity + oldPrimary) + Self.cap }
}
