// SPDX-License-Identifier: Apache-2.0
package import MailSyntax
package import Patterns
package import Rules

/// What the content filter is to do, as the configuration has it.
package struct ContentChecks: Hashable, Sendable {
    package enum UndisclosedRecipients: String, CaseIterable, Sendable {
        case strip, keep
    }

    /// Tables as `TYPE:FILE`, in order.
    package var header: [String] = []
    /// nil as in Postfix: the same as `header`.
    package var mimeHeader: [String]?
    /// nil as in Postfix: the same as `header`.
    package var nestedHeader: [String]?
    package var body: [String] = []
    package var undisclosedRecipients = UndisclosedRecipients.strip
    package var scannerLimits = ScannerLimits()
    /// For one try of one pattern.
    package var matchLimits = MatchLimits(steps: 10_000_000, heapKiB: 262_144)
    /// Milliseconds that the checks of one message may take.
    package var messageBudget: Int64 = 5_000
    /// Whether to scan for all patterns at once; the result is the same without, but slower.
    package var fastPass = true
    /// Where the service keeps compiled scans.
    package var cacheDirectory = "/var/lib/weir/rules"

    package init() {}
}

extension Matcher {
    /// With the limits of `checks`.
    package convenience init(_ checks: ContentChecks) {
        self.init(limits: checks.matchLimits, budget: UInt64(checks.messageBudget) * 1_000_000)
    }
}
