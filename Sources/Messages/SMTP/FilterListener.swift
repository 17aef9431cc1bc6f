// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Glibc
internal import Limits
package import Loop
package import NIOCore
package import NIOPosix
package import Report
package import Settings
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
/// Sendable, unchecked: `workers` is changed before the service is ready, and read when it stops.
package final class FilterListener: @unchecked Sendable {
    private let settings: Configuration.FilterListener
    let counters: MessageCounters
    private let reception: Reception
    private let timeouts: FilterTimeouts
    private let makeWorker: (Reception.Desk) -> FilterWorker
    private var workers: [FilterWorker] = []

    /// - Parameter rules: the rules in force; called once for each message.
    package init(
        _ settings: Configuration.FilterListener, mostConnections: Int, bounds: ContentBounds, threads: NIOThreadPool,
        lookupThreads: NIOThreadPool, timeouts: FilterTimeouts? = nil, probes: ProbeBoard,
        rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        self.settings = settings
        let timeouts = timeouts ?? FilterTimeouts(mode: settings.mode)
        self.timeouts = timeouts
        let nextHop = NextHopCounters(address: "\(settings.nextHop)")
        let counters = MessageCounters(nextHop: nextHop)
        let acceptedCopies = AcceptedCopies()
        self.counters = counters
        reception = Reception(
            .init(key: "listen.filter", clients: "filter connections", bound: "filter.connections"),
            most: mostConnections, complain: { [log] text in log.complain(.tooManyConnections, text) })
        makeWorker = { desk in
            let loop = desk.loop
            return FilterWorker(
                settings, timeouts: timeouts, desk: desk,
                checks: MessageChecks(
                    loop: loop, bounds: bounds, threads: threads, lookupThreads: lookupThreads, counters: counters,
                    probes: probes, rules: rules, log: log),
                nextHop: nextHop, acceptedCopies: acceptedCopies, log: log)
        }
    }

    /// Starts to listen.
    ///
    /// - Parameters:
    ///   - loops: the loops that serve it.
    ///   - inherited: sockets by address; those that are used are removed.
    /// - Throws: `ListenerFailure`.
    package func listen(on loops: [SocketLoop], inherited: inout [String: Int32]) async throws {
        workers = loops.map { makeWorker(reception.addDesk(on: $0, sweepInterval: timeouts.sweep)) }
        for worker in workers { try await worker.loop.submit { worker.begin() } }
        try await reception.listen(at: [settings.listen], inherited: &inherited)
    }

    /// Finishes messages in progress, accepts no further ones, and defers the rest at `deadline`.
    package func stop(by deadline: NIODeadline) async {
        for worker in workers { try? await worker.loop.submit { worker.beginStop() } }
        await reception.stop(by: deadline)
        for worker in workers { try? await worker.loop.submit { worker.endStop() } }
    }
}

extension FilterListener {
    /// Ends connections that have timed out at `now`.
    package func sweep(at now: NIODeadline) async {
        await reception.sweep(at: now)
        for worker in workers { try? await worker.loop.submit { worker.pool.sweep(now) } }
    }

    var way: WayFigures {
        .init(name: "filter \(settings.listen)", values: counters.values(connections: reception.openConnections))
    }
}

/// The part of a filter listener that runs on one loop.
///
/// Sendable, unchecked: all state belongs to the loop, on which every connection runs; other threads touch only `loop`,
/// a constant.
final class FilterWorker: @unchecked Sendable {
    let settings: Configuration.FilterListener
    let desk: Reception.Desk
    let pool: NextHopPool
    let hostName: [UInt8]
    let token: [UInt8]
    let timeouts: FilterTimeouts
    let checks: MessageChecks
    /// Shared by all workers of the listener.
    let acceptedCopies: AcceptedCopies
    let log: EventLog
    private var hasStopped = false

    /// Names this process. A greeting with it comes from Weir itself.
    private static let ownToken = Array("Weir-\(String(UInt64.random(in: .min ... .max), radix: 36))".utf8)

    init(
        _ settings: Configuration.FilterListener, timeouts: FilterTimeouts, desk: Reception.Desk,
        checks: MessageChecks, nextHop: NextHopCounters, acceptedCopies: AcceptedCopies, log: EventLog
    ) {
        self.settings = settings
        self.desk = desk
        self.timeouts = timeouts
        self.checks = checks
        self.acceptedCopies = acceptedCopies
        self.log = log
        // A next hop may refuse EHLO with a name that no host can have.
        let name = Report.hostName()
        hostName = Array((name.contains("?") ? "localhost" : name).utf8)
        token = Self.ownToken
        pool = NextHopPool(
            nextHop: settings.nextHop, loop: desk.loop, hostName: hostName, token: token, timeouts: timeouts,
            counters: nextHop,
            log: log)
        desk.admit = { [unowned self] client, _, isOverBound in
            FilterConnection(client, refusal: refusal(client, isOverBound), worker: self)
        }
    }

    var loop: SocketLoop { desk.loop }
    var isStopping: Bool { desk.isStopping }

    /// An SMTP client gets one final reply, which has to be exactly the LMTP server's for one recipient.
    var mostRecipients: Int { settings.nextHop.variant == .lmtp && settings.variant == .smtp ? 1 : .max }

    func begin() {
        loop.schedule(every: timeouts.sweep) { [self] in
            pool.sweep(.now())
            return !hasStopped
        }
    }

    func beginStop() { pool.stop() }

    func endStop() { hasStopped = true }

    /// The reply that refuses a client, or nil.
    private func refusal(_ descriptor: Int32, _ isOverBound: Bool) -> SMTPReply? {
        if settings.listen.isTCP {
            let address = SocketAddress(ofPeerOf: descriptor)?.ipAddress
            guard let address, isAdmitted(address) else {
                log.complain(
                    .strangeClient, "refused \(address ?? "a client"): it is not in the networks of \(settings.listen)")
                return SMTPReply(554, "5.7.1 Error: access denied")
            }
        }
        guard !isOverBound else {
            desk.complainOfBound()
            return SMTPReply(421, "4.7.0 Error: too many connections")
        }
        guard !isStopping else { return SMTPReply(421, "4.3.2 Error: the service is stopping") }
        return checks.hasRoom ? nil : SMTPReply(421, "4.3.1 Insufficient system storage")
    }

    func closed(_ descriptor: Int32) {
        desk.closed(descriptor)
    }

    private func isAdmitted(_ address: String) -> Bool {
        guard let client = IPAddress(address) else { return false }
        return (settings.networks.isEmpty ? Network.loopback : settings.networks).contains { $0.contains(client) }
    }
}
