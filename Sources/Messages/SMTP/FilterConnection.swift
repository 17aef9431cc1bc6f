// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Loop
internal import NIOCore
internal import Report
internal import Rules
internal import Settings
internal import Wire

/// One client of the filter: carries bytes between its socket and `SMTPServerSession`, and the events of the session,
/// the checks and the next hop to `FilterDialogue`, whose actions it carries out. Belongs to the loop of its worker.
///
///     EHLO        Weir offers the next hop's capabilities
///     RCPT        MAIL and RCPT go to the next hop, whose reply is the client's
///     content     is kept and checked, while the next hop waits
///     final dot   the verdict, then DATA, the content and the final dot; the next hop's reply is the client's
final class FilterConnection: ReceivedConnection {
    /// What the socket is used for next.
    private enum Flow {
        case sending, reading
        /// Reads and drops everything that the client sends after its last reply.
        case discarding
        /// Waits for the disk or the next hop.
        case waiting
        /// Waits for the next turn of the loop.
        case interrupted
    }

    private var stream: SocketStream
    let worker: FilterWorker
    var dialogue: FilterDialogue
    /// Its output is not sent yet. Until it is, nothing is read.
    var session: SMTPServerSession
    let content: ReceivedContent
    private var filter: MessageFilter?
    /// The sets of checks that the envelope chooses.
    private var sets: FilterSets?
    /// The parameters of RCPT for a redirected message.
    private var redirectedParameters: [UInt8] = []
    /// Whether suspended lookups of the message are being done on another thread.
    var isBeingChecked: Bool { filter?.isAway ?? false }
    /// The hash of the content for an LMTP server, however it is cut into pieces. It tells whether the message came
    /// before.
    private(set) var contentHash: Hasher?
    var verdict: Verdict?
    /// The connection that carries the transaction, or its copies.
    var nextHop: NextHopConnection?
    /// The copies that an LMTP server gets first, and the connection that carries the client's recipients meanwhile.
    var copies: LMTPCopyTransaction?
    /// All copies that the verdict adds, where the next hop is an LMTP server.
    var messageCopies: [LMTPCopy] = []
    /// Whether received commands or content wait for the next turn of the loop.
    private var isInterrupted = false
    /// When the client last sent something, or Weir was last done with what it had sent.
    var activeSince = NIODeadline.now()
    var contentSince = NIODeadline.now()
    /// When the client's final dot, or the last reply to it, was handled; nil while no reply to it is due.
    var answerDueSince: NIODeadline?

    /// Bytes of one read: of commands, and of content.
    private static let mostRead = 16 << 10
    private static let mostContentRead = 64 << 10
    /// Bytes of later commands that are read before earlier ones are answered.
    private static let mostWaiting = 64 << 10

    /// - Parameter refusal: the reply that turns the client away; nil greets it.
    init(_ descriptor: Int32, refusal: SMTPReply?, worker: FilterWorker) {
        stream = SocketStream(descriptor, worker.loop)
        self.worker = worker
        dialogue = FilterDialogue(nextHop: worker.settings.nextHop.variant)
        session = SMTPServerSession(
            variant: worker.settings.variant, mostRecipients: worker.mostRecipients, hostName: worker.hostName,
            token: worker.token)
        content = worker.checks.makeContent()
        if let refusal {
            session.output.clear()
            session.close(refusal)
        }
    }

    // MARK: The client

    /// Greets the client, or turns it away.
    func begin() { flush() }

    private var flow: Flow {
        if session.output.readableBytes > 0 { return .sending }
        if dialogue.isLingering { return .discarding }
        if isInterrupted, !mustWait { return .interrupted }
        switch dialogue.input {
        case .open: return mustWait || session.waitingBytes >= Self.mostWaiting ? .waiting : .reading
        case .ended: return .waiting
        }
    }

    /// Whether the disk or another thread has to do something before the client's next command or content.
    private var mustWait: Bool { content.isWriting || isBeingChecked }

    func isReady() {
        switch flow {
        case .sending:
            flush()
            if session.output.readableBytes == 0 { advance() }
        case .discarding: discard()
        case .reading: read()
        case .interrupted: advance()
        case .waiting: if stream.hasFailed { end() }
        }
    }

    private func read() {
        let most = worker.loop.readSize(session.isReceivingContent ? Self.mostContentRead : Self.mostRead)
        switch stream.read({ session.receive(upTo: most, $0) }) {
        case .bytes:
            advance()
            if dialogue.mayReply, session.isReceivingContent, worker.settings.listen.isTCP { stream.acknowledge() }
        case .nothing: break
        case .end where hasGivenUp: end()
        case .end:
            dialogue.inputEnded()
            flush()
        case .failure: end()
        }
    }

    private func discard() {
        switch stream.read({ room in withUnsafeTemporaryAllocation(byteCount: Self.mostRead, alignment: 1, room) }) {
        case .bytes, .nothing: break
        case .end, .failure: end()
        }
    }

    /// Closes the connection, and drops its transaction.
    func end() {
        guard let parting = dialogue.disconnected() else { return }
        stream.close()
        worker.closed(stream.descriptor)
        leaveNextHop(parting)
        if isBeingChecked { dropFilter() } else { filter = nil }
        content.reset()
    }

    /// Handles received bytes as far as possible in this turn of the loop, then sends the replies together.
    func advance() {
        isInterrupted = false
        guard dialogue.isServing else { return }
        activeSince = .now()
        let share = worker.loop.beginShare()
        while !isInterrupted, !mustWait, let step = session.next(into: &content.buffer) {
            handle(step)
            isInterrupted = session.waitingBytes > 0 && worker.loop.isOver(share)
        }
        nextHop?.flush()
        flush()
    }

    private func flush() {
        guard dialogue.mayReply else { return }
        if session.isIdle, worker.isStopping { session.close(SMTPReply(421, "4.3.2 Error: the service is stopping")) }
        beginLastReplyIfDone()
        if session.output.readableBytes > 0, stream.send(&session.output) == nil { return end() }
        if session.output.readableBytes == 0 {
            session.output.giveUpRead()
            switch dialogue.repliesSent(isStopping: worker.isStopping) {
            case .wait: break
            case .linger: return linger()
            case .close: return end()
            }
        }
        switch flow {
        case .sending: stream.want(.writing)
        case .reading, .discarding: stream.want(.reading)
        case .waiting: stream.want(.nothing)
        case .interrupted:
            stream.want(.nothing)
            worker.loop.callAgain(stream.descriptor)
        }
    }

    /// Whether the session is closed, or the client has shut down its side and all its commands are answered.
    private func beginLastReplyIfDone() {
        switch dialogue.input {
        case .open:
            guard session.isClosed else { return }
            leaveNextHop(dialogue.beginLastReply(session.hasQuit ? .close : .linger))
        case .ended:
            guard session.isClosed || !session.awaitsAnswer && !mustWait && !isInterrupted else { return }
            leaveNextHop(dialogue.beginLastReply(.close))
        }
    }

    private func linger() {
        guard shutdown(stream.descriptor, Int32(SHUT_WR)) == 0 else { return end() }
        activeSince = .now()
        stream.want(.reading)
    }

    private func handle(_ step: SMTPServerSession.Step) {
        switch step {
        case .needsCapabilities: offer()
        case .recipient(let line): askRecipient(line)
        case .beginContent: beginContent()
        case .content: check(isEnd: false)
        case .endOfContent:
            dialogue.contentEnded()
            answerDueSince = activeSince
            check(isEnd: true)
        case .aborted:
            sets = nil
            leaveNextHop(dialogue.transactionAborted())
        case .answered, .closed: break
        }
    }

    private func offer() {
        if let capabilities = worker.pool.knownCapabilities { return session.offer(capabilities) }
        worker.pool.askCapabilities { [self] result in
            switch result {
            case .success(let capabilities): session.offer(capabilities)
            case .failure(let failure):
                // The client sends its message again.
                worker.checks.counters.count(.deferred)
                session.close(failure.reply(421))
            }
            advance()
        }
    }

    /// Closes the session with a last reply.
    func close(_ reply: SMTPReply) {
        session.close(reply)
        activeSince = .now()
        flush()
    }

    func closeAtStop() { close(SMTPReply(421, "4.3.2 Error: the service is stopping")) }

    func closeIfIdle() {
        if session.isIdle { flush() }
    }

    // MARK: The envelope

    private func askRecipient(_ line: ByteBuffer) {
        switch dialogue.recipientGiven() {
        case .begin:
            beginTransaction()
            ask(.recipient, line)
        case .ask: ask(.recipient, line)
        case .ignore: break
        }
    }

    private func beginTransaction() {
        sets = FilterSets(worker.checks.rules(), session.attributes, worker.checks.conditionScratch)
        let connection = worker.pool.acquire(for: self)
        nextHop = connection
        dialogue.began(onReused: connection.hasAnsweredEHLO)
        for line in session.xforward { ask(.xforward, line) }
        ask(.mail, session.mail)
        if connection.hasAnsweredEHLO { compareCapabilities(connection) }
    }

    private func ask(_ command: SMTPClientSession.Command, _ line: ByteBuffer) {
        dialogue.asked(command, line)
        if command == .recipient { sets?.ask(line) }
        nextHop?.send(command, line)
    }

    /// Checks the capabilities again, because the connection may be to another server than the one that was asked.
    private func compareCapabilities(_ connection: NextHopConnection) {
        guard let offered = session.offered else { return }
        if let reply = dialogue.nextHopReady(covers: connection.capabilities.covers(offered)) { session.close(reply) }
    }

    private func askAgain(_ questions: [FilterDialogue.Question]) {
        let fresh = worker.pool.acquire(for: self, fresh: true)
        nextHop = fresh
        for (command, line) in questions { fresh.send(command, line) }
        fresh.flush()
    }

    private func leaveNextHop(_ parting: FilterDialogue.Parting) {
        verdict = nil
        if parting == .detach { logPossibleDuplicate("the client's connection ended") }
        nextHop?.leave(parting)
        nextHop = nil
        copies?.recipientsHop.leave(.reset)
        copies = nil
    }

    // MARK: The next hop

    func nextHopReady(_ connection: NextHopConnection) {
        guard connection === nextHop else { return }
        compareCapabilities(connection)
        flush()
    }

    func nextHop(_ connection: NextHopConnection, answers command: SMTPClientSession.Command, with reply: SMTPReply) {
        guard connection === nextHop else { return }
        switch dialogue.nextHopAnswered(command, with: reply) {
        case .askAgain(let questions):
            leaveNextHop(.disconnect)
            return askAgain(questions)
        case .answerRecipient(let answer):
            sets?.answer(isAccepted: answer.isPositive)
            session.answerRecipient(answer)
        case .logRefusedXForward:
            worker.log.complain(.nextHop("\(worker.settings.nextHop)"), "refuses XFORWARD with \(reply.text)")
        case .logRefusedCopy:
            worker.log.warning("filter: \(session.summary): omitted a BCC: the next hop answered \(reply.text)")
        case .sendContent: sendContent()
        case .finish(let answer, let parting): finish(answer, parting)
        case .finalReply(let answer):
            if !reply.isPositive { worker.log.info("filter: \(session.summary): the next hop answered \(reply.text)") }
            finish(answer, .release)
        case .passOn(let answers): passOn(answers)
        case .finalReplies(let answers, let isDeferred):
            report(answers)
            if !isDeferred { forgetCopies() }
            finish(answers, .release)
        case .copyAnswered(let number, let answer): copyAnswered(number, answer)
        case .deferWithCopies(let cause, let answer, let parting):
            reportCopy(cause)
            finish(answer, parting)
        case .leaveOutCopies(let cause, let parting):
            if let cause { reportCopy(cause) }
            endCopies(parting)
        case .ignore: break
        }
        advance()
    }

    func nextHopClosed(_ connection: NextHopConnection, _ ending: NextHopDialogue.Ending) {
        guard connection === nextHop else {
            copies?.closed(connection, ending)
            return
        }
        nextHop = nil
        if dialogue.mayBeAccepted { logPossibleDuplicate(ending.failure.cause) }
        let action = dialogue.nextHopClosed(ending.failure)
        if case .askAgain(let questions) = action { return askAgain(questions) }
        // The pool has counted and logged a connection that was never ready.
        if ending.kind == .lost {
            worker.pool.counters.countLoss()
            worker.log.complain(.nextHop("\(worker.settings.nextHop)"), ending.failure.cause)
        }
        switch action {
        case .close(let reply):
            worker.checks.counters.count(.deferred)
            return close(reply)
        case .finish(let reply): finish(reply, .none)
        case .finishEach(let replies): finish(replies, .none)
        case .wait, .askAgain: return
        }
        advance()
    }

    // MARK: The content

    private func beginContent() {
        dialogue.contentBegan()
        let filter = worker.checks.acquireFilter(sets?.rules ?? worker.checks.rules())
        self.filter = filter
        if let chosen = sets?.choose() { filter.select(chosen) }
        redirectedParameters = sets?.redirectedParameters ?? []
        sets = nil
        if worker.settings.mode == .afterQueue { session.describeQueueFile(to: filter) }
        contentHash = isSMTP ? nil : Hasher()
        let size = nextHop?.capabilities.size ?? 0
        content.begin(most: size > 0 ? size : .max)
        contentSince = .now()
    }

    private func check(isEnd: Bool) {
        content.withNewBytes { bytes in
            if let filter, !filter.isDecided { filter.update(bytes) }
            contentHash?.combine(bytes: bytes)
        }
        if isEnd { filter?.endInput() }
        if let filter, filter.isSuspended { resume(filter, isEnd) }
        let isSpooling = content.spoolIfNeeded(isEnd: isEnd) { [self] in
            // The session may have been closed in the meantime.
            guard dialogue.isServing else { return content.reset() }
            if isEnd, !isBeingChecked { judge() }
            advance()
        }
        if isEnd, !isSpooling, !isBeingChecked { judge() }
    }

    /// Has lookups that take long done on another thread.
    private func resume(_ filter: MessageFilter, _ isEnd: Bool) {
        let since = NIODeadline.now()
        worker.checks.resume(filter) { [self] in
            guard dialogue.isServing, filter === self.filter else { return }
            contentSince = contentSince + (.now() - since)
            if isEnd, !content.isWriting { judge() }
            advance()
        }
    }

    private func dropFilter() {
        if let filter { worker.checks.release(filter) }
        filter = nil
    }

    private func judge() {
        guard let filter else { return }
        let verdict = filter.finish()
        switch dialogue.judged(judgement(of: verdict)) {
        case .askData: askData(verdict)
        case .deliverCopies: deliverCopies(verdict)
        case .finish(let reply, let parting): finish(reply, parting)
        case .ignore: break
        }
    }

    /// The transaction is over: `reply` is the client's answer to its content.
    func finish(_ reply: SMTPReply, _ parting: FilterDialogue.Parting) {
        endTransaction(parting)
        session.finish(reply)
    }

    func endTransaction(_ parting: FilterDialogue.Parting) {
        leaveNextHop(parting)
        dropFilter()
        content.reset()
        answerDueSince = nil
    }

    func askData(_ verdict: Verdict) {
        guard let nextHop else { return }
        self.verdict = verdict
        let offersDSN = nextHop.capabilities.extensions.contains(.dsn)
        if isSMTP || verdict.isRedirected {
            verdict.changeEnvelope(
                mail: session.mail, xforward: session.xforward, redirectedParameters, offersDSN: offersDSN
            ) { nextHop.send($0, $1) }
        }
        nextHop.send(.data, "DATA\r\n")
    }
}
