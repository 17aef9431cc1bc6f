// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// The type and path of a table, as in `texthash:/etc/weir/vip`.
struct TableName: Hashable, Sendable {
    enum Kind: String, CaseIterable, Sendable {
        case text = "texthash"
        case networks = "cidr"
    }

    let kind: Kind
    let path: String
}

/// A table, and the place in the configuration that names it.
struct TableReference: Sendable {
    let name: TableName
    let node: YAMLNode
    let key: String
}

extension ValueType where Value == TableReference {
    static let table = ValueType(
        expected: ValueType<TableName>.tableName.expected, write: { ValueType<TableName>.tableName.write($0.name) }
    ) { node, key, reading in
        ValueType<TableName>.tableName.read(node, key, &reading).map { TableReference(name: $0, node: node, key: key) }
    }
}

extension ValueType where Value == TableName {
    fileprivate static let tableName = ValueType.text(
        "texthash:/path or cidr:/path", write: { "\"\($0.kind.rawValue):\($0.path)\"" }
    ) { text in
        let kinds = TableName.Kind.allCases.map(\.rawValue)
        guard let colon = text.firstIndex(of: ":") else { return .isNot("a table") }
        let word = String(text[..<colon])
        guard let kind = TableName.Kind(rawValue: word) else {
            return .fault(
                "\(Spelling.quoted(word)) is not a table type\(Spelling.alternatives(to: word, among: kinds))"
            )
        }
        guard let path = absolutePath(text[text.index(after: colon)...]) else {
            return .fault("\(Spelling.quoted(text)) has no absolute path; expected \(word):/path")
        }
        return .value(TableName(kind: kind, path: path))
    }
}

extension ConfigurationReading {
    private static let mostTableFaults = 20
    private static let largestTable = 64 << 20

    /// Reads a table, or returns it if another limit has read it; nil if the file can't be read.
    ///
    /// Faults in its lines are reported with the table's file name.
    mutating func load(_ table: TableReference) -> LookupTable.Contents? {
        if let known = tables[table.name] { return known }
        tablePaths.append(table.name.path)
        let bytes: [UInt8]
        switch BoundedFile.read(table.name.path, upTo: Self.largestTable) {
        case .success(let read): bytes = read
        case .failure(let failure):
            fault(table.node, table.key, "can't read \(table.name.path): \(failure.description)")
            return nil
        }
        let contents =
            switch table.name.kind {
            case .text: LookupTable.text(bytes)
            case .networks: LookupTable.networks(bytes)
            }
        for found in contents.faults.prefix(Self.mostTableFaults) {
            add(fault: .init(file: table.name.path, line: found.line, key: table.key, message: found.message))
        }
        let more = contents.faults.count - Self.mostTableFaults
        if more > 0 {
            add(fault: .init(file: table.name.path, key: table.key, message: "\(more) more lines have errors"))
        }
        tables[table.name] = contents
        return contents
    }
}
