// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Limits
internal import Loop
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report
internal import Rules
internal import Settings
internal import Synchronization
internal import Wire

/// The milter (MILTER_README): the MTA hands over each message once, before it is queued, and is answered with edits.
///
/// Each loop has its own connections and matcher. Questions about limits go to the ledger's loop.
///
/// Security: a client is one of the operator's MTAs, but it relays strangers' data. Packets, macros, recipients and
/// content are bounded, and invalid bytes end that one connection.
///
/// Sendable, unchecked: `workers` is changed before the service is ready, and only keeps the workers alive.
final class MilterListener: @unchecked Sendable {
    private let endpoints: [Endpoint]
    private let host: LedgerHost
    private let log: EventLog
    private let shared: MilterShared
    private let reception: Reception
    /// Makes the `MessageChecks` of the worker on a loop.
    private let makeChecks: (SocketLoop) -> MessageChecks
    private var workers: [MilterWorker] = []

    private static let sweepInterval: TimeAmount = .seconds(60)

    /// - Parameter rules: the rules in force; called for each message.
    init(
        _ configuration: Configuration, bounds: ContentBounds, threads: NIOThreadPool, lookupThreads: NIOThreadPool,
        host: LedgerHost, rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        endpoints = configuration.listen.milter
        self.host = host
        self.log = log
        let shared = MilterShared(MilterSettings(configuration))
        self.shared = shared
        reception = Reception(
            .init(key: "listen.milter", clients: "milter connections", bound: "milter.connections"),
            most: configuration.milter.connections,
            complain: { [log] text in log.complain(.tooManyConnections, text) })
        makeChecks = { loop in
            MessageChecks(
                loop: loop, bounds: bounds, threads: threads, lookupThreads: lookupThreads, counters: shared.counters,
                probes: host.probes, rules: rules, log: log)
        }
    }

    var way: WayFigures {
        .init(name: "milter", values: shared.counters.values(connections: reception.openConnections))
    }

    func reload(_ configuration: Configuration) {
        shared.settings = MilterSettings(configuration)
        reception.mostConnections = configuration.milter.connections
    }

    /// Starts to listen.
    ///
    /// - Parameters:
    ///   - loops: the loops that serve it.
    ///   - inherited: sockets by address; those that are used are removed.
    /// - Throws: `ListenerFailure`.
    func listen(on loops: [SocketLoop], inherited: inout [String: Int32]) async throws {
        workers = loops.map { loop in
            MilterWorker(
                desk: reception.addDesk(on: loop, sweepInterval: Self.sweepInterval), shared: shared, host: host,
                checks: makeChecks(loop), log: log)
        }
        // The MTA speaks first.
        try await reception.listen(at: endpoints, inherited: &inherited, clientSpeaksFirst: true)
    }

    /// Lets messages that have begun be finished, accepts no further ones, and closes what is left at `deadline`.
    func stop(by deadline: NIODeadline) async { await reception.stop(by: deadline) }
}
