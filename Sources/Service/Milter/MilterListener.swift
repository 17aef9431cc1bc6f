// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// The milter (MILTER_README): the MTA sends each message once, before it queues the message, and gets edits back.
///
/// Each loop has its own connections and its own matcher. Limits are decided on the ledger's loop.
///
/// Security: the clients are the operator's MTAs, but they relay mail of strangers. Packets, macros, recipients and
/// content are bounded, and a violation of the protocol ends that one connection.
///
/// Sendable, unchecked: `workers` and `listening` change only before the service is ready, and are read when it stops.
final class MilterListener: @unchecked Sendable {
    private let endpoints: [Configuration.Endpoint]
    private let host: LedgerHost
    private let log: EventLog
    private let shared: MilterShared
    /// Makes the checks of one loop.
    private let makeChecks: (SocketLoop) -> MessageChecks
    private var workers: [MilterWorker] = []
    private var listening: [Int32] = []

    private static let sweepInterval: TimeAmount = .seconds(60)

    /// - Parameter rules: the rules in force; called for each message.
    init(
        _ configuration: Configuration, bounds: ContentBounds, threads: NIOThreadPool,
        host: LedgerHost, rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        endpoints = configuration.listen.milter
        self.host = host
        self.log = log
        let shared = MilterShared(MilterSettings(configuration))
        self.shared = shared
        makeChecks = { loop in
            MessageChecks(
                home: { loop.execute($0) }, bounds: bounds, threads: threads, counters: shared.counters,
                probes: host.probes,
                rules: rules, log: log)
        }
    }

    var way: AdminMessages.Way { .init(name: "milter", values: shared.counters.values) }

    func reload(_ configuration: Configuration) {
        shared.settings = MilterSettings(configuration)
    }

    /// Starts to listen.
    ///
    /// - Parameters:
    ///   - loops: all of them accept connections.
    ///   - inherited: sockets by their addresses; used ones are removed.
    /// - Throws: `ListenerFailure`.
    func listen(on loops: [SocketLoop], inherited: inout [String: Int32]) async throws {
        for loop in loops { workers.append(try await makeWorker(on: loop)) }
        for endpoint in endpoints {
            let descriptor = try ListeningSocket.open(at: endpoint, key: "listen.milter", inherited: &inherited)
            do {
                // The MTA speaks first, so the kernel need not report a connection before that. This is optional.
                if endpoint.isTCP { try? ListeningSocket.set(TCP_DEFER_ACCEPT, at: Int32(IPPROTO_TCP), of: descriptor) }
                try Door.listen(descriptor)
                listening.append(descriptor)
                for worker in workers {
                    try await worker.loop.submit { try worker.open(descriptor, isTCP: endpoint.isTCP) }
                }
            } catch {
                throw ListenerFailure(key: "listen.milter", endpoint: endpoint, cause: error)
            }
        }
    }

    private func makeWorker(on loop: SocketLoop) async throws -> MilterWorker {
        let worker = MilterWorker(loop: loop, shared: shared, host: host, checks: makeChecks(loop), log: log)
        try await loop.submit {
            loop.schedule(every: Self.sweepInterval) {
                worker.sweep()
                return !worker.isStopping
            }
        }
        return worker
    }

    /// Accepts no more connections, lets messages under way finish, and closes the remaining connections at `deadline`.
    func stop(by deadline: NIODeadline) async {
        for worker in workers { try? await worker.loop.submit { worker.beginStop() } }
        for descriptor in listening { close(descriptor) }
        while shared.counters.connections.load(ordering: .relaxed) > 0, NIODeadline.now() < deadline {
            try? await Task.sleep(for: .milliseconds(10))
        }
        for worker in workers { try? await worker.loop.submit { worker.endStop() } }
    }
}
