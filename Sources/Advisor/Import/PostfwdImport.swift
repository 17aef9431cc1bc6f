// SPDX-License-Identifier: Apache-2.0
import Limits

extension ImportedLimits {
    /// Converts the rate(), size() and rcpt() rules of a postfwd ruleset.
    ///
    /// A rule is converted completely or left out: without one of its conditions it would limit other mail.
    package init(postfwd text: String) {
        let ruleset = PostfwdRuleset(text)
        leftOut = ruleset.faults
        var hasEarlierDecision = false
        for rule in ruleset.rules {
            do throws(PostfwdRule.Unsupported) {
                guard let limit = try rule.limit(named: freeName) else {
                    hasEarlierDecision = true
                    throw .init("not a counting rule: \(rule.action.isEmpty ? "no action" : rule.action)")
                }
                if let fault = Self.fault(of: limit) { throw .init("the limit would not be valid: \(fault)") }
                limits.append(limit)
                if hasEarlierDecision {
                    notes.append(
                        .init(
                            line: rule.line,
                            text: "limit \(limit.name): in postfwd, an earlier rule, not converted, may decide first"
                        ))
                }
                for note in rule.notes(on: limit) {
                    notes.append(.init(line: rule.line, text: "limit \(limit.name): \(note)"))
                }
            } catch {
                leftOut.append(.init(line: rule.line, text: "\(rule.name): \(error.reason)"))
            }
        }
        leftOut.sort { $0.line < $1.line }
    }
}

/// The rules of a file, with macros expanded.
struct PostfwdRuleset {
    private(set) var rules: [PostfwdRule] = []
    private(set) var faults: [ImportedLimits.Remark] = []
    private var macros: [String: String] = [:]

    init(_ text: String) {
        for (line, content) in Self.logicalLines(text) { read(content, line: line) }
    }

    /// Joins a line to the previous one if it starts with a space or tab, if the previous one ends with a backslash, or
    /// if a macro definition is open.
    private static func logicalLines(_ text: String) -> [(line: Int, content: String)] {
        var lines: [(line: Int, content: String)] = []
        var continues = false
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let content = String(line.filter { $0 != "\r" && $0 != "\0" })
            guard !content.trimmed.isEmpty, content.trimmed.first != "#" else {
                continues = false
                continue
            }
            let isOpen = lines.last.map { isOpenMacro($0.content) } ?? false
            let text = content.trimmed
            let part = text.last == "\\" ? String(text.dropLast()) : text
            if let first = content.first, !lines.isEmpty, continues || isOpen || first == " " || first == "\t" {
                lines[lines.count - 1].content += ";" + part
            } else {
                lines.append((index + 1, part))
            }
            continues = text.last == "\\"
        }
        return lines
    }

    /// Whether the brace that begins a macro definition is not closed. Patterns in it can have braces, as in `{4}`.
    private static func isOpenMacro(_ content: String) -> Bool {
        guard content.hasPrefix("&&"), let brace = content.firstIndex(of: "{") else { return false }
        return PostfixSetup.enclosed(content[brace...], "{", "}") == nil
    }

    private mutating func read(_ content: String, line: Int) {
        if content.hasPrefix("&&"), let brace = content.firstIndex(of: "{"),
            let (inner, _) = PostfixSetup.enclosed(content[brace...], "{", "}"), !content[..<brace].contains(";")
        {
            macros[content[..<brace].trimmed] = String(inner)
            return
        }
        var items: [String] = []
        guard expand(content, into: &items, depth: 0) else {
            faults.append(
                .init(line: line, text: "undefined or recursive macro: \(content.prefix(60))"))
            return
        }
        guard let rule = PostfwdRule(items, line: line, number: rules.count) else {
            faults.append(.init(line: line, text: "not a rule: \(content.prefix(60))"))
            return
        }
        rules.append(rule)
    }

    private func expand(_ content: String, into items: inout [String], depth: Int) -> Bool {
        guard depth < 10 else { return false }
        for part in content.split(separator: ";") {
            let item = part.trimmed
            if item.isEmpty { continue }
            guard item.hasPrefix("&&") else {
                items.append(item)
                continue
            }
            guard let macro = macros[item], expand(macro, into: &items, depth: depth + 1) else { return false }
        }
        return true
    }
}

/// A rule: an action, and items that must all match; of several items with the same name, one must match.
struct PostfwdRule {
    struct Unsupported: Error {
        let reason: String

        init(_ reason: String) {
            self.reason = reason
        }
    }

    private struct Item {
        var name: String
        var operation: String
        var value: String
    }

    let line: Int
    let name: String
    let action: String
    private var items: [Item] = []
    /// How the converted limit differs from the rule.
    func notes(on limit: ImportedLimits.Limit) -> [String] {
        var notes: [String] = []
        if kind == "rate", state.isEmpty {
            notes.append(
                "rate() counts requests, the limit counts recipients; this is the same if postfwd is asked at RCPT")
        }
        if ["sender", "sender_domain"].contains(limit.key) {
            notes.append("postfwd also counts the null sender, as one key; the limit doesn't apply to it")
        }
        if ["sender", "recipient", "sasl_sender"].contains(limit.key) {
            notes.append("postfwd ignores case in the local part of addresses; for the limit, it makes another key")
        }
        return notes
    }

    /// Returns nil if an item can't be parsed.
    init?(_ texts: [String], line: Int, number: Int) {
        var (name, action) = ("R-\(number)", "")
        for text in texts {
            guard let item = Self.item(text) else { return nil }
            switch item.name {
            case "id": name = item.value
            case "action": action = item.value
            default: items.append(item)
            }
        }
        (self.line, self.name, self.action) = (line, name, action)
    }

    private static func item(_ text: String) -> Item? {
        let name = text.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        let rest = text.dropFirst(name.count).drop { $0 == " " || $0 == "\t" }
        guard !name.isEmpty,
            let operation = ["==", "=~", "~=", "=>", ">=", "=<", "<=", "!=", "!~", "!<", "!>", "=", "<", ">"].first(
                where: rest.hasPrefix)
        else { return nil }
        return Item(name: String(name), operation: operation, value: rest.dropFirst(operation.count).trimmed)
    }

    // MARK: The limit

    /// `rate`, `size` or `rcpt`; nil for other actions.
    private var kind: String? {
        let word = action.prefix { $0 != "(" }.trimmed
        let plain = word.hasSuffix("5321") ? String(word.dropLast(4)) : word
        return ["rate", "size", "rcpt"].contains(plain) && action.last == ")" ? plain : nil
    }

    /// The protocol state that the rule requires; empty for any.
    private var state: String {
        items.first { $0.name == "protocol_state" && ["==", "="].contains($0.operation) }?.value ?? ""
    }

    /// The limit of this rule; nil if the rule doesn't count.
    func limit(named freeName: (String) -> String) throws(Unsupported) -> ImportedLimits.Limit? {
        guard let kind else { return nil }
        let arguments = action[action.firstIndex(of: "(")!...].dropFirst().dropLast().split(
            separator: "/", maxSplits: 3
        )
        .map(\.trimmed)
        guard arguments.count >= 3 else { throw .init("\(kind)() has too few arguments") }
        let attribute = arguments[0].hasPrefix("$$") ? String(arguments[0].dropFirst(2)) : arguments[0]
        guard Self.attributes.contains(attribute) else { throw .init("Weir can't count by \(arguments[0])") }
        guard let number = UInt64(arguments[1]), number > 0 else {
            throw .init("\(arguments[1]) is not a positive number")
        }
        guard let window = ImportedLimits.window(arguments[2]) else {
            throw .init("\(arguments[2]) is not a number of seconds from 1 s to 366 days")
        }
        let count = try self.count(kind)
        let perRecipient = ["recipient", "recipient_domain"]
        if let reason = count.conflictWithRecipients,
            let name = perRecipient.first(where: { name in name == attribute || items.contains { $0.name == name } })
        {
            throw .init("\(name) can't be used with 'count: \(count.rawValue)': \(reason)")
        }
        let isByAddress = ["client_address", "server_address"].contains(attribute)
        return ImportedLimits.Limit(
            name: freeName(name), line: line, when: try conditions(), key: attribute, count: count,
            rate: "\(number)/\(window)",
            over: arguments.count > 3 ? try Self.action(arguments[3], attribute: attribute) : nil,
            others: isByAddress ? ["keys: { ipv6_prefix: 128 }"] : [])
    }

    private func count(_ kind: String) throws(Unsupported) -> CountUnit {
        switch (kind, state.uppercased()) {
        case ("size", _): .bytes
        case ("rcpt", _), (_, ""), (_, "RCPT"): .recipients
        case (_, "DATA"), (_, "END-OF-MESSAGE"): .messages
        case (_, "CONNECT"): .connections
        default: throw .init("\(kind)() at protocol_state \(state)")
        }
    }

    private static let attributes: Set<String> = [
        "sender", "sender_domain", "recipient", "recipient_domain", "client_address", "client_name",
        "reverse_client_name", "helo_name",
        "sasl_username", "sasl_sender", "sasl_method", "ccert_subject", "ccert_issuer", "ccert_fingerprint",
        "ccert_pubkey_fingerprint",
        "encryption_protocol", "encryption_cipher", "server_address", "server_port", "policy_context", "protocol_name",
    ]

    private static func action(_ text: String, attribute: String) throws(Unsupported) -> String {
        let marked = text.replacing("$$ratecount", with: "\u{1}").replacing("$$(ratecount)", with: "\u{1}")
            .replacing("$$\(attribute)", with: "\u{2}").replacing("$$(\(attribute))", with: "\u{2}")
        guard !marked.contains("$") else {
            throw .init("the action has a variable that Weir does not support: \(text)")
        }
        let action = marked.replacing("\u{1}", with: "$count").replacing("\u{2}", with: "$key")
        do throws(ActionTemplate.Fault) { _ = try ActionTemplate(action) } catch {
            throw .init("action '\(text)': \(error.message)")
        }
        return action
    }

    // MARK: Conditions

    private func conditions() throws(Unsupported) -> [(attribute: String, test: String)] {
        var conditions: [(attribute: String, test: String)] = []
        var seen: [String] = []
        // Weir decides by itself at which state it counts.
        for item in items where item.name != "protocol_state" && !seen.contains(item.name) {
            seen.append(item.name)
            guard Self.attributes.contains(item.name) else {
                throw .init("Weir can't test \(item.name) (\(item.name) \(item.operation) \(item.value))")
            }
            let same = items.filter { $0.name == item.name }
            conditions.append((item.name, try Self.test(same)))
        }
        return conditions
    }

    /// One test for the items of an attribute, of which one must match.
    private static func test(_ items: [Item]) throws(Unsupported) -> String {
        var isNegated: Bool?
        var patterns: [String] = []
        var networks: [String] = []
        for item in items {
            var (value, negates) = (item.value, item.operation.first == "!")
            if value.hasPrefix("!!") {
                negates.toggle()
                value = value.dropFirst(2).trimmed
                if value.first == "(", value.last == ")" { value = value.dropFirst().dropLast().trimmed }
            }
            // A single test can't express an alternative of negated items.
            guard isNegated == nil || isNegated == negates && !negates else {
                throw .init("\(item.name) has several items, one of them negated")
            }
            isNegated = negates
            guard !value.contains("$$"), !["file:", "table:", "lfile:", "ltable:"].contains(where: value.contains)
            else {
                throw .init("\(item.name) \(item.operation) \(item.value): values from files or variables")
            }
            if value.isEmpty { throw .init("\(item.name) \(item.operation) has no value") }
            guard ["==", "=", "=~", "~=", "!=", "!~"].contains(item.operation) else {
                throw .init("\(item.name) \(item.operation) \(item.value): Weir has no numeric comparison")
            }
            if ["client_address", "server_address"].contains(item.name), !["=~", "~=", "!~"].contains(item.operation) {
                for network in value.split(whereSeparator: { ", \t".contains($0) }).map(String.init) {
                    guard ImportedLimits.isNetwork(network) else { throw .init("\(network) is not a network") }
                    networks.append(network)
                }
            } else {
                patterns.append(["==", "!="].contains(item.operation) ? "^\(escaped(value))$" : unslashed(value))
            }
        }
        guard networks.isEmpty || patterns.isEmpty else {
            throw .init("\(items[0].name) is tested both by network and by pattern")
        }
        let pattern = patterns.count == 1 ? patterns[0] : patterns.map { "(?:\($0))" }.joined(separator: "|")
        let test =
            networks.isEmpty
            ? "{ matches: \(ImportedLimits.quoted("/\(pattern)/")) }"
            : "{ in: [\(networks.map(ImportedLimits.quoted).joined(separator: ", "))] }"
        return isNegated == true ? "{ not: \(test) }" : test
    }

    /// A pattern without the slash before it, and the slash after it, if there is one; other slashes are escaped.
    private static func unslashed(_ text: String) -> String {
        var pattern = text[...]
        if pattern.first == "/" {
            pattern = pattern.dropFirst()
            let escapes = pattern.dropLast().reversed().prefix { $0 == "\\" }.count
            if pattern.last == "/", escapes % 2 == 0 { pattern = pattern.dropLast() }
        }
        var result = ""
        var isEscaped = false
        for character in pattern {
            if character == "/", !isEscaped { result += "\\" }
            result.append(character)
            isEscaped = character == "\\" && !isEscaped
        }
        return result
    }

    private static func escaped(_ text: String) -> String {
        text.map { $0.isLetter || $0.isNumber || "@_-".contains($0) ? String($0) : "\\\($0)" }.joined()
    }
}
