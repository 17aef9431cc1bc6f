// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Report
internal import Settings
internal import Wire

/// What is different where the next hop is an LMTP server.
extension FilterConnection {
    /// A next hop that speaks SMTP is a Postfix with a cleanup of its own.
    var isSMTP: Bool { worker.settings.nextHop.variant == .smtp }

    func report(_ replies: [SMTPReply], _ refusedCopies: [SMTPReply]) {
        for reply in replies where !reply.isPositive {
            worker.log.info("filter: \(session.summary): the next hop answers \(reply.text)")
        }
        for reply in refusedCopies {
            let outcome = reply.isTransient ? "a BCC is deferred, and another recipient with it" : "a BCC goes without"
            worker.log.warning("filter: \(session.summary): \(outcome): the next hop answers \(reply.text)")
        }
    }

    func passOn(_ replies: [SMTPReply]) {
        report(replies, [])
        answerDueSince = .now()
        session.answerContent(replies)
    }

    /// - Parameter replies: for the client's recipients without a reply; the last one is for all further ones.
    func finish(_ replies: [SMTPReply], _ parting: FilterDialogue.Parting) {
        endTransaction(parting)
        session.finish(replies)
    }

    /// Only the cleanup(8) of a Postfix behind Weir carries out HOLD and FILTER.
    func canCarryOut(_ verdict: Verdict) -> Bool {
        guard !isSMTP, verdict.internalHeader != nil else { return true }
        worker.log.complain(
            .nextHop("\(worker.settings.nextHop)"),
            "mail is deferred: a rule says HOLD or FILTER, which an LMTP server can't do (docs/content-filter.md)")
        return false
    }
}
