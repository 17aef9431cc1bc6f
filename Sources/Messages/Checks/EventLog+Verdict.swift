// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Report
internal import Rules

extension EventLog {
    /// Logs what the rules have done to a message, in the words of cleanup(8): a header with its folds, and `?` for
    /// what is not printable.
    ///
    /// - Parameter origin: identifies the message.
    package func report(_ verdict: Verdict, of origin: String) {
        for match in verdict.matches where match.isLogged {
            let action = printable(match.action)
            let line =
                "\(origin): \(match.view) \(match.location)\(match.names): \(action): \(printable(match.content))"
            if let fault = match.fault {
                warning("\(line): \(fault)")
                tell(trouble: "rule \(match.location)", "\(fault)")
            } else {
                info(line)
            }
        }
        if verdict.moreMatches > 0 { info("\(origin): and \(verdict.moreMatches) more matches") }
        for note in verdict.notes {
            guard case .undecidedSet(let name, _, _) = note else {
                info("\(origin): \(note)")
                continue
            }
            warning("\(origin): \(note)")
            tell(trouble: "checks of set \(name)", "\(note)")
        }
    }
}
