// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Loop
internal import NIOCore
internal import Report
internal import Rules
internal import Settings
internal import Wire

/// One client of the filter: joins its session with the checks and a connection to the next hop.
///
///     EHLO      the next hop's capabilities are offered
///     RCPT      MAIL and RCPT go to the next hop, whose answer is the client's
///     content   is kept and checked, while the next hop waits
///     the end   the verdict, then DATA, the content and the final dot; the next hop's answer is the client's
///
/// Until the final dot has gone, a lost next hop costs a 421 or 451; from then on a 451, and perhaps a duplicate.
final class FilterConnection: ReceivedConnection {
    /// What the next hop was asked last.
    private enum Delivery {
        /// Envelope, or nothing.
        case none
        /// DATA, with what the verdict adds to the envelope.
        case data(Verdict)
        case content
        /// The final dot.
        case final
    }

    private var stream: SocketStream
    private let worker: FilterWorker
    private var isOpen = true
    /// Its output is what the client has not taken yet. Until it has, it is not read from.
    private var session: SMTPServerSession
    private let content: ReceivedContent
    private var filter: MessageFilter?

    private var nextHop: NextHopConnection?
    private var delivery = Delivery.none
    /// The number of the message: what was begun for another is not for this one.
    private var message: UInt64 = 0
    /// What was asked on a connection that was used before and has not answered once: it may have been closed already.
    private var unconfirmed: [(command: SMTPClientSession.Command, line: ByteBuffer)] = []
    private var isConfirmed = false
    private var mailRefusal: SMTPReply?
    /// Why the message can't go to the recipients that the verdict names.
    private var addressRefusal: SMTPReply?
    /// The next hop went away while content was coming.
    private var failure: SMTPFailure?

    private var isPumping = false
    /// The last reply is on its way.
    private var isEnding = false
    /// The last reply has gone: the client may be sending yet, and would lose that reply if the socket were closed.
    private var isLingering = false
    /// Nothing more comes from the client.
    private var inputHasEnded = false
    private var activeSince = NIODeadline.now()
    private var contentSince: NIODeadline?

    /// Of one read: commands, and content.
    private static let mostRead = 16 << 10
    private static let mostContentRead = 64 << 10
    /// Bytes of later commands that are read before earlier ones are answered.
    private static let mostWaiting = 64 << 10

    /// - Parameter refusal: the reply that turns the client away; nil greets it.
    init(_ descriptor: Int32, refusal: SMTPReply?, worker: FilterWorker) {
        stream = SocketStream(descriptor, worker.loop)
        self.worker = worker
        session = SMTPServerSession(variant: worker.settings.variant, hostName: worker.hostName, token: worker.token)
        content = worker.checks.makeContent()
        if let refusal {
            session.output.clear()
            session.close(refusal)
        }
    }

    // MARK: The client

    /// Greets the client, or turns it away.
    func begin() { flush() }

    func closeAtStop() { close(SMTPReply(421, "4.3.2 Error: the service is stopping")) }

    func isReady() {
        if isSending {
            flush()
            if !isSending { pump() }
        } else if isLingering {
            discard()
        } else if mayRead {
            read()
        } else if stream.hasFailed {
            end()
        }
    }

    private func read() {
        switch stream.read({
            session.receive(upTo: session.isReceivingContent ? Self.mostContentRead : Self.mostRead, $0)
        }) {
        case .bytes:
            activeSince = .now()
            pump()
            if isOpen, session.isReceivingContent, worker.settings.listen.isTCP { stream.acknowledge() }
        case .nothing: break
        case .end:
            inputHasEnded = true
            flush()
        case .failure: end()
        }
    }

    /// Reads what nobody wants.
    private func discard() {
        switch stream.read({ room in withUnsafeTemporaryAllocation(byteCount: Self.mostRead, alignment: 1, room) }) {
        case .bytes, .nothing: break
        case .end, .failure: end()
        }
    }

    /// Ends the connection, and with it what was under way.
    private func end() {
        guard isOpen else { return }
        isOpen = false
        stream.close()
        worker.closed(stream.descriptor)
        dropTransaction()
        content.reset()
    }

    private var isSending: Bool { session.output.readableBytes > 0 }

    private var mayRead: Bool { !inputHasEnded && !content.isWriting && session.waitingBytes < Self.mostWaiting }

    /// Takes what has come as far as it goes, then lets the replies go together.
    private func pump() {
        guard isOpen, !isEnding, !isPumping else { return }
        isPumping = true
        while !content.isWriting, let step = session.next(into: &content.buffer) { take(step) }
        isPumping = false
        nextHop?.flush()
        flush()
    }

    private func flush() {
        guard isOpen, !isLingering else { return }
        if session.isIdle, worker.isStopping { session.close(SMTPReply(421, "4.3.2 Error: the service is stopping")) }
        if isOver, !isEnding {
            isEnding = true
            dropTransaction()
        }
        if isSending, stream.send(&session.output) == nil { return end() }
        if !isSending {
            session.output.giveUpRead()
            if isEnding { return lingerOrEnd() }
        }
        stream.want(isSending ? .writing : mayRead ? .reading : .nothing)
    }

    /// All has been said. Who has asked for the end sends nothing more.
    private func lingerOrEnd() {
        guard !inputHasEnded, !session.hasQuit, !worker.isStopping, shutdown(stream.descriptor, Int32(SHUT_WR)) == 0
        else { return end() }
        isLingering = true
        activeSince = .now()
        stream.want(.reading)
    }

    /// All has been said. What is complete is answered: the client may have shut down its side only.
    private var isOver: Bool {
        session.isClosed || inputHasEnded && !session.awaitsAnswer && !content.isWriting
    }

    private func take(_ step: SMTPServerSession.Step) {
        switch step {
        case .needsCapabilities: offer()
        case .recipient(let line):
            if nextHop == nil { beginTransaction() }
            ask(.recipient, line)
        case .beginContent: beginContent()
        case .content: takeContent(isEnd: false)
        case .endOfContent: takeContent(isEnd: true)
        case .aborted: dropTransaction()
        case .closed: break
        }
    }

    private func offer() {
        worker.pool.withCapabilities { [self] result in
            switch result {
            case .success(let capabilities): session.offer(capabilities)
            case .failure(let failure):
                // The client comes once more with its message.
                worker.checks.counters.count(.deferred)
                session.close(failure.reply(421))
            }
            pump()
        }
    }

    /// Ends what takes too long, or what is idle when the service stops.
    func checkTime(_ now: NIODeadline) {
        let timeouts = worker.timeouts
        if session.isClosed {
            // It does not even take its last reply, or sends on and on.
            if now - activeSince > (isLingering ? timeouts.linger : timeouts.client) { end() }
        } else if let contentSince, session.isReceivingContent, now - contentSince > timeouts.content {
            close(SMTPReply(421, "4.4.2 Error: the message takes too long"))
        } else if isWaitingForClient, now - activeSince > timeouts.client {
            close(SMTPReply(421, "4.4.2 Error: timeout exceeded"))
        }
    }

    private var isWaitingForClient: Bool {
        session.isReceivingContent ? !content.isWriting : nextHop == nil || session.unanswered == 0 && isEnvelope
    }

    private var isEnvelope: Bool {
        if case .none = delivery { true } else { false }
    }

    /// Says a last word.
    func close(_ reply: SMTPReply) {
        session.close(reply)
        flush()
    }

    func closeIfIdle() {
        if session.isIdle { flush() }
    }

    // MARK: The envelope

    private func beginTransaction() {
        isConfirmed = false
        mailRefusal = nil
        unconfirmed.removeAll(keepingCapacity: true)
        let connection = worker.pool.acquire(for: self)
        nextHop = connection
        for line in session.xforward { ask(.xforward, line) }
        ask(.mail, session.mail)
        if connection.hasBeenReady { nextHopReady(connection) }
    }

    private func ask(_ command: SMTPClientSession.Command, _ line: ByteBuffer) {
        if !isConfirmed { unconfirmed.append((command, line)) }
        nextHop?.send(command, line)
    }

    /// The next hop is there, and may be another than it was.
    func nextHopReady(_ connection: NextHopConnection) {
        guard let offered = session.offered, !connection.capabilities.covers(offered) else { return }
        session.close(SMTPReply(421, "4.3.0 Error: the next hop can do less than before, try again"))
        if !isPumping { flush() }
    }

    /// Drops what the next hop has of this message.
    private func dropTransaction() {
        defer { endTransaction() }
        switch delivery {
        case .none: nextHop?.abandon(isInData: false)
        case .data, .content: nextHop?.abandon(isInData: true)
        // The next hop has it all: it answers, and nobody hears it.
        case .final: nextHop?.owner = nil
        }
    }

    private func endTransaction() {
        nextHop = nil
        delivery = .none
        message += 1
        failure = nil
        addressRefusal = nil
        contentSince = nil
    }

    // MARK: The next hop

    func nextHop(_ connection: NextHopConnection, answers command: SMTPClientSession.Command, with reply: SMTPReply) {
        guard connection === nextHop else { return }
        if reply.code == 421, isUnconfirmed(connection) {
            // It said so before it closes, where others just close.
            connection.abandon(isInData: true)
            return askAgain()
        }
        isConfirmed = true
        unconfirmed.removeAll(keepingCapacity: true)
        switch (delivery, command) {
        case (.none, .mail): if !reply.isPositive { mailRefusal = reply.asFinal }
        case (.none, .recipient): session.answerRecipient(mailRefusal ?? reply.asFinal)
        case (.data(let verdict), .data): dataAnswered(reply, verdict)
        case (.data(let verdict), .recipient), (.data(let verdict), .mail), (.data(let verdict), .reset):
            addressAnswered(reply, verdict)
        case (_, .xforward):
            if !reply.isPositive {
                worker.log.complain(.nextHop("\(worker.settings.nextHop)"), "refuses XFORWARD with \(reply.text)")
            }
        case (.final, .endOfData):
            if !reply.isPositive { worker.log.info("filter: \(session.summary): the next hop answers \(reply.text)") }
            connection.release()
            finish(reply.asFinal)
        default: break
        }
        pump()
    }

    func nextHopClosed(_ connection: NextHopConnection, _ failure: SMTPFailure) {
        guard connection === nextHop else { return }
        nextHop = nil
        if isUnconfirmed(connection) { return askAgain() }
        // The pool has told where it never was ready.
        if connection.hasBeenReady {
            worker.pool.counters.countLoss()
            worker.log.complain(.nextHop("\(worker.settings.nextHop)"), failure.cause)
        }
        if session.isReceivingContent || content.isWriting {
            self.failure = failure
        } else if isEnvelope {
            worker.checks.counters.count(.deferred)
            session.close(failure.reply(421))
            if !isPumping { flush() }
        } else {
            delivery = .none
            finish(failure.reply(451))
            pump()
        }
    }

    /// It was closed while it had nothing to do, perhaps, which is no fault of this transaction.
    private func isUnconfirmed(_ connection: NextHopConnection) -> Bool {
        connection.isReused && !isConfirmed && isEnvelope
    }

    /// Asks on a connection that is new.
    private func askAgain() {
        let fresh = worker.pool.acquire(for: self, fresh: true)
        nextHop = fresh
        for (command, line) in unconfirmed { fresh.send(command, line) }
        fresh.flush()
    }

    // MARK: The content

    private func beginContent() {
        let rules = worker.checks.rules()
        filter = worker.checks.takeFilter(rules)
        let size = nextHop?.capabilities.size ?? 0
        content.begin(most: size > 0 ? size : .max)
        contentSince = .now()
    }

    private func takeContent(isEnd: Bool) {
        content.takeNew { bytes in
            if let filter, !filter.isDecided { filter.update(bytes) }
        }
        let mustWait = content.settle(isEnd: isEnd) { [self] in
            // It may have been told a last word meanwhile.
            guard isOpen, !session.isClosed else { return content.reset() }
            if isEnd { judge() }
            pump()
        }
        if !mustWait, isEnd { judge() }
    }

    private func judge() {
        contentSince = nil
        guard let filter else { return }
        let verdict = filter.finish()
        if let failure = content.failure { return refuse(failure) }
        worker.checks.report(verdict, "filter: \(session.summary)")
        let mark = session.mail.readableBytesView
        if case .last = worker.checks.probes.see(mark, at: .filter, "filter \(worker.settings.listen)", verdict.summary)
        {
            return drop(SMTPReply(250, "2.0.0 Ok: a probe, discarded"))
        }
        switch verdict.disposition {
        case .refuse(let refusal): drop(SMTPReply(refusal.code, refusal.text))
        case .discard: drop(SMTPReply(250, "2.0.0 Ok: discarded"))
        case .accept: handOn(verdict)
        }
    }

    private func refuse(_ failure: ReceivedContent.Failure) {
        switch failure {
        case .tooLarge: drop(SMTPReply(552, "5.3.4 Error: message file too big"))
        case .noRoom(let cause):
            worker.log.complain(.noRoom, "mail is deferred: \(cause)")
            drop(SMTPReply(452, "4.3.1 Insufficient system storage"))
        }
    }

    /// The message goes no further.
    private func drop(_ reply: SMTPReply) {
        dropTransaction()
        finish(reply)
    }

    private func finish(_ reply: SMTPReply) {
        endTransaction()
        if let filter { worker.checks.giveBack(filter) }
        filter = nil
        content.reset()
        session.finish(reply)
    }

    private func handOn(_ verdict: Verdict) {
        guard let nextHop else { return finish((failure ?? .lost("")).reply(451)) }
        delivery = .data(verdict)
        switch verdict.recipients {
        case .redirect(let redirect):
            nextHop.send(.reset, "RSET\r\n")
            for line in session.xforward { nextHop.send(.xforward, line) }
            nextHop.send(.mail, session.mail)
            add(redirect, ">\r\n", to: nextHop)
        case .envelope(let copies):
            // As Postfix has it: no bounce tells the sender of it.
            let end: StaticString = nextHop.capabilities.extensions.contains(.dsn) ? "> NOTIFY=NEVER\r\n" : ">\r\n"
            for address in copies { add(address, end, to: nextHop) }
        }
        nextHop.send(.data, "DATA\r\n")
    }

    /// Asks for a recipient that a rule names; `end` is what follows the address.
    private func add(_ address: [UInt8], _ end: StaticString, to nextHop: NextHopConnection) {
        var line = ByteBuffer()
        line.writeStaticString("RCPT TO:<")
        line.writeBytes(address)
        line.writeStaticString(end)
        nextHop.send(.recipient, line)
    }

    /// The answer to what the verdict adds to the envelope.
    private func addressAnswered(_ reply: SMTPReply, _ verdict: Verdict) {
        guard !reply.isPositive else { return }
        if verdict.isRedirected || reply.isTransient {
            addressRefusal = addressRefusal ?? reply.asFinal
        } else {
            worker.log.warning("filter: \(session.summary): a BCC goes without: the next hop answers \(reply.text)")
        }
    }

    private func dataAnswered(_ reply: SMTPReply, _ verdict: Verdict) {
        guard reply.code == 354, addressRefusal == nil else {
            let answer = addressRefusal ?? reply.asRefusal
            // A reply that is neither 354 nor a refusal may be that to another command.
            nextHop?.abandon(isInData: reply.code < 400)
            nextHop = nil
            return finish(answer)
        }
        delivery = .content
        if !content.isSpooled, verdict.isVerbatim, !session.contentHasLeadingDot {
            // As it came, in one piece with the final dot.
            content.buffer.writeStaticString(".\r\n")
            sendLast(content.buffer)
        } else {
            var writer = MessageWriter(verdict, count: content.count)
            if content.isSpooled { sendSpooled(writer, ByteBuffer()) } else { sendKept(&writer) }
        }
    }

    private func sendLast(_ bytes: ByteBuffer) {
        delivery = .final
        content.reset()
        nextHop?.writeLast(bytes)
    }

    private func sendKept(_ writer: inout MessageWriter) {
        var output = ByteBuffer()
        output.reserveCapacity(content.count + 4096)
        content.buffer.withUnsafeReadableBytes { bytes in
            while let piece = writer.next() {
                switch piece {
                case .new(let text): writer.write(new: text, to: &output)
                case .original(let range): writer.write(UnsafeRawBufferPointer(rebasing: bytes[range]), to: &output)
                }
            }
        }
        writer.writeEnd(to: &output)
        sendLast(output)
    }

    /// Sends piece after piece, each when the one before has gone.
    private func sendSpooled(_ writer: MessageWriter, _ pending: ByteBuffer) {
        var (writer, output) = (writer, pending)
        while let piece = writer.next() {
            switch piece {
            case .new(let text): writer.write(new: text, to: &output)
            case .original(let range):
                let (rest, written, message) = (writer, output, message)
                content.read(range) { [self] result in
                    guard case .content = delivery, message == self.message else { return }
                    switch result {
                    case .failure(let error): spoolFailed(error)
                    case .success(let bytes): sendRead(bytes, rest, written)
                    }
                }
                return
            }
        }
        writer.writeEnd(to: &output)
        sendLast(output)
    }

    private func sendRead(_ bytes: ByteBuffer, _ writer: MessageWriter, _ pending: ByteBuffer) {
        var (writer, output) = (writer, pending)
        output.reserveCapacity(minimumWritableBytes: bytes.readableBytes + 64)
        bytes.withUnsafeReadableBytes { writer.write($0, to: &output) }
        let (rest, message) = (writer, message)
        nextHop?.write(output) { [self] in
            guard case .content = delivery, message == self.message, nextHop != nil else { return }
            sendSpooled(rest, ByteBuffer())
        }
    }

    private func spoolFailed(_ error: any Error) {
        worker.log.complain(.noRoom, "mail is deferred: can't read a spool file: \(error)")
        drop(SMTPReply(451, "4.3.0 Error: queue file read error"))
        pump()
    }
}

extension SMTPReply {
    /// As the answer to a recipient or a message: what is no yes or no is a fault of the next hop, and no bounce.
    fileprivate var asFinal: SMTPReply { 300..<400 ~= code ? .protocolError : self }

    /// As the answer to a message that could not be handed on: no yes either.
    fileprivate var asRefusal: SMTPReply { code < 400 ? .protocolError : self }

    private static let protocolError = SMTPReply(451, "4.5.0 Error: protocol error of the next hop")
}

extension SMTPServerSession {
    /// `from=<a@example.org>`, for logs.
    var summary: String {
        let command = String(decoding: mail.readableBytesView.dropFirst("MAIL FROM:".count), as: UTF8.self)
        return "from=\(command.prefix { $0 != " " && !$0.isNewline })"
    }
}
