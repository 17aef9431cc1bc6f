// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Loop
package import NIOCore
internal import Report
package import Settings
internal import Synchronization
internal import Wire

/// Times after which the filter gives up; tests make them short.
package struct FilterTimeouts: Sendable {
    /// For the next command or piece of content of a client (RFC 5321 4.5.3.2.7).
    package var client: TimeAmount = .seconds(300)
    /// For all of the content of one message.
    package var content: TimeAmount = .seconds(3600)
    /// For a client to hear the last reply, and to stop sending.
    package var linger: TimeAmount = .seconds(2)
    package var connect: TimeAmount = .seconds(10)
    /// For a reply of the next hop.
    package var reply: TimeAmount
    /// For its reply to the final dot (RFC 5321 4.5.3.2.6).
    package var finalReply: TimeAmount
    /// How long a connection to the next hop is kept with nothing to do.
    package var idle: TimeAmount = .seconds(5)
    /// How long the next hop's capabilities are believed without a connection to it.
    package var capabilities: TimeAmount = .seconds(60)
    package var sweep: TimeAmount = .seconds(1)

    package init(mode: Configuration.FilterListener.Mode) {
        switch mode {
        case .afterQueue: (reply, finalReply) = (.seconds(300), .seconds(600))
        // smtpd waits 100 s for the filter (smtpd_proxy_timeout), and should hear of it.
        case .beforeQueue: (reply, finalReply) = (.seconds(80), .seconds(80))
        }
    }
}

/// The connections of one loop to the next hop of one listener.
final class NextHopPool {
    let loop: SocketLoop
    let endpoint: Endpoint
    /// To be tried in turn.
    let addresses: [SocketAddress]
    let hostName: [UInt8]
    let token: [UInt8]
    let timeouts: FilterTimeouts
    let counters: NextHopCounters
    let log: EventLog
    /// Last used, last in.
    private var idle: [NextHopConnection] = []
    private var open: [ObjectIdentifier: NextHopConnection] = [:]
    private var capabilities: (value: SMTPCapabilities, at: NIODeadline)?
    private var asking: [(Result<SMTPCapabilities, SMTPFailure>) -> Void] = []
    private var isStopping = false

    /// Idle connections of one loop: each keeps a process of the next hop from other work.
    private static let mostIdle = 50

    init(
        endpoint: Endpoint, loop: SocketLoop, hostName: [UInt8], token: [UInt8],
        timeouts: FilterTimeouts, counters: NextHopCounters, log: EventLog
    ) {
        self.endpoint = endpoint
        addresses = endpoint.addresses
        self.loop = loop
        self.hostName = hostName
        self.token = token
        self.timeouts = timeouts
        self.counters = counters
        self.log = log
    }

    /// A connection for one transaction; it may be still on its way.
    ///
    /// - Parameter fresh: not one that was used before.
    func acquire(for owner: FilterConnection, fresh: Bool = false) -> NextHopConnection {
        if !fresh, let connection = idle.popLast() {
            counters.idle.subtract(1, ordering: .relaxed)
            connection.owner = owner
            connection.isReused = true
            return connection
        }
        return connect(for: owner)
    }

    /// Tells what the next hop can do; asks it where that is not known.
    func withCapabilities(_ body: @escaping (Result<SMTPCapabilities, SMTPFailure>) -> Void) {
        if let connection = idle.last { return body(.success(connection.capabilities)) }
        if let capabilities, NIODeadline.now() - capabilities.at < timeouts.capabilities {
            return body(.success(capabilities.value))
        }
        asking.append(body)
        if asking.count == 1 { _ = connect(for: nil) }
    }

    private func connect(for owner: FilterConnection?) -> NextHopConnection {
        let connection = NextHopConnection(pool: self)
        connection.owner = owner
        open[ObjectIdentifier(connection)] = connection
        counters.connections.add(1, ordering: .relaxed)
        connection.connect()
        return connection
    }

    // MARK: Told by connections

    func ready(_ connection: NextHopConnection) {
        capabilities = (connection.capabilities, .now())
        if counters.noteReady() { log.recover(.nextHop("\(endpoint)"), "takes mail again") }
        answerAsking(.success(connection.capabilities))
        if connection.owner == nil { keep(connection) }
    }

    /// Nothing is under way on `connection`, and nobody's.
    func keep(_ connection: NextHopConnection) {
        guard !isStopping, idle.count < Self.mostIdle else { return connection.quit() }
        connection.idleSince = .now()
        idle.append(connection)
        counters.idle.add(1, ordering: .relaxed)
    }

    /// - Parameter isWanted: Weir itself has closed it, which is no fault of the next hop.
    func closed(_ connection: NextHopConnection, _ failure: SMTPFailure, isWanted: Bool) {
        open[ObjectIdentifier(connection)] = nil
        counters.connections.subtract(1, ordering: .relaxed)
        if let place = idle.firstIndex(where: { $0 === connection }) {
            idle.remove(at: place)
            counters.idle.subtract(1, ordering: .relaxed)
        }
        guard !connection.hasBeenReady else { return }
        if !isWanted {
            counters.countFailure(failure.cause)
            log.complain(.nextHop("\(endpoint)"), failure.cause)
        }
        capabilities = nil
        answerAsking(.failure(failure))
    }

    private func answerAsking(_ result: Result<SMTPCapabilities, SMTPFailure>) {
        let bodies = asking
        asking = []
        for body in bodies { body(result) }
    }

    func sweep(_ now: NIODeadline) {
        for connection in open.values { connection.checkTime(now) }
        for connection in idle where now - connection.idleSince > timeouts.idle {
            connection.quit()
        }
    }

    func stop() {
        isStopping = true
        for connection in idle { connection.quit() }
    }
}

/// Why the next hop can't take mail now: the cause for the log, and what the client is told.
struct SMTPFailure: Error {
    let cause: String
    /// Always transient: the client keeps its mail.
    let reply: SMTPReply

    init(_ cause: String, _ reply: SMTPReply) {
        self.cause = cause
        self.reply = reply
    }

    /// - Parameter code: 421 where the connection ends too, 451 as a final reply.
    func reply(_ code: Int) -> SMTPReply {
        reply.code == code ? reply : SMTPReply(code, reply.bytes.readableBytesView.dropFirst(4).prefix { $0 != 0x0d })
    }

    static func lost(_ cause: String) -> SMTPFailure {
        SMTPFailure(cause, SMTPReply(421, "4.4.2 Error: lost connection with the next hop"))
    }
    static func unreachable(_ cause: String) -> SMTPFailure {
        SMTPFailure(cause, SMTPReply(421, "4.4.1 Error: no answer from the next hop"))
    }
    static let loop = SMTPFailure(
        "is this service itself: a mail loop", SMTPReply(421, "4.4.6 Error: the next hop is this filter itself"))
}

/// One connection to the next hop: carries the bytes of its session, and tells its owner what came back.
final class NextHopConnection: SocketLoop.Socket {
    private let pool: NextHopPool
    private var session: SMTPClientSession
    /// nil before there is a socket.
    private var stream: SocketStream?
    /// Where it may be yet, when it is not at the address that is tried now.
    private var otherAddresses: ArraySlice<SocketAddress>
    /// What the next hop has not taken yet.
    private var unsent = ByteBuffer()
    /// Goes on once it has taken all of it.
    private var whenTaken: (() -> Void)?
    private var isClosed = false
    private var hasReceived = false
    private(set) var hasBeenReady = false
    /// A reply is awaited, or bytes are to be taken, since then.
    private var waitingSince: NIODeadline? = .now()
    private var waitsForFinalReply = false
    /// Whose transaction it carries.
    weak var owner: FilterConnection?
    /// It has carried another transaction before.
    var isReused = false
    var idleSince = NIODeadline.now()

    private static let mostRead = 4 << 10
    /// After a UNIX socket's queue was full.
    private static let pause: TimeAmount = .milliseconds(20)

    init(pool: NextHopPool) {
        self.pool = pool
        session = SMTPClientSession(hostName: pool.hostName, token: pool.token)
        otherAddresses = pool.addresses[...]
    }

    var capabilities: SMTPCapabilities { session.capabilities }

    func connect() {
        var code = EADDRNOTAVAIL
        while let address = otherAddresses.popFirst() {
            do throws(IOError) {
                return try connect(to: address)
            } catch {
                code = error.errnoCode
                guard code == EAGAIN else { continue }
                otherAddresses = [address] + otherAddresses
                return pool.loop.schedule(in: Self.pause) { [self] in if !isClosed { connect() } }
            }
        }
        endLater(Self.cannotConnect(code))
    }

    /// Begins to connect. The first that is told of the socket is the greeting, or that nobody is there.
    private func connect(to address: SocketAddress) throws(IOError) {
        let descriptor = try SocketStream.open(for: address)
        do throws(IOError) {
            if pool.endpoint.isTCP { try ListeningSocket.set(TCP_NODELAY, at: Int32(IPPROTO_TCP), of: descriptor) }
            let code = address.withSockAddr { Glibc.connect(descriptor, $0, socklen_t($1)) }
            guard code == 0 || errno == EINPROGRESS else { throw IOError(errnoCode: errno, reason: "connect") }
            try pool.loop.watch(descriptor, for: .reading, self)
        } catch {
            close(descriptor)
            throw error
        }
        stream = SocketStream(descriptor, pool.loop)
    }

    private static func cannotConnect(_ code: Int32) -> SMTPFailure {
        .unreachable("can't connect: \(String(cString: strerror(code)))")
    }

    /// Ends the connection, but not within the call: whoever makes it is not done yet. A last word of the next hop is heard.
    private func endLater(_ failure: SMTPFailure) {
        pool.loop.schedule(in: .zero) { [self] in
            while read() {}
            end(failure)
        }
    }

    // MARK: Bytes

    func isReady() {
        if unsent.readableBytes > 0 { send() }
        if !isClosed { read() }
    }

    /// - Returns: whether something had come.
    @discardableResult
    private func read() -> Bool {
        switch stream?.read({ session.receive(upTo: Self.mostRead, $0) }) {
        case .bytes: hasReceived = true
        case .nothing, nil: return false
        case .end:
            end(hasBeenReady ? .lost("lost connection") : .unreachable("closed the connection at once"))
            return false
        case .failure(let code):
            if hasReceived { end(.lost(String(cString: strerror(code)))) } else { couldNotConnect(code) }
            return false
        }
        do {
            while !isClosed, let event = try session.next() { take(event) }
        } catch {
            end(.lost("sent what is no SMTP reply (\(error))"))
        }
        flush()
        return true
    }

    private func couldNotConnect(_ code: Int32) {
        guard !otherAddresses.isEmpty else { return end(Self.cannotConnect(code)) }
        stream?.close()
        stream = nil
        connect()
    }

    func send(_ command: SMTPClientSession.Command, _ line: ByteBuffer) { session.send(command, line) }
    func send(_ command: SMTPClientSession.Command, _ line: StaticString) { session.send(command, line) }

    /// Writes what was asked since the last time, in one piece.
    func flush() {
        guard !isClosed, session.output.readableBytes > 0 else { return }
        unsent.writeBuffer(&session.output)
        session.output.clear()
        waitingSince = .now()
        send()
    }

    /// Writes content.
    ///
    /// - Parameter then: called once the next hop has taken all of it.
    func write(_ content: ByteBuffer, then: @escaping () -> Void) {
        guard !isClosed else { return }
        unsent = content
        whenTaken = then
        waitingSince = .now()
        send()
    }

    /// Writes the last of the content, which ends in the final dot.
    func writeLast(_ content: ByteBuffer) {
        guard !isClosed else { return }
        session.endData()
        waitsForFinalReply = true
        unsent = content
        waitingSince = .now()
        send()
    }

    private func send() {
        guard let sent = stream?.send(&unsent) else { return endLater(.lost("lost connection")) }
        if sent > 0 { waitingSince = .now() }
        guard unsent.readableBytes == 0 else {
            stream?.want(.readingAndWriting)
            return
        }
        unsent = ByteBuffer()
        stream?.want(.reading)
        let then = whenTaken
        whenTaken = nil
        then?()
    }

    private func take(_ event: SMTPClientSession.Event) {
        waitingSince = session.isIdle ? nil : .now()
        switch event {
        case .ready:
            hasBeenReady = true
            pool.ready(self)
            owner?.nextHopReady(self)
        case .refused(let reply):
            let text = "refused with \(reply.text)"
            // The operator's servers speak for themselves, but a mail must not bounce for how they are set up.
            end(SMTPFailure(text, reply.isTransient ? reply : SMTPReply(421, "4.3.0 Error: the next hop refuses us")))
        case .loop: end(.loop)
        case .reply(.endOfData, let reply) where reply.isPositive && unsent.readableBytes > 0:
            end(.lost("took a message that it did not have (\(reply.text))"))
        case .reply(let command, let reply):
            if command == .endOfData { waitsForFinalReply = false }
            if let owner {
                owner.nextHop(self, answers: command, with: reply)
            } else if command == .endOfData || command == .reset, reply.isPositive, session.isIdle {
                pool.keep(self)
            } else if command == .reset || session.isIdle {
                quit()
            }
        }
    }

    /// The transaction is over: whoever comes next may have it.
    func release() {
        owner = nil
        if session.isIdle, !isClosed { pool.keep(self) } else { quit() }
    }

    /// Drops the transaction, without the final dot.
    ///
    /// - Parameter isInData: content was asked for, so that only the end of the connection can drop it.
    func abandon(isInData: Bool) {
        owner = nil
        guard hasBeenReady, !isInData else { return end(.lost("the transaction was dropped"), isWanted: true) }
        session.send(.reset, "RSET\r\n")
        flush()
    }

    func quit() {
        unsent.writeStaticString("QUIT\r\n")
        _ = stream?.send(&unsent)
        end(.lost("closed"), isWanted: true)
    }

    func checkTime(_ now: NIODeadline) {
        guard let waitingSince else { return }
        let (time, timeouts) = (now - waitingSince, pool.timeouts)
        if !isConnected {
            if time > timeouts.connect { end(Self.cannotConnect(ETIMEDOUT)) }
        } else if time > (waitsForFinalReply ? timeouts.finalReply : timeouts.reply) {
            end(hasBeenReady ? .lost("no reply in time") : .unreachable("no greeting in time"))
        }
    }

    private var isConnected: Bool {
        guard let stream else { return false }
        return hasReceived || !pool.endpoint.isTCP || SocketAddress(ofPeerOf: stream.descriptor) != nil
    }

    /// Closes the connection, and says so, once.
    private func end(_ failure: SMTPFailure, isWanted: Bool = false) {
        guard !isClosed else { return }
        isClosed = true
        stream?.close()
        stream = nil
        whenTaken = nil
        unsent = ByteBuffer()
        pool.closed(self, failure, isWanted: isWanted)
        let owner = owner
        self.owner = nil
        owner?.nextHopClosed(self, failure)
    }
}

extension Endpoint {
    /// Those of localhost are two.
    fileprivate var addresses: [SocketAddress] {
        switch self {
        case .inet("localhost", let port):
            ["127.0.0.1", "::1"].compactMap { try? SocketAddress(ipAddress: $0, port: port) }
        case .inet(let host, let port): [try? SocketAddress(ipAddress: host, port: port)].compactMap { $0 }
        case .unix(let path, _, _): [try? SocketAddress(unixDomainSocketPath: path)].compactMap { $0 }
        }
    }
}
