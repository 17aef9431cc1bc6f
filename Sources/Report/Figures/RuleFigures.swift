// SPDX-License-Identifier: Apache-2.0

/// Names a rule of the checks.
package struct RuleName: Codable, Hashable, Sendable {
    /// `header`, `mime_header`, `nested_header`, `decoded_header`, `decoded_body`, `attachment` or `body`: the first of
    /// the classes that share a table.
    package var checks: String
    /// `pcre:/etc/postfix/header_checks:12`
    package var location: String

    package init(checks: String, location: String) {
        self.checks = checks
        self.location = location
    }
}

/// What a rule of the checks has done since it was loaded.
package struct RuleFigures: Codable, Equatable, Sendable {
    package var checks: String
    /// `pcre:/etc/postfix/header_checks:12`
    package var location: String
    package var hits: Int
    /// Seconds since 1970; nil without hits.
    package var lastHit: Double?
    package var limitsReached: Int
    package var milliseconds: Double

    package init(
        checks: String, location: String, hits: Int, lastHit: Double? = nil, limitsReached: Int, milliseconds: Double
    ) {
        self.checks = checks
        self.location = location
        self.hits = hits
        self.lastHit = lastHit
        self.limitsReached = limitsReached
        self.milliseconds = milliseconds
    }
}

/// What one way in has done with its messages.
package struct WayFigures: Codable, Sendable {
    /// `milter`, or the address of a filter.
    package var name: String
    package var values: MessageCounters.Values

    package init(name: String, values: MessageCounters.Values) {
        self.name = name
        self.values = values
    }
}
