// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// What the reading of a configuration has found so far. A fault ends nothing: the rest is read all the same.
struct ConfigurationReading {
    let file: String
    private(set) var faults: [ConfigurationFault] = []
    private(set) var warnings: [ConfigurationFault] = []
    /// Names that `over` and `too_large` may use as actions.
    var restrictionClasses: [String] = []
    var attributeNames = AttributeNames()
    /// Tables that were read already.
    var tables: [TableName: LookupTable.Contents] = [:]

    init(file: String) {
        self.file = file
    }

    mutating func fault(_ node: YAMLNode, _ key: String, _ message: String) {
        faults.append(.init(file: file, line: node.line, column: node.column, key: key, message: message))
    }

    mutating func fault(_ name: YAMLName, _ key: String, _ message: String) {
        faults.append(.init(file: file, line: name.line, column: name.column, key: key, message: message))
    }

    mutating func warn(_ node: YAMLNode, _ key: String, _ message: String) {
        warnings.append(.init(file: file, line: node.line, column: node.column, key: key, message: message))
    }

    mutating func add(fault: ConfigurationFault) { faults.append(fault) }
    mutating func add(warning: ConfigurationFault) { warnings.append(warning) }

    /// The names of a map, each once; a fault where `node` is none. A section that is left empty has none.
    mutating func entries(of node: YAMLNode, _ key: String) -> [(name: YAMLName, value: YAMLNode)]? {
        switch node.value {
        case .nothing: return []
        case .map(let entries):
            var seen: [String: YAMLName] = [:]
            return entries.filter { name, _ in
                guard let first = seen[name.text] else {
                    seen[name.text] = name
                    return true
                }
                fault(name, Self.path(key, name.text), "is there already, in line \(first.line)")
                return false
            }
        default:
            fault(node, key, "expected a map of keys and values, found \(node.kind)")
            return nil
        }
    }

    /// Reads a map by its rows into `root`, and tells where each row was found.
    mutating func read<Root>(
        _ node: YAMLNode, at key: String, rows: [ConfigurationKey<Root>], into root: inout Root
    ) -> [String: YAMLNode] {
        var found: [String: YAMLNode] = [:]
        collect(node, at: key, under: "", rows: rows, into: &found)
        for row in rows {
            let path = Self.path(key, row.path)
            if let value = found[row.path] {
                row.read(value, path, &self, &root)
            } else if row.isRequired {
                fault(node, key, "'\(row.path)' is missing; expected \(row.expected)")
            }
        }
        return found
    }

    private mutating func collect<Root>(
        _ node: YAMLNode, at key: String, under prefix: String, rows: [ConfigurationKey<Root>],
        into found: inout [String: YAMLNode]
    ) {
        for (name, value) in entries(of: node, key) ?? [] {
            let path = prefix + name.text
            if rows.contains(where: { $0.path == path }) {
                found[path] = value
            } else if rows.contains(where: { $0.path.hasPrefix(path + ".") }) {
                collect(value, at: Self.path(key, name.text), under: path + ".", rows: rows, into: &found)
            } else {
                let message = Self.unknown(name.text, under: prefix, rows.map(\.path))
                fault(name, Self.path(key, Spelling.shown(name.text)), message)
            }
        }
    }

    /// The names that can stand in a section, in the order of its rows.
    private static func names(under prefix: String, in paths: [String]) -> [String] {
        var names: [String] = []
        for path in paths where path.hasPrefix(prefix) {
            let name = String(path.dropFirst(prefix.count).prefix { $0 != "." })
            if !names.contains(name) { names.append(name) }
        }
        return names
    }

    private static func unknown(_ name: String, under prefix: String, _ paths: [String]) -> String {
        if let part = ConfigurationKeys.notYet[prefix + name] { return "this version of Weir has no \(part) yet" }
        let allowed = names(under: prefix, in: paths)
        // A key that is at home in another section.
        if let elsewhere = paths.first(where: { $0.hasSuffix("." + name) }) {
            return "unknown key; did you mean '\(elsewhere)'? Allowed here: \(allowed.joined(separator: ", "))"
        }
        return "unknown key" + Spelling.alternatives(to: name, among: allowed)
    }

    private static func path(_ parent: String, _ name: String) -> String {
        parent.isEmpty ? name : "\(parent).\(name)"
    }
}

/// One key of weir.yaml: the reader, the sample file and the manual all come from these rows.
package struct ConfigurationKey<Root>: Sendable {
    /// From the root, as in `listen.policy`.
    package let path: String
    /// What it is for, in one sentence.
    package let summary: String
    /// What can be written, as in `a number from 1 to 100`.
    package let expected: String
    package let absence: KeyAbsence
    let read: @Sendable (YAMLNode, String, inout ConfigurationReading, inout Root) -> Void

    var isRequired: Bool {
        if case .isFault = absence { true } else { false }
    }

    /// - Parameter defaults: what holds where the key is left out.
    init<Value>(
        _ path: String, _ target: any WritableKeyPath<Root, Value> & Sendable, _ type: ValueType<Value>, in defaults: Root,
        _ summary: String
    ) {
        self.init(path, target, type, .isDefault(type.write(defaults[keyPath: target])!), summary)
    }

    init<Value>(
        _ path: String, _ target: any WritableKeyPath<Root, Value> & Sendable, _ type: ValueType<Value>,
        _ absence: KeyAbsence, _ summary: String
    ) {
        self.init(path, expected: type.expected, absence, summary) { node, key, reading, root in
            if let value = type.read(node, key, &reading) { root[keyPath: target] = value }
        }
    }

    init(
        _ path: String, expected: String, _ absence: KeyAbsence, _ summary: String,
        read: @escaping @Sendable (YAMLNode, String, inout ConfigurationReading, inout Root) -> Void
    ) {
        self.path = path
        self.summary = summary
        self.expected = expected
        self.absence = absence
        self.read = read
    }
}

/// What holds where a key is left out; examples and defaults are YAML.
package enum KeyAbsence: Equatable, Sendable {
    case isFault(example: String)
    case isDefault(String)
    case isNothing(example: String)
    /// What the key of another path says.
    case isInherited(from: String, example: String)
}

/// How a value is read, written and explained.
struct ValueType<Value>: Sendable {
    /// What can be written, as in `a whole number from 1 to 100`.
    let expected: String
    /// The value as YAML, in one line.
    let write: @Sendable (Value) -> String?
    /// nil after a fault.
    let read: @Sendable (YAMLNode, _ key: String, inout ConfigurationReading) -> Value?

    /// A type whose values are one word or text; `parse` gives the value, or what is wrong with the text.
    static func text(
        _ expected: String, write: @escaping @Sendable (Value) -> String?,
        parse: @escaping @Sendable (String) -> Parsed<Value>
    ) -> ValueType {
        ValueType(expected: expected, write: write) { node, key, reading in
            guard case .scalar(let text) = node.value else {
                reading.fault(node, key, "expected \(expected), found \(node.kind)")
                return nil
            }
            switch parse(text) {
            case .value(let value): return value
            case .fault(let message): reading.fault(node, key, message)
            case .no(let noun): reading.fault(node, key, "\(Spelling.quoted(text)) is no \(noun); expected \(expected)")
            }
            return nil
        }
    }
}

/// What came of a text.
enum Parsed<Value> {
    case value(Value)
    case fault(String)
    /// The text is not a thing of this kind.
    case no(String)
}
