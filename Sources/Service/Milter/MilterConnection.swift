// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Limits
internal import MailSyntax
internal import NIOCore
internal import Rules
internal import Wire

/// One connection of an MTA: joins its session with the checks and the ledger.
///
///     MAIL, RCPT   kept; a recipient is asked of the ledger where limits are
///     headers      checked as they come
///     body         checked as it comes; kept only where a rule may change it
///     the end      the ledger settles what was charged, then the edits and the last word go out together
///
/// A message that is given up before its end costs nothing but what its recipients were charged.
final class MilterConnection: SocketLoop.Socket {
    /// What is known of the message under way.
    private struct Message {
        /// With its brackets.
        var sender: [UInt8] = []
        var declaredSize: [UInt8] = []
        /// With their brackets; those that were not refused.
        var recipients: [[UInt8]] = []
        /// Of RCPT, divided by blanks, for each of `recipients`.
        var parameters: [[UInt8]] = []
        var recipientBytes = 0
        var question: MilterQuestion
        /// What the ledger calls it, once it was charged.
        var charged: UInt64?
        var hasHeadersEnded = false
        var bodyStart = 0
        /// What limits said that is carried out at the end.
        var holdReason: [UInt8]?
        var isDiscarded = false
        /// Of a probe of the doctor.
        var probeMark: [UInt8]?
        /// Of an alert of Weir's own.
        var alertMark: [UInt8]?
        /// Why a recipient of a message from sendmail(1) could not be had.
        var localRefusal: Refusal?
        var prepended: [(name: [UInt8], value: [UInt8])] = []
        var redirect: [UInt8]?
        var bcc: [[UInt8]] = []
    }

    private var stream: SocketStream
    private let worker: MilterWorker
    private let isTCP: Bool
    private var isOpen = true
    /// Its output is what the MTA has not taken yet. Until it has, it is not read from.
    private var session: MilterSession
    private var offer: MilterOffer
    private lazy var name = worker.shared.makeName()
    private var messages: UInt64 = 0
    private var client = MilterSession.Client()
    private var helo: [UInt8] = []
    private var message: Message?
    private var headers = MilterHeaders()
    private var filter: MessageFilter?
    private var content: ReceivedContent?

    /// The ledger or the disk is at work, or a piece of a body goes out.
    private var isWaiting = false
    private var isPumping = false
    /// What has come was answered.
    private var isAnswered = false
    /// Goes on once the MTA has taken all.
    private var whenSent: (() -> Void)?
    private(set) var activeSince = NIODeadline.now()

    /// Of one read: a message of the usual size whole, and more at a time of one that is larger.
    private static let mostRead = 16 << 10
    private static let mostReadOfRest = 64 << 10
    /// Packets that are read before earlier ones are done with.
    private static let mostWaiting = 512 << 10
    /// Of answers that the MTA does not read; what it sends meanwhile waits.
    private static let mostUnsent = 256 << 10
    private static let mostRecipientBytes = 4 << 20
    /// RFC 1870
    private static let sizeParameter = "SIZE="

    init(_ descriptor: Int32, worker: MilterWorker, isTCP: Bool) {
        stream = SocketStream(descriptor, worker.loop)
        self.worker = worker
        self.isTCP = isTCP
        offer = worker.makeOffer()
        session = MilterSession(wanting: offer.terms)
    }

    private var settings: MilterSettings { offer.settings }
    private var rules: ContentRules { offer.rules }

    // MARK: The MTA

    func isReady() {
        guard isSending else { return read() }
        send()
        if !isSending { pump() }
    }

    private func read() {
        let most = session.waitingBytes >= Self.mostRead ? Self.mostReadOfRest : Self.mostRead
        switch stream.read({ session.receive(upTo: most, $0) }) {
        case .bytes: break
        case .nothing: return
        case .end, .failure: return close()
        }
        activeSince = .now()
        isAnswered = false
        pump()
        if isTCP, isOpen, !isAnswered { stream.acknowledge() }
    }

    private var isSending: Bool { session.output.readableBytes > 0 }

    private var mayRead: Bool { !isWaiting || session.waitingBytes < Self.mostWaiting }

    /// Ends the connection, and with it what was under way.
    func close() {
        guard isOpen else { return }
        isOpen = false
        whenSent = nil
        stream.close()
        worker.closed(stream.descriptor)
        abandon()
    }

    func closeIfIdle() {
        if session.isIdle, !isWaiting, !isSending { close() }
    }

    /// Takes what has come as far as it goes, then lets the answers go together.
    private func pump() {
        guard isOpen, !isPumping else { return }
        isPumping = true
        do throws(MilterFault) {
            while !isWaiting, isOpen, makeRoomForAnswers(), let event = try session.next() { try take(event) }
        } catch {
            worker.log.complain(.malformedRequest, "closed the milter connection of \(peer): \(error.text)")
            isPumping = false
            return close()
        }
        isPumping = false
        // With no room, packets may be left: they are taken once the MTA has read all answers, of which the loop tells.
        if isSending, hasRoomForAnswers { send() } else { watch() }
        if worker.isStopping { closeIfIdle() }
    }

    private var hasRoomForAnswers: Bool { session.output.readableBytes < Self.mostUnsent }

    private func makeRoomForAnswers() -> Bool {
        if !hasRoomForAnswers { send() }
        return hasRoomForAnswers
    }

    private func send() {
        guard isOpen else { return }
        guard let sent = stream.send(&session.output) else { return close() }
        if sent > 0 { isAnswered = true }
        if !isSending {
            session.output = ByteBuffer()
            if let then = whenSent {
                whenSent = nil
                then()
            }
        }
        watch()
    }

    /// Wants of the loop what can be done next.
    private func watch() {
        if isOpen { stream.want(isSending ? .writing : mayRead ? .reading : .nothing) }
    }

    private var peer: String {
        SocketAddress(ofPeerOf: stream.descriptor)?.ipAddress ?? "an MTA"
    }

    private func take(_ event: MilterSession.Event) throws(MilterFault) {
        switch event {
        case .connect(let client):
            self.client = client
            helo = []
            goOn()
        case .helo(let name):
            helo = name
            goOn()
        case .mail(let sender, let parameters):
            begin(sender, parameters)
            goOn()
        case .recipient(let address, let parameters): try take(recipient: address, parameters)
        case .header(let name, let value):
            name.withUnsafeReadableBytes { name in value.withUnsafeReadableBytes { value in take(header: name, value) }
            }
            goOn()
        case .body(let piece): take(body: piece)
        case .endOfMessage: finish()
        case .abort: abandon()
        case .other: goOn()
        case .quit: close()
        }
    }

    /// Says that nothing speaks against it, where that has to be said.
    private func goOn() {
        if session.needsReply { session.output.writeMilterContinue() }
    }

    // MARK: The envelope

    private func begin(_ sender: [UInt8], _ parameters: [[UInt8]]) {
        let current = worker.makeOffer()
        // Rules that need what this connection was not negotiated for wait for the next one.
        if current !== offer, let terms = session.terms,
            current.terms.isCovered(by: terms, missing: session.missingActions)
        {
            offer = current
        }
        filter = worker.checks.takeFilter(rules)
        let size = parameters.first {
            String(decoding: $0.prefix(Self.sizeParameter.utf8.count), as: UTF8.self).uppercased() == Self.sizeParameter
        }
        var question = MilterQuestion(
            state: .recipient, attributes: [], sender: sender, instance: [], transaction: nil, session: nil)
        if settings.asksLimits { question.instance = Array("\(name).\(messages)".utf8) }
        messages += 1
        if settings.asksLimits, !isLocal, !client.address.isEmpty, client.port != 0 {
            question.session = PolicySessions.key(address: client.address, port: String(client.port).utf8)
        }
        message = Message(
            sender: sender, declaredSize: size.map { Array($0.dropFirst(Self.sizeParameter.utf8.count)) } ?? [],
            question: question)
    }

    /// From sendmail(1), which Postfix tells as a client of its own host without a port.
    private var isLocal: Bool {
        client.port == 0
            && (client.address.isEmpty || client.address.elementsEqual("127.0.0.1".utf8)
                || client.address.elementsEqual("::1".utf8))
    }

    private func take(recipient: [UInt8], _ parameters: [[UInt8]]) throws(MilterFault) {
        let parameters = Array(parameters.joined(separator: [UInt8(ascii: " ")]))
        message?.recipients.append(recipient)
        message?.parameters.append(parameters)
        message?.recipientBytes += recipient.count + parameters.count + 2 * MemoryLayout<[UInt8]>.stride
        guard let message, message.recipientBytes <= Self.mostRecipientBytes else { throw .tooMuch }
        guard settings.asksLimits else { return goOn() }
        var question = message.question
        question.attributes = attributes(recipient: recipient, count: 0, size: message.declaredSize)
        ask(question) { connection, answer in connection.answered(answer, recipient: recipient) }
    }

    private func answered(_ answer: MilterAnswer, recipient: [UInt8]) {
        switch answer {
        case .isCharged(let transaction): message?.question.transaction = transaction
        case .decision(let action, let transaction):
            if transaction != 0 { message?.charged = transaction }
            switch action {
            case .refuse(let refusal) where isLocal:
                if message?.localRefusal == nil { message?.localRefusal = refusal }
            case .refuse(let refusal):
                message?.recipients.removeLast()
                message?.parameters.removeLast()
                return session.needsReply ? session.output.writeMilterReply(refusal.reply) : ()
            default: keep(action)
            }
        }
        goOn()
    }

    /// Keeps what is carried out at the end of the message.
    private func keep(_ action: AccessAction?) {
        switch action {
        case .discard: message?.isDiscarded = true
        case .hold(let reason): if message?.holdReason == nil { message?.holdReason = reason }
        case .prepend(let name, let value): message?.prepended.append((name, value))
        case .redirect(let address): message?.redirect = address
        case .bcc(let address): if message?.bcc.contains(address) == false { message?.bcc.append(address) }
        case .pass, .refuse, nil: break
        }
    }

    private func attributes(recipient: [UInt8], count: Int, size: [UInt8]) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(512)
        text.appendAttribute("protocol_name", (isLocal ? "local" : "ESMTP").utf8)
        text.appendAttribute("client_address", client.address)
        text.appendAttribute("client_name", client.name)
        if client.port != 0 { text.appendAttribute("client_port", String(client.port).utf8) }
        text.appendAttribute("helo_name", helo)
        text.appendAttribute("recipient", recipient.withoutBrackets)
        text.appendAttribute("recipient_count", String(count).utf8)
        text.appendAttribute("size", size)
        for (name, macro) in Self.macroAttributes {
            if let value = session.macro(macro) { text.appendAttribute(name, value) }
        }
        if isLocal, let sender = message?.sender.withoutBrackets,
            let userID = settings.accounts.userID(of: sender, host: session.macro("j") ?? [])
        {
            text.appendAttribute("uid", userID)
        }
        return text
    }

    private static let macroAttributes: [(StaticString, String)] = [
        ("queue_id", "i"), ("reverse_client_name", "client_ptr"), ("server_address", "daemon_addr"),
        ("server_port", "daemon_port"),
        ("sasl_method", "auth_type"), ("sasl_username", "auth_authen"), ("sasl_sender", "auth_author"),
        ("encryption_protocol", "tls_version"), ("encryption_cipher", "cipher"), ("encryption_keysize", "cipher_bits"),
        ("ccert_subject", "cert_subject"), ("ccert_issuer", "cert_issuer"),
    ]

    /// Asks the ledger; nothing else is taken until it has answered.
    private func ask(_ question: MilterQuestion, _ then: @escaping @Sendable (MilterConnection, MilterAnswer) -> Void) {
        isWaiting = true
        let own = LoopBound(self, worker.loop)
        worker.host.ask(question) { [loop = worker.loop] answer in
            loop.execute {
                let connection = own.value
                connection.isWaiting = false
                guard connection.isOpen, connection.message != nil else { return }
                then(connection, answer)
                connection.pump()
            }
        }
    }

    // MARK: The content

    private func take(header name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        beginContent()
        guard let filter, !name.isEmpty, name.allSatisfy({ 0x20 < $0 && $0 < 0x7f && $0 != UInt8(ascii: ":") }) else {
            return headers.skip()
        }
        headers.append(name)
        if worker.checks.probes.isActive, name.elementsEqual(AdminMessages.probeHeader.utf8) {
            message?.probeMark = Array(value)
        }
        if settings.asksLimits, worker.host.alerts.marks.isActive, name.elementsEqual(AlertMarks.header.utf8) {
            message?.alertMark = Array(value)
        }
        guard !filter.isDecided else { return }
        if session.terms?.options.contains(.leadingSpace) ?? false {
            filter.addHeader(name: name, value: value)
        } else {
            Array([0x20] + value).withUnsafeBytes { filter.addHeader(name: name, value: $0) }
        }
    }

    /// The MTA names no sender where none is needed.
    private func beginContent() {
        if message == nil { begin([], []) }
    }

    private func endHeaders() {
        beginContent()
        guard let filter, !(message?.hasHeadersEnded ?? true) else { return }
        message?.hasHeadersEnded = true
        filter.endHeaders()
        message?.bodyStart = filter.count
    }

    private func take(body piece: ByteBuffer) {
        endHeaders()
        guard let filter, !filter.isDecided else { return goOn() }
        piece.withUnsafeReadableBytes { filter.update($0) }
        guard keepsBody else { return goOn() }
        keep(piece, isEnd: false) { $0.goOn() }
    }

    /// By what was negotiated, which holds for all messages of the connection: the rules may be others by now.
    private var keepsBody: Bool { session.terms?.actions.contains(.changeBody) ?? false }

    /// Keeps content that a rule may change yet.
    private func keep(_ piece: ByteBuffer, isEnd: Bool, _ then: @escaping (MilterConnection) -> Void) {
        var piece = piece
        let content = content ?? worker.checks.makeContent()
        if self.content == nil { content.begin(most: .max) }
        self.content = content
        if content.failure == nil { content.buffer.writeBuffer(&piece) }
        content.takeNew { _ in }
        isWaiting = content.settle(isEnd: isEnd) { [self] in
            isWaiting = false
            guard isOpen, message != nil else { return }
            then(self)
            pump()
        }
        if !isWaiting { then(self) }
    }

    // MARK: The end

    private func finish() {
        endHeaders()
        guard let filter else { return goOn() }
        let verdict = filter.finish()
        worker.checks.report(verdict, origin)
        if worker.checks.probes.isActive, isEndOfProbe(verdict) { return end { $0.writeMilterDiscard() } }
        switch verdict.disposition {
        case .refuse(let refusal):
            end { $0.writeMilterReply(refusal.reply) }
        case .discard:
            end { $0.writeMilterDiscard() }
        case .accept:
            settle(verdict)
        }
    }

    /// A probe of the doctor is known by its header: without limits nobody tells the milter of senders.
    private func isEndOfProbe(_ verdict: Verdict) -> Bool {
        guard let mark = message?.probeMark else { return false }
        if case .last = worker.checks.probes.see(mark, at: .milter, "milter, end of message", verdict.summary) {
            return true
        }
        return false
    }

    /// Lets the ledger know what was accepted, and asks it for a last word.
    private func settle(_ verdict: Verdict) {
        guard settings.asksLimits, let message else { return conclude(verdict) }
        if let mark = message.alertMark, worker.host.alerts.marks.take(mark) { return passAlert(verdict) }
        if let refusal = message.localRefusal { return refuseLocal(verdict, refusal) }
        var question = message.question
        question.state = .endOfMessage
        let only = message.recipients.count == 1 ? message.recipients[0] : []
        question.attributes = attributes(
            recipient: only, count: message.recipients.count, size: Array(String(filter?.count ?? 0).utf8))
        ask(question) { connection, answer in
            guard case .decision(let action, _) = answer else { return connection.conclude(verdict) }
            switch action {
            case .refuse(let refusal) where connection.isLocal: connection.refuseLocal(verdict, refusal)
            case .refuse(let refusal): connection.end { $0.writeMilterReply(refusal.reply) }
            default:
                connection.keep(action)
                connection.conclude(verdict)
            }
        }
    }

    /// An alert of Weir's own is charged nothing, and goes out whatever limits have said of it.
    private func passAlert(_ verdict: Verdict) {
        worker.log.info("\(origin): passed: an alert")
        if let charged = message?.charged { worker.host.giveBack(charged) }
        message?.isDiscarded = false
        message?.holdReason = nil
        message?.prepended = []
        message?.redirect = nil
        message?.bcc = []
        conclude(verdict)
    }

    /// A message from sendmail(1) is over a limit: nobody is there to be told, so it is held, or comes again.
    private func refuseLocal(_ verdict: Verdict, _ refusal: Refusal) {
        switch settings.localOver {
        case .hold:
            worker.log.notice("\(origin): held: \(String(decoding: refusal.reply, as: UTF8.self))")
            message?.holdReason = refusal.text
            conclude(verdict)
        case .defer:
            let reply = refusal.deferred.reply
            worker.log.notice("\(origin): deferred: \(String(decoding: reply, as: UTF8.self))")
            if let charged = message?.charged { worker.host.giveBack(charged) }
            end { $0.writeMilterReply(reply) }
        }
    }

    /// Says what is to be done to the message.
    private func conclude(_ verdict: Verdict) {
        guard let message, let terms = session.terms else { return }
        if message.isDiscarded { return end { $0.writeMilterDiscard() } }
        var verdict = verdict
        verdict.redirect = verdict.redirect ?? message.redirect
        verdict.bcc += message.bcc.filter { !verdict.bcc.contains($0) }
        if !keepsBody { verdict.edits.removeAll { $0.isFormal && $0.header == nil } }
        var edits = MilterEdits(
            verdict: verdict, bodyStart: message.bodyStart, recipients: message.recipients,
            parameters: message.parameters,
            takesParameters: terms.actions.contains(.addRecipientsWithParameters))
        edits.holdReason = message.holdReason
        edits.prepended = message.prepended
        if settings.canonicalises { canonicalise(&edits, message) }
        guard edits.canName(headers) else { return refuseHeaders() }
        guard edits.actions.isSubset(of: terms.actions) else {
            return fail("the MTA does not grant the edits that it takes")
        }
        if let last = edits.bodyEdits.last {
            if case .noRoom(let cause) = content?.failure { return fail(cause) }
            guard let content, content.failure == nil, last.range.upperBound <= content.count else {
                return fail("the body was not kept whole")
            }
        }
        edits.write(to: &session.output, headers: headers, hasLeadingSpace: terms.options.contains(.leadingSpace))
        guard !edits.bodyEdits.isEmpty else { return end { $0.writeMilterContinue() } }
        keep(ByteBuffer(), isEnd: true) { $0.replaceBody(edits.bodyEdits) }
    }

    private func canonicalise(_ edits: inout MilterEdits, _ message: Message) {
        let sender = Self.canonical(message.sender)
        if sender != message.sender { edits.canonicalSender = sender }
        let recipients = message.recipients.map(Self.canonical)
        if recipients != message.recipients { edits.canonicalRecipients = recipients }
        for (old, new) in zip([message.sender] + message.recipients, [sender] + recipients) where old != new {
            worker.log.info(
                "\(origin): \(String(decoding: old, as: UTF8.self)) becomes \(String(decoding: new, as: UTF8.self))")
        }
    }

    /// An address in brackets, in its canonical form; the null sender stays.
    private static func canonical(_ address: [UInt8]) -> [UInt8] {
        guard !address.withoutBrackets.isEmpty else { return address }
        let canonical = address.withUnsafeBytes { CanonicalAddress($0) }
        let domain = canonical.domain.isEmpty ? [] : [UInt8(ascii: "@")] + canonical.domain
        return [UInt8(ascii: "<")] + canonical.localPart + domain + [UInt8(ascii: ">")]
    }

    /// The verdict can't be carried out; `on_failure` says what becomes of the message.
    private func fail(_ cause: String) {
        worker.log.complain(
            .noRoom,
            "\(origin): \(cause); the message is \(settings.onFailure == .dunno ? "let through as it is" : "deferred")")
        let defers = settings.onFailure == .defer
        end { defers ? $0.writeMilterTemporaryFailure() : $0.writeMilterContinue() }
    }

    /// More headers than can be changed. That is the sender's doing, who must not choose what `on_failure` says.
    private func refuseHeaders() {
        worker.log.notice("\(origin): refused: more headers to change than a milter can")
        end { $0.writeMilterReply("550 5.6.0 message has too many headers".utf8) }
    }

    private func replaceBody(_ edits: [Edit]) {
        guard let content else { return }
        var verdict = Verdict()
        verdict.edits = edits
        writeBody(MessagePieces(verdict.pieces(of: content.count, lineEnd: .crlf)), MilterBody())
    }

    /// Writes the pieces that are left; those of a spool file when they have been read.
    private func writeBody(_ pieces: MessagePieces, _ body: MilterBody) {
        guard let content else { return }
        var (pieces, body) = (pieces, body)
        while let piece = pieces.next() {
            switch piece {
            case .new(let text): text.withUnsafeBytes { body.write($0, to: &session.output) }
            case .original(let range) where !content.isSpooled:
                content.buffer.withUnsafeReadableBytes {
                    body.write(UnsafeRawBufferPointer(rebasing: $0[range]), to: &session.output)
                }
            case .original(let range): return readBody(range, content, pieces, body)
            }
        }
        body.finish(&session.output)
        end { $0.writeMilterContinue() }
    }

    private func readBody(_ range: Range<Int>, _ content: ReceivedContent, _ rest: MessagePieces, _ body: MilterBody) {
        isWaiting = true
        content.read(range) { [self] result in
            isWaiting = false
            guard isOpen, message != nil else { return }
            switch result {
            case .failure(let error):
                // Half of a new body is with the MTA: it must not take the message.
                worker.log.complain(.noRoom, "\(origin): deferred: can't read a spool file: \(error)")
                end { $0.writeMilterTemporaryFailure() }
                pump()
            case .success(let bytes):
                var body = body
                bytes.withUnsafeReadableBytes { body.write($0, to: &session.output) }
                // The next piece is read when this one has gone.
                isWaiting = true
                whenSent = { [self] in
                    isWaiting = false
                    writeBody(rest, body)
                    pump()
                }
                send()
            }
        }
    }

    /// Says the last word about the message.
    private func end(_ write: (inout ByteBuffer) -> Void) {
        write(&session.output)
        forget()
    }

    /// The MTA has given the message up, or is gone.
    private func abandon() {
        guard let message else { return }
        // What it has found so far goes with it.
        filter = nil
        if settings.asksLimits { worker.host.abandon(message.question) }
        forget()
    }

    private func forget() {
        message = nil
        headers = MilterHeaders()
        if let filter { worker.checks.giveBack(filter) }
        filter = nil
        content?.reset()
        content = nil
        session.endMessage()
    }

    /// `milter: 4ZkTx12345: from=<a@example.org>`, for logs; without the sender where the MTA does not name it.
    private var origin: String {
        let queueID = session.macro("i").map { String(decoding: $0, as: UTF8.self) } ?? "NOQUEUE"
        let sender = message?.sender ?? []
        return "milter: \(queueID)" + (sender.isEmpty ? "" : ": from=\(String(decoding: sender, as: UTF8.self))")
    }
}
