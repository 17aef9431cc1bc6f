// SPDX-License-Identifier: Apache-2.0
internal import Patterns

/// What `weir check-config` says about tables that load but may not do what their author means.
extension RuleList {
    /// Doubts about the rules of all tables, in order. `isBody` tells body checks from header
    /// checks; the faults found while loading are in each table's `warnings`.
    package func lint(isBody: Bool) -> [TableFault] {
        var faults: [TableFault] = []
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
            if let earlier = shadows.decider(before: number, expression, mayDecide: mayDecide, in: self, subject: subject) {
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
            _ = try Action(text, isHeader: !isBody)
        } catch {
            faults.append(fault(rule, error.message))
        }
    }

    /// Text on which patterns that backtrack without end do so.
    private static let probes: [[UInt8]] = ["a", "0", " ", "ab", "-", "x."].map { unit in
        Array(Array(repeating: unit, count: 40).joined().utf8) + Array("\u{1}!".utf8)
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
        for probe in probes {
            guard case .failed = pattern.matches(probe, using: scratch) else { continue }
            return "catastrophic backtracking: 100000 steps on \(probe.count) bytes"
        }
        return nil
    }
}
