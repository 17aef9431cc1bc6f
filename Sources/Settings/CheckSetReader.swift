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
        if case .list(let items) = node.value, !items.isEmpty, !configuration.checks.tables.names.isEmpty {
            reading.fault(node, key, "checks has lists of tables of its own; put them into a set without 'when'")
        }
        var names: [String: Int] = [:]
        return reading.list(node, key, of: "set") { item, key, reading in
            var draft = CheckSetDraft()
            let found = reading.read(item, at: key, rows: ConfigurationKeys.checkSet, into: &draft)
            reading.note(name: draft.name, found["name"], key, of: "set", &names)
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
            let node = aboutEnvelope(when.node, when.key, &reading, &set)
            set.conditions = ConditionReader.conditions(
                node, when.key, &reading, forms: configuration.keyForms, attribute: .messageAttribute)
            if !configuration.listen.filter.isEmpty { warnOfFilter(when.node, when.key, &reading) }
        }
        if let node = found["recipients"], !set.conditions.contains(where: \.part.isPerRecipient) {
            reading.warn(
                node, "\(key).recipients", "has no effect without a condition on recipient or recipient_domain")
        }
        return set
    }

    /// The condition about the content.
    static let signature = "dkim"

    /// Reads the condition about the content.
    ///
    /// - Returns: the other conditions.
    private static func aboutEnvelope(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, _ set: inout CheckSet
    ) -> YAMLNode {
        guard case .map = node.value, var entries = reading.entries(of: node, key),
            let index = entries.firstIndex(where: { $0.name.text == signature })
        else { return node }
        let type = ValueType<Bool>.text("present or absent", write: { $0 ? "present" : "absent" }) { text in
            switch text {
            case "present": .value(true)
            case "absent": .value(false)
            default: .isNot("a test for a DKIM-Signature")
            }
        }
        set.isSigned = type.read(entries.remove(at: index).value, "\(key).\(signature)", &reading)
        return YAMLNode(line: node.line, column: node.column, value: .map(entries))
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
