// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Report
internal import Rules

extension EventLog {
    /// Logs what the rules have done to a message, in the words of cleanup(8).
    ///
    /// - Parameter origin: identifies the message.
    package func report(_ verdict: Verdict, of origin: String) {
        for match in verdict.matches where match.isLogged {
            let text = String(decoding: match.content.prefix { $0 != 0x0a }, as: UTF8.self)
            let action = String(decoding: match.action, as: UTF8.self)
            let line = "\(origin): \(match.subject.rawValue) \(match.location): \(action): \(text)"
            if let fault = match.fault {
                warning("\(line): \(fault)")
                tell(trouble: "rule \(match.location)", "\(fault)")
            } else {
                info(line)
            }
        }
        if verdict.moreMatches > 0 { info("\(origin): and \(verdict.moreMatches) more matches") }
        for note in verdict.notes { info("\(origin): \(note)") }
    }
}
