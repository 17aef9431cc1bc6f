// SPDX-License-Identifier: Apache-2.0
internal import Limits
package import Rules

/// The loaded tables of a set of checks.
package final class RuleSet: Sendable {
    /// Its place among the sets.
    package let index: Int
    package let definition: CheckSet
    package let header: RuleList
    package let mimeHeader: RuleList
    package let nestedHeader: RuleList
    /// For all headers, decoded.
    package let decodedHeader: RuleList
    /// For the decoded text of parts.
    package let decodedBody: RuleList
    /// For the lines about parts.
    package let attachment: RuleList
    package let body: RuleList

    init(_ set: CheckSet, at index: Int, _ loader: inout TableLoader) {
        self.index = index
        definition = set
        let tables = set.tables
        loader.forgetLists()
        header = loader.list(tables.header)
        // Classes with the same tables share a list, with its fast pass and counters.
        mimeHeader = tables.mimeHeader.map { loader.list($0) } ?? header
        nestedHeader = tables.nestedHeader.map { loader.list($0) } ?? header
        loader.forgetLists()
        decodedHeader = loader.list(tables.decodedHeader, isForText: true)
        loader.forgetLists()
        decodedBody = loader.list(tables.decodedBody, isForText: true)
        loader.forgetLists()
        attachment = loader.list(tables.attachment, isForText: true)
        loader.refuseEdits(in: decodedBody, of: "decoded_body")
        loader.refuseEdits(in: attachment, of: "attachment")
        loader.forgetLists()
        body = loader.list(tables.body)
    }

    /// `next`, with the counters of the rules that `old` has too, and the fast pass of each class whose rules are the
    /// same.
    init(_ next: RuleSet, continuing old: RuleSet?) {
        index = next.index
        definition = next.definition
        header = RuleList(tables: next.header.tables, continuing: old?.header)
        mimeHeader =
            next.mimeHeader === next.header
            ? header : RuleList(tables: next.mimeHeader.tables, continuing: old?.mimeHeader)
        nestedHeader =
            next.nestedHeader === next.header
            ? header
            : next.nestedHeader === next.mimeHeader
                ? mimeHeader : RuleList(tables: next.nestedHeader.tables, continuing: old?.nestedHeader)
        decodedHeader = RuleList(tables: next.decodedHeader.tables, continuing: old?.decodedHeader)
        decodedBody = RuleList(tables: next.decodedBody.tables, continuing: old?.decodedBody)
        attachment = RuleList(tables: next.attachment.tables, continuing: old?.attachment)
        body = RuleList(tables: next.body.tables, continuing: old?.body)
    }

    package var name: String { definition.name }

    /// Every list once, with the configuration's name of the first class that uses it.
    package var classes: [(name: String, list: RuleList)] {
        var classes = [("header", header)]
        for (name, list) in [("mime_header", mimeHeader), ("nested_header", nestedHeader)]
        where !classes.contains(where: { $0.1 === list }) {
            classes.append((name, list))
        }
        return classes + [
            ("decoded_header", decodedHeader), ("decoded_body", decodedBody), ("attachment", attachment),
            ("body", body),
        ]
    }

    /// Every list once. Lines of decoded parts are scanned like those of the body.
    package var lists: [(list: RuleList, isBody: Bool)] {
        classes.map { ($0.list, $0.list === body || $0.list === decodedBody || $0.list === attachment) }
    }

    /// Whether some rule is about decoded parts.
    package var readsDecodedParts: Bool { !decodedBody.isEmpty || !attachment.isEmpty }
}

/// Reads the tables of all sets.
struct TableLoader {
    private var lists: [[String]: RuleList] = [:]
    /// By the name, and by whether they are for decoded text.
    private var tables: [Bool: [String: Table]] = [:]
    /// Tables whose warnings have been added.
    private var reported: Set<String> = []
    private(set) var warnings: [TableFault] = []
    private(set) var faults: [TableFault] = []

    mutating func list(_ names: [String], isForText: Bool = false) -> RuleList {
        if let list = lists[names] { return list }
        let list = RuleList(tables: names.compactMap { table(named: $0, isForText: isForText) })
        lists[names] = list
        return list
    }

    private mutating func table(named name: String, isForText: Bool) -> Table? {
        if let known = tables[isForText]?[name] { return known }
        do {
            let table = try Table(named: name, isForText: isForText)
            tables[isForText, default: [:]][name] = table
            let isNew = reported.insert(name).inserted
            // A pattern may be right for bytes and wrong for text.
            warnings += isNew ? table.warnings : table.warnings.filter { !warnings.contains($0) }
            return table
        } catch {
            if !faults.contains(error) { faults.append(error) }
            return nil
        }
    }

    /// Decoded parts have no lines of the message that a rule could change.
    mutating func refuseEdits(in list: RuleList, of checks: String) {
        for (rule, name) in list.rules(where: \.changesLine) {
            let fault = list.fault(of: rule, "\(checks) can't carry out \(name.word): it has no line to change")
            if !faults.contains(fault) { faults.append(fault) }
        }
    }

    /// Headers are scanned differently from body lines and from decoded text, so they never share a list.
    mutating func forgetLists() { lists = [:] }
}
