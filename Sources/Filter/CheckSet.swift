// SPDX-License-Identifier: Apache-2.0
package import Limits

/// The tables of a set of checks, as `TYPE:FILE`, in order of precedence.
package struct CheckTables: Hashable, Sendable {
    package var header: [String] = []
    /// As in Postfix, nil means the same as `header`.
    package var mimeHeader: [String]?
    /// As in Postfix, nil means the same as `header`.
    package var nestedHeader: [String]?
    package var body: [String] = []
    /// For the decoded text of all headers.
    package var decodedHeader: [String] = []
    /// For the decoded text of all parts.
    package var decodedBody: [String] = []
    /// For lines about the parts and what is in archives.
    package var attachment: [String] = []

    package init() {}

    /// The tables of all classes.
    package var names: [String] {
        header + (mimeHeader ?? []) + (nestedHeader ?? []) + decodedHeader + decodedBody + attachment + body
    }
}

/// Tables, and the messages that they are for.
package struct CheckSet: Sendable {
    /// For which of the recipients the conditions about recipients have to hold.
    package enum Recipients: String, CaseIterable, Sendable {
        case any, all
    }

    package var name = ""
    package var tables = CheckTables()
    /// All of them have to hold.
    package var conditions: [Condition] = []
    package var recipients = Recipients.any
    /// Whether the message must have a DKIM-Signature, or must have none; nil if it does not matter.
    package var isSigned: Bool?

    package init() {}
}
