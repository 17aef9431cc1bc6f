// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// A table by its name in the configuration, as in `texthash:/etc/weir/vip`.
struct TableReference: Hashable, Sendable {
    enum Kind: String, CaseIterable, Sendable {
        case text = "texthash"
        case networks = "cidr"
    }

    let kind: Kind
    let path: String
}

extension ValueType where Value == TableReference {
    static let table = ValueType.text("texthash:/path or cidr:/path", write: { "\"\($0.kind.rawValue):\($0.path)\"" }) { text in
        let kinds = TableReference.Kind.allCases.map(\.rawValue)
        guard let colon = text.firstIndex(of: ":") else { return .no("table") }
        let word = String(text[..<colon])
        guard let kind = TableReference.Kind(rawValue: word) else {
            return .fault("\(Spelling.quoted(word)) is no type of table that Weir reads\(Spelling.hint(for: word, among: kinds)) Allowed here: \(kinds.joined(separator: ", "))")
        }
        guard let path = absolutePath(text[text.index(after: colon)...]) else {
            return .fault("\(Spelling.quoted(text)) names no absolute path")
        }
        return .value(TableReference(kind: kind, path: path))
    }
}

extension ConfigurationReading {
    private static let mostTableFaults = 20
    private static let largestTable = 64 << 20

    /// The contents of a table, read once however many limits ask for it; nil after a fault.
    ///
    /// Faults in the table are reported with the table's own name and lines.
    mutating func load(_ reference: TableReference, _ node: YAMLNode, _ key: String) -> LookupTable.Contents? {
        if let known = tables[reference] { return known }
        let bytes: [UInt8]
        switch BoundedFile.read(reference.path, upTo: Self.largestTable) {
        case .success(let read): bytes = read
        case .failure(let failure):
            fault(node, key, "can't read \(reference.path): \(failure.description)")
            return nil
        }
        let contents =
            switch reference.kind {
            case .text: LookupTable.text(bytes)
            case .networks: LookupTable.networks(bytes)
            }
        for found in contents.faults.prefix(Self.mostTableFaults) {
            add(fault: .init(file: reference.path, line: found.line, key: key, message: found.message))
        }
        if contents.faults.count > Self.mostTableFaults {
            let more = contents.faults.count - Self.mostTableFaults
            add(fault: .init(file: reference.path, key: key, message: "and \(more) more lines like these"))
        }
        tables[reference] = contents
        return contents
    }
}
