// SPDX-License-Identifier: Apache-2.0

/// What a list's rules may come to do, as far as their text tells before anything has matched.
extension RuleList {
    /// Whether some rule may have one of these actions, in lower case. One whose action comes from the line itself may.
    static func mayAct(_ entries: [Entry], _ actions: Set<String>) -> Bool {
        entries.contains { entry in
            guard case .match(let replacement) = entry.statement.operation else { return false }
            return replacement.actionWord.map(actions.contains) ?? true
        }
    }

    /// The rules with this action, in lower case.
    package func rules(withAction word: String) -> [Int] {
        entries.indices.filter { index in
            guard case .match(let replacement) = entries[index].statement.operation else { return false }
            return replacement.actionWord == word
        }
    }

    /// Whether it has an action; an `if` and an `endif` have none.
    package func mayDecide(_ rule: Int) -> Bool {
        if case .match = entries[rule].statement.operation { true } else { false }
    }

    /// A fault of a rule's line.
    package func fault(of rule: Int, _ message: String) -> TableFault {
        let table = tables[entries[rule].table]
        return TableFault(
            severity: .fault, type: table.type.rawValue, path: table.path, line: entries[rule].statement.line,
            message: message)
    }
}

extension Replacement {
    /// The action in lower case; nil where it depends on what matched.
    fileprivate var actionWord: String? {
        guard case .literal(let text)? = segments.first else { return segments.isEmpty ? "" : nil }
        let (word, rest) = Action.split(text)
        // A word that goes on with what matched.
        if rest.isEmpty, segments.count > 1, word.endIndex == text.endIndex { return nil }
        return String(decoding: word, as: UTF8.self).lowercased()
    }
}
