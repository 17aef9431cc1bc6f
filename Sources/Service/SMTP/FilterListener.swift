// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Glibc
internal import Limits
package import NIOCore
package import NIOPosix
internal import Synchronization
internal import Wire

/// The content filter as an SMTP or LMTP proxy, after the queue (FILTER_README) or before it (SMTPD_PROXY_README):
/// mail comes from Postfix, is checked, and goes to the next hop, which is Postfix again.
///
/// Each event loop has connections of its own, to clients and to the next hop, and a matcher; nothing hops between
/// threads but what a spool file takes. None of the loops is the policy server's.
///
/// Security: a client outside `networks` is refused. What comes from one is content of strangers all the same: lines,
/// recipients under way, content in memory and in the spool are bounded, only CRLF.CRLF ends a message, and no other
/// line end goes out. The next hop is trusted, but its bytes are bounded too.
package final class FilterListener: Sendable {
    private let settings: Configuration.FilterListener
    private let group: MultiThreadedEventLoopGroup
    private let workers: [FilterWorker]
    let counters: MessageCounters
    private let channel = Mutex<(any Channel)?>(nil)

    /// - Parameter rules: those that hold now; asked at each message.
    package init(
        _ settings: Configuration.FilterListener, mostConnections: Int, bounds: ContentBounds,
        group: MultiThreadedEventLoopGroup, threads: NIOThreadPool, timeouts: FilterTimeouts? = nil,
        probes: ProbeBoard, rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        self.settings = settings
        self.group = group
        let nextHop = NextHopCounters(address: "\(settings.nextHop)")
        let counters = MessageCounters(nextHop: nextHop)
        self.counters = counters
        workers = group.makeIterator().map { loop in
            FilterWorker(
                settings, mostConnections: mostConnections, timeouts: timeouts ?? FilterTimeouts(mode: settings.mode), eventLoop: loop,
                checks: MessageChecks(
                    home: { loop.execute($0) }, bounds: bounds, threads: threads, counters: counters, probes: probes, rules: rules, log: log),
                nextHop: nextHop, log: log)
        }
    }

    /// Starts to listen.
    ///
    /// - Parameter inherited: sockets by their addresses; those that are used are taken out.
    /// - Throws: `ListenerFailure`.
    package func listen(inherited: inout [String: Int32]) async throws {
        let workers = workers
        for worker in workers { try await worker.eventLoop.submit { worker.start() }.get() }
        let bootstrap = ServerBootstrap.accepting(on: group)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.recvAllocator, value: Self.recvAllocator)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let worker = workers.first(where: { $0.eventLoop === channel.eventLoop }) else {
                        preconditionFailure("a channel of another group")
                    }
                    try channel.pipeline.syncOperations.addHandler(FilterConnection(worker: worker))
                }
            }
        let channel = try await bootstrap.listen(on: settings.listen, key: "listen.filter", inherited: &inherited)
        self.channel.withLock { $0 = channel }
    }

    /// A message of the usual size in one read.
    private static let recvAllocator = AdaptiveRecvByteBufferAllocator(minimum: 16_384, initial: 16_384, maximum: 65_536)

    /// Lets messages that have begun be finished, takes no further ones, and defers what is left at `deadline`.
    package func stop(by deadline: NIODeadline) async {
        try? await channel.withLock { $0 }?.close().get()
        for worker in workers { try? await worker.eventLoop.submit { worker.beginStop() }.get() }
        while counters.connections.load(ordering: .relaxed) > 0, NIODeadline.now() < deadline {
            try? await Task.sleep(for: .milliseconds(10))
        }
        for worker in workers { try? await worker.eventLoop.submit { worker.endStop() }.get() }
    }
}

extension FilterListener {
    var way: AdminMessages.Way { .init(name: "filter \(settings.listen)", values: counters.values) }
}

/// What one event loop has of a filter listener.
///
/// Sendable, unchecked: all state belongs to its event loop, on which every connection runs; what other threads touch
/// (`eventLoop`) is constant.
final class FilterWorker: @unchecked Sendable {
    let settings: Configuration.FilterListener
    let eventLoop: any EventLoop
    let pool: NextHopPool
    let hostName: [UInt8]
    let token: [UInt8]
    let timeouts: FilterTimeouts
    let checks: MessageChecks
    let log: EventLog
    private let mostConnections: Int
    private var connections: [ObjectIdentifier: FilterConnection] = [:]
    private(set) var isStopping = false

    /// Of this process: who hears it in a greeting has called itself.
    private static let ownToken = Array("Weir-\(String(UInt64.random(in: .min ... .max), radix: 36))".utf8)

    init(
        _ settings: Configuration.FilterListener, mostConnections: Int, timeouts: FilterTimeouts,
        eventLoop: any EventLoop, checks: MessageChecks, nextHop: NextHopCounters, log: EventLog
    ) {
        self.settings = settings
        self.eventLoop = eventLoop
        self.timeouts = timeouts
        self.checks = checks
        self.log = log
        self.mostConnections = mostConnections
        hostName = Self.hostName()
        token = Self.ownToken
        pool = NextHopPool(
            endpoint: settings.nextHop, eventLoop: eventLoop, hostName: hostName, token: token, timeouts: timeouts, counters: nextHop,
            log: log)
    }

    func start() {
        eventLoop.scheduleRepeatedTask(initialDelay: timeouts.sweep, delay: timeouts.sweep) { [weak self] task in
            guard let self else { return task.cancel() }
            let now = NIODeadline.now()
            for connection in connections.values { connection.checkTime(now) }
            pool.sweep(now)
        }
    }

    func beginStop() {
        isStopping = true
        pool.stop()
        for connection in connections.values { connection.closeIfIdle() }
    }

    func endStop() {
        for connection in connections.values {
            connection.close(SMTPReply(421, "4.3.2 Error: the service is stopping"))
        }
    }

    /// A client has come; the reply that sends it away, or nil.
    func opened(_ connection: FilterConnection, _ address: SocketAddress?) -> SMTPReply? {
        connections[ObjectIdentifier(connection)] = connection
        let open = checks.counters.connections.add(1, ordering: .relaxed).newValue
        guard isAdmitted(address) else {
            log.complain(.strangeClient, "refused \(address?.ipAddress ?? "a client"): it is in no network of \(settings.listen)")
            return SMTPReply(554, "5.7.1 Error: access denied")
        }
        guard open <= mostConnections else {
            log.complain(.tooManyConnections, "more than \(mostConnections) filter connections (filter.connections)")
            return SMTPReply(421, "4.7.0 Error: too many connections")
        }
        guard !isStopping else { return SMTPReply(421, "4.3.2 Error: the service is stopping") }
        return checks.hasRoom ? nil : SMTPReply(421, "4.3.1 Insufficient system storage")
    }

    func closed(_ connection: FilterConnection) {
        guard connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        checks.counters.connections.subtract(1, ordering: .relaxed)
    }

    private func isAdmitted(_ address: SocketAddress?) -> Bool {
        guard settings.listen.isTCP else { return true }
        guard let text = address?.ipAddress, let client = IPAddress(text) else { return false }
        return (settings.networks.isEmpty ? Network.loopback : settings.networks).contains { $0.contains(client) }
    }

    private static func hostName() -> [UInt8] {
        var name = [CChar](repeating: 0, count: 256)
        gethostname(&name, name.count - 1)
        let bytes = name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:))
        let isName = !bytes.isEmpty && bytes.allSatisfy { 0x20 < $0 && $0 < 0x7f }
        return isName ? bytes : Array("localhost".utf8)
    }
}
