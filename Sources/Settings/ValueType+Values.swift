// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax
internal import Rules

extension ValueType where Value == Bool {
    static let boolean = ValueType.text("true or false", write: { $0 ? "true" : "false" }) { text in
        switch text {
        case "true", "yes": .value(true)
        case "false", "no": .value(false)
        default: .isNot("a boolean")
        }
    }
}

extension ValueType where Value: FixedWidthInteger & Sendable {
    static func number(_ allowed: ClosedRange<Value>, of unit: String = "") -> ValueType {
        let expected =
            "a number\(unit.isEmpty ? "" : " of \(unit)") from \(allowed.lowerBound) to \(allowed.upperBound)"
        return .text(expected, write: { "\($0)" }) { text in
            let digits = text.hasPrefix("-") ? text.dropFirst() : text[...]
            guard !digits.isEmpty, digits.utf8.allSatisfy({ 0x30...0x39 ~= $0 }) else { return .isNot("a number") }
            guard let number = Value(text), allowed.contains(number) else {
                return .fault("\(Spelling.shown(text)) is out of range; expected \(expected)")
            }
            return .value(number)
        }
    }
}

extension ValueType where Value == Int64 {
    /// A length of time. The value counts units of `unit` milliseconds; `allowed` is in milliseconds.
    static func duration(_ allowed: ClosedRange<Int64>, unit: Int64) -> ValueType {
        let bounds = [allowed.lowerBound, allowed.upperBound].map { Rate.text(ofDuration: $0) }
        let expected = "a time from \(bounds[0]) to \(bounds[1]), in s, m, h, d or w"
        return .text(expected, write: { Rate.text(ofDuration: $0 * unit) }) { text in
            guard let milliseconds = Rate.duration(text) else { return .isNot("a time") }
            guard allowed.contains(milliseconds) else {
                return .fault("\(Spelling.quoted(text)) is out of range; expected \(expected)")
            }
            return .value(milliseconds / unit)
        }
    }
}

extension ValueType where Value: RawRepresentable & CaseIterable & Sendable, Value.RawValue == String {
    /// One of a closed set of words.
    static var word: ValueType {
        let words = Value.allCases.map(\.rawValue)
        return .text("one of \(words.joined(separator: ", "))", write: { $0.rawValue }) { text in
            if let value = Value(rawValue: text) { return .value(value) }
            return .fault("\(Spelling.quoted(text)) is unknown\(Spelling.alternatives(to: text, among: words))")
        }
    }
}

extension ValueType {
    /// A list. A single value also stands for a list of one.
    static func list<Element>(of element: ValueType<Element>) -> ValueType where Value == [Element] {
        ValueType(
            expected: "a list; each item is \(element.expected)",
            write: { "[\($0.compactMap(element.write).joined(separator: ", "))]" }
        ) { node, key, reading in
            guard case .list(let items) = node.value else {
                let before = reading
                if let value = element.read(node, key, &reading) { return [value] }
                if let list = Self.meantList(node, key, of: element, before) {
                    reading = before
                    reading.fault(
                        node, key, "\(Spelling.quoted(node.text ?? "")) is one value; write a list: [\(list)]")
                }
                return nil
            }
            var values: [Element] = []
            for (index, item) in items.enumerated() {
                if let value = element.read(item, "\(key)[\(index)]", &reading) { values.append(value) }
            }
            return values
        }
    }
}

extension ValueType {
    /// The values that a text has between commas; nil if one of them is not valid, or there is only one.
    private static func meantList<Element>(
        _ node: YAMLNode, _ key: String, of element: ValueType<Element>, _ reading: ConfigurationReading
    ) -> String? {
        let parts = (node.text ?? "").split(separator: ",").map { $0.drop { $0 == " " } }
        var trial = reading
        for part in parts {
            let one = YAMLNode(line: node.line, column: node.column, value: .scalar(String(part)))
            guard element.read(one, key, &trial) != nil else { return nil }
        }
        let isPlain = parts.joined().utf8.allSatisfy { $0.isAlphanumeric || "./@_-".utf8.contains($0) }
        let list = parts.map { isPlain ? "\($0)" : "\"\($0)\"" }.joined(separator: ", ")
        return parts.count > 1 ? Spelling.shown(list) : nil
    }

    /// A value without a default.
    static func optional<Wrapped>(_ wrapped: ValueType<Wrapped>) -> ValueType where Value == Wrapped? {
        ValueType(
            expected: wrapped.expected, write: { $0.flatMap(wrapped.write) },
            read: { node, key, reading in wrapped.read(node, key, &reading).map { .some($0) } })
    }
}

extension ValueType where Value == [UInt8] {
    static let delimiters = ValueType.text("characters, such as \"+\" or \"+-\"", write: quoted) { text in
        let isTaken = text.utf8.allSatisfy { 0x21...0x7e ~= $0 && $0 != UInt8(ascii: "@") && $0 != UInt8(ascii: "\"") }
        return isTaken ? .value(Array(text.utf8)) : .isNot("a recipient delimiter")
    }

    static let domain = ValueType.text("a domain, such as \"example.org\"", write: quoted) { text in
        text.isEmpty || isHostName(text) ? .value(Array(text.lowercased().utf8)) : .isNot("a domain")
    }

    private static let quoted: @Sendable ([UInt8]) -> String? = { "\"\(String(decoding: $0, as: UTF8.self))\"" }

    private static func isHostName(_ text: String) -> Bool {
        text.utf8.count <= 255
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
                (1...63).contains(label.utf8.count)
                    && label.utf8.allSatisfy { $0 == UInt8(ascii: "-") || $0.isAlphanumeric || $0 >= 0x80 }
            }
    }
}

extension ValueType where Value == String {
    /// A parameter name in main.cf.
    static let restrictionClass = ValueType.text("a name from smtpd_restriction_classes", write: { $0 }) { text in
        let isName = text.utf8.allSatisfy { $0.isAlphanumeric || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-") }
        return isName && !text.isEmpty ? .value(text) : .isNot("the name of a restriction class")
    }

    static let account = ValueType.text("the name of an account", write: { $0 }) { text in
        let isName = text.utf8.allSatisfy { $0.isAlphanumeric || "-_.".utf8.contains($0) }
        return isName && !text.isEmpty ? .value(text) : .isNot("the name of an account")
    }

    static let limitName = name(for: "a limit")
    static let setName = name(for: "a set of checks")

    private static func name(for thing: String) -> ValueType {
        .text("1 to 64 letters, digits, '-', '_' and '.'", write: { $0 }) { text in
            let isName = text.utf8.allSatisfy { $0.isAlphanumeric || "-_.".utf8.contains($0) }
            return isName && (1...64).contains(text.utf8.count) ? .value(text) : .isNot("a name for \(thing)")
        }
    }

    private static let attributeName = "an attribute of a policy request, such as sasl_username"

    /// An attribute of a policy request. Postfix keeps adding attributes, so an unknown name is only a warning.
    static let attribute = ValueType(expected: attributeName, write: { $0 }) { node, key, reading in
        let text = ValueType.text(attributeName, write: { $0 }) { text in
            if PolicyAttributes.isName(text) { return .value(text) }
            guard let meant = PolicyAttributes.nearest(to: text) else { return .isNot("the name of an attribute") }
            return .fault("\(Spelling.quoted(text)) is not the name of an attribute; did you mean '\(meant)'?")
        }
        guard let name = text.read(node, key, &reading) else { return nil }
        if !PolicyAttributes.all.contains(name) {
            reading.warn(node, key, PolicyAttributes.unknown(name))
        }
        return name
    }

    /// An attribute that may be known of a message before its content.
    static let messageAttribute = ValueType.text(
        "one of \(PolicyAttributes.ofMessages.joined(separator: ", "))", write: { $0 }
    ) { text in
        guard !PolicyAttributes.ofMessages.contains(text) else { return .value(text) }
        let names = Spelling.alternatives(to: text, among: PolicyAttributes.ofMessages + [CheckSetReader.signature])
        return .fault("\(Spelling.quoted(text)) is not known of a message\(names)")
    }

    /// A table of header or body checks. The reader compiles it later.
    static let checks = ValueType.text("pcre:/path or regexp:/path", write: { "\"\($0)\"" }) { text in
        let types = TableType.allCases.map(\.rawValue)
        guard let colon = text.firstIndex(of: ":") else { return .isNot("a table") }
        let word = String(text[..<colon])
        guard types.contains(word) else {
            return .fault(
                "\(Spelling.quoted(word)) is not a table type for "
                    + "checks\(Spelling.alternatives(to: word, among: types))"
            )
        }
        guard absolutePath(text[text.index(after: colon)...]) != nil else {
            return .fault("\(Spelling.quoted(text)) has no absolute path; expected \(word):/path")
        }
        return .value(text)
    }

    static let path = ValueType.text("an absolute path", write: { "\"\($0)\"" }) { text in
        absolutePath(text).map { .value($0) } ?? .isNot("an absolute path")
    }

    /// A recipient argument of sendmail(1).
    static let mailAddress = ValueType.text("an address, such as postmaster@example.org", write: { "\"\($0)\"" }) {
        text in
        let isPlain = text.utf8.allSatisfy { 0x21...0x7e ~= $0 && !"\"(),:;<>\\".utf8.contains($0) }
        guard isPlain, (text.utf8.first ?? 0).isAlphanumeric, text.last != "@" else { return .isNot("a mail address") }
        return .value(text)
    }
}

extension ValueType where Value == Configuration.Store {
    /// `sqlite:/absolute/path`
    static let store = ValueType.text(
        "sqlite:/path",
        write: { store in
            switch store {
            case .sqlite(let path): "\"sqlite:\(path)\""
            }
        }
    ) { text in
        guard text.hasPrefix("sqlite:"), let path = absolutePath(text.dropFirst("sqlite:".count)) else {
            return .isNot("a store")
        }
        // The names of the other files are up to 50 bytes longer. SQLite takes 511 bytes of a path, a file system 255
        // of a name.
        let name = path.split(separator: "/").last ?? ""
        for (part, count, most) in [("path", path.utf8.count, 450), ("name of the file", name.utf8.count, 200)]
        where count > most {
            return .fault("the \(part) has \(count) bytes; expected at most \(most)")
        }
        return .value(.sqlite(path: path))
    }
}

extension ValueType where Value == Configuration.Log.Destination {
    static let logDestination = ValueType.text(
        "stderr, syslog or file:/path",
        write: { destination in
            switch destination {
            case .standardError: "stderr"
            case .syslog: "syslog"
            case .file(let path): "\"file:\(path)\""
            }
        }
    ) { text in
        switch text {
        case "stderr": return .value(.standardError)
        case "syslog": return .value(.syslog)
        default:
            guard text.hasPrefix("file:"), let path = absolutePath(text.dropFirst("file:".count)) else {
                return .isNot("a log destination")
            }
            return .value(.file(path))
        }
    }
}

/// An absolute path of a file; nil for any other text.
func absolutePath(_ text: some StringProtocol) -> String? {
    guard text.first == "/", text.last != "/", !text.utf8.contains(0) else { return nil }
    return String(text)
}
