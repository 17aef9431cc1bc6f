// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Limits

/// A set of checks while it is read.
package struct CheckSetDraft: Sendable {
    var name = ""
    /// Read last, because conditions depend on `keys`.
    var when: (node: YAMLNode, key: String)?
    var recipients = CheckSet.Recipients.any
    var checkTables = CheckTables()
}

/// Reads `checks.sets`.
enum CheckSetReader {
    static func sets(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, _ configuration: Configuration
    ) -> [CheckSet] {
        if case .nothing = node.value { return [] }
        guard case .list(let items) = node.value else {
            reading.fault(node, key, "expected a list of sets, found \(node.kind)")
            return []
        }
        if !items.isEmpty, !configuration.checks.tables.names.isEmpty {
            reading.fault(node, key, "checks has lists of tables of its own; put them into a set without 'when'")
        }
        var seen: [String: Int] = [:]
        return items.enumerated().compactMap { index, item in
            let key = "\(key)[\(index)]"
            guard case .map = item.value else {
                reading.fault(item, key, "expected a map of keys and values, found \(item.kind)")
                return nil
            }
            var draft = CheckSetDraft()
            let found = reading.read(item, at: key, rows: ConfigurationKeys.checkSet, into: &draft)
            if let name = found["name"], !draft.name.isEmpty {
                if let first = seen[draft.name] {
                    reading.fault(name, "\(key).name", "the set in line \(first) already has this name")
                }
                seen[draft.name] = seen[draft.name] ?? name.line
            }
            if draft.checkTables.names.isEmpty {
                reading.warn(item, key, "the set has no tables, and so no effect")
            }
            return set(draft, found, key, &reading, configuration)
        }
    }

    private static func set(
        _ draft: CheckSetDraft, _ found: [String: YAMLNode], _ key: String, _ reading: inout ConfigurationReading,
        _ configuration: Configuration
    ) -> CheckSet {
        var set = CheckSet()
        (set.name, set.recipients, set.tables) = (draft.name, draft.recipients, draft.checkTables)
        if let when = draft.when {
            set.conditions = ConditionReader.conditions(
                when.node, when.key, &reading, forms: configuration.keyForms, attribute: .messageAttribute)
            if !configuration.listen.filter.isEmpty { warnOfFilter(when.node, when.key, &reading) }
        }
        if let node = found["recipients"], !set.conditions.contains(where: \.part.isPerRecipient) {
            reading.warn(
                node, "\(key).recipients", "has no effect without a condition on recipient or recipient_domain")
        }
        return set
    }

    /// XFORWARD says nothing about logins.
    private static func warnOfFilter(_ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading) {
        guard case .map(let entries) = node.value else { return }
        for (name, _) in entries where PolicyAttributes.onlyOfMilter.contains(name.text) {
            let nameNode = YAMLNode(line: name.line, column: name.column, value: .scalar(name.text))
            reading.warn(
                nameNode, "\(key).\(name.text)",
                "always empty for mail through listen.filter: Postfix does not tell a filter")
        }
    }
}
