// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// The state of reading a configuration. A fault does not stop the reading, so one run reports all faults.
struct ConfigurationReading {
    let file: String
    private(set) var faults: [ConfigurationFault] = []
    private(set) var warnings: [ConfigurationFault] = []
    /// The names that `over` and `too_large` accept as actions besides those of access(5).
    var restrictionClasses: [String] = []
    /// Whether a milter has to carry out the actions of limits.
    var answersMilter = false
    var attributeNames = AttributeNames()
    /// The tables that have been read.
    var tables: [TableName: LookupTable.Contents] = [:]
    /// The uses of each table, in the order of the file.
    var tableUses: [(table: TableName, uses: [TableUse])] = []
    /// The paths of all lookup tables, readable or not.
    var tablePaths: [String] = []

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

    /// The entries of a map without duplicates; nil after a fault because `node` is not a map. An empty section is a
    /// map without entries.
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
                fault(name, Self.path(key, name.text), "duplicate key, first used in line \(first.line)")
                return false
            }
        default:
            fault(node, key, Self.notAMap(node, key))
            return nil
        }
    }

    private static func notAMap(_ node: YAMLNode, _ key: String) -> String {
        let message = "expected a map of keys and values, found \(node.kind)"
        // The whole file, or an item of a list, is one value if its keys are not seen.
        guard let text = node.text, key.isEmpty || key.hasSuffix("]") else { return message }
        if text.contains(" = ") { return "\(message); write 'key: value' instead of 'key = value'" }
        return text.contains(":") ? "\(message); write a blank after the colon of a key" : message
    }

    /// Reads the maps of a list.
    ///
    /// - Parameter noun: what each map is.
    mutating func list<Element>(
        _ node: YAMLNode, _ key: String, of noun: String,
        _ read: (YAMLNode, String, inout ConfigurationReading) -> Element
    ) -> [Element] {
        // The operator has commented out all of them.
        if case .nothing = node.value { return [] }
        guard case .list(let items) = node.value else {
            let isMap = if case .map = node.value { true } else { false }
            let hint = isMap ? "; write '- ' before the first key of each \(noun)" : ""
            fault(node, key, "expected a list of \(noun)s, found \(node.kind)\(hint)")
            return []
        }
        return items.enumerated().compactMap { index, item in
            let key = "\(key)[\(index)]"
            guard case .map = item.value else {
                fault(item, key, Self.notAMap(item, key))
                return nil
            }
            return read(item, key, &self)
        }
    }

    /// Reports a name that another map of the list has.
    ///
    /// - Parameter lines: those of the names so far.
    mutating func note(
        name: String, _ node: YAMLNode?, _ key: String, of noun: String, _ lines: inout [String: Int]
    ) {
        guard let node, !name.isEmpty else { return }
        if let first = lines[name] {
            fault(node, "\(key).name", "the \(noun) in line \(first) already has this name")
        } else {
            lines[name] = node.line
        }
    }

    /// Reads a map into `root`.
    ///
    /// - Returns: the node of each row that the map contains, by the row's path.
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
            if name.text.contains("."), let row = rows.first(where: { $0.path == path }) {
                let map = row.path.replacing(".", with: ": { ")
                fault(name, Self.path(key, name.text), "a key with a dot is not supported; write \(map): ... }")
            } else if rows.contains(where: { $0.path == path }) {
                found[path] = value
            } else if case .list = value.value,
                let row = rows.first(where: { $0.isWholeList && $0.path.hasPrefix(path + ".") })
            {
                found[row.path] = value
            } else if rows.contains(where: { $0.path.hasPrefix(path + ".") }) {
                collect(value, at: Self.path(key, name.text), under: path + ".", rows: rows, into: &found)
            } else {
                let message =
                    name.text == "<<"
                    ? "merge keys are not supported; write the keys here, each with its value or an alias"
                    : Self.unknown(name.text, at: key, under: prefix, rows.map(\.path))
                fault(name, Self.path(key, Spelling.shown(name.text)), message)
            }
        }
    }

    /// The keys of a section, in the order of its rows.
    private static func names(under prefix: String, in paths: [String]) -> [String] {
        var names: [String] = []
        for path in paths where path.hasPrefix(prefix) {
            let name = String(path.dropFirst(prefix.count).prefix { $0 != "." })
            if !names.contains(name) { names.append(name) }
        }
        return names
    }

    private static func unknown(
        _ name: String, at key: String, under prefix: String, _ paths: [String]
    ) -> String {
        let allowed = names(under: prefix, in: paths)
        if key.isEmpty, ConfigurationKeys.limit.contains(where: { $0.path == name }) {
            return "unknown key; it belongs to a limit: write it in an item of limits. "
                + "Expected one of \(allowed.joined(separator: ", "))"
        }
        // A key of another section.
        if let elsewhere = paths.first(where: { $0.hasSuffix("." + name) }) {
            return "unknown key; did you mean '\(elsewhere)'? Expected one of \(allowed.joined(separator: ", "))"
        }
        return "unknown key" + Spelling.alternatives(to: name, among: allowed)
    }

    private static func path(_ parent: String, _ name: String) -> String {
        parent.isEmpty ? name : "\(parent).\(name)"
    }
}
