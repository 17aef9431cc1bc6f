// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Rules that a milter cannot apply to the Received: header that the MTA adds: the protocol does not show it.
extension RuleList {
    /// The rules and `if`s whose patterns begin with `Received:`. Negated ones are about all other headers, and are not
    /// among them.
    package var rulesOnReceived: [Int] {
        entries.indices.filter { rule in
            guard let expression = entries[rule].statement.expression, !expression.negated else { return false }
            return Self.beginsWithReceived(expression.source.bytes)
        }
    }

    /// Whether a pattern is anchored to `Received`, possibly behind white space, in a group or with a class such as
    /// `[Rr]`.
    private static func beginsWithReceived(_ pattern: [UInt8]) -> Bool {
        var rest = pattern[...]
        guard rest.first == UInt8(ascii: "^") else { return false }
        rest = rest.dropFirst()
        let openings = ["\\s*", "\\s+", "[[:space:]]*", " *", "(?:", "(?i)", "("]
        while let opening = openings.first(where: { rest.starts(with: $0.utf8) }) {
            rest = rest.dropFirst(opening.utf8.count)
        }
        if rest.starts(with: "[Rr]".utf8) { rest = [UInt8(ascii: "R")] + rest.dropFirst(4) }
        guard rest.prefix(8).equalsIgnoringCase("received") else { return false }
        let next = rest.dropFirst(8)
        // Received-SPF is another header.
        return next.isEmpty || next.starts(with: "\\s".utf8)
            || !next[next.startIndex].isAlphanumeric && !"-\\".utf8.contains(next[next.startIndex])
    }
}
