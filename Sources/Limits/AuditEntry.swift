// SPDX-License-Identifier: Apache-2.0

/// What somebody has changed by hand, as the store keeps it.
package struct AuditEntry: Codable, Equatable, Sendable {
    /// Seconds since 1970.
    package var time: Int64
    /// Who it was: `uid 0 (root)`.
    package var user: String
    /// `reset`, `raise`, `block` or `unblock`.
    package var action: String
    package var key: String
    /// The rates, the time for which it holds; empty where there is nothing to say.
    package var details: String
    /// Why, in the words of who did it; empty where nothing was said.
    package var reason: String
    /// Names of the limits where something was changed; none: no limit knew the key.
    package var limits: [String]

    package init(
        time: Int64, user: String, action: String, key: String, details: String, reason: String, limits: [String]
    ) {
        self.time = time
        self.user = user
        self.action = action
        self.key = key
        self.details = details
        self.reason = reason
        self.limits = limits
    }
}

extension AuditEntry: CustomStringConvertible {
    /// `uid 0 (root): raise alice (500/1m, for 172800s): done for per-user: reason, asked by phone`
    package var description: String {
        "\(user): \(action) \(key)\(details.isEmpty ? "" : " (\(details))"): "
            + (limits.isEmpty ? "no limit knows this key" : "done for \(limits.joined(separator: ", "))")
            + (reason.isEmpty ? "" : ": \(reason)")
    }
}
