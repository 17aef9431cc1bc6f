// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Rules that take headers away, according to their text.
extension RuleList {
    /// Whether some rule may remove or rename a header with one of these names, which are in lower case. In doubt, it
    /// may.
    package func mayRemove(_ names: [StaticString]) -> Bool {
        entries.contains { entry in
            guard Self.mayAct([entry], \.changesLine), let expression = entry.statement.expression else {
                return false
            }
            guard !expression.negated, let name = Self.onlyName(expression.source.bytes) else { return true }
            return names.contains { name.equalsIgnoringCase($0) }
        }
    }

    /// The name of the only header that a pattern such as `^Subject: x` can match; nil if there may be others.
    private static func onlyName(_ pattern: [UInt8]) -> ArraySlice<UInt8>? {
        guard pattern.first == UInt8(ascii: "^"), !pattern.contains(UInt8(ascii: "|")) else { return nil }
        let name = pattern.dropFirst().prefix { $0.isAlphanumeric || $0 == UInt8(ascii: "-") }
        guard !name.isEmpty, name.endIndex < pattern.endIndex, pattern[name.endIndex] == UInt8(ascii: ":") else {
            return nil
        }
        // `^X:*` and `^X:{0}` need no colon.
        let next = pattern.index(after: name.endIndex)
        return next < pattern.endIndex && "*?{".utf8.contains(pattern[next]) ? nil : name
    }
}
