// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore
internal import Synchronization
package import Wire

/// A client's connection, as the `Reception` of its listener sees it. Belongs to one loop.
package protocol ReceivedConnection: SocketLoop.Socket {
    /// The loop watches the socket for reading from now on.
    func begin()
    /// Closes the connection if its client has no request or message in progress.
    func closeIfIdle()
    /// Closes the connection because the service stops.
    func closeAtStop()
    /// Closes the connection if it has waited too long for its client.
    func checkTime(_ now: NIODeadline)
}

/// One listener over all of its loops: opens its sockets, accepts and counts clients, sweeps them, and stops.
///
/// Each loop has a `Desk` with the connections that were accepted there. A connection stays on its loop for life.
package final class Reception: Sendable {
    /// What the log and errors call the listener.
    package struct Names: Sendable {
        /// The configuration key of its addresses: `listen.milter`.
        let key: String
        /// `milter connections`
        let clients: String
        /// The configuration key of the bound on connections: `milter.connections`.
        let bound: String

        package init(key: String, clients: String, bound: String) {
            self.key = key
            self.clients = clients
            self.bound = bound
        }
    }

    private struct Sockets {
        var desks: [Desk] = []
        var listening: [Int32] = []
    }

    fileprivate let names: Names
    /// Logs that clients can't be served, at a bounded rate.
    fileprivate let complain: @Sendable (String) -> Void
    fileprivate let bound: Atomic<Int>
    fileprivate let open = Atomic(0)
    fileprivate let refused = Atomic<UInt64>(0)
    private let sockets = Mutex(Sockets())

    private static let pollInterval = Duration.milliseconds(10)

    /// - Parameter most: connections over all loops.
    package init(_ names: Names, most: Int, complain: @escaping @Sendable (String) -> Void) {
        self.names = names
        self.complain = complain
        bound = Atomic(most)
    }

    package var mostConnections: Int {
        get { bound.load(ordering: .relaxed) }
        set { bound.store(newValue, ordering: .relaxed) }
    }

    /// Connections that are open now.
    package var openConnections: Int { open.load(ordering: .relaxed) }

    /// Clients that were turned away since the start: over the bound, or the loop could not watch them.
    package var refusedConnections: UInt64 { refused.load(ordering: .relaxed) }

    /// Adds a loop that serves clients.
    ///
    /// - Parameter sweepInterval: how often `checkTime` is called.
    package func addDesk(on loop: SocketLoop, sweepInterval: TimeAmount) -> Desk {
        let desk = Desk(self, loop, sweepInterval: sweepInterval)
        sockets.withLock { $0.desks.append(desk) }
        return desk
    }

    /// Opens a socket at each address and accepts clients on all desks. A socket that the service manager has passed
    /// is used as it is.
    ///
    /// - Parameters:
    ///   - inherited: sockets by address; those that are used are removed.
    ///   - clientSpeaksFirst: the kernel may hold a TCP client back until it has sent something.
    /// - Throws: `ListenerFailure`.
    package func listen(
        at endpoints: [Endpoint], inherited: inout [String: Int32], clientSpeaksFirst: Bool = false
    ) async throws {
        for endpoint in endpoints {
            let descriptor = try ListeningSocket.open(at: endpoint, key: names.key, inherited: &inherited)
            do {
                if clientSpeaksFirst, endpoint.isTCP {
                    // An optimisation only: without it the loop wakes up once more for each client.
                    try? ListeningSocket.set(TCP_DEFER_ACCEPT, at: Int32(IPPROTO_TCP), of: descriptor)
                }
                try ListeningSocket.listen(descriptor)
                let desks = sockets.withLock { sockets in
                    sockets.listening.append(descriptor)
                    return sockets.desks
                }
                for desk in desks {
                    try await desk.loop.submit { try desk.accept(from: descriptor, endpoint) }
                }
            } catch {
                throw ListenerFailure(key: names.key, endpoint: endpoint, cause: error)
            }
        }
    }

    /// Ends the connections that have timed out at `now`, as the desks do themselves at each interval.
    package func sweep(at now: NIODeadline) async {
        for desk in sockets.withLock({ $0.desks }) { try? await desk.loop.submit { desk.sweep(at: now) } }
    }

    /// Stops listening, lets clients finish what they have begun, and closes the rest at `deadline`.
    package func stop(by deadline: NIODeadline) async {
        let (desks, listening) = sockets.withLock { sockets in
            // A desk refers to its reception: without desks, both can be released.
            defer { sockets = Sockets() }
            return (sockets.desks, sockets.listening)
        }
        for desk in desks { try? await desk.loop.submit { desk.beginStop() } }
        for descriptor in listening { close(descriptor) }
        while openConnections > 0, NIODeadline.now() < deadline {
            try? await Task.sleep(for: Self.pollInterval)
            for desk in desks { try? await desk.loop.submit { desk.closeIdle() } }
        }
        for desk in desks { try? await desk.loop.submit { desk.closeAll() } }
    }
}

extension Reception {
    /// The connections of one loop.
    ///
    /// Sendable, unchecked: `loop` never changes; all other state belongs to the loop, and every method checks that in
    /// debug builds.
    package final class Desk: @unchecked Sendable {
        package let loop: SocketLoop
        /// Makes the connection of a client; nil turns the client away. Set before `listen`. The socket does not block.
        ///
        /// The last parameter is true if the client exceeds `mostConnections`.
        package var admit: (_ client: Int32, _ endpoint: Endpoint, _ isOverBound: Bool) -> (any ReceivedConnection)? = {
            _, _, _ in
            nil
        }
        /// The service is stopping, and accepts no more clients.
        package private(set) var isStopping = false
        private let reception: Reception
        private let sweepInterval: TimeAmount
        private var acceptors: [Acceptor] = []
        /// By descriptor.
        private var connections: [Int32: any ReceivedConnection] = [:]
        private var isSwept = false

        fileprivate init(_ reception: Reception, _ loop: SocketLoop, sweepInterval: TimeAmount) {
            self.reception = reception
            self.loop = loop
            self.sweepInterval = sweepInterval
        }

        fileprivate func accept(from listening: Int32, _ endpoint: Endpoint) throws(IOError) {
            loop.assertInLoop()
            let acceptor = Acceptor(
                listening, loop,
                failed: { [reception] reason in
                    reception.complain(
                        "can't accept \(reception.names.clients): \(reason); trying again in a second")
                },
                accepted: { [unowned self] in accepted($0, endpoint) })
            try acceptor.start()
            acceptors.append(acceptor)
            if !isSwept { sweepFromNowOn() }
        }

        private func sweepFromNowOn() {
            isSwept = true
            loop.schedule(every: sweepInterval) { [self] in
                sweep(at: .now())
                return !isStopping || !connections.isEmpty
            }
        }

        fileprivate func sweep(at now: NIODeadline) {
            for connection in connections.values { connection.checkTime(now) }
        }

        private func accepted(_ client: Int32, _ endpoint: Endpoint) {
            let open = reception.open.add(1, ordering: .relaxed).newValue
            let isOverBound = open > reception.mostConnections
            guard let connection = admit(client, endpoint, isOverBound) else {
                if isOverBound { complainOfBound() }
                return turnAway(client)
            }
            do throws(IOError) {
                try loop.watch(client, for: .reading, connection)
            } catch {
                reception.complain("can't serve \(reception.names.clients): \(error.systemReason)")
                return turnAway(client)
            }
            connections[client] = connection
            connection.begin()
        }

        private func turnAway(_ client: Int32) {
            Glibc.close(client)
            reception.open.subtract(1, ordering: .relaxed)
            reception.refused.add(1, ordering: .relaxed)
        }

        /// Logs that there are more clients than the configuration allows.
        package func complainOfBound() {
            let names = reception.names
            reception.complain("more than \(reception.mostConnections) \(names.clients) (\(names.bound))")
        }

        /// A connection has closed its socket.
        package func closed(_ client: Int32) {
            loop.assertInLoop()
            connections[client] = nil
            reception.open.subtract(1, ordering: .relaxed)
        }

        fileprivate func beginStop() {
            loop.assertInLoop()
            isStopping = true
            for acceptor in acceptors { acceptor.stop() }
            acceptors = []
            closeIdle()
        }

        fileprivate func closeIdle() {
            for connection in connections.values { connection.closeIfIdle() }
        }

        fileprivate func closeAll() {
            for connection in connections.values { connection.closeAtStop() }
        }
    }
}
