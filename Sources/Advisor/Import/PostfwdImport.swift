// SPDX-License-Identifier: Apache-2.0
import Limits

extension ImportedLimits {
    /// Converts the rate(), size() and rcpt() rules of a postfwd ruleset.
    ///
    /// A rule is converted completely or left out: without one of its conditions it would limit other mail.
    package init(postfwd text: String) {
        let ruleset = PostfwdRuleset(text)
        leftOut = ruleset.faults
        var hasEarlierDecision = false
        for rule in ruleset.rules {
            do throws(PostfwdRule.Unsupported) {
                guard let limit = try rule.limit() else {
                    hasEarlierDecision = true
                    throw .init("not a counting rule: \(rule.action.isEmpty ? "no action" : rule.action)")
                }
                if let fault = Self.fault(of: limit) { throw .init("the limit would not be valid: \(fault)") }
                append(limit)
                let name = limits[limits.count - 1].name
                if hasEarlierDecision {
                    notes.append(
                        .init(
                            line: rule.line,
                            text: "limit \(name): in postfwd, an earlier rule, not converted, may decide first"
                        ))
                }
                for note in rule.notes(on: limit) {
                    notes.append(.init(line: rule.line, text: "limit \(name): \(note)"))
                }
            } catch {
                leftOut.append(.init(line: rule.line, text: "\(rule.name): \(error.reason)"))
            }
        }
        leftOut.sort { $0.line < $1.line }
    }
}
