// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// What `weir check-config` says about tables that load but may not do what their author means.
extension RuleList {
    /// Doubts about the rules of all tables, in order. `isBody` tells body checks from header
    /// checks; the faults found while loading are in each table's `warnings`.
    package func lint(isBody: Bool) -> [TableFault] {
        var faults = tables.filter(\.hasByteOrderMark).map { table in
            TableFault(
                severity: .warning, type: table.type.rawValue, path: table.path, line: 1,
                message: "a UTF-8 byte order mark stands before the first line, which is no rule with it")
        }
        var shadows = Shadows()
        let subject: FastPattern.Subject = isBody ? .lines : .headers
        for (number, entry) in entries.enumerated() {
            guard let expression = entry.statement.expression else { continue }
            if let doubt = Self.catastrophic(expression) { faults.append(fault(number, doubt)) }
            if FastPattern(expression.source, subject: subject) == nil {
                faults.append(
                    fault(number, "can't take the fast pass: the pattern is tried on every key"))
            }
            guard case .match(let replacement) = entry.statement.operation else { continue }
            if let literal = replacement.literal { lintAction(literal, number, isBody, &faults) }
            let mayDecide = entry.statement.second == nil
            if let earlier = shadows.decider(
                before: number, expression, mayDecide: mayDecide, in: self, subject: subject)
            {
                faults.append(fault(number, "never reached: \(location(of: earlier)) decides first"))
            }
        }
        return faults
    }

    private func fault(_ rule: Int, _ message: String) -> TableFault {
        let table = tables[entries[rule].table]
        return TableFault(
            severity: .warning, type: table.type.rawValue, path: table.path,
            line: entries[rule].statement.line, message: message)
    }

    private func lintAction(
        _ text: [UInt8], _ rule: Int, _ isBody: Bool, _ faults: inout [TableFault]
    ) {
        guard !text.isEmpty else {
            faults.append(fault(rule, "no action: matching mail is deferred"))
            return
        }
        do {
            let action = try Action(text, isHeader: !isBody)
            if case .reject(let refusal) = action, let word = Self.strayCode(text) {
                faults.append(
                    fault(
                        rule,
                        "\(printable(word)) is no code of a refusal: the reply is \"\(refusal.code) \(printable(refusal.text))\""
                    ))
            }
        } catch {
            faults.append(fault(rule, error.message))
        }
    }

    /// The first word of a REJECT's text where it looks like a code, and is not taken for one, or for another.
    private static func strayCode(_ action: [UInt8]) -> ArraySlice<UInt8>? {
        let text = Action.split(action).text
        let word = text.prefix { !$0.isSpace }
        guard let first = word.first, "245".utf8.contains(first),
            word.allSatisfy({ $0.isDigit || $0 == UInt8(ascii: ".") }),
            word.count == 3 || word.contains(UInt8(ascii: "."))
        else { return nil }
        return enhancedStatusCodeLength(text) > 0 && first != UInt8(ascii: "2") ? nil : word
    }

    /// Text on which patterns that backtrack without end do so: something many times over, a byte that nothing expects, and
    /// all that a pattern may ask for before PCRE2 tries it at all.
    private static func probe(_ unit: [UInt8]) -> [UInt8] {
        Array(repeatElement(unit, count: 40).joined()) + [0x01] + Array(0x20...0x7e)
    }

    private static let probes = ["a", "0", " ", "ab", "-", "x."].map { probe(Array($0.utf8)) }

    /// Where a group is repeated, the bytes that it names are tried as well.
    private static func ownProbes(_ source: [UInt8]) -> [[UInt8]] {
        let repeatsGroup = zip(source, source.dropFirst()).contains {
            $0 == UInt8(ascii: ")") && "*+{".utf8.contains($1)
        }
        return repeatsGroup ? Set(source.filter { 0x21...0x7e ~= $0 }).sorted().map { probe([$0]) } : []
    }

    /// Why a pattern may take long, tried out on text that is known to make it so.
    private static func catastrophic(_ expression: Expression) -> String? {
        guard case .pcre(let pattern) = expression.engine else {
            let bytes = expression.source.bytes
            let hasReference = zip(bytes, bytes.dropFirst()).contains {
                $0 == UInt8(ascii: "\\") && UInt8(ascii: "1")...UInt8(ascii: "9") ~= $1
            }
            return hasReference ? "a back-reference in a regexp: table has no match limit" : nil
        }
        let scratch = MatchScratch(limits: MatchLimits(steps: 100_000))
        for probe in probes + ownProbes(expression.source.bytes) {
            guard case .failed = pattern.matches(probe, using: scratch) else { continue }
            return "catastrophic backtracking: 100000 steps on \(probe.count) bytes"
        }
        return nil
    }
}
