// SPDX-License-Identifier: Apache-2.0
package import NIOCore
package import Wire

/// What the filter owes to one client and to the next hop: a state machine that knows no socket, clock, log, pool or
/// rule. `FilterConnection` feeds it events and carries out the actions that it returns. The SMTP syntax of the
/// client's side is `SMTPServerSession`'s.
///
///              recipientGiven        contentBegan           contentEnded
///      idle ----------------> envelope ----------> content ----------> judging
///       ^ ^                    |                                          | |
///       | | transactionAborted |                    judged: answered here | | judged: handed on
///       | +--------------------+------------------------------------------+ v
///       |                                                             dataAsked
///       |            refused, or the next hop is lost                    |  | 354
///       +----------------------------------------------------------------+  v
///       |            spool unreadable, or the next hop is lost           sending
///       +-------------------------------------------------------------------+
///       |            the final reply, or the next hop is lost               v finalDotSent
///       +--------------------------------------------------------------- finalDot
///
///     any of these -- beginLastReply --> lastReply -- repliesSent --> lingering
///     any state    -- disconnected --> closed
///
/// Idle covers the greeting, EHLO, and MAIL, which goes to the next hop with the first recipient. A next hop that is
/// lost costs a 421 in `envelope`. In `content` and `judging` the loss is kept, and becomes a 451 if the message was to
/// be handed on. Until `finalDot` the next hop has not accepted the message, so a deferral causes no duplicate. In
/// `finalDot` the next hop may have accepted it, and a loss may cause a duplicate, but never a lost message.
///
/// An LMTP server answers the final dot for each recipient (RFC 2033 4.2). An LMTP client gets each of these replies
/// when it comes (`LMTPReplies`). An SMTP client gets only one, so it may have one recipient at a time
/// (`SMTPServerSession.mostRecipients`).
///
/// Copies go to an LMTP server first, in a transaction of their own on another connection: `dataAsked`, `sending` and
/// `finalDot` with `copies`, then `dataAsked` for the client's recipients. A deferred copy ends the transaction.
///
/// Reset for each message: the state, `questions`, and with it the refusals that the state holds; `lmtp`, `copies`;
/// `transaction` counts up. Kept for the connection: `input`.
package struct FilterDialogue: ~Copyable {
    /// A command for the next hop, with its line end.
    package typealias Question = (command: SMTPClientSession.Command, line: ByteBuffer)

    /// The connection that carries the envelope.
    private enum Trust {
        /// It was used before, and has not answered yet: the next hop may have closed it in the meantime.
        case unproven
        case proven(mailRefusal: SMTPReply?)
    }

    /// The connection while content arrives, and the next hop waits.
    private enum Waiting {
        case present
        case lost(SMTPFailure)
    }

    private enum State {
        case idle
        case envelope(Trust)
        case content(Waiting)
        /// The content is complete. It goes to the disk, or to the rules.
        case judging(Waiting)
        /// The verdict's changes of the envelope and DATA were sent.
        case dataAsked(EnvelopeChange, refusal: SMTPReply?)
        case sending
        case finalDot
        case lastReply(Farewell)
        case lingering
        case closed
    }

    private var state = State.idle
    /// Commands sent in `envelope(.unproven)`, which may have to be sent again; empty in all other states. It keeps its
    /// memory.
    private var questions: [Question] = []
    /// The number of the transaction. It identifies late results of the disk or the next hop.
    package private(set) var transaction: UInt64 = 0
    package private(set) var input = Input.open
    /// What an LMTP server has answered; nil for SMTP.
    private var lmtp: LMTPReplies?
    /// What it has answered to the copies; nil unless they are under way.
    private var copies: LMTPCopies?

    package init(nextHop: SMTPServerSession.Variant) {
        lmtp = nextHop == .lmtp ? LMTPReplies() : nil
    }

    // MARK: Questions

    /// Whether the copies for an LMTP server are under way, and the client's recipients wait.
    package var isDeliveringCopies: Bool { copies != nil }

    /// Whether the filter still reads commands and content: before the last reply.
    package var isServing: Bool {
        switch state {
        case .idle, .envelope, .content, .judging, .dataAsked, .sending, .finalDot: true
        case .lastReply, .lingering, .closed: false
        }
    }

    /// Replies may be sent.
    package var mayReply: Bool {
        switch state {
        case .idle, .envelope, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply: true
        case .lingering, .closed: false
        }
    }

    package var isLingering: Bool {
        switch state {
        case .lingering: true
        case .idle, .envelope, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .closed: false
        }
    }

    /// Whether the next hop may have accepted the message, or will.
    package var mayBeAccepted: Bool {
        switch state {
        case .finalDot: true
        case .idle, .envelope, .content, .judging, .dataAsked, .sending, .lastReply, .lingering, .closed: false
        }
    }

    /// Whether content of this transaction goes to the next hop now.
    package func isSending(_ transaction: UInt64) -> Bool {
        switch state {
        case .sending: transaction == self.transaction
        case .idle, .envelope, .content, .judging, .dataAsked, .finalDot, .lastReply, .lingering, .closed: false
        }
    }

    /// - Parameters:
    ///   - awaitsAnswer: whether EHLO or recipients wait for the next hop's reply.
    ///   - isAtDisk: whether a read or write of the spool is in progress.
    package func awaited(awaitsAnswer: Bool, isAtDisk: Bool) -> Awaited {
        switch state {
        case .idle, .envelope: awaitsAnswer ? .nextHop : .command
        case .content: isAtDisk ? .disk : .content
        case .judging: .disk
        case .sending: isAtDisk ? .disk : .nextHop
        case .dataAsked, .finalDot: .nextHop
        case .lastReply: .lastReply
        case .lingering, .closed: .close
        }
    }

    // MARK: The client

    package mutating func recipientGiven() -> RecipientAction {
        switch state {
        case .idle: .begin
        case .envelope: .ask
        case .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering, .closed: .ignore
        }
    }

    /// The transaction has acquired a connection to the next hop.
    package mutating func began(onReused isReused: Bool) {
        switch state {
        case .idle: state = .envelope(isReused ? .unproven : .proven(mailRefusal: nil))
        case .envelope, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering, .closed: break
        }
    }

    /// A command of the envelope goes to the next hop.
    package mutating func asked(_ command: SMTPClientSession.Command, _ line: ByteBuffer) {
        switch state {
        case .envelope(.unproven): questions.append((command, line))
        case .envelope(.proven), .idle, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering,
            .closed:
            break
        }
    }

    /// DATA was answered with 354, after a recipient was accepted.
    package mutating func contentBegan() {
        switch state {
        case .envelope: state = .content(.present)
        case .idle, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering, .closed: break
        }
    }

    /// The client's final dot has arrived.
    package mutating func contentEnded() {
        switch state {
        case .content(let nextHop): state = .judging(nextHop)
        case .idle, .envelope, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering, .closed: break
        }
    }

    /// RSET or EHLO within a transaction.
    package mutating func transactionAborted() -> Parting {
        switch state {
        case .envelope: endTransaction(.reset)
        case .idle, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering, .closed: .none
        }
    }

    package mutating func inputEnded() { input = .ended }

    /// No more is answered; only waiting replies are still sent.
    package mutating func beginLastReply(_ farewell: Farewell) -> Parting {
        guard isServing else { return .none }
        let parting = endTransaction(partingWithin)
        state = .lastReply(farewell)
        return parting
    }

    /// All replies are sent.
    package mutating func repliesSent(isStopping: Bool) -> SentAction {
        switch state {
        case .lastReply(.linger) where !isStopping:
            state = .lingering
            return .linger
        case .lastReply: return .close
        case .idle, .envelope, .content, .judging, .dataAsked, .sending, .finalDot, .lingering, .closed: return .wait
        }
    }

    /// The connection to the client is broken, or at its end.
    ///
    /// - Returns: nil if it was already closed.
    package mutating func disconnected() -> Parting? {
        if case .closed = state { return nil }
        let parting = endTransaction(partingWithin)
        state = .closed
        return parting
    }

    // MARK: The verdict

    package mutating func judged(_ judgement: Judgement) -> JudgementAction {
        switch (state, judgement) {
        case (.judging(.present), .handOn(let change)):
            state = .dataAsked(change, refusal: nil)
            guard change == .copiesFirst else { return .askData }
            copies = LMTPCopies()
            return .deliverCopies
        case (.judging(.lost(let failure)), .handOn): return .finish(failure.reply(451), endTransaction(.none))
        case (.judging(.present), .answer(let reply)): return .finish(reply, endTransaction(.reset))
        case (.judging(.lost), .answer(let reply)): return .finish(reply, endTransaction(.none))
        case (.idle, _), (.envelope, _), (.content, _), (.dataAsked, _), (.sending, _), (.finalDot, _),
            (.lastReply, _), (.lingering, _), (.closed, _):
            return .ignore
        }
    }

    /// The last of the content goes to the next hop, with the final dot.
    package mutating func finalDotSent() {
        switch state {
        case .sending: state = .finalDot
        case .idle, .envelope, .content, .judging, .dataAsked, .finalDot, .lastReply, .lingering, .closed: break
        }
    }

    /// Content can't be read back from the spool.
    package mutating func spoolFailed() -> Parting? {
        switch state {
        case .sending: endTransaction(.disconnect)
        case .idle, .envelope, .content, .judging, .dataAsked, .finalDot, .lastReply, .lingering, .closed: nil
        }
    }

    // MARK: The next hop

    /// The next hop of the transaction is ready.
    ///
    /// - Parameter covers: whether it has all extensions that were offered to the client.
    /// - Returns: the reply that closes the client's connection, or nil.
    package func nextHopReady(covers: Bool) -> SMTPReply? {
        switch state {
        case .envelope where !covers, .dataAsked(.copiesFirst, _) where !covers:
            SMTPReply(421, "4.3.0 Error: the next hop has fewer extensions now, try again")
        case .envelope, .idle, .content, .judging, .dataAsked, .sending, .finalDot, .lastReply, .lingering, .closed: nil
        }
    }

    package mutating func nextHopAnswered(
        _ command: SMTPClientSession.Command, with reply: SMTPReply
    ) -> ReplyAction {
        switch state {
        case .envelope(.unproven):
            // A server may announce that it closes an idle connection (RFC 5321 3.8).
            if reply.code == 421 { return .askAgain(takeQuestions()) }
            questions.removeAll(keepingCapacity: true)
            state = .envelope(.proven(mailRefusal: nil))
            return envelopeAnswered(command, reply, mailRefusal: nil)
        case .envelope(.proven(let mailRefusal)): return envelopeAnswered(command, reply, mailRefusal: mailRefusal)
        case .dataAsked(.copiesFirst, let refusal): return copiesAnswered(command, reply, refusal)
        case .dataAsked(let change, let refusal): return dataAnswered(command, reply, change, refusal)
        case .finalDot:
            guard command == .endOfData else { return .ignore }
            guard copies != nil else { return finalDotAnswered(reply.asFinal) }
            return copies?.add(reply.asFinal).map { .copyAnswered($0, reply.asFinal) } ?? .ignore
        case .idle, .content, .judging, .sending, .lastReply, .lingering, .closed: return .ignore
        }
    }

    private mutating func envelopeAnswered(
        _ command: SMTPClientSession.Command, _ reply: SMTPReply, mailRefusal: SMTPReply?
    ) -> ReplyAction {
        switch command {
        case .xforward: return reply.isPositive ? .ignore : .logRefusedXForward
        case .mail:
            if !reply.isPositive { state = .envelope(.proven(mailRefusal: reply.asFinal)) }
            return .ignore
        case .recipient:
            if reply.isPositive { lmtp?.recipients += 1 }
            return .answerRecipient(mailRefusal ?? reply.asFinal)
        case .greeting, .ehlo, .helo, .data, .endOfData, .reset, .quit: return .ignore
        }
    }

    private mutating func dataAnswered(
        _ command: SMTPClientSession.Command, _ reply: SMTPReply, _ change: EnvelopeChange, _ refusal: SMTPReply?
    ) -> ReplyAction {
        switch command {
        case .xforward: return reply.isPositive ? .ignore : .logRefusedXForward
        case .reset, .mail, .recipient:
            guard !reply.isPositive else {
                lmtp?.envelopeChanged(command)
                return .ignore
            }
            guard change == .redirect || reply.isTransient else { return .logRefusedCopy }
            state = .dataAsked(change, refusal: refusal ?? reply.asFinal)
            return .ignore
        case .data where reply.code == 354 && refusal == nil:
            state = .sending
            return .sendContent
        case .data:
            // A reply that is neither 354 nor a refusal may answer another command. After 354, RSET would be content.
            return .finish(refusal ?? reply.asRefusal, endTransaction(reply.code < 400 ? .disconnect : .reset))
        case .greeting, .ehlo, .helo, .endOfData, .quit: return .ignore
        }
    }

    private mutating func copiesAnswered(
        _ command: SMTPClientSession.Command, _ reply: SMTPReply, _ refusal: SMTPReply?
    ) -> ReplyAction {
        switch command {
        case .xforward: return reply.isPositive ? .ignore : .logRefusedXForward
        case .mail, .recipient:
            if command == .recipient { copies?.recipientAnswered(reply) }
            guard !reply.isPositive, refusal == nil else { return .ignore }
            guard reply.asFinal.isTransient else { return .logRefusedCopy }
            state = .dataAsked(.copiesFirst, refusal: reply.asFinal)
            return .ignore
        case .data:
            let hasRecipients = copies?.hasRecipients ?? false
            if reply.code == 354, refusal == nil, hasRecipients {
                state = .sending
                return .sendContent
            }
            let parting: Parting = reply.code < 400 ? .disconnect : .reset
            if let cause = refusal ?? (hasRecipients && reply.code < 500 ? reply.asRefusal : nil) {
                return .deferWithCopies(cause, .deferredCopy, endTransaction(parting))
            }
            endCopies()
            return .leaveOutCopies(hasRecipients ? reply : nil, parting)
        case .greeting, .ehlo, .helo, .endOfData, .reset, .quit: return .ignore
        }
    }

    /// After `copyAnswered`.
    package mutating func copyNoted() -> CopiesAction {
        switch state {
        case .finalDot:
            guard let copies, copies.areComplete else { return .wait }
            if copies.isDeferred { return .finish(.deferredCopy, endTransaction(.release)) }
            endCopies()
            return .askData(.release)
        case .idle, .envelope, .content, .judging, .dataAsked, .sending, .lastReply, .lingering, .closed: return .wait
        }
    }

    /// The client's recipients come next.
    private mutating func endCopies() {
        copies = nil
        state = .dataAsked(.copies, refusal: nil)
    }

    private mutating func finalDotAnswered(_ reply: SMTPReply) -> ReplyAction {
        lmtp?.add(reply)
        guard let replies = lmtp?.takeReplies(), let isComplete = lmtp?.areComplete else {
            _ = endTransaction(.release)
            return .finalReply(reply)
        }
        guard isComplete else { return .passOn(replies) }
        let isDeferred = lmtp?.areTransient ?? false
        _ = endTransaction(.release)
        return .finalReplies(replies, isDeferred: isDeferred)
    }

    /// The connection to the next hop is closed.
    package mutating func nextHopClosed(_ failure: SMTPFailure) -> LossAction {
        switch state {
        case .envelope(.unproven): return .askAgain(takeQuestions())
        case .envelope(.proven):
            _ = endTransaction(.none)
            return .close(failure.reply(421))
        case .content(.present): state = .content(.lost(failure))
        case .judging(.present): state = .judging(.lost(failure))
        case .dataAsked, .sending, .finalDot:
            let replies = lmtp?.complete(with: failure.reply(451))
            _ = endTransaction(.none)
            return replies.map { .finishEach($0) } ?? .finish(failure.reply(451))
        case .content(.lost), .judging(.lost), .idle, .lastReply, .lingering, .closed: break
        }
        return .wait
    }

    // MARK: The transaction

    /// A fresh connection proves itself: its loss is a fault.
    private mutating func takeQuestions() -> [Question] {
        defer { questions = [] }
        state = .envelope(.proven(mailRefusal: nil))
        return questions
    }

    /// How to leave the next hop in the current state.
    private var partingWithin: Parting {
        switch state {
        case .envelope, .content(.present), .judging(.present): .reset
        case .dataAsked, .sending: .disconnect
        case .finalDot: .detach
        case .idle, .content(.lost), .judging(.lost), .lastReply, .lingering, .closed: .none
        }
    }

    private mutating func endTransaction(_ parting: Parting) -> Parting {
        state = .idle
        questions.removeAll(keepingCapacity: true)
        if lmtp != nil { lmtp = LMTPReplies() }
        copies = nil
        transaction += 1
        return parting
    }
}
