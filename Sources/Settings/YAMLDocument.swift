// SPDX-License-Identifier: Apache-2.0
internal import Yams

/// Reads YAML. A syntax error ends the reading; all other faults of a document are collected.
struct YAMLDocument {
    struct Fault: Error {
        let line: Int
        let column: Int
        let message: String
    }

    /// nil if the document is empty or has a syntax error.
    private(set) var root: YAMLNode?
    private(set) var faults: [Fault] = []

    private static let mostAliases = 100
    private static let mostDuplicates = 100
    private static let mostValues = 100_000
    private static let deepest = 32

    init(_ text: String) {
        do throws(Fault) {
            root = try read(text)
        } catch {
            let tabs = Self.tabs(in: text)
            faults += tabs.contains { $0.line == error.line } ? tabs : tabs + [error]
        }
    }

    private mutating func read(_ text: String) throws(Fault) -> YAMLNode? {
        var text = YAMLText(text)
        guard text.aliases.count <= Self.mostAliases else {
            let (line, column) = text.position(of: text.aliases[Self.mostAliases])
            throw Fault(line: line, column: column, message: "more than \(Self.mostAliases) aliases (*name)")
        }
        guard let node = try compose(&text) else { return nil }
        var converter = Converter(original: text.renamed, valuesLeft: Self.mostValues)
        defer { faults += converter.faults }
        return try converter.convert(node, depth: Self.deepest)
    }

    /// Yams stops at the first duplicate key. This gives the duplicate another name and tries again. The reader of the
    /// map sees the original names and reports all duplicates.
    private func compose(_ text: inout YAMLText) throws(Fault) -> Node? {
        for _ in 0..<Self.mostDuplicates {
            do {
                // Yams hashes keys with everything their aliases expand to, which can take exponential time. So this
                // first rejects keys that are not scalars, in a text without aliases.
                if !text.aliases.isEmpty, let node = try Self.compose(text.withoutAliases) {
                    try Self.requirePlainKeys(node, depth: Self.deepest)
                }
                return try Self.compose(text.string)
            } catch YamlError.duplicatedKeysInMapping(let names, let context) {
                let (line, column) = (context.mark.line, context.mark.column)
                guard let name = names.first, text.rename(name, line: line, column: column) else {
                    throw Fault(line: line, column: column, message: "duplicate key")
                }
            } catch let error as YamlError {
                throw YAMLSyntax.fault(error, in: text)
            } catch let fault as Fault {
                throw fault
            } catch {
                throw Fault(line: 1, column: 1, message: "\(error)")
            }
        }
        throw Fault(line: 1, column: 1, message: "more than \(Self.mostDuplicates) duplicate keys")
    }

    private static func compose(_ text: String) throws -> Node? {
        try Parser(yaml: text, encoding: .utf8).singleRoot()
    }

    private static func requirePlainKeys(_ node: Node, depth: Int) throws(Fault) {
        guard depth > 0 else { throw Fault(node, "nested too deeply; expected at most \(YAMLDocument.deepest) levels") }
        switch node {
        case .scalar, .alias: break
        case .sequence(let items):
            for item in items { try requirePlainKeys(item, depth: depth - 1) }
        case .mapping(let pairs):
            for (name, value) in pairs {
                guard let name = name.scalar, name.string.unicodeScalars.first != YAMLText.aliasMark else {
                    throw Fault(name, "a key must be a plain word")
                }
                try requirePlainKeys(value, depth: depth - 1)
            }
        }
    }

    /// Lines with a tab in the indentation, a common mistake that an editor does not show.
    private static func tabs(in text: String) -> [Fault] {
        text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated().compactMap {
            number, line in
            let indentation = line.prefix { $0 == " " || $0 == "\t" }
            guard indentation.count < line.count, let tab = indentation.firstIndex(of: "\t") else { return nil }
            return Fault(
                line: number + 1, column: line.distance(from: line.startIndex, to: tab) + 1,
                message: "tab in the indentation; YAML allows only spaces")
        }
    }

    /// Converts Yams' nodes to ours. The number of values is limited, because aliases can multiply them.
    private struct Converter {
        let original: [YAMLText.Position: String]
        var valuesLeft: Int
        private(set) var faults: [Fault] = []

        init(original: [YAMLText.Position: String], valuesLeft: Int) {
            self.original = original
            self.valuesLeft = valuesLeft
        }

        mutating func convert(_ node: Node, depth: Int) throws(Fault) -> YAMLNode {
            guard depth > 0 else {
                throw Fault(node, "nested too deeply; expected at most \(YAMLDocument.deepest) levels")
            }
            valuesLeft -= 1
            guard valuesLeft > 0 else { throw Fault(node, "more than \(YAMLDocument.mostValues) values") }
            let value = try value(of: node, depth: depth)
            return YAMLNode(line: node.mark?.line ?? 1, column: node.mark?.column ?? 1, value: value)
        }

        private mutating func value(of node: Node, depth: Int) throws(Fault) -> YAMLNode.Value {
            switch node {
            case .scalar(let scalar):
                check(scalar.tag, of: node)
                let isNothing = scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
                return isNothing ? .nothing : .scalar(scalar.string)
            case .sequence(let items):
                check(items.tag, of: node)
                var list: [YAMLNode] = []
                for item in items { list.append(try convert(item, depth: depth - 1)) }
                return .list(list)
            case .mapping(let pairs):
                check(pairs.tag, of: node)
                var map: [(YAMLName, YAMLNode)] = []
                for (name, value) in pairs {
                    guard let scalar = name.scalar, let mark = scalar.mark else {
                        faults.append(Fault(name, "a key must be a plain word"))
                        continue
                    }
                    let position = YAMLText.Position(line: mark.line, column: mark.column)
                    let text = original[position] ?? scalar.string
                    let found = YAMLName(text: text, line: mark.line, column: mark.column)
                    map.append((found, try convert(value, depth: depth - 1)))
                }
                return .map(map)
            case .alias:
                throw Fault(node, "undefined alias")
            }
        }

        /// The type of a value depends on its key, so YAML's own tags have no effect. Other tags are faults.
        private mutating func check(_ tag: Tag, of node: Node) {
            let name = tag.description
            guard !name.isEmpty, name != "!", !name.hasPrefix("tag:yaml.org,2002:") else { return }
            faults.append(Fault(node, "tag \(Spelling.quoted(name)) is not supported"))
        }
    }
}

extension YAMLDocument.Fault {
    fileprivate init(_ node: Node, _ message: String) {
        self.init(line: node.mark?.line ?? 1, column: node.mark?.column ?? 1, message: message)
    }
}
