// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// Warnings of `weir check-config` about tables that load but may not do what their author means.
extension RuleList {
    /// Warnings about the rules of all tables, in order, for body or header checks. Those found while loading are in
    /// the `warnings` of each table.
    package func lint(isBody: Bool) -> [TableFault] {
        var faults = tables.filter(\.hasByteOrderMark).map { table in
            TableFault(
                severity: .warning, type: table.type.rawValue, path: table.path, line: 1,
                message: "the file begins with a UTF-8 byte order mark, so the first line is not read as it looks")
        }
        faults += lintCase()
        var shadows = Shadows()
        let subject = subject(body: isBody)
        for (number, entry) in entries.enumerated() {
            guard let expression = entry.statement.expression else { continue }
            if let text = Self.catastrophic(expression) { faults.append(warning(of: number, text)) }
            if let text = Self.strayEscape(expression) { faults.append(warning(of: number, text)) }
            if FastPattern(expression.source, subject: subject) == nil {
                let key = !isBody ? "header" : isForText ? "line" : "body line"
                faults.append(
                    warning(of: number, "the fast pass can't include this pattern: it is tried on every \(key)"))
            }
            guard case .match(let replacement) = entry.statement.operation else { continue }
            if let literal = replacement.literal { lintAction(literal, number, isBody, &faults) }
            let mayDecide = entry.statement.second == nil
            if let earlier = shadows.decider(
                before: number, expression, mayDecide: mayDecide, in: self, subject: subject)
            {
                faults.append(warning(of: number, "never reached: \(location(of: earlier)) matches first"))
            }
        }
        return faults
    }

    private func lintAction(
        _ text: [UInt8], _ rule: Int, _ isBody: Bool, _ faults: inout [TableFault]
    ) {
        guard !text.isEmpty else {
            faults.append(warning(of: rule, "no action: matching mail is deferred"))
            return
        }
        do {
            let action = try Action(text, isHeader: !isBody || isForText)
            if case .reject(let refusal) = action, let word = Self.strayCode(text) {
                let reply = "\(refusal.code) \(printable(refusal.text))"
                faults.append(
                    warning(of: rule, "\(printable(word)) is not a status code for REJECT: the reply is \"\(reply)\""))
            }
        } catch {
            var skipped = warning(of: rule, error.message)
            skipped.skipsRule = true
            let word = Action.split(text).word
            if Action.Name(word) == nil { skipped.unknownAction = printable(word) }
            faults.append(skipped)
        }
    }

    /// The first word of a REJECT's text if it looks like a code, but is not used as it is.
    private static func strayCode(_ action: [UInt8]) -> ArraySlice<UInt8>? {
        let text = Action.split(action).text
        let word = text.prefix { !$0.isSpace }
        guard let first = word.first, "245".utf8.contains(first),
            word.allSatisfy({ $0.isDigit || $0 == UInt8(ascii: ".") }),
            word.count == 3 || word.contains(UInt8(ascii: "."))
        else { return nil }
        return enhancedStatusCodeLength(text) > 0 && first != UInt8(ascii: "2") ? nil : word
    }

    /// Why a pattern may take very long.
    private static func catastrophic(_ expression: Expression) -> String? {
        switch expression.engine {
        case .pcre(let pattern):
            BacktrackingProbe.warning(about: pattern, source: expression.source.bytes, steps: 100_000)
        case .posix(let pattern):
            pattern.refersBack ? "back-reference in a regexp: table: the time of a match is not limited" : nil
        }
    }
}
