// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// The tables of one class of checks, in order: the first table with a result wins (`maps.c`).
/// A rule's number is its position in all of them together.
package final class RuleList: Sendable {
    struct Entry: Sendable {
        let statement: Table.Statement
        let table: Int
        /// The innermost `if` around it, as a rule number.
        let enclosing: Int?
        /// The next rule after an `if` that does not hold.
        let elsewhere: Int
    }

    package let tables: [Table]
    /// Whether its keys are decoded text. All its tables are for the same.
    package let isForText: Bool
    let entries: [Entry]
    package let counters: RuleCounters
    /// Whether some rule may edit the message.
    package let mayEdit: Bool
    /// Whether some rule may replace the recipients.
    package let mayRedirect: Bool
    /// By rule. Apart from the entries, because only a rule that has matched needs its tag.
    private let tags: [Int: String]
    private let slot = Mutex<FastPass?>(nil)

    /// - Parameter old: the list that this one replaces; its counters continue.
    package init(tables: [Table], continuing old: RuleList? = nil) {
        self.tables = tables
        isForText = tables.first?.isForText ?? false
        var entries: [Entry] = []
        var tags: [Int: String] = [:]
        for (number, table) in tables.enumerated() {
            let base = entries.count
            for (statement, tag) in table.tags { tags[base + statement] = tag }
            for statement in table.statements {
                var elsewhere = base + table.statements.count
                if case .if(let endif?) = statement.operation { elsewhere = base + endif }
                entries.append(
                    Entry(
                        statement: statement, table: number,
                        enclosing: statement.enclosing.map { base + $0 }, elsewhere: elsewhere))
            }
        }
        self.entries = entries
        self.tags = tags
        mayEdit = Self.mayAct(entries, \.isEdit)
        mayRedirect = Self.mayAct(entries) { $0 == .redirect }
        counters = RuleCounters(entries: entries, tables: tables, continuing: old?.counters)
        if let old, counters.hasSameRules(as: old.counters) { fastPass = old.fastPass }
    }

    package var isEmpty: Bool { entries.isEmpty }
    package var count: Int { entries.count }

    /// The multi-pattern scan. Until it is compiled, every rule is tried in turn, with the same result.
    package var fastPass: FastPass? {
        get { slot.withLock { $0 } }
        set { slot.withLock { $0 = newValue } }
    }

    /// The table and line of a rule, as in `pcre:/etc/postfix/header_checks:12`.
    package func location(of rule: Int) -> RuleLocation {
        let entry = entries[rule]
        return RuleLocation(table: tables[entry.table].name, line: entry.statement.line)
    }

    /// The tag of a rule, from the comment above it.
    package func tag(of rule: Int) -> String? { tags[rule] }
}

/// A rule's table and line.
package struct RuleLocation: Hashable, Sendable, CustomStringConvertible {
    package let table: String
    package let line: Int

    package var description: String { "\(table):\(line)" }
}
