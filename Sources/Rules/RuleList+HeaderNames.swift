// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Rules about headers that Weir does not get in every way in.
extension RuleList {
    /// The rules and `if`s for the Received: header that the MTA adds, and does not show a milter. Negated ones are
    /// about all other headers, and are not among them.
    package var rulesOnReceived: [(rule: Int, name: String)] { rules(about: ["Received"]) }

    /// The rules and `if`s for headers that Postfix removes before a milter or a filter after the queue gets the
    /// message (`message_drop_headers`), and the first of these headers.
    package var rulesOnDroppedHeaders: [(rule: Int, name: String)] {
        rules(about: ["Bcc", "Content-Length", "Resent-Bcc", "Return-Path"])
    }

    private func rules(about names: [String]) -> [(rule: Int, name: String)] {
        entries.indices.compactMap { rule in
            guard let expression = entries[rule].statement.expression, !expression.negated else { return nil }
            let found = Self.leadingNames(expression.source.bytes[...], isAnchored: false, depth: 0)
            return names.first { name in found.contains { $0.elementsEqual(name.lowercased().utf8) } }.map {
                (rule, $0)
            }
        }
    }

    /// The names of headers that a pattern begins with, in lower case: one for each alternative that is anchored, or in
    /// which a colon follows the name. White space, groups and classes such as `[Rr]` may stand before it.
    ///
    /// - Parameter depth: groups around `pattern`. Names in more than 8 are not found.
    private static func leadingNames(_ pattern: ArraySlice<UInt8>, isAnchored: Bool, depth: Int) -> [[UInt8]] {
        var (rest, found) = (pattern, [[UInt8]]())
        while true {
            let end = endOfAlternative(rest)
            var alternative = rest[..<end]
            let isAnchored = isAnchored || alternative.first == UInt8(ascii: "^")
            if alternative.first == UInt8(ascii: "^") { alternative.removeFirst() }
            let skipped = ["\\s*", "\\s+", "[[:space:]]*", " *", "(?i)"]
            while let prefix = skipped.first(where: { alternative.starts(with: $0.utf8) }) {
                alternative.removeFirst(prefix.utf8.count)
            }
            if alternative.first == UInt8(ascii: "(") {
                let inner = alternative.dropFirst(alternative.starts(with: "(?:".utf8) ? 3 : 1)
                if depth < 8 { found += leadingNames(inner, isAnchored: isAnchored, depth: depth + 1) }
            } else if let name = leadingName(alternative, isAnchored: isAnchored) {
                found.append(name)
            }
            guard end < rest.endIndex, rest[end] == UInt8(ascii: "|") else { return found }
            rest = rest[(end + 1)...]
        }
    }

    private static func leadingName(_ pattern: ArraySlice<UInt8>, isAnchored: Bool) -> [UInt8]? {
        var (rest, name) = (pattern, [UInt8]())
        while let byte = rest.first {
            if byte.isAlphanumeric || byte == UInt8(ascii: "-") {
                name.append(byte.lowercased)
                rest.removeFirst()
            } else if let letter = letter(ofClass: rest.prefix(4)) {
                name.append(letter)
                rest.removeFirst(4)
            } else {
                break
            }
        }
        // `Received\-SPF` is another header.
        let isEscape = rest.first == UInt8(ascii: "\\") && !rest.starts(with: "\\s".utf8)
        return isEscape || !isAnchored && rest.first != UInt8(ascii: ":") ? nil : name
    }

    /// The letter of a class such as `[Rr]`, in lower case.
    private static func letter(ofClass bytes: ArraySlice<UInt8>) -> UInt8? {
        let bytes = Array(bytes)
        guard bytes.count == 4, bytes[0] == UInt8(ascii: "["), bytes[3] == UInt8(ascii: "]"),
            bytes[1].lowercased == bytes[2].lowercased
        else { return nil }
        return bytes[1].lowercased
    }

    /// Where the first alternative ends: at a `|` or `)` that belongs to no group inside it, or at the end.
    private static func endOfAlternative(_ pattern: ArraySlice<UInt8>) -> Int {
        var (index, depth, isInClass) = (pattern.startIndex, 0, false)
        while index < pattern.endIndex {
            switch pattern[index] {
            case UInt8(ascii: "\\"): index += 1
            case UInt8(ascii: "]"): isInClass = false
            case _ where isInClass: break
            case UInt8(ascii: "["): isInClass = true
            case UInt8(ascii: "("): depth += 1
            case UInt8(ascii: ")") where depth > 0: depth -= 1
            case UInt8(ascii: ")"),
                UInt8(ascii: "|") where depth == 0:
                return index
            default: break
            }
            index += 1
        }
        return pattern.endIndex
    }
}
