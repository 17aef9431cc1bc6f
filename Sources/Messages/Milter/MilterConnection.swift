// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Limits
internal import Loop
internal import NIOCore
internal import Policy
internal import Report
internal import Rules
internal import Wire

/// One connection of an MTA: reads packets, hands their events to the dialogue, and carries out its actions.
///
///     socket ─▶ MilterSession ─events─▶ MilterDialogue ─actions─▶ MilterContent, LedgerHost, socket
final class MilterConnection: ReceivedConnection {
    private var stream: SocketStream
    private let worker: MilterWorker
    private let isTCP: Bool
    /// Its output holds the replies that are not sent yet.
    private var session: MilterSession
    private var dialogue = MilterDialogue()
    private var content: MilterContent
    private var offer: MilterOffer
    private lazy var name = worker.shared.makeName()
    private var messageCount: UInt64 = 0
    private var openQuestion: OpenQuestion?
    private var sentBytes = 0
    private var activeSince = NIODeadline.now()
    /// Whether received events wait for the next turn of the loop.
    private var isInterrupted = false

    init(_ descriptor: Int32, worker: MilterWorker, isTCP: Bool) {
        stream = SocketStream(descriptor, worker.loop)
        self.worker = worker
        self.isTCP = isTCP
        offer = worker.makeOffer()
        session = MilterSession(wanting: offer.terms)
        content = MilterContent(worker.checks)
    }

    private var isOpen: Bool { !dialogue.isClosed }
    private var unsent: Int { session.output.readableBytes }
    /// Whether the MTA's next event has to wait.
    private var isWaiting: Bool { dialogue.isWaiting || content.isBeingChecked }

    // MARK: The socket

    func isReady() {
        guard unsent > 0 else { return isInterrupted && !isWaiting ? handleEvents() : read() }
        send()
        if unsent == 0 { handleEvents() }
    }

    private func read() {
        let most = worker.loop.readSize(MilterFlow.readSize(unread: session.waitingBytes))
        switch stream.read({ session.receive(upTo: most, $0) }) {
        case .bytes: break
        case .nothing: return
        case .end, .failure: return close()
        }
        activeSince = .now()
        let sentBefore = sentBytes
        handleEvents()
        if isTCP, isOpen, sentBytes == sentBefore { stream.acknowledge() }
    }

    /// Closes the connection, and aborts the message under way.
    func close() {
        guard isOpen else { return }
        let action = dialogue.close()
        if let openQuestion { worker.host.cancel(openQuestion) }
        stream.close()
        worker.closed(stream.descriptor)
        carryOut(action)
    }

    // MARK: ReceivedConnection

    /// libmilter's own timeout (MI_TIMEOUT). It is longer than any MTA waits for its client.
    private static let timeout: TimeAmount = .seconds(7210)

    /// Mostly the MTA has sent its first packet by now (TCP_DEFER_ACCEPT).
    func begin() { isReady() }

    func closeAtStop() { close() }

    func checkTime(_ now: NIODeadline) {
        if now - activeSince > Self.timeout { close() }
    }

    func closeIfIdle() {
        if session.isIdle, !isWaiting, unsent == 0 { close() }
    }

    private func send() {
        guard isOpen else { return }
        guard let sent = stream.send(&session.output) else { return close() }
        sentBytes += sent
        if unsent == 0 {
            session.output = ByteBuffer()
            switch dialogue.drained() {
            case .none: break
            case let action: resume(action)
            }
        }
        watch()
    }

    private func watch() {
        guard isOpen else { return }
        let flow = MilterFlow(
            unsent: unsent, unread: session.waitingBytes, isWaiting: isWaiting, isInterrupted: isInterrupted)
        stream.want(flow.interest)
        if case .interrupted = flow { worker.loop.callAgain(stream.descriptor) }
    }

    private var peer: String {
        SocketAddress(ofPeerOf: stream.descriptor)?.ipAddress ?? "an MTA"
    }

    // MARK: Events

    /// Handles the events that were received, until one has to wait or the share of this turn is used up; then sends
    /// the replies together.
    ///
    /// A long packet may take more than a share, and many may be complete in one turn. So it waits for the next turn,
    /// where the loop calls this connection after those that are done sooner.
    private func handleEvents() {
        guard isOpen else { return }
        let longest = isInterrupted ? .max : worker.loop.readSize(Int(MilterSession.longestPacket))
        isInterrupted = false
        let share = worker.loop.beginShare()
        do throws(MilterFault) {
            while !isInterrupted, !isWaiting, isOpen, makeRoomForReplies() {
                isInterrupted = session.waitingBytes > longest && session.nextLength > longest
                guard !isInterrupted, let event = try session.next() else { break }
                carryOut(try handle(event))
                isInterrupted = session.waitingBytes > 0 && worker.loop.isOver(share)
            }
        } catch {
            return close(error)
        }
        // Without room for replies, events wait in the input. `isReady` handles them once all replies are sent.
        if unsent > 0, MilterFlow.hasRoom(unsent: unsent) { send() } else { watch() }
        if worker.isStopping { closeIfIdle() }
    }

    private func close(_ fault: MilterFault) {
        worker.log.complain(.malformedRequest, "closed the milter connection of \(peer): \(fault.text)")
        close()
    }

    private func makeRoomForReplies() -> Bool {
        if !MilterFlow.hasRoom(unsent: unsent) { send() }
        return MilterFlow.hasRoom(unsent: unsent)
    }

    private func handle(_ event: MilterSession.Event) throws(MilterFault) -> MilterDialogue.Action {
        switch event {
        case .connect(let client): return try dialogue.connect(client)
        case .helo(let name): return try dialogue.helo(name)
        case .mail(let reversePath, let parameters): return try beginMessage(reversePath, parameters)
        case .recipient(let address, let parameters):
            return try dialogue.recipient(address, parameters, session.macros)
        case .header(let name, let value):
            try beginContent()
            addHeader(name, value)
            waitForChecks { [self] in handleEvents() }
            return try dialogue.header()
        case .body(let piece):
            try beginContent()
            let isBeingWritten = content.check(piece) && keepsBody && keep(piece, isEnd: false)
            waitForChecks { [self] in handleEvents() }
            return try dialogue.body(isBeingWritten: isBeingWritten)
        case .endOfMessage:
            try beginContent()
            return try endMessage()
        case .abort: return dialogue.abort()
        case .macros: return .none
        case .other: return .proceed
        case .quit:
            close()
            return .none
        }
    }

    private func beginMessage(
        _ reversePath: [UInt8], _ parameters: [[UInt8]]
    ) throws(MilterFault) -> MilterDialogue.Action {
        guard let terms = session.terms else { return .none }
        let current = worker.makeOffer()
        // Rules that need more than this connection has negotiated apply from the MTA's next connection on.
        if current !== offer, current.terms.isCovered(by: terms, missing: session.missingActions) { offer = current }
        content.begin(offer.rules, reversePath: reversePath)
        let instance = offer.settings.asksLimits ? Array("\(name).\(messageCount)".utf8) : []
        messageCount += 1
        return try dialogue.mail(
            reversePath, parameters, session.macros, settings: offer.settings, terms: terms, instance: instance)
    }

    /// The envelope is complete. An MTA sends no MAIL if nothing needs it.
    private func beginContent() throws(MilterFault) {
        if !content.isBegun { _ = try beginMessage([], []) }
        guard offer.rules.areConditional else { return }
        let scratch = worker.checks.conditionScratch
        if let chosen = dialogue.chooseSets(of: offer.rules, session.macros, scratch) { content.select(chosen) }
    }

    private func addHeader(_ name: ByteBuffer, _ value: ByteBuffer) {
        let alertMarks = offer.settings.asksLimits ? worker.host.alerts.marks : nil
        if content.hasNoHeaders { content.describe(session.macros) }
        name.withUnsafeReadableBytes { name in
            value.withUnsafeReadableBytes { value in
                content.addHeader(name, value, hasLeadingSpace: hasLeadingSpace, alertMarks: alertMarks)
            }
        }
    }

    private var hasLeadingSpace: Bool { session.terms?.options.contains(.leadingSpace) ?? false }

    /// The terms hold for all messages of the connection, even if a reload has brought rules that change no bodies.
    private var keepsBody: Bool { session.terms?.actions.contains(.changeBody) ?? false }

    private func keep(_ piece: ByteBuffer, isEnd: Bool) -> Bool {
        content.keep(piece, isEnd: isEnd) { [self] in resume(dialogue.written()) }
    }

    /// Has lookups that take long done on another thread. The MTA's next events wait meanwhile.
    ///
    /// - Returns: whether `then` will be called.
    @discardableResult
    private func waitForChecks(_ then: @escaping () -> Void) -> Bool {
        content.resumeIfSuspended(isCurrent: { [self] in isOpen && content.isOf($0) }, then: then)
    }

    private func endMessage() throws(MilterFault) -> MilterDialogue.Action {
        content.endInput()
        return waitForChecks { [self] in judgeAfterWaiting() } ? .none : try judge()
    }

    private func judgeAfterWaiting() {
        do throws(MilterFault) { resume(try judge()) } catch { close(error) }
    }

    private func judge() throws(MilterFault) -> MilterDialogue.Action {
        guard let verdict = content.finish() else { return .proceed }
        worker.checks.report(verdict, origin)
        let judgement = content.judgement(
            verdict, messageOrigin(verdict), newHeaders: verdict.replacements(for: session.macros))
        return try dialogue.endOfMessage(judgement, session.macros)
    }

    private func messageOrigin(_ verdict: Verdict) -> MilterJudgement.Origin {
        if worker.checks.probes.isActive, isEndOfProbe(verdict) { return .probe }
        guard case .accept = verdict.disposition, offer.settings.asksLimits, let mark = content.alertMark,
            worker.host.alerts.marks.redeem(mark)
        else { return .client }
        return .alert
    }

    /// A probe is known by its header, because without limits the MTA sends no reverse-path.
    private func isEndOfProbe(_ verdict: Verdict) -> Bool {
        guard let mark = content.probeMark else { return false }
        let sighting = worker.checks.probes.see(
            mark, at: .milter, "milter, end of message", verdict.summary, isRefused: verdict.isRefusal)
        return if case .last = sighting { true } else { false }
    }

    // MARK: Actions

    /// Carries out an action that was waited for, then handles the events that were received meanwhile.
    private func resume(_ action: MilterDialogue.Action) {
        carryOut(action)
        handleEvents()
    }

    private func carryOut(_ action: MilterDialogue.Action) {
        switch action {
        case .none: break
        case .proceed: if session.needsReply { session.output.writeMilterContinue() }
        case .refuseRecipient(let refusal): if session.needsReply { session.output.writeMilterReply(refusal.reply) }
        case .refuseAddress(let refusal, let address): refuse(address, refusal)
        case .ask(let question): ask(question)
        case .conclude(let conclusion):
            begin(conclusion)
            reply(conclusion.reply)
        case .beginNewBody(let conclusion):
            begin(conclusion)
            if !keep(ByteBuffer(), isEnd: true) { carryOut(dialogue.written()) }
        case .append(let piece): buildNewBody(piece)
        case .finishNewBody:
            content.finishNewBody(&session.output)
            reply(.accept)
        case .abandon(let question):
            worker.host.abandon(question)
            content.abort()
            session.endMessage()
        }
    }

    private func refuse(_ recipient: [UInt8], _ refusal: Refusal) {
        worker.shared.counters.countRefusedAddress()
        worker.log.notice("\(origin): refused: RCPT \(text(recipient)): \(text(refusal.reply))")
        if session.needsReply { session.output.writeMilterReply(refusal.reply) }
    }

    /// Asks the ledger. Other events wait for its answer.
    private func ask(_ question: PolicyQuestion) {
        let callback = LoopCallback(worker.loop) { [self] in
            openQuestion = nil
            resume(dialogue.answered($0))
        }
        openQuestion = worker.host.ask(question) { callback.call($0) }
    }

    /// All that a conclusion contains but the reply.
    private func begin(_ conclusion: MilterConclusion) {
        for remark in conclusion.remarks { log(remark) }
        if let withdrawn = conclusion.withdrawn { worker.host.requestWithdrawal(of: withdrawn) }
        if let edits = conclusion.edits {
            content.write(
                edits, to: &session.output, headersAhead: session.macros.headersAhead, hasLeadingSpace: hasLeadingSpace)
        }
    }

    private func reply(_ reply: MilterConclusion.Reply) {
        killPoint("milter-concluded")
        switch reply {
        case .accept: session.output.writeMilterContinue()
        case .discard: session.output.writeMilterDiscard()
        case .refuse(let text): session.output.writeMilterReply(text)
        case .temporaryFailure: session.output.writeMilterTemporaryFailure()
        }
        content.end()
        session.endMessage()
    }

    /// Appends pieces of the new body to the output, until one has to be read from the disk.
    private func buildNewBody(_ first: Verdict.Piece) {
        var action = MilterDialogue.Action.append(first)
        while case .append(let piece) = action {
            if let range = content.append(piece, to: &session.output) { return readNewBody(range) }
            action = dialogue.pieceAppended()
        }
        carryOut(action)
    }

    private func readNewBody(_ range: Range<Int>) {
        content.read(range) { [self] result in
            guard isOpen else { return }
            switch result {
            case .failure(let error): resume(dialogue.readFailed("\(error)"))
            case .success(let bytes):
                content.append(bytes, to: &session.output)
                dialogue.pieceRead()
                send()
            }
        }
    }

    // MARK: The log

    private func log(_ remark: MilterConclusion.Remark) {
        switch remark {
        case .alertPassed: worker.log.info("\(origin): passed: an alert")
        case .held(let reply): worker.log.notice("\(origin): held: \(text(reply))")
        case .deferred(let reply): worker.log.notice("\(origin): deferred: \(text(reply))")
        case .repaired(let old, let new, let repairs):
            worker.shared.counters.count(repairs)
            worker.log.info("\(origin): \(text(old)) becomes \(text(new)): \(repairs)")
        case .tooManyHeaders: worker.log.notice("\(origin): refused: too many headers to change in a milter")
        case .impossible(let cause, let isDeferred):
            worker.log.complain(
                .noRoom, "\(origin): \(cause); the message is \(isDeferred ? "deferred" : "passed unchanged")")
        case .unreadableSpool(let cause):
            worker.log.complain(.noRoom, "\(origin): deferred: can't read a spool file: \(cause)")
        }
    }

    private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    /// `milter: 4ZkTx12345: from=<a@example.org>`, for the log; without the reverse-path if the MTA sends no MAIL.
    private var origin: String {
        let queueID = session.macros["i"].map(text) ?? "NOQUEUE"
        let reversePath = content.reversePath
        return "milter: \(queueID)" + (reversePath.isEmpty ? "" : ": from=\(text(reversePath))")
    }
}
