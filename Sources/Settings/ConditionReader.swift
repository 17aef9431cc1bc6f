// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Patterns

/// Reads `when`: a map from attributes to tests.
package enum ConditionReader {
    /// The keys of a test that is written as a map.
    package enum Word: String, CaseIterable {
        case `in`, matches, table, not
    }

    static func conditions(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, forms: KeyForms,
        attribute: ValueType<String> = .attribute
    ) -> [Condition] {
        (reading.entries(of: node, key) ?? []).compactMap { name, value in
            let key = "\(key).\(Spelling.shown(name.text))"
            let nameNode = YAMLNode(line: name.line, column: name.column, value: .scalar(name.text))
            guard let attribute = attribute.read(nameNode, key, &reading) else { return nil }
            let part = KeyPart(attribute, in: &reading.attributeNames)
            return test(value, key, &reading, part, forms).map { Condition(part: part, test: $0, forms: forms) }
        }
    }

    private static func test(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, _ part: KeyPart, _ forms: KeyForms
    ) -> Condition.Test? {
        switch node.value {
        case .nothing:
            reading.fault(
                node, key,
                "has no test; expected present, absent, a value, a list of values, or a map with one key: \(words)")
            return nil
        case .scalar("present"): return .present
        case .scalar("absent"): return .absent
        case .scalar: return value(node, key, &reading, part, forms).map { .equals([$0]) }
        case .list(let items):
            if items.isEmpty { reading.fault(node, key, "is empty, and so never matches; expected at least one value") }
            return .equals(
                items.enumerated().compactMap { index, item in
                    value(item, "\(key)[\(index)]", &reading, part, forms, isInList: true)
                })
        case .map(let entries):
            guard entries.count == 1, let (name, value) = entries.first else {
                reading.fault(node, key, "expected a map with exactly one key: \(words)")
                return nil
            }
            return test(name, value, key, &reading, part, forms)
        }
    }

    private static var words: String { Word.allCases.map(\.rawValue).joined(separator: ", ") }

    private static func test(
        _ name: YAMLName, _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, _ part: KeyPart,
        _ forms: KeyForms
    ) -> Condition.Test? {
        let inner = "\(key).\(Spelling.shown(name.text))"
        switch Word(rawValue: name.text) {
        case .in:
            guard part.form == .network else {
                reading.fault(
                    name, inner,
                    "'\(part.name)' is not an IP address; 'in' works for client_address and server_address")
                return nil
            }
            return ValueType<[Network]>.list(of: .network).read(node, inner, &reading).map { .inNetworks($0) }
        case .matches:
            guard let pattern = ValueType<Pattern>.pattern.read(node, inner, &reading) else { return nil }
            if let warning = BacktrackingProbe.warning(
                about: pattern, source: Array((node.text ?? "").utf8), steps: Condition.matchLimits.steps)
            {
                reading.warn(node, inner, warning)
            }
            return .matches(pattern)
        case .table:
            guard let references = ValueType<[TableReference]>.list(of: .table).read(node, inner, &reading) else {
                return nil
            }
            for reference in references where reference.name.kind == .networks && part.form != .network {
                reading.warn(
                    reference.node, reference.key, "this table never matches: '\(part.name)' is not an IP address")
            }
            return .inTables(
                references.compactMap { reference in
                    reading.note(TableUse(of: reference, by: part, forms))
                    return reading.load(reference)?.table
                })
        case .not:
            return test(node, inner, &reading, part, forms).map { .not($0) }
        case nil:
            let words = Word.allCases.map(\.rawValue)
            reading.fault(name, inner, "unknown test\(Spelling.alternatives(to: name.text, among: words))")
            return nil
        }
    }

    /// A value to compare the attribute with, in canonical form.
    private static func value(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, _ part: KeyPart, _ forms: KeyForms,
        isInList: Bool = false
    ) -> [UInt8]? {
        let type = ValueType<String>.text("a value", write: { $0 }) { text in
            text.isEmpty ? .fault("is empty; to test for an empty value, write absent") : .value(text)
        }
        guard let text = type.read(node, key, &reading) else { return nil }
        if part.form == .network, IPAddress(text) == nil {
            let hint = text.contains("/") ? "; for a network, write { in: [\(text)] }" : ""
            reading.fault(node, key, "\(Spelling.quoted(text)) is not an IP address\(hint)")
            return nil
        }
        if let word = Spelling.nearest(to: text, among: ["present", "absent"]), !isInList {
            reading.warn(node, key, "\(Spelling.quoted(text)) is compared as a value; did you mean '\(word)'?")
        }
        if part.name == "protocol_state", !PolicyAttributes.states.contains(text) {
            reading.warn(
                node, key,
                "Postfix has no state "
                    + "\(Spelling.quoted(text))\(Spelling.hint(for: text, among: PolicyAttributes.states))"
            )
        } else if let remark = VainConditions.remark(onValue: text, of: part, isInList: isInList) {
            reading.warn(node, key, remark)
        }
        let canonical = Condition.canonical(text, for: part, forms: forms)
        if canonical.isEmpty {
            reading.fault(node, key, "\(Spelling.quoted(text)) can't be a value of '\(part.name)'")
        }
        return canonical
    }
}

extension ValueType where Value == Network {
    static let network = ValueType.text("a network, such as 192.0.2.0/24 or 2001:db8::/32", write: { _ in nil }) {
        text in
        if let network = Network(text) { return .value(network) }
        guard let masked = Network.masked(text) else { return .isNot("a network") }
        return .fault("\(Spelling.quoted(text)) has bits set after its prefix; did you mean \(masked)?")
    }
}

extension ValueType where Value == Pattern {
    /// `regex` or `/regex/flags`, with the defaults and flags of pcre_table(5): matching ignores case, `.` matches a
    /// newline, and each flag toggles its option.
    static let pattern = ValueType.text("a pattern, or /pattern/flags as in pcre_table(5)", write: { _ in nil }) {
        text in
        var source = Array(text.utf8)[...]
        var options: PatternOptions = [.caseless, .dotAll]
        if source.first == UInt8(ascii: "/") {
            guard let end = closingSlash(of: source) else {
                return .fault("\(Spelling.quoted(text)) has no closing '/'")
            }
            for flag in source[(end + 1)...] {
                guard let option = flags[flag] else {
                    let shown = String(decoding: [flag], as: UTF8.self)
                    return .fault(
                        "unknown flag \(Spelling.quoted(shown)); expected i, m, s, x, A, E or U")
                }
                options.formSymmetricDifference(option)
            }
            source = source[1..<end]
        }
        guard !source.isEmpty else { return .fault("the pattern is empty, and would match everything") }
        do throws(PatternError) {
            return .value(try Pattern(Array(source), options: options))
        } catch {
            return .fault(
                "\(Spelling.quoted(text)) is not a pattern: \(error.message) at character \(error.offset + 1) of "
                    + "the pattern"
            )
        }
    }

    private static let flags: [UInt8: PatternOptions] = [
        UInt8(ascii: "i"): .caseless, UInt8(ascii: "m"): .multiline, UInt8(ascii: "s"): .dotAll,
        UInt8(ascii: "x"): .extended, UInt8(ascii: "A"): .anchored, UInt8(ascii: "E"): .dollarEndOnly,
        UInt8(ascii: "U"): .ungreedy,
    ]

    private static func closingSlash(of source: ArraySlice<UInt8>) -> Int? {
        var index = source.startIndex + 1
        while index < source.endIndex, source[index] != UInt8(ascii: "/") {
            index += source[index] == UInt8(ascii: "\\") ? 2 : 1
        }
        return index < source.endIndex ? index : nil
    }
}
