// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// Warnings about patterns that Postfix reads in another way than their authors may think.
extension RuleList {
    /// The first rule of each table that the flag `i` makes case-sensitive. Elsewhere `i` ignores case; here it is
    /// ignored without the flag.
    func lintCase() -> [TableFault] {
        let rules = entries.indices.filter { entries[$0].statement.expression.map(Self.isCaseSensitive) ?? false }
        return Dictionary(grouping: rules) { entries[$0].table }.values.sorted { $0[0] < $1[0] }.map { rules in
            let more = rules.count > 1 ? "; the same holds for \(rules.count - 1) more of this table" : ""
            return warning(
                of: rules[0], "the flag i makes this pattern case-sensitive; without it, case is ignored\(more)"
            )
        }
    }

    private static func isCaseSensitive(_ expression: Expression) -> Bool {
        let isCaseless =
            switch expression.source.syntax {
            case .pcre(let options): options.contains(.caseless)
            case .posix(let options): options.contains(.caseless)
            }
        let bytes = expression.source.bytes
        let letter = bytes.indices.first { bytes[$0].isLetter && ($0 == 0 || bytes[$0 - 1] != UInt8(ascii: "\\")) }
        return !isCaseless && letter != nil && !bytes.starts(with: "(?i)".utf8)
    }

    /// An escape of Perl in a `regexp:` pattern, where it stands for its letter.
    static func strayEscape(_ expression: Expression) -> String? {
        guard case .posix = expression.source.syntax else { return nil }
        let bytes = expression.source.bytes
        var (index, isInBrackets) = (0, false)
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\\") where index + 1 < bytes.count:
                let letter = Character(UnicodeScalar(bytes[index + 1]))
                guard bytes[index + 1].isLetter, isInBrackets || !"wWsSbB".contains(letter) else {
                    index += isInBrackets ? 0 : 1
                    break
                }
                let meaning = isInBrackets ? "a backslash or the letter \(letter)" : "the letter \(letter)"
                return "\\\(letter) \(isInBrackets ? "in brackets " : "")is \(meaning) in a regexp: table; "
                    + "only pcre: knows it"
            case UInt8(ascii: "[") where !isInBrackets:
                isInBrackets = true
                // A `]` that comes first stands for itself.
                if index + 1 < bytes.count, bytes[index + 1] == UInt8(ascii: "^") { index += 1 }
                if index + 1 < bytes.count, bytes[index + 1] == UInt8(ascii: "]") { index += 1 }
            case UInt8(ascii: "[") where bytes[(index + 1)...].starts(with: ":".utf8):
                // A class such as [:alpha:].
                index += 1
                while index + 1 < bytes.count, bytes[index + 1] != UInt8(ascii: "]") { index += 1 }
                index += 1
            case UInt8(ascii: "]"): isInBrackets = false
            default: break
            }
            index += 1
        }
        return nil
    }
}

extension UInt8 {
    fileprivate var isLetter: Bool { UInt8(ascii: "a")...UInt8(ascii: "z") ~= lowercased }
}
