// SPDX-License-Identifier: Apache-2.0
package import Limits
package import MailSyntax
package import Patterns
package import Rules

/// The configuration of the content filter.
package struct ContentChecks: Sendable {
    /// What happens to To, Cc, Resent-To and Resent-Cc headers that name nobody.
    package enum UndisclosedRecipients: String, CaseIterable, Sendable {
        /// Those with an empty group of a known name are removed.
        case strip
        /// Those with an empty group of any name are removed.
        case anyEmptyGroup = "any_empty_group"
        case keep
    }

    /// The tables for all messages; none where there are `sets`.
    package var tables = CheckTables()
    /// Sets with conditions, in order.
    package var sets: [CheckSet] = []
    /// What conditions are compiled to.
    package var attributeNames = AttributeNames()
    package var undisclosedRecipients = UndisclosedRecipients.strip
    /// Whether a header stays that a DKIM signature covers.
    package var keepsSigned = false
    /// What is repaired in the addresses of From, To, Cc, Reply-To and Sender.
    package var headerRepairs = AddressRepairs()
    /// Whether also in a message with a DKIM-Signature.
    package var repairsSigned = false
    package var scannerLimits = ScannerLimits()
    /// Whether UTF-8 in the text of a REJECT reaches the client, as with Postfix's `smtputf8_enable`.
    package var smtpUTF8 = true
    /// The limits of one match attempt.
    package var matchLimits = MatchLimits(steps: 10_000_000, heapKiB: 262_144)
    /// The time limit of all checks of a message, in milliseconds.
    package var messageBudget: Int64 = 5_000
    /// Whether to scan for all patterns at once. This changes only the speed.
    package var fastPass = true
    /// The directory of the compiled patterns.
    package var cacheDirectory = "/var/lib/weir/rules"

    package init() {}

    /// The sets, or the tables for all messages as one.
    package var allSets: [CheckSet] {
        guard sets.isEmpty else { return sets }
        var set = CheckSet()
        set.tables = tables
        return [set]
    }

    /// The tables of all sets.
    package var tableNames: [String] { allSets.flatMap(\.tables.names) }

    /// What a matcher depends on.
    package struct MatcherBounds: Equatable {
        let limits: MatchLimits
        let messageBudget: Int64
    }

    package var matcherBounds: MatcherBounds { MatcherBounds(limits: matchLimits, messageBudget: messageBudget) }

    /// The value of `checks.from_lines`.
    package var fromLines: String { scannerLimits.fromLines.rawValue }

    /// The files of these tables.
    package var tablePaths: [String] {
        tableNames.map { name in name.firstIndex(of: ":").map { String(name[name.index(after: $0)...]) } ?? name }
    }

    /// `scannerLimits` by Postfix's names.
    package var limitsOfPostfix: [(name: String, value: Int)] {
        [
            ("header_size_limit", scannerLimits.headerSize), ("line_length_limit", scannerLimits.lineLength),
            ("body_checks_size_limit", scannerLimits.bodyChecksSize),
            ("mime_boundary_length_limit", scannerLimits.mimeBoundaryLength),
            ("mime_nesting_limit", scannerLimits.mimeNesting),
        ]
    }
}

extension Matcher {
    /// An attempt from all positions of a text has this many times the steps of one position. This bounds how long a
    /// stop, or the end of a message's budget, has to wait for it.
    private static var positions: Int { 50 }

    /// A matcher with the limits of `checks`.
    ///
    /// - Parameter share: if it is used on an event loop.
    package convenience init(_ checks: ContentChecks, share: LoopShare? = nil) {
        var limits = checks.matchLimits
        limits.stepsOfAll = UInt32(clamping: Self.positions * Int(limits.steps))
        // More than a header of `header_size_limit` has bytes: one `.*` must never be too much.
        limits.leastSteps = 250_000
        self.init(limits: limits, budget: UInt64(checks.messageBudget) * 1_000_000, share: share)
    }
}
