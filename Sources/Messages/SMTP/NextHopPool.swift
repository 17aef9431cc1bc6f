// SPDX-License-Identifier: Apache-2.0
internal import Loop
internal import NIOCore
internal import Report
internal import Settings
internal import Synchronization
internal import Wire

/// The connections of one loop to the next hop of one listener.
final class NextHopPool {
    let loop: SocketLoop
    let nextHop: Configuration.FilterListener.NextHop
    /// Tried in turn.
    let addresses: [SocketAddress]
    let hostName: [UInt8]
    let token: [UInt8]
    let timeouts: FilterTimeouts
    let counters: NextHopCounters
    let log: EventLog
    /// The most recently used connection is last, and is reused first.
    private var idle: [NextHopConnection] = []
    private var open: [ObjectIdentifier: NextHopConnection] = [:]
    private var capabilities: (value: SMTPCapabilities, at: NIODeadline)?
    /// Callbacks that wait for the capabilities.
    private var asking: [(Result<SMTPCapabilities, SMTPFailure>) -> Void] = []
    private var isStopping = false

    /// Idle connections of one loop. Each of them occupies a process of the next hop.
    private static let mostIdle = 50

    init(
        nextHop: Configuration.FilterListener.NextHop, loop: SocketLoop, hostName: [UInt8], token: [UInt8],
        timeouts: FilterTimeouts, counters: NextHopCounters, log: EventLog
    ) {
        self.nextHop = nextHop
        addresses = nextHop.endpoint.addresses
        self.loop = loop
        self.hostName = hostName
        self.token = token
        self.timeouts = timeouts
        self.counters = counters
        self.log = log
    }

    /// A connection for one transaction, which may not be ready yet.
    ///
    /// - Parameter fresh: makes a new connection, even if one is idle.
    func acquire(for owner: FilterConnection, fresh: Bool = false) -> NextHopConnection {
        guard !fresh, let connection = idle.popLast() else { return connect(for: owner) }
        counters.idle.subtract(1, ordering: .relaxed)
        connection.begin(for: owner)
        return connection
    }

    /// The next hop's capabilities, if they were learned recently.
    var knownCapabilities: SMTPCapabilities? {
        if let connection = idle.last { return connection.capabilities }
        guard let capabilities, NIODeadline.now() - capabilities.at < timeouts.capabilities else { return nil }
        return capabilities.value
    }

    /// Connects to ask for the next hop's capabilities.
    ///
    /// - Parameter then: called later, never within this call.
    func askCapabilities(then: @escaping (Result<SMTPCapabilities, SMTPFailure>) -> Void) {
        asking.append(then)
        if asking.count == 1 { _ = connect(for: nil) }
    }

    private func connect(for owner: FilterConnection?) -> NextHopConnection {
        let connection = NextHopConnection(pool: self, for: owner)
        open[ObjectIdentifier(connection)] = connection
        counters.connections.add(1, ordering: .relaxed)
        connection.connect()
        return connection
    }

    // MARK: Callbacks from connections

    func ready(_ connection: NextHopConnection) {
        capabilities = (connection.capabilities, .now())
        if counters.noteReady() { log.recover(.nextHop("\(nextHop)"), "accepts mail again") }
        answerAsking(.success(connection.capabilities))
    }

    /// Keeps a connection that has no transaction.
    func keep(_ connection: NextHopConnection) {
        guard !isStopping, idle.count < Self.mostIdle else { return connection.quit() }
        connection.idleSince = .now()
        idle.append(connection)
        counters.idle.add(1, ordering: .relaxed)
    }

    func closed(_ connection: NextHopConnection, _ ending: NextHopDialogue.Ending) {
        open[ObjectIdentifier(connection)] = nil
        counters.connections.subtract(1, ordering: .relaxed)
        if let place = idle.firstIndex(where: { $0 === connection }) {
            idle.remove(at: place)
            counters.idle.subtract(1, ordering: .relaxed)
        }
        switch ending.kind {
        // Neither says whether the next hop is reachable. Clients that wait for the capabilities keep waiting.
        case .lost, .withdrawn: return
        case .unreachable:
            counters.countFailure(ending.failure.cause)
            log.complain(.nextHop("\(nextHop)"), ending.failure.cause)
        }
        capabilities = nil
        answerAsking(.failure(ending.failure))
    }

    private func answerAsking(_ result: Result<SMTPCapabilities, SMTPFailure>) {
        let callbacks = asking
        asking = []
        for callback in callbacks { callback(result) }
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

extension Endpoint {
    /// The addresses to try; localhost has two.
    fileprivate var addresses: [SocketAddress] {
        switch self {
        case .inet("localhost", let port):
            ["127.0.0.1", "::1"].compactMap { try? SocketAddress(ipAddress: $0, port: port) }
        case .inet(let host, let port): [try? SocketAddress(ipAddress: host, port: port)].compactMap { $0 }
        case .unix(let path, _, _): [try? SocketAddress(unixDomainSocketPath: path)].compactMap { $0 }
        }
    }
}
