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

    package var description: String {
        guard let line else { return message }
        return "\(type) map \(path), line \(line): \(message)"
    }
}
