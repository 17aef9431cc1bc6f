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
/// Each loop has its own connections, to clients and to the next hop, and its own matcher. Only work on spool files is
/// done by other threads. The policy server has a loop of its own.
///
/// Security: a client outside `networks` is refused. An admitted client still sends what strangers wrote: lines,
/// unanswered recipients, and content in memory and in the spool are bounded, only CRLF.CRLF ends a message, and no
/// other line end goes out. The next hop is trusted, but its replies are bounded too.
///
/// Sendable, unchecked: `workers` and `listening` are changed before the service is ready, and read when it stops.
package final class FilterListener: @unchecked Sendable {
    private let settings: Configuration.FilterListener
    let counters: MessageCounters
    private let makeWorker: (SocketLoop) -> FilterWorker
    private var workers: [FilterWorker] = []
    private var listening: Int32?

    /// - Parameter rules: the rules in force; called once for each message.
    package init(
        _ settings: Configuration.FilterListener, mostConnections: Int, bounds: ContentBounds, threads: NIOThreadPool,
        timeouts: FilterTimeouts? = nil, probes: ProbeBoard, rules: @escaping @Sendable () -> ContentRules,
        log: EventLog
    ) {
        self.settings = settings
        let nextHop = NextHopCounters(address: "\(settings.nextHop)")
        let counters = MessageCounters(nextHop: nextHop)
        self.counters = counters
        makeWorker = { loop in
            FilterWorker(
                settings, mostConnections: mostConnections, timeouts: timeouts ?? FilterTimeouts(mode: settings.mode),
                loop: loop,
                checks: MessageChecks(
                    home: { loop.execute($0) }, bounds: bounds, threads: threads, counters: counters, probes: probes,
                    rules: rules, log: log),
                nextHop: nextHop, log: log)
        }
    }

    /// Starts to listen.
    ///
    /// - Parameters:
    ///   - loops: the loops that serve it.
    ///   - inherited: sockets by address; the ones that are used are removed.
    /// - Throws: `ListenerFailure`.
    package func listen(on loops: [SocketLoop], inherited: inout [String: Int32]) async throws {
        workers = loops.map(makeWorker)
        let descriptor = try ListeningSocket.open(at: settings.listen, key: "listen.filter", inherited: &inherited)
        do {
            try Door.listen(descriptor)
            listening = descriptor
            for worker in workers { try await worker.loop.submit { try worker.open(descriptor) } }
        } catch {
            throw ListenerFailure(key: "listen.filter", endpoint: settings.listen, cause: error)
        }
    }

    /// Accepts no new messages, lets those under way finish, and defers what is left at `deadline`.
    package func stop(by deadline: NIODeadline) async {
        for worker in workers { try? await worker.loop.submit { worker.beginStop() } }
        if let listening { close(listening) }
        while counters.connections.load(ordering: .relaxed) > 0, NIODeadline.now() < deadline {
            try? await Task.sleep(for: .milliseconds(10))
        }
        for worker in workers { try? await worker.loop.submit { worker.endStop() } }
    }
}

extension FilterListener {
    /// Ends what has timed out at `now`.
    package func sweep(at now: NIODeadline) async throws {
        for worker in workers { try await worker.loop.submit { worker.sweep(at: now) } }
    }

    var way: AdminMessages.Way { .init(name: "filter \(settings.listen)", values: counters.values) }
}

/// The part of a filter listener that runs on one loop.
///
/// Sendable, unchecked: all state belongs to the loop, on which every connection runs; other threads touch only `loop`,
/// a constant.
final class FilterWorker: @unchecked Sendable {
    let settings: Configuration.FilterListener
    let loop: SocketLoop
    let pool: NextHopPool
    let hostName: [UInt8]
    let token: [UInt8]
    let timeouts: FilterTimeouts
    let checks: MessageChecks
    let log: EventLog
    private let mostConnections: Int
    private var door: Door?
    /// By descriptor.
    private var connections: [Int32: FilterConnection] = [:]
    private(set) var isStopping = false
    private var hasStopped = false

    /// Names this process. A greeting with it comes from Weir itself.
    private static let ownToken = Array("Weir-\(String(UInt64.random(in: .min ... .max), radix: 36))".utf8)

    init(
        _ settings: Configuration.FilterListener, mostConnections: Int, timeouts: FilterTimeouts,
        loop: SocketLoop, checks: MessageChecks, nextHop: NextHopCounters, log: EventLog
    ) {
        self.settings = settings
        self.loop = loop
        self.timeouts = timeouts
        self.checks = checks
        self.log = log
        self.mostConnections = mostConnections
        hostName = Self.hostName()
        token = Self.ownToken
        pool = NextHopPool(
            endpoint: settings.nextHop, loop: loop, hostName: hostName, token: token, timeouts: timeouts,
            counters: nextHop,
            log: log)
    }

    /// Accepts clients of a listening socket.
    func open(_ listening: Int32) throws(IOError) {
        let door = Door(listening, loop, clients: "filter connections", log: log) { [unowned self] in accepted($0) }
        try door.open()
        self.door = door
        loop.schedule(every: timeouts.sweep) { [self] in
            sweep(at: .now())
            return !hasStopped
        }
    }

    func sweep(at now: NIODeadline) {
        for connection in connections.values { connection.checkTime(now) }
        pool.sweep(now)
    }

    func beginStop() {
        isStopping = true
        door?.shut()
        pool.stop()
        for connection in connections.values { connection.closeIfIdle() }
    }

    func endStop() {
        hasStopped = true
        for connection in connections.values {
            connection.close(SMTPReply(421, "4.3.2 Error: the service is stopping"))
        }
    }

    private func accepted(_ descriptor: Int32) {
        let connection = FilterConnection(descriptor, worker: self)
        do {
            try loop.watch(descriptor, for: .reading, connection)
        } catch {
            log.complain(.tooManyConnections, "can't take a filter connection: \(error.systemReason)")
            Glibc.close(descriptor)
            return
        }
        connections[descriptor] = connection
        let open = checks.counters.connections.add(1, ordering: .relaxed).newValue
        connection.begin(refusal(descriptor, open))
    }

    /// The reply that refuses a client, or nil.
    private func refusal(_ descriptor: Int32, _ open: Int) -> SMTPReply? {
        if settings.listen.isTCP {
            let address = SocketAddress(ofPeerOf: descriptor)?.ipAddress
            guard let address, isAdmitted(address) else {
                log.complain(
                    .strangeClient, "refused \(address ?? "a client"): it is in no network of \(settings.listen)")
                return SMTPReply(554, "5.7.1 Error: access denied")
            }
        }
        guard open <= mostConnections else {
            log.complain(.tooManyConnections, "more than \(mostConnections) filter connections (filter.connections)")
            return SMTPReply(421, "4.7.0 Error: too many connections")
        }
        guard !isStopping else { return SMTPReply(421, "4.3.2 Error: the service is stopping") }
        return checks.hasRoom ? nil : SMTPReply(421, "4.3.1 Insufficient system storage")
    }

    func closed(_ descriptor: Int32) {
        connections[descriptor] = nil
        checks.counters.connections.subtract(1, ordering: .relaxed)
    }

    private func isAdmitted(_ address: String) -> Bool {
        guard let client = IPAddress(address) else { return false }
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
