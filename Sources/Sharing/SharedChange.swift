// SPDX-License-Identifier: Apache-2.0

/// A change to a key of a limit that holds on all hosts: a block or a raise, the end of one, or a reset.
package struct SharedChange: Equatable, Sendable {
    package enum Kind: String, Sendable { case block, raise, reset }

    /// What is changed. Of several changes to one subject, only the newest holds.
    package struct Subject: Hashable, Comparable, Sendable {
        package let kind: Kind
        package let limit: String
        package let key: [UInt8]

        package init(_ kind: Kind, limit: String, key: [UInt8]) {
            self.kind = kind
            self.limit = limit
            self.key = key
        }

        package static func < (a: Subject, b: Subject) -> Bool {
            if a.kind != b.kind { return a.kind.rawValue < b.kind.rawValue }
            return a.limit == b.limit ? a.key.lexicographicallyPrecedes(b.key) : a.limit < b.limit
        }
    }

    /// All hosts order changes by it. A host numbers its changes upwards from the newest that it knows and from its
    /// wall clock, whichever is more. So a change is newer than all that its host knew, whatever the clocks say. Of
    /// two that did not know of each other, the clocks decide, and then the marks.
    package struct Version: Hashable, Comparable, Sendable {
        package let number: Int64
        /// The mark of the ledger on which the change was made.
        package let mark: UInt64

        package init(number: Int64, mark: UInt64) {
            self.number = number
            self.mark = mark
        }

        package static func < (a: Version, b: Version) -> Bool { (a.number, a.mark) < (b.number, b.mark) }
    }

    /// Who has made it, for people.
    package struct Author: Equatable, Sendable {
        package let host: String
        /// Empty if the limit has set a block by itself.
        package let user: String
        package let reason: String

        package init(host: String, user: String = "", reason: String = "") {
            self.host = host
            self.user = Self.printable(user)
            self.reason = Self.printable(reason)
        }

        private static func printable(_ text: String) -> String {
            String(String.UnicodeScalarView(text.unicodeScalars.prefix(300).map { $0.value < 0x20 ? " " : $0 }))
        }
    }

    package let subject: Subject
    package let version: Version
    /// When it ends, by this host's clock. What ends something else, and a reset, has ended at once.
    package let until: Int64
    /// What is set for the subject; empty if nothing is any more.
    package let value: String
    package let author: Author

    package init(_ subject: Subject, _ version: Version, until: Int64, value: String, author: Author) {
        self.subject = subject
        self.version = version
        self.until = until
        self.value = value
        self.author = author
    }
}

extension SharedChange.Subject {
    /// `block per-user 616c696365`: for the engine, which only compares it.
    package var text: String { "\(kind.rawValue) \(limit) \(key.map(Self.hex).joined())" }

    private static func hex(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    package init?(text: String) {
        let words = text.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, let kind = SharedChange.Kind(rawValue: String(words[0])), !words[1].isEmpty
        else { return nil }
        let digits = Array(words[2].utf8)
        guard !digits.isEmpty, digits.count.isMultiple(of: 2) else { return nil }
        var key: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16)
            else { return nil }
            key.append(byte)
        }
        self.init(kind, limit: String(words[1]), key: key)
    }
}

extension SharedChange {
    /// The value and the author, for the engine and the store, which only keep them.
    package var content: String { [value, author.host, author.user, author.reason].joined(separator: "\t") }

    package init?(_ subject: Subject, _ version: Version, until: Int64, content: String) {
        let fields = content.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        guard fields.count == 4, fields.allSatisfy({ $0.unicodeScalars.allSatisfy { $0.value >= 0x20 } })
        else { return nil }
        self.init(
            subject, version, until: until, value: fields[0],
            author: Author(host: fields[1], user: fields[2], reason: fields[3]))
    }
}
