// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// The actions that the rules of a list may have, according to their text, before anything has matched.
extension RuleList {
    /// Whether some rule may have such an action. A rule that takes its action from the matched text may have any.
    static func mayAct(_ entries: [Entry], _ isSought: (Action.Name) -> Bool) -> Bool {
        entries.contains { entry in
            switch entry.statement.actionName {
            case .known(let name): isSought(name)
            case .fromMatch: true
            case .unknown: false
            }
        }
    }

    /// The rules that have such an action whatever they match.
    package func rules(where isSought: (Action.Name) -> Bool) -> [(rule: Int, name: Action.Name)] {
        entries.enumerated().compactMap { rule, entry in
            guard case .known(let name) = entry.statement.actionName, isSought(name) else { return nil }
            return (rule, name)
        }
    }

    /// Whether some rule writes a header that cleanup(8) would drop or change if a message brought it.
    package var mayWriteHeaderForCleanup: Bool {
        entries.contains { entry in
            guard case .match(let replacement) = entry.statement.operation,
                case .literal(let literal)? = replacement.segments.first
            else { return false }
            let (word, text) = Action.split(literal)
            guard let name = Action.Name(word), name == .prepend || name == .replace else { return false }
            return isDroppedHeader(Array(text)) || hasBlankBeforeColon(Array(text))
        }
    }

    /// Whether the rule has an action: `if` and `endif` have none.
    package func mayDecide(_ rule: Int) -> Bool {
        if case .match = entries[rule].statement.operation { true } else { false }
    }

    /// A fault in the line of a rule.
    package func fault(of rule: Int, _ message: String) -> TableFault { finding(.fault, rule, message) }

    /// A warning about the line of a rule.
    package func warning(of rule: Int, _ message: String) -> TableFault { finding(.warning, rule, message) }

    private func finding(_ severity: TableFault.Severity, _ rule: Int, _ message: String) -> TableFault {
        let table = tables[entries[rule].table]
        return TableFault(
            severity: severity, type: table.type.rawValue, path: table.path, line: entries[rule].statement.line,
            message: message)
    }
}

extension Table.Statement {
    fileprivate enum ActionName {
        case known(Action.Name)
        /// The matched text decides.
        case fromMatch
        /// No action of Postfix's, or an `if` or `endif`.
        case unknown
    }

    fileprivate var actionName: ActionName {
        guard case .match(let replacement) = operation, let first = replacement.segments.first else { return .unknown }
        guard case .literal(let text) = first else { return .fromMatch }
        let (word, rest) = Action.split(text)
        // In `RE$1` the word continues with what matched.
        if rest.isEmpty, replacement.segments.count > 1, word.endIndex == text.endIndex { return .fromMatch }
        return Action.Name(word).map(ActionName.known) ?? .unknown
    }
}
