// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// A limit while it is read.
package struct LimitDraft: HasKeyForms {
    var name = ""
    var keyForms = KeyForms()
    /// Read last, because conditions depend on `keys`.
    var when: (node: YAMLNode, key: String)?
    var key: [String] = []
    var count = CountUnit.recipients
    var rates: [Rate] = []
    // All templates are constant and covered by tests, so `try!` can't fail.
    var over = try! ActionTemplate("DEFER_IF_PERMIT 4.7.1 sending limit reached, try again later")
    var tooLarge = try! ActionTemplate(
        "REJECT 5.7.1 this message alone is larger than all that may be sent in $window ($limit)")
    var mode = Limit.Mode.enforce
    var warnAt: UInt64 = 80
    var countRefused = false
    var blockAfter: UInt64?
    /// In milliseconds.
    var blockFor: Int64?
    var blockOver = try! ActionTemplate("REJECT 5.7.1 sending is blocked, ask the postmaster")
    var keepsBlocks = false
    var exempt: [TableReference] = []
    var overrides: [TableReference] = []
    var isShared = true
}

/// Reads `limits`.
enum LimitReader {
    private static let mostRates = 16

    static func limits(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading, _ configuration: Configuration
    ) -> [Limit] {
        reading.restrictionClasses = configuration.restrictionClasses
        reading.answersMilter = !configuration.listen.milter.isEmpty && configuration.milter.limits
        var names: [String: Int] = [:]
        return reading.list(node, key, of: "limit") { item, key, reading in
            var draft = LimitDraft()
            draft.keyForms = configuration.keyForms
            let found = reading.read(
                item, at: key, rows: ConfigurationKeys.limit + ConfigurationKeys.limitKeyForms, into: &draft)
            reading.note(name: draft.name, found["name"], key, of: "limit", &names)
            return limit(draft, LimitNodes(limit: item, key: key, found: found), &reading)
        }
    }

    /// The nodes of a limit, for the positions of faults.
    private struct LimitNodes {
        let limit: YAMLNode
        let key: String
        let found: [String: YAMLNode]

        subscript(name: String) -> YAMLNode { found[name] ?? limit }
    }

    private static func limit(
        _ draft: LimitDraft, _ nodes: LimitNodes, _ reading: inout ConfigurationReading
    ) -> Limit {
        checkRates(nodes, &reading)
        let parts = keyParts(draft.key, nodes, &reading)
        let conditions = draft.when.map {
            ConditionReader.conditions($0.node, $0.key, &reading, forms: draft.keyForms)
        }
        checkRecipients(draft.count, parts, conditions ?? [], nodes, &reading)
        if conditions?.isEmpty ?? true { warnOfForgedKey(draft.key, nodes, &reading) }
        for remark in VainConditions.remarks(onLimitOf: draft.count, parts, conditions ?? []) {
            reading.warn(nodes["when"], "\(nodes.key).when", remark)
        }
        warnOfAction(draft.over, "over", nodes, &reading)
        warnOfAction(draft.tooLarge, "too_large", nodes, &reading)
        warnOfAction(draft.blockOver, "block.over", nodes, &reading)
        checkMilter(draft.over, "over", nodes, &reading)
        checkMilter(draft.tooLarge, "too_large", nodes, &reading)
        checkMilter(draft.blockOver, "block.over", nodes, &reading)
        var limit = Limit(
            name: draft.name, conditions: conditions ?? [], key: KeyDefinition(parts: parts, forms: draft.keyForms),
            count: draft.count, rates: draft.rates, over: draft.over, tooLarge: draft.tooLarge, mode: draft.mode,
            warnAt: draft.warnAt, block: block(draft, nodes, &reading),
            blockOver: draft.blockOver, keepsBlocks: draft.keepsBlocks, countRefused: draft.countRefused,
            exempt: load(draft.exempt, parts, draft.keyForms, &reading).map(\.contents.table),
            overrides: overrides(draft, parts, &reading))
        // Without `shared`, it means nothing. A reload that removes `shared` changes nothing before the next start.
        limit.isShared = draft.isShared
        return limit
    }

    private static func checkRates(_ nodes: LimitNodes, _ reading: inout ConfigurationReading) {
        guard let node = nodes.found["rates"] else { return }
        let key = "\(nodes.key).rates"
        if node.items.isEmpty { reading.fault(node, key, "is empty; expected at least one rate, such as 100/1m") }
        if node.items.count > mostRates {
            reading.fault(node, key, "has \(node.items.count) rates; expected at most \(mostRates)")
        }
        let rates = node.items.map { $0.text.flatMap { Rate($0) } }
        for (index, item) in node.items.enumerated() {
            guard let rate = rates[index] else { continue }
            let others = rates.compactMap(\.self)
            let key = "\(key)[\(index)]"
            if let first = rates[..<index].compactMap(\.self).first(where: { $0.window == rate.window }) {
                reading.fault(item, key, "\(item.kind) has the same window as '\(first.description)'")
            } else if rate.count == 0 {
                reading.warn(item, key, "'\(rate.description)' refuses everything")
            } else if let stricter = others.first(where: {
                $0.count <= rate.count && $0.window.milliseconds > rate.window.milliseconds
            }) {
                reading.warn(
                    item, key, "'\(rate.description)' is never reached: '\(stricter.description)' is stricter")
            }
        }
    }

    private static func keyParts(
        _ names: [String], _ nodes: LimitNodes, _ reading: inout ConfigurationReading
    ) -> [KeyPart] {
        guard let node = nodes.found["key"] else { return [] }
        let key = "\(nodes.key).key"
        if node.items.isEmpty {
            reading.fault(node, key, "is empty; expected at least one attribute, such as sasl_username")
        }
        for (index, item) in node.items.enumerated() {
            guard let name = item.text, node.items[..<index].contains(where: { $0.text == name }) else { continue }
            reading.fault(item, "\(key)[\(index)]", "\(Spelling.quoted(name)) is already in this list")
        }
        return names.map { KeyPart($0, in: &reading.attributeNames) }
    }

    private static func checkRecipients(
        _ count: CountUnit, _ parts: [KeyPart], _ conditions: [Condition], _ nodes: LimitNodes,
        _ reading: inout ConfigurationReading
    ) {
        guard let reason = count.conflictWithRecipients else { return }
        for (name, parts) in [("key", parts), ("when", conditions.map(\.part))] {
            guard let part = parts.first(where: \.isPerRecipient) else { continue }
            reading.fault(
                nodes[name], "\(nodes.key).\(name)",
                "'\(part.name)' can't be used with 'count: \(count.rawValue)': \(reason)")
        }
    }

    private static func warnOfForgedKey(_ key: [String], _ nodes: LimitNodes, _ reading: inout ConfigurationReading) {
        let forgeable = ["sender", "sender_domain", "helo_name"]
        guard !key.isEmpty, key.allSatisfy(forgeable.contains) else { return }
        reading.warn(
            nodes["key"], "\(nodes.key).key",
            "clients choose the value of '\(key.joined(separator: ", "))', so they can use up each other's limits; "
                + "add a condition such as { sasl_username: present }, or count by sasl_username or client_address")
    }

    private static func warnOfAction(
        _ action: ActionTemplate, _ name: String, _ nodes: LimitNodes, _ reading: inout ConfigurationReading
    ) {
        guard let node = nodes.found[name], case .word(let word) = action.verb else { return }
        switch word {
        case .ok, .relay:
            reading.warn(
                node, "\(nodes.key).\(name)",
                "\(word.rawValue) permits the request: a client over the limit skips the restrictions that follow")
        case .dunno:
            let hint = name == "over" ? "; use 'mode: shadow' to count and log only" : ""
            reading.warn(node, "\(nodes.key).\(name)", "DUNNO refuses nothing\(hint)")
        case .reject, .defer, .deferIfPermit, .deferIfReject, .hold, .discard, .filter, .redirect, .bcc, .prepend,
            .info, .warn:
            break
        }
    }

    /// Refuses an action that a milter can't carry out.
    private static func checkMilter(
        _ action: ActionTemplate, _ name: String, _ nodes: LimitNodes, _ reading: inout ConfigurationReading
    ) {
        guard reading.answersMilter else { return }
        let worksInMilter =
            switch action.verb {
            case .word(let word): word.worksInMilter
            case .replyCode: true
            case .restrictionClass: false
            }
        if worksInMilter { return }
        let word = action.text.split(separator: " ").first ?? ""
        reading.fault(
            nodes[name], "\(nodes.key).\(name)",
            "a milter (listen.milter) can't carry out '\(word)'; use another action or set milter.limits to false")
    }

    private static func block(
        _ draft: LimitDraft, _ nodes: LimitNodes, _ reading: inout ConfigurationReading
    ) -> Limit.Block? {
        switch (nodes.found["block.after"], nodes.found["block.for"]) {
        case (let node?, nil):
            reading.fault(node, "\(nodes.key).block", "'for' is missing; expected a time such as 1h")
        case (nil, let node?):
            reading.fault(node, "\(nodes.key).block", "'after' is missing; expected a number of refused requests")
        default: break
        }
        guard let after = draft.blockAfter, let milliseconds = draft.blockFor else { return nil }
        return Limit.Block(after: after, milliseconds: milliseconds)
    }

    // MARK: Tables

    private static func load(
        _ tables: [TableReference], _ parts: [KeyPart], _ forms: KeyForms, _ reading: inout ConfigurationReading
    ) -> [(reference: TableReference, contents: LookupTable.Contents)] {
        tables.compactMap { table in
            guard let contents = reading.load(table) else { return nil }
            reading.note(TableUse(of: table, by: KeyDefinition(parts: parts, forms: forms)))
            if table.name.kind == .networks, !parts.isEmpty, !parts.contains(where: { $0.form == .network }) {
                reading.warn(table.node, table.key, "this table never matches: the limit's key has no IP address")
            }
            return (table, contents)
        }
    }

    private static func overrides(
        _ draft: LimitDraft, _ parts: [KeyPart], _ reading: inout ConfigurationReading
    ) -> [LookupTable] {
        load(draft.overrides, parts, draft.keyForms, &reading).map { reference, contents in
            for result in contents.results { check(result, in: reference, draft, &reading) }
            return contents.table
        }
    }

    /// An override must consist of rates. A rate should have a window of the limit; otherwise it has no effect.
    private static func check(
        _ result: LookupTable.Result, in table: TableReference, _ draft: LimitDraft,
        _ reading: inout ConfigurationReading
    ) {
        for word in Limit.words(ofOverride: result.text) {
            guard let rate = Rate(word) else {
                reading.add(
                    fault: .init(
                        file: table.name.path, line: result.line, key: table.key,
                        message: "\(Spelling.quoted(String(word))) is not a rate; "
                            + "expected \(ValueType<Rate>.rateExpected)"
                    ))
                continue
            }
            if !draft.rates.isEmpty, !draft.rates.contains(where: { $0.window == rate.window }) {
                let windows = draft.rates.map { Rate.text(ofDuration: $0.window.milliseconds) }.joined(separator: ", ")
                reading.add(
                    warning: .init(
                        file: table.name.path, line: result.line, key: table.key,
                        message: "'\(rate.description)' has no effect: limit '\(draft.name)' has the windows \(windows)"
                    )
                )
            }
        }
    }
}

extension ValueType where Value == Rate {
    static var rateExpected: String { "N/window, such as 100/1m (N with k, M or G; window in s, m, h, d or w)" }

    static let rate = ValueType.text(rateExpected, write: \.description) { text in
        if let rate = Rate(text) { return .value(rate) }
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let window = Rate.duration(parts[1]) else { return .isNot("a rate") }
        if !Window.allowed.contains(window) {
            return .fault("the window of \(Spelling.quoted(text)) is out of range; expected 1s to 366d")
        }
        // Is it a rate except for the size of N?
        let digits = parts[0].prefix { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty, Rate("0\(parts[0].dropFirst(digits.count))/1s") != nil else { return .isNot("a rate") }
        return .fault(
            "\(Spelling.quoted(text)) is out of range; expected at most \(SlidingWindows.largestAmount)/window")
    }
}

extension ValueType where Value == ActionTemplate {
    static let action = ValueType(
        expected: "an action of access(5), such as REJECT text", write: { "\"\($0.text)\"" }
    ) { node, key, reading in
        let text = ValueType<String>.text("an action of access(5), such as REJECT text", write: { $0 }) { .value($0) }
        guard let source = text.read(node, key, &reading) else { return nil }
        guard !source.contains(where: \.isNewline) else {
            reading.fault(node, key, "an action has one line; write it in quotes, or begin it with '>-'")
            return nil
        }
        do throws(ActionTemplate.Fault) {
            return try ActionTemplate(source, restrictionClasses: reading.restrictionClasses)
        } catch {
            reading.fault(node, key, error.message)
            return nil
        }
    }
}
