// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
internal import Loop
internal import NIOCore
internal import Settings
internal import Wire

/// One connection to the next hop: carries bytes between its socket and `SMTPClientSession`, and the events of both to
/// `NextHopDialogue`, whose actions it carries out. Belongs to the loop of its pool.
final class NextHopConnection: SocketLoop.Socket {
    private let pool: NextHopPool
    private var dialogue: NextHopDialogue
    private var session: SMTPClientSession
    /// nil without a socket: between two addresses, and after the end.
    private var stream: SocketStream?
    /// Bytes that are not sent yet.
    private var unsent = ByteBuffer()
    /// Called once all of `unsent` is sent.
    private var whenDrained: (() -> Void)?
    /// When the wait for a reply, or for bytes to be sent, began; nil if there is none.
    private var waitingSince: NIODeadline? = .now()
    /// The client whose transaction this connection carries.
    private weak var owner: FilterConnection?
    var idleSince = NIODeadline.now()

    /// Bytes of one read.
    private static let mostRead = 4 << 10
    /// Before the next attempt after a full backlog of a UNIX socket.
    private static let pause: TimeAmount = .milliseconds(20)

    /// - Parameter owner: nil if only the capabilities are needed.
    init(pool: NextHopPool, for owner: FilterConnection?) {
        self.pool = pool
        self.owner = owner
        session = SMTPClientSession(variant: pool.nextHop.variant, hostName: pool.hostName, token: pool.token)
        dialogue = NextHopDialogue(addresses: pool.addresses.count, for: owner == nil ? .capabilities : .transaction)
    }

    var capabilities: SMTPCapabilities { session.capabilities }
    /// Whether the next hop has answered EHLO, HELO or LHLO. If it has when a transaction acquires the connection, the
    /// connection was used before.
    var hasAnsweredEHLO: Bool { dialogue.isReady }

    // MARK: Connecting

    func connect() { open(dialogue.begin()) }

    private func open(_ first: NextHopDialogue.ConnectAction) {
        var action = first
        while true {
            switch action {
            case .open(let address):
                do throws(IOError) {
                    return try connect(to: pool.addresses[address])
                } catch {
                    action = dialogue.connectFailed(error.errnoCode)
                }
            case .pause: return pool.loop.schedule(in: Self.pause) { [self] in open(dialogue.pauseOver()) }
            case .end(let failure): return closeLater(failure)
            case .ignore: return
            }
        }
    }

    /// Begins to connect. The socket's first event is the greeting, or that the connection failed.
    private func connect(to address: SocketAddress) throws(IOError) {
        let descriptor = try SocketStream.open(for: address)
        do throws(IOError) {
            if pool.nextHop.endpoint.isTCP {
                try ListeningSocket.set(TCP_NODELAY, at: Int32(IPPROTO_TCP), of: descriptor)
            }
            let code = address.withSockAddr { Glibc.connect(descriptor, $0, socklen_t($1)) }
            guard code == 0 || errno == EINPROGRESS else { throw IOError(errnoCode: errno, reason: "connect") }
            try pool.loop.watch(descriptor, for: .reading, self)
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        stream = SocketStream(descriptor, pool.loop)
    }

    // MARK: Reading

    func isReady() {
        if unsent.readableBytes > 0 { send() }
        if !dialogue.isClosed { read() }
    }

    /// - Returns: whether bytes had come.
    @discardableResult
    private func read() -> Bool {
        switch stream?.read({ session.receive(upTo: Self.mostRead, $0) }) {
        case .bytes: dialogue.received()
        case .nothing, nil: return false
        case .end:
            end(dialogue.peerClosed())
            return false
        case .failure(let code):
            readFailed(code)
            return false
        }
        do {
            while !dialogue.isClosed, let event = try session.next() { handle(event) }
        } catch {
            close(.lost("sent an invalid SMTP reply (\(error))"))
        }
        flush()
        return true
    }

    private func readFailed(_ code: Int32) {
        switch dialogue.readFailed(code) {
        case .end(let failure): close(failure)
        case .open(let address):
            stream?.close()
            stream = nil
            open(.open(address))
        case .pause, .ignore: break
        }
    }

    private func handle(_ event: SMTPClientSession.Event) {
        waitingSince = session.isIdle ? nil : .now()
        switch event {
        case .ready: becomeReady()
        case .refused(let reply): end(dialogue.refused(reply))
        case .loop: close(.loop)
        case .reply(let command, let reply):
            switch dialogue.replied(command, reply, isSending: unsent.readableBytes > 0, isIdle: session.isIdle) {
            case .tellOwner:
                if command == .endOfData { killPoint("next-hop-answered") }
                owner?.nextHop(self, answers: command, with: reply)
            case .keep: pool.keep(self)
            case .quit: quit()
            case .end(let failure): close(failure)
            case .ignore: break
            }
        }
    }

    private func becomeReady() {
        switch dialogue.ready() {
        case .keep:
            // First, so that a client whose commands wait for the capabilities gets this connection.
            pool.keep(self)
            pool.ready(self)
        case .tellOwner:
            pool.ready(self)
            owner?.nextHopReady(self)
        case .ignore: break
        }
    }

    // MARK: Sending

    func send(_ command: SMTPClientSession.Command, _ line: ByteBuffer) {
        dialogue.asked(command)
        session.send(command, line)
    }

    func send(_ command: SMTPClientSession.Command, _ line: StaticString) {
        dialogue.asked(command)
        session.send(command, line)
    }

    /// Sends the commands since the last flush in one piece.
    func flush() {
        guard !dialogue.isClosed, session.output.readableBytes > 0 else { return }
        unsent.writeBuffer(&session.output)
        session.output.clear()
        waitingSince = .now()
        send()
    }

    /// Sends content.
    ///
    /// - Parameter then: called once all of it is sent.
    func write(_ content: ByteBuffer, then: @escaping () -> Void) {
        guard !dialogue.isClosed else { return }
        whenDrained = then
        write(content)
    }

    /// Sends the last of the content, which ends in the final dot.
    func writeLast(_ content: ByteBuffer) {
        guard !dialogue.isClosed else { return }
        session.endData()
        dialogue.finalDotSent()
        write(content)
    }

    private func write(_ content: ByteBuffer) {
        unsent = content
        waitingSince = .now()
        send()
    }

    private func send() {
        guard let sent = stream?.send(&unsent) else { return closeLater(.lost("lost connection")) }
        if sent > 0 { waitingSince = .now() }
        guard unsent.readableBytes == 0 else {
            stream?.want(.readingAndWriting)
            return
        }
        unsent = ByteBuffer()
        // Between two pieces of content, the connection waits for the disk, not for the next hop.
        if session.isIdle { waitingSince = nil }
        stream?.want(.reading)
        let then = whenDrained
        whenDrained = nil
        then?()
    }

    // MARK: The owner

    /// An idle connection carries the transaction of `owner` from now on.
    func begin(for owner: FilterConnection) {
        self.owner = owner
        dialogue.acquired()
    }

    /// The owner leaves the connection, and gets no more callbacks from it.
    func leave(_ parting: FilterDialogue.Parting) {
        owner = nil
        switch parting {
        case .none: break
        case .reset: carryOut(dialogue.reset())
        case .disconnect: carryOut(dialogue.disconnect())
        case .detach: dialogue.detach()
        case .release:
            // One reply too many would answer a command of the next transaction, which may begin at once.
            let isInStep = session.isIdle && session.unreadBytes == 0
            carryOut(dialogue.release(isInStep: isInStep, isSending: unsent.readableBytes > 0))
        }
    }

    private func carryOut(_ action: NextHopDialogue.LeaveAction) {
        switch action {
        case .reset:
            session.send(.reset, "RSET\r\n")
            flush()
        case .keep: pool.keep(self)
        case .quit: quit()
        case .end(let ending): end(ending)
        case .ignore: break
        }
    }

    // MARK: The end

    func quit() {
        guard let ending = dialogue.withdraw("closed") else { return }
        unsent.writeStaticString("QUIT\r\n")
        _ = stream?.send(&unsent)
        end(ending)
    }

    func checkTime(_ now: NIODeadline) {
        guard let waitingSince else { return }
        let (time, timeouts) = (now - waitingSince, pool.timeouts)
        switch dialogue.awaited {
        case .connection:
            if time > (isConnected ? timeouts.reply : timeouts.connect) { timeOut() }
        case .reply: if time > timeouts.reply { timeOut() }
        case .finalReply: if time > timeouts.finalReply { timeOut() }
        }
    }

    func timeOut() { end(dialogue.timedOut(isConnected: isConnected)) }

    /// Whether the peer is there: connecting by TCP takes time, and the peer may be silent afterwards.
    private var isConnected: Bool {
        guard let stream else { return false }
        return !pool.nextHop.endpoint.isTCP || SocketAddress(ofPeerOf: stream.descriptor) != nil
    }

    /// Closes the connection after the current call, because its caller is not done yet. Reads the next hop's last
    /// replies first.
    private func closeLater(_ failure: SMTPFailure) {
        pool.loop.schedule(in: .zero) { [self] in
            while read() {}
            close(failure)
        }
    }

    private func close(_ failure: SMTPFailure) { end(dialogue.close(failure)) }

    /// Closes the socket of a dialogue that has ended, and tells the pool and the owner.
    ///
    /// - Parameter ending: nil if it had already ended.
    private func end(_ ending: NextHopDialogue.Ending?) {
        guard let ending else { return }
        stream?.close()
        stream = nil
        whenDrained = nil
        unsent = ByteBuffer()
        pool.closed(self, ending)
        let owner = owner
        self.owner = nil
        owner?.nextHopClosed(self, ending)
    }
}
