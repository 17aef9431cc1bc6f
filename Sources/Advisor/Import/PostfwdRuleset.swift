// SPDX-License-Identifier: Apache-2.0

/// The rules of a file, read as postfwd 1.35 reads them (`read_config_file`, `acl_parser`), with macros expanded.
struct PostfwdRuleset {
    private(set) var rules: [PostfwdRule] = []
    private(set) var faults: [ImportedLimits.Remark] = []
    private var macros: [String: String] = [:]

    /// Macros that contain each other are expanded so often.
    private static let mostExpansions = 100

    init(_ text: String) {
        for (line, content) in Self.logicalLines(text) { read(content, line: line) }
    }

    /// Drops quotation marks and comments, then joins lines: without anything between, after a backslash or an opening
    /// brace; as further items, if a line begins with a space or with the brace that closes a macro.
    private static func logicalLines(_ text: String) -> [(line: Int, content: String)] {
        var lines: [(line: Int, content: String)] = []
        /// What ended with a backslash or a brace.
        var open: (line: Int, content: String)?
        // CR LF is one Character.
        let scalars = text.unicodeScalars.filter { $0 != "\r" && $0 != "\0" && $0 != "\"" }
        let text = String(String.UnicodeScalarView(scalars))
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let content = String(line.prefix { $0 != "#" })
            let end = content.trimmed.last
            guard end != nil else { continue }
            let start = open?.line ?? index + 1
            let joined = (open?.content ?? "") + content
            if end == "\\" {
                open = (start, String(joined[..<joined.lastIndex(of: "\\")!]))
            } else if end == "{" {
                open = (start, joined.trimmedEnd)
            } else {
                open = nil
                let isMore = joined.first.map { " \t}".contains($0) } ?? false
                if isMore, !lines.isEmpty {
                    lines[lines.count - 1].content += ";" + joined
                } else {
                    lines.append((start, joined))
                }
            }
        }
        return lines
    }

    private mutating func read(_ content: String, line: Int) {
        if let (name, body) = Self.macro(content.trimmed) {
            macros[name] = body
            return
        }
        guard let expanded = expanded(content) else {
            faults.append(.init(line: line, text: "undefined or recursive macro: \(content.trimmed.prefix(60))"))
            return
        }
        let items = expanded.split(separator: ";").map(\.trimmed).filter { !$0.isEmpty }
        guard let rule = PostfwdRule(items, line: line, number: rules.count) else {
            faults.append(.init(line: line, text: "not a rule: \(content.trimmed.prefix(60))"))
            return
        }
        rules.append(rule)
    }

    /// `&&NAME { items }`, also with semicolons behind it.
    private static func macro(_ content: String) -> (name: String, body: String)? {
        guard content.hasPrefix("&&"), let brace = content.firstIndex(of: "{"),
            let end = content.lastIndex(of: "}"), brace < end,
            content[end...].dropFirst().allSatisfy({ " \t;".contains($0) })
        else { return nil }
        let name = content[..<brace].trimmed
        guard name.dropFirst(2).allSatisfy(isOfName), name.count > 2 else { return nil }
        let body = content[brace..<end].dropFirst().trimmed
        return (name, body.last == ";" ? body.dropLast().trimmed : body)
    }

    /// With the text of macros in place of their names; nil if one is not defined.
    private func expanded(_ content: String) -> String? {
        var text = content
        for _ in 0..<Self.mostExpansions {
            guard let range = Self.rangeOfMacro(in: text) else { return text }
            guard let body = macros[String(text[range])] else { return nil }
            text = text[..<range.lowerBound].trimmedEnd + body + text[range.upperBound...].trimmedStart
        }
        return nil
    }

    private static func rangeOfMacro(in text: String) -> Range<String.Index>? {
        var rest = text[...]
        while let start = rest.firstRange(of: "&&") {
            let end = text[start.upperBound...].firstIndex { !isOfName($0) } ?? text.endIndex
            if end > start.upperBound { return start.lowerBound..<end }
            rest = text[start.upperBound...]
        }
        return nil
    }

    private static func isOfName(_ character: Character) -> Bool {
        character.isASCII && (character.isLetter || character.isNumber || "-_".contains(character))
    }
}

extension StringProtocol {
    var trimmedStart: String { String(drop { " \t".contains($0) }) }
    var trimmedEnd: String { String(String(reversed()).trimmedStart.reversed()) }
}
