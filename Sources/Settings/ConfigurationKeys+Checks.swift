// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Limits

/// A configuration or set of checks, with tables.
protocol HasCheckTables: Sendable {
    var checkTables: CheckTables { get set }
}

extension Configuration: HasCheckTables {
    var checkTables: CheckTables {
        get { checks.tables }
        set { checks.tables = newValue }
    }
}

extension CheckSetDraft: HasCheckTables {}

extension ConfigurationKeys {
    /// The tables of `checks`, and of a set.
    static func checkTables<Root: HasCheckTables>(
        in defaults: Root, under prefix: String = ""
    ) -> [ConfigurationKey<Root>] {
        let header = prefix + "header"
        return [
            .init(
                header, \.checkTables.header, .list(of: .checks), in: defaults,
                "Tables for the primary message headers, as in Postfix's header_checks."),
            .init(
                prefix + "mime_header", \.checkTables.mimeHeader, .optional(.list(of: .checks)),
                .isInherited(from: header, example: "[]"),
                "Tables for MIME headers, as in Postfix's mime_header_checks; an empty list means no checks."),
            .init(
                prefix + "nested_header", \.checkTables.nestedHeader, .optional(.list(of: .checks)),
                .isInherited(from: header, example: "[]"),
                "Tables for the headers of attached messages, as in Postfix's nested_header_checks; an empty list "
                    + "means no checks."),
            .init(
                prefix + "decoded_header", \.checkTables.decodedHeader, .list(of: .checks), in: defaults,
                "Tables for the decoded text of all headers, in UTF-8: encoded words and parameters as a reader sees "
                    + "them."),
            .init(
                prefix + "decoded_body", \.checkTables.decodedBody, .list(of: .checks), in: defaults,
                "Tables for the lines of the decoded text of all parts, in UTF-8; HTML becomes the text that a reader "
                    + "sees, with addresses and hidden text on lines of their own."),
            .init(
                prefix + "attachment", \.checkTables.attachment, .list(of: .checks), in: defaults,
                "Tables for lines about each part and each file in a zip archive: path, type, names and size."),
            .init(
                prefix + "body", \.checkTables.body, .list(of: .checks), in: defaults,
                "Tables for the lines of the body, as in Postfix's body_checks."),
        ]
    }

    package static let checkSet: [ConfigurationKey<CheckSetDraft>] = {
        let defaults = CheckSetDraft()
        return [
            .init(
                "name", \.name, .setName, .isFault(example: "customers"),
                "Name of the set in the log, the page, metrics and commands."),
            .init(
                "when", expected: "a map from attributes to tests", .isNothing(example: "{ sasl_username: absent }"),
                "Conditions for the set to apply to a message, as for limits, and `dkim`: present or absent; all of "
                    + "them must hold.",
                read: { node, key, _, draft in draft.when = (node, key) }),
            .init(
                "recipients", \.recipients, .word, in: defaults,
                "Whether conditions about recipients have to hold for any recipient of the message, or for all."),
        ] + checkTables(in: defaults)
    }()
}
