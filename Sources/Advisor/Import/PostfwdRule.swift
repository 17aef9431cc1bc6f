// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Patterns

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

        /// The value without `!!` or `!!( )`.
        var bare: String {
            guard isExcepting else { return value }
            var bare = value.dropFirst(2).trimmed
            // postfwd removes each parenthesis, whether or not there is the other.
            if bare.first == "(" { bare = bare.dropFirst().trimmed }
            if bare.last == ")" { bare = bare.dropLast().trimmed }
            return bare
        }

        /// Whether the value is what must not be: `!!(value)`. An empty value of the request is something else.
        var isExcepting: Bool { value.hasPrefix("!!") }

        var isNegated: Bool { isExcepting != (operation.first == "!") }

        /// What a value must match, or must not match if `isNegated`.
        var pattern: String {
            switch operation {
            case "==": "^\(PostfwdRule.escaped(bare))$"
            // Not true of an empty value either. The sender is never empty.
            case "!=" where name != "sender": "^(?:\(PostfwdRule.escaped(bare)))?$"
            case "!=": "^\(PostfwdRule.escaped(bare))$"
            default: PostfwdRule.unslashed(bare)
            }
        }

        var holdsForNullSender: Bool { PostfwdRule.isMatch(pattern, PostfwdRule.nullSender) != isNegated }

        /// The items of a list: `10.0.0.0/8, 192.0.2.0/24`.
        var listed: [Item] {
            value.split(separator: ",").map { Item(name: name, operation: operation, value: $0.trimmed) }
        }
    }

    let line: Int
    let name: String
    let action: String
    private var items: [Item] = []

    /// What Weir takes for no key.
    private static let mayBeMissing: [String: String] = [
        "sender": "the null sender", "sender_domain": "the null sender",
        "client_name": "all clients without a name", "reverse_client_name": "all clients without a name",
        "helo_name": "clients that say no HELO",
        "sasl_username": "mail without a login", "sasl_method": "mail without a login",
        "sasl_sender": "mail without AUTH= at MAIL", "policy_context": "requests without a policy_context",
        "ccert_subject": "clients without a certificate", "ccert_issuer": "clients without a certificate",
        "ccert_fingerprint": "clients without a certificate",
        "ccert_pubkey_fingerprint": "clients without a certificate",
        "encryption_protocol": "mail without TLS", "encryption_cipher": "mail without TLS",
    ]

    /// How the converted limit differs from the rule.
    func notes(on limit: ImportedLimits.Limit) -> [String] {
        var notes: [String] = []
        if kind == "rate", !items.contains(where: { $0.name == "protocol_state" }) {
            notes.append(
                "rate() counts requests, the limit counts recipients; this is the same if postfwd is asked at RCPT")
        }
        if kind == "size", (try? state()) != "END-OF-MESSAGE" {
            notes.append("size() adds the size at each request; the limit counts each message once")
        }
        if kind == "rcpt", (try? state()) == "RCPT" {
            notes.append("rcpt() counts nothing at RCPT, where recipient_count is 0; the limit counts recipients there")
        }
        let tests = items.filter { $0.name == limit.key }
        let isRequired =
            limit.key == "sender"
            ? !tests.isEmpty && !tests.contains(where: \.holdsForNullSender) : tests.contains { !$0.isExcepting }
        if !isRequired, let what = Self.mayBeMissing[limit.key] {
            notes.append("postfwd also counts \(what), as one key; the limit doesn't apply there")
        }
        if ["sender", "recipient", "sasl_sender"].contains(limit.key), !keepsLocalPart {
            notes.append("postfwd ignores case in the local part of addresses; for the limit, it makes another key")
        }
        if limit.over == nil {
            notes.append("postfwd ignores the rule, as it has no answer; the limit has Weir's")
        }
        return notes
    }

    /// Whether the case of local parts matters: `rate5321` and the like.
    private var keepsLocalPart: Bool { action.prefix { $0 != "(" }.trimmed.hasSuffix("5321") }

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
    private func state() throws(Unsupported) -> String {
        let tests = items.filter { $0.name == "protocol_state" }
        guard let test = tests.first else { return "" }
        let state = Self.unslashed(test.value).drop { $0 == "^" }
        let word = state.last == "$" ? state.dropLast() : state
        guard tests.count == 1, ["=", "==", "=~", "~="].contains(test.operation), !word.isEmpty,
            word.allSatisfy({ $0.isLetter || $0 == "-" })
        else { throw .init("only one protocol_state can be required") }
        return word.uppercased()
    }

    /// The limit of this rule; nil if the rule doesn't count.
    func limit() throws(Unsupported) -> ImportedLimits.Limit? {
        guard let kind else { return nil }
        let arguments = action[action.firstIndex(of: "(")!...].dropFirst().dropLast().split(
            separator: "/", maxSplits: 3, omittingEmptySubsequences: false
        )
        .map(\.trimmed)
        guard arguments.count >= 3 else { throw .init("\(kind)() has too few arguments") }
        let attribute = arguments[0].hasPrefix("$$") ? String(arguments[0].dropFirst(2)) : arguments[0]
        guard Self.attributes.contains(attribute) else { throw .init("Weir can't count by \(arguments[0])") }
        guard let number = UInt64(arguments[1]), number > 0 else {
            throw .init("\(arguments[1]) is not a positive number")
        }
        guard arguments[2].allSatisfy(\.isNumber), let window = ImportedLimits.window(arguments[2]) else {
            throw .init("\(arguments[2]) is not a number of seconds from 1 s to 366 days")
        }
        let count = try self.count(kind)
        let perRecipient = ["recipient", "recipient_domain"]
        if let reason = count.conflictWithRecipients,
            let name = perRecipient.first(where: { name in name == attribute || items.contains { $0.name == name } })
        {
            throw .init("\(name) can't be used with 'count: \(count.rawValue)': \(reason)")
        }
        let answer = arguments.count > 3 ? arguments[3] : ""
        let isByAddress = ["client_address", "server_address"].contains(attribute)
        return ImportedLimits.Limit(
            name: ImportedLimits.name(ofRule: name), line: line, when: try conditions(), key: attribute, count: count,
            rate: "\(number)/\(window)",
            over: answer.isEmpty ? nil : try Self.action(answer, attribute: attribute),
            others: isByAddress ? ["keys: { ipv6_prefix: 128 }"] : [])
    }

    private func count(_ kind: String) throws(Unsupported) -> CountUnit {
        let state = try self.state()
        return switch (kind, state) {
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
        let alternatives = items[0].name == "client_address" ? items.flatMap(\.listed) : items
        // A single test can't express that one of several things must not be so. In postfwd,
        // `client_address!=10.0.0.0/8,192.0.2.0/24` is such a test, and true of every address.
        guard alternatives.count == 1 || !alternatives.contains(where: \.isNegated) else {
            throw .init("\(items[0].name) has several values, one of them negated, of which postfwd needs only one")
        }
        for item in alternatives { try check(item) }
        if items[0].name == "client_address" {
            let networks = try alternatives.map { item throws(Unsupported) in try network(item) }
            return negated(
                alternatives[0].isNegated, "{ in: [\(networks.map(ImportedLimits.quoted).joined(separator: ", "))] }")
        }
        let patterns = alternatives.map(\.pattern)
        guard !patterns.contains("") else { throw .init("\(items[0].name) has no value") }
        var pattern = patterns.count == 1 ? patterns[0] : patterns.map { "(?:\($0))" }.joined(separator: "|")
        if items[0].name == "sender" { pattern = withNullSender(pattern) }
        return negated(alternatives[0].isNegated, "{ matches: \(ImportedLimits.quoted("/\(pattern)/")) }")
    }

    /// A pattern that is true of Weir's null sender, which is empty, if the given one is true of postfwd's.
    private static func withNullSender(_ pattern: String) -> String {
        switch (isMatch(pattern, nullSender), isMatch(pattern, "")) {
        case (true, false): "(?:\(pattern))|^$"
        case (false, true): "(?!^$)(?:\(pattern))"
        default: pattern
        }
    }

    private static let nullSender = "<>"

    /// Whether a pattern is true of a text; false for what is no pattern.
    private static func isMatch(_ pattern: String, _ text: String) -> Bool {
        guard let pattern = try? Pattern(Array(pattern.utf8), options: [.caseless, .dotAll]) else { return false }
        return pattern.matches(Array(text.utf8), using: MatchScratch()) == .match
    }

    private static func negated(_ isNegated: Bool, _ test: String) -> String {
        isNegated ? "{ not: \(test) }" : test
    }

    private static func check(_ item: Item) throws(Unsupported) {
        let text = "\(item.name) \(item.operation) \(item.value)"
        guard !item.value.contains("$$"),
            !["file:", "table:", "lfile:", "ltable:"].contains(where: item.value.contains)
        else { throw .init("\(text): values from files or variables") }
        if item.bare.isEmpty { throw .init("\(item.name) \(item.operation) has no value") }
        guard ["==", "=", "=~", "~=", "!=", "!~"].contains(item.operation) else {
            throw .init("\(text): Weir has no numeric comparison")
        }
    }

    /// postfwd compares IPv4 addresses with networks, whatever the operator, and others as text.
    private static func network(_ item: Item) throws(Unsupported) -> String {
        let network = item.bare
        guard ["=", "==", "!="].contains(item.operation) else {
            throw .init("postfwd does not compare client_address with patterns: \(item.operation) \(item.value)")
        }
        guard ImportedLimits.isNetwork(network) else { throw .init("\(network) is not a network") }
        if network.contains(":"), network.contains("/") || item.operation == "=" {
            throw .init("\(network): postfwd compares IPv6 addresses as text, never with networks")
        }
        if network.hasSuffix("/0") { throw .init("\(network) is every address") }
        return network
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
