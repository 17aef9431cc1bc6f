// SPDX-License-Identifier: Apache-2.0

/// What is wrong with a table, in the words Postfix would log.
package struct TableFault: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Severity: Sendable {
        /// The rule is skipped, or means something else than its author thinks.
        case warning
        /// The table can't be used at all.
        case fault
    }

    package let severity: Severity
    /// `pcre`, `regexp`, or what else stood before the colon.
    package let type: String
    package let path: String
    /// Line of the rule's first text, from 1; nil for the table as a whole.
    package let line: Int?
    package let message: String

    package var description: String {
        guard let line else { return message }
        return "\(type) map \(path), line \(line): \(message)"
    }
}
