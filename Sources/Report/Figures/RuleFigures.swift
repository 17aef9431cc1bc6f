// SPDX-License-Identifier: Apache-2.0

/// Names a rule of the checks.
package struct RuleName: Codable, Hashable, Sendable {
    /// `header`, `mime_header`, `nested_header`, `decoded_header`, `decoded_body`, `attachment` or `body`: the first of
    /// the classes that share a table.
    package var checks: String
    /// `pcre:/etc/postfix/header_checks:12`
    package var location: String
    /// nil where there is only one set of checks.
    package var set: String?

    package init(checks: String, location: String, set: String? = nil) {
        self.checks = checks
        self.location = location
        self.set = set
    }
}

/// What a rule of the checks has done since it was loaded.
package struct RuleFigures: Codable, Equatable, Sendable {
    package var checks: String
    /// `pcre:/etc/postfix/header_checks:12`
    package var location: String
    /// nil where there is only one set of checks.
    package var set: String?
    /// From the comment above the rule.
    package var tag: String?
    package var hits: Int
    /// Seconds since 1970; nil without hits.
    package var lastHit: Double?
    package var limitsReached: Int
    package var milliseconds: Double

    package init(
        checks: String, location: String, set: String? = nil, tag: String? = nil, hits: Int, lastHit: Double? = nil,
        limitsReached: Int, milliseconds: Double
    ) {
        self.checks = checks
        self.location = location
        self.set = set
        self.tag = tag
        self.hits = hits
        self.lastHit = lastHit
        self.limitsReached = limitsReached
        self.milliseconds = milliseconds
    }
}

/// What the rules with one tag have done since they were loaded.
package struct TagFigures: Codable, Equatable, Sendable {
    package var tag: String
    package var rules: Int
    package var hits: Int

    /// Tags that are counted by name: the first ones, in the order of the configuration.
    package static let most = 100
    /// Stands for all other tags. No tag has a space.
    package static let others = "all others"

    package init(tag: String, rules: Int, hits: Int) {
        self.tag = tag
        self.rules = rules
        self.hits = hits
    }

    /// - Parameter tagged: the tag and the hits of each rule that has a tag, in the order of the configuration.
    /// - Returns: at most `most` tags, and `others`.
    package static func summary(of tagged: [(tag: String, hits: Int)]) -> [TagFigures] {
        var figures: [TagFigures] = []
        var places: [String: Int] = [:]
        for rule in tagged {
            let name = places[rule.tag] != nil || places.count < most ? rule.tag : others
            let place = places[name] ?? figures.count
            if place == figures.count {
                places[name] = place
                figures.append(TagFigures(tag: name, rules: 0, hits: 0))
            }
            figures[place].rules += 1
            figures[place].hits += rule.hits
        }
        return figures
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
