// SPDX-License-Identifier: Apache-2.0

/// A problem with a table, in the words of Postfix's own log where it knows the problem.
package struct TableFault: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Severity: Sendable {
        /// The rule is skipped, or may not mean what its author thinks.
        case warning
        /// The table can't be used at all.
        case fault
    }

    package let severity: Severity
    /// `pcre` or `regexp`, or whatever precedes the colon.
    package let type: String
    package let path: String
    /// The first line of the rule, from 1; nil for the whole table.
    package let line: Int?
    package let message: String
    /// Whether the rule does nothing for this reason, as in Postfix.
    package var skipsRule = false
    /// The first word of a rule's action, if there is no such action.
    package var unknownAction: String?

    package var description: String {
        guard let line else { return message }
        return "\(type) map \(path), line \(line): \(message)"
    }
}
