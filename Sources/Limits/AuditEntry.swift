// SPDX-License-Identifier: Apache-2.0

/// A change by an administrator, as the store keeps it.
package struct AuditEntry: Codable, Equatable, Sendable {
    /// In seconds since 1970.
    package var time: Int64
    /// The user of the command: `uid 0 (root)`.
    package var user: String
    /// `reset`, `raise`, `unraise`, `block` or `unblock`.
    package var action: String
    package var key: String
    /// The rates and the duration, if the action has them; otherwise empty.
    package var details: String
    /// The reason that the administrator gave; may be empty.
    package var reason: String
    /// The names of the limits that changed. Empty if no limit had the key.
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
    /// `uid 0 (root): raise alice (500/1m, for 2d): done for per-user: reason, asked by phone`
    package var description: String {
        "\(user): \(action) \(key)\(details.isEmpty ? "" : " (\(details))"): "
            + (limits.isEmpty ? "no limit knows this key" : "done for \(limits.joined(separator: ", "))")
            + (reason.isEmpty ? "" : ": \(reason)")
    }
}
