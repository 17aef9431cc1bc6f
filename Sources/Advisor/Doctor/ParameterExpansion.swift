// SPDX-License-Identifier: Apache-2.0

/// Expands `$name` in parameter values as Postfix does (util/mac_parse.c, util/mac_expand.c, global/compat_level.c).
struct ParameterExpansion {
    /// A text that Postfix treats as a fatal error.
    struct Fault: Error, CustomStringConvertible {
        let description: String
    }

    /// Returns the value of a parameter, not expanded; empty for an undefined parameter.
    let lookup: (_ name: String) -> String

    enum Reference {
        case parameter(String)
        /// `${name?text}` and the like, as written.
        case condition(String)
    }

    /// What a text refers to. The inside of a condition is not looked at.
    static func references(in text: String) -> [Reference] {
        var references: [Reference] = []
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            let start = rest[dollar...]
            rest = start.dropFirst()
            if rest.first == "$" {
                rest = rest.dropFirst()
            } else if let open = rest.first, open == "{" || open == "(" {
                guard let (inner, after) = PostfixSetup.enclosed(rest, open, open == "{" ? "}" : ")") else { break }
                let name = withoutBlanks(inner).prefix(while: isInName)
                let isPlain = !name.isEmpty && withoutBlanks(withoutBlanks(inner).dropFirst(name.count)).isEmpty
                references.append(
                    isPlain ? .parameter(String(name)) : .condition(String(start[..<after.startIndex])))
                rest = after
            } else {
                let name = rest.prefix(while: isInName)
                references.append(.parameter(String(name)))
                rest = rest.dropFirst(name.count)
            }
        }
        return references
    }

    private static let deepest = 100

    func expand(_ text: String) throws(Fault) -> String {
        try expand(text[...], depth: 0)
    }

    /// mac_parse()
    private func expand(_ text: Substring, depth: Int) throws(Fault) -> String {
        guard depth <= Self.deepest else { throw Fault(description: "parameters are nested too deeply") }
        var result = ""
        var rest = text
        while let dollar = rest.firstIndex(of: "$") {
            result += rest[..<dollar]
            rest = rest[dollar...].dropFirst()
            if rest.first == "$" {
                result += "$"
                rest = rest.dropFirst()
                continue
            }
            let reference: Substring
            if let open = rest.first, open == "{" || open == "(" {
                guard let (inner, after) = PostfixSetup.enclosed(rest, open, open == "{" ? "}" : ")") else {
                    throw Fault(description: "'$\(rest)' has no closing bracket")
                }
                (reference, rest) = (inner, after)
            } else {
                reference = rest.prefix(while: Self.isInName)
                rest = rest.dropFirst(reference.count)
            }
            if reference.isEmpty { throw Fault(description: "a '$' without a name") }
            result += try substitute(reference, depth: depth + 1)
        }
        return result + rest
    }

    /// mac_expand_callback(): the text for the inside of `${...}`, such as `name`, `name?text`, `name:text`,
    /// `name?{text}:{text}` or `{text} == {text} ? {text} : {text}`.
    private func substitute(_ reference: Substring, depth: Int) throws(Fault) -> String {
        var rest = Self.withoutBlanks(reference)
        let value: String
        if rest.first == "{" {
            value = try isTrue(relation: &rest, depth: depth) ? "true" : ""
        } else {
            let name = rest.prefix(while: Self.isInName)
            rest = Self.withoutBlanks(rest.dropFirst(name.count))
            value = lookup(String(name))
        }
        guard let operation = rest.popFirst() else { return try expand(value[...], depth: depth) }
        // Postfix tests the value without expanding it.
        var (ifSet, ifEmpty): (Substring, Substring) = ("", "")
        switch operation {
        case "?":
            ifSet = try Self.operand(&rest)
            if let colon = rest.popFirst() {
                guard colon == ":" else { throw Fault(description: "expected ':' instead of '\(colon)\(rest)'") }
                ifEmpty = try Self.operand(&rest)
            }
        case ":": ifEmpty = try Self.operand(&rest)
        default: throw Fault(description: "expected '?' or ':' instead of '\(operation)\(rest)'")
        }
        guard rest.isEmpty else { throw Fault(description: "unexpected '\(rest)'") }
        return try expand(value.isEmpty ? ifEmpty : ifSet, depth: depth)
    }

    /// mac_exp_parse_relational(): `{text} operator {text}`, and the blanks after it.
    private func isTrue(relation rest: inout Substring, depth: Int) throws(Fault) -> Bool {
        let left = try Self.braced(&rest)
        let symbol = rest.prefix { "<>!=?+-*/~&|%".contains($0) }
        guard let holds = Self.relations[String(symbol)] else {
            throw Fault(description: "expected a comparison, such as '==', instead of '\(rest)'")
        }
        rest = rest.dropFirst(symbol.count)
        let suffix = rest.prefix { Self.isInName($0) && $0 != "_" }
        guard suffix.isEmpty || suffix == "level" else { throw Fault(description: "unknown comparison '\(rest)'") }
        rest = Self.withoutBlanks(rest.dropFirst(suffix.count))
        guard rest.first == "{" else { throw Fault(description: "expected '{text}' instead of '\(rest)'") }
        let right = try Self.braced(&rest)
        let (one, other) = (try expand(left, depth: depth), try expand(right, depth: depth))
        if suffix == "level" { return holds(Self.compare(try Self.level(one), try Self.level(other))) }
        if Self.isNumber(one), Self.isNumber(other) {
            guard let one = Int(one), let other = Int(other) else {
                throw Fault(description: "a number out of range: \(one) or \(other)")
            }
            return holds(Self.compare([one], [other]))
        }
        return holds(Self.compare(one.utf8.map(Int.init), other.utf8.map(Int.init)))
    }

    /// Each takes -1, 0 or 1, for the left side being smaller, equal or greater.
    private static let relations: [String: @Sendable (Int) -> Bool] = [
        "==": { $0 == 0 }, "!=": { $0 != 0 }, "<": { $0 < 0 }, "<=": { $0 <= 0 }, ">=": { $0 >= 0 }, ">": { $0 > 0 },
    ]

    private static func compare(_ one: [Int], _ other: [Int]) -> Int {
        one == other ? 0 : one.lexicographicallyPrecedes(other) ? -1 : 1
    }

    /// A compatibility level: `major`, `major.minor` or `major.minor.patch`.
    private static func level(_ text: String) throws(Fault) -> [Int] {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        let numbers = parts.compactMap { isNumber($0) ? Int($0) : nil }
        guard numbers.count == parts.count, numbers.count <= 3 else {
            throw Fault(description: "'\(text)' is not a compatibility level")
        }
        return numbers + Array(repeating: 0, count: 3 - numbers.count)
    }

    /// The text after `?` or `:`. In braces, blanks around them don't belong to it; otherwise, it is all the rest.
    private static func operand(_ rest: inout Substring) throws(Fault) -> Substring {
        let start = withoutBlanks(rest)
        guard start.first == "{" else {
            defer { rest = "" }
            return rest
        }
        rest = start
        return try braced(&rest)
    }

    /// mac_exp_extract_curly_payload(): the text in braces. Removes it and the blanks after it from `rest`.
    private static func braced(_ rest: inout Substring) throws(Fault) -> Substring {
        guard let (inner, after) = PostfixSetup.enclosed(rest, "{", "}") else {
            throw Fault(description: "'\(rest)' has no closing brace")
        }
        rest = withoutBlanks(after)
        return inner
    }

    private static func withoutBlanks(_ text: Substring) -> Substring { text.drop { " \t\r\n".contains($0) } }

    private static func isInName(_ character: Character) -> Bool {
        character.isASCII && (character.isLetter || character.isNumber || character == "_")
    }

    private static func isNumber(_ text: some StringProtocol) -> Bool {
        !text.isEmpty && text.allSatisfy { $0.isASCII && $0.isNumber }
    }
}
