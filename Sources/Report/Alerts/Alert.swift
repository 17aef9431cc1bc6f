// SPDX-License-Identifier: Apache-2.0

/// An event that an operator should know of at once.
package struct Alert: Codable, Equatable, Sendable {
    package enum Tier: String, Codable, CaseIterable, Sendable {
        /// A key has come near a limit (`warn_at`).
        case warn
        /// A limit refuses a key, or would refuse it in shadow mode.
        case over
        /// A key is blocked for a time.
        case block
        /// A failure of the ledger, a next hop or a rule, or a bound of Weir that was reached.
        case trouble
        /// The end of a trouble.
        case recovery

        /// About one key of many. These are left out first if there are too many alerts.
        var isOfKeyInUse: Bool { self == .warn || self == .over }
    }

    /// Seconds since 1970.
    var time: Int64
    var tier: Tier
    /// The limit; like `key` and `mode`, absent if the alert is not about a limit.
    var limit: String?
    var key: String?
    /// `enforce` or `shadow`.
    var mode: String?
    /// What is affected: `limit per-user, key alice`, `the ledger`, `next hop inet:127.0.0.1:10026`.
    var subject: String
    /// What happened, in at most `Alert.longestText` characters.
    var text: String
    /// How often the same alert was suppressed since it was last sent.
    var repeats = 0

    static let longestText = 500

    var description: String {
        "\(tier.rawValue): \(subject)\(mode == "shadow" ? " (shadow)" : ""): \(text)"
            + (repeats > 0 ? " (\(repeats) more since the last such alert)" : "")
    }
}

/// The alerts that a channel sends together.
struct AlertNotice: Codable, Equatable, Sendable {
    /// The host name.
    var host: String
    /// A summary in one line; chat services show this member.
    var text: String
    var alerts: [Alert]
    /// Alerts beyond the bound of a notice.
    var leftOut: Int

    init(host: String, alerts: [Alert], leftOut: Int) {
        self.host = host
        self.alerts = alerts
        self.leftOut = leftOut
        let others = alerts.count - 1 + leftOut
        text = "Weir on \(host): \(alerts.first?.description ?? "")" + (others > 0 ? " and \(others) more" : "")
    }
}
