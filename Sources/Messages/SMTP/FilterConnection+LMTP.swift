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

    func report(_ replies: [SMTPReply]) {
        for reply in replies where !reply.isPositive {
            worker.log.info("filter: \(session.summary): the next hop answers \(reply.text)")
        }
    }

    func passOn(_ replies: [SMTPReply]) {
        report(replies)
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

    // MARK: Copies

    /// - Returns: whether copies have to go before the message.
    func noteCopies(of verdict: Verdict) -> Bool {
        messageCopies = []
        guard !isSMTP, case .envelope(let addresses) = verdict.recipients, var hash = contentHash else { return false }
        session.mail.withUnsafeReadableBytes { hash.combine(bytes: $0) }
        messageCopies = addresses.map { LMTPCopy($0, of: hash) }
        return !missingCopies.isEmpty
    }

    private var missingCopies: [LMTPCopy] { messageCopies.filter { !worker.acceptedCopies.contains($0.mark) } }

    /// Begins a transaction for the copies, on a connection of its own.
    func deliverCopies(_ verdict: Verdict) {
        guard let recipientsHop = nextHop else { return }
        let transaction = LMTPCopyTransaction(missingCopies, before: recipientsHop)
        let hop = worker.pool.acquire(for: self, fresh: true)
        (self.verdict, copies, nextHop) = (verdict, transaction, hop)
        for line in session.xforward { hop.send(.xforward, line) }
        hop.send(.mail, session.mail)
        let offersDSN = recipientsHop.capabilities.extensions.contains(.dsn)
        for copy in transaction.copies { hop.send(.recipient, Verdict.copy(to: copy.address, offersDSN: offersDSN)) }
        hop.send(.data, "DATA\r\n")
        hop.flush()
    }

    func reportCopy(_ reply: SMTPReply) {
        let outcome = reply.isTransient ? "a BCC is deferred, and the message with it" : "omitted a BCC"
        worker.log.warning("filter: \(session.summary): \(outcome): the next hop answered \(reply.text)")
    }

    func copyAnswered(_ number: Int, _ reply: SMTPReply) {
        if let copy = copies?.copies[number], reply.isPositive {
            worker.acceptedCopies.insert(copy.mark)
        } else {
            reportCopy(reply)
        }
        switch dialogue.copyNoted() {
        case .wait: break
        case .askData(let parting): endCopies(parting)
        case .finish(let answer, let parting): finish(answer, parting)
        }
    }

    /// Asks DATA for the client's recipients.
    func endCopies(_ parting: FilterDialogue.Parting) {
        guard let transaction = copies, let verdict else { return }
        nextHop?.leave(parting)
        (nextHop, copies) = (transaction.recipientsHop, nil)
        if let loss = transaction.loss { return nextHopClosed(transaction.recipientsHop, loss) }
        askData(verdict)
        nextHop?.flush()
    }

    /// The client does not bring the message again.
    func forgetCopies() {
        for copy in messageCopies { worker.acceptedCopies.remove(copy.mark) }
    }
}
