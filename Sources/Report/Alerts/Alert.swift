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
        /// An operator wants to see an alert (`weir alert --test`).
        case test

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
    /// The client of the request that caused it, as `host[address]`.
    var client: String?
    /// What is affected: `limit per-user, key alice`, `the ledger`, `next hop inet:127.0.0.1:10026`.
    var subject: String
    /// What happened, in at most `Alert.longestText` characters.
    var text: String
    /// What to type on the mail server: first what shows more, then what changes something.
    var commands: [String] = []
    /// The address of the page about the key; see `AlertNotice.tunnel`.
    var page: String?
    /// How often the same alert was suppressed since it was last sent.
    var repeats = 0

    static let longestText = 500

    var description: String {
        "\(tier.rawValue): \(subject)\(mode == "shadow" ? " (shadow)" : ""): \(text)"
            + (repeats > 0 ? " (\(repeats) more since the last such alert)" : "")
    }

    /// The description with the client and the first command, in one line.
    var summary: String {
        let hints = [client.map { "client \($0)" }, commands.first].compactMap(\.self)
        return description + (hints.isEmpty ? "" : " [\(hints.joined(separator: "; "))]")
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
    /// The address of the page, which works on the operator's machine while `tunnel` runs there.
    var page: String
    var tunnel: String

    init(host: String, alerts: [Alert], leftOut: Int, advice: AlertAdvice) {
        self.host = host
        self.alerts = alerts
        self.leftOut = leftOut
        page = advice.page()
        tunnel = advice.tunnel(to: host)
        text = Self.headline(alerts.first?.summary, of: host, others: alerts.count - 1 + leftOut)
    }

    /// The `text` without the client and the command: a Subject is too short for them, and the body has both.
    var subject: String {
        Self.headline(alerts.first?.description, of: host, others: alerts.count - 1 + leftOut)
    }

    private static func headline(_ first: String?, of host: String, others: Int) -> String {
        "Weir on \(host): \(first ?? "")" + (others > 0 ? " and \(others) more" : "")
    }
}

/// What became of a test notice.
package struct AlertTestOutcome: Codable, Equatable, Sendable {
    /// The configuration key, such as `alerts.mail`.
    package var channel: String
    package var isDelivered: Bool
    /// What the delivery means, or why it failed.
    package var text: String

    package var description: String { "\(channel): test notice \(isDelivered ? "" : "not ")delivered: \(text)" }
}
