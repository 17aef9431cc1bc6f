// SPDX-License-Identifier: Apache-2.0

/// What an operator should know at once.
package struct Alert: Codable, Equatable, Sendable {
    package enum Tier: String, Codable, CaseIterable, Sendable {
        /// A key has come near a limit (`warn_at`).
        case warn
        /// A limit refuses a key, or would in shadow mode.
        case over
        /// A key is blocked for a time.
        case block
        /// The ledger, a next hop, a rule or a bound of Weir's own is in trouble.
        case trouble
        /// That is over.
        case recovery

        /// Of one key among many, which is being counted: the first to be left out where there are too many.
        var isOfKeyInUse: Bool { self == .warn || self == .over }
    }

    /// Seconds since 1970.
    var time: Int64
    var tier: Tier
    /// Absent where it is not about a limit.
    var limit: String?
    var key: String?
    /// `enforce` or `shadow`.
    var mode: String?
    /// `limit per-user, key alice`, `the ledger`, `next hop inet:127.0.0.1:10026`
    var subject: String
    /// What is the matter: at most `Alert.longestText` characters.
    var text: String
    /// How often the same was raised since it was last told.
    var repeats = 0

    static let longestText = 500

    var description: String {
        "\(tier.rawValue): \(subject)\(mode == "shadow" ? " (shadow)" : ""): \(text)"
            + (repeats > 0 ? " (\(repeats) times more since this was last told)" : "")
    }
}

/// What goes out at once: some alerts, and how many found no room.
struct AlertNotice: Codable, Equatable, Sendable {
    /// The machine's name.
    var host: String
    /// In one line; also what chat services show.
    var text: String
    var alerts: [Alert]
    var leftOut: Int

    init(host: String, alerts: [Alert], leftOut: Int) {
        self.host = host
        self.alerts = alerts
        self.leftOut = leftOut
        let others = alerts.count - 1 + leftOut
        text = "Weir on \(host): \(alerts.first?.description ?? "")" + (others > 0 ? " and \(others) more" : "")
    }
}
