// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// State that all loops of the milter share.
final class MilterShared: Sendable {
    let counters = MessageCounters()
    private let held: Mutex<MilterSettings>
    private let names = Atomic<UInt64>(0)
    /// Differs from process to process, so that the ledger never sees a name twice.
    private let process = String(UInt64.random(in: .min ... .max), radix: 36)

    init(_ settings: MilterSettings) {
        held = Mutex(settings)
    }

    var settings: MilterSettings {
        get { held.withLock { $0 } }
        set { held.withLock { $0 = newValue } }
    }

    /// A name for a connection that no other connection has had.
    func makeName() -> String {
        "milter.\(process).\(String(names.add(1, ordering: .relaxed).newValue, radix: 36))"
    }
}

/// The milter on one loop: its listening sockets and its connections.
///
/// Sendable, unchecked: all state belongs to the loop; other threads use only `loop`, which is constant.
final class MilterWorker: @unchecked Sendable {
    let loop: SocketLoop
    let host: LedgerHost
    let checks: MessageChecks
    let shared: MilterShared
    let log: EventLog
    private var doors: [Door] = []
    /// By descriptor.
    private var connections: [Int32: MilterConnection] = [:]
    private(set) var isStopping = false
    /// The last offer, used again while rules and settings stay the same.
    private var offer: MilterOffer?

    /// libmilter's own timeout (MI_TIMEOUT). It is longer than any MTA waits for its client.
    private static let timeout: TimeAmount = .seconds(7210)

    init(loop: SocketLoop, shared: MilterShared, host: LedgerHost, checks: MessageChecks, log: EventLog) {
        self.loop = loop
        self.shared = shared
        self.host = host
        self.checks = checks
        self.log = log
    }

    /// The rules and settings in force.
    func makeOffer() -> MilterOffer {
        let (rules, settings) = (checks.rules(), shared.settings)
        if let offer, offer.rules === rules, offer.settings === settings { return offer }
        let offer = MilterOffer(rules, settings)
        self.offer = offer
        return offer
    }

    /// Accepts connections on a listening socket.
    func open(_ listening: Int32, isTCP: Bool) throws(IOError) {
        let door = Door(listening, loop, clients: "milter connections", log: log) { [unowned self] in
            accepted($0, isTCP: isTCP)
        }
        try door.open()
        doors.append(door)
    }

    private func accepted(_ descriptor: Int32, isTCP: Bool) {
        let most = shared.settings.connections
        guard shared.counters.connections.add(1, ordering: .relaxed).newValue <= most else {
            return refused(descriptor, "more than \(most) milter connections (milter.connections)")
        }
        let connection = MilterConnection(descriptor, worker: self, isTCP: isTCP)
        do {
            try loop.watch(descriptor, for: .reading, connection)
        } catch {
            return refused(descriptor, "can't take a milter connection: \(error.systemReason)")
        }
        connections[descriptor] = connection
        // Mostly the MTA has sent its first packet by now (TCP_DEFER_ACCEPT).
        connection.isReady()
    }

    private func refused(_ descriptor: Int32, _ cause: String) {
        log.complain(.tooManyConnections, cause)
        Glibc.close(descriptor)
        shared.counters.connections.subtract(1, ordering: .relaxed)
    }

    func closed(_ descriptor: Int32) {
        connections[descriptor] = nil
        shared.counters.connections.subtract(1, ordering: .relaxed)
    }

    func sweep() {
        let oldest = NIODeadline.now() - Self.timeout
        for connection in connections.values where connection.activeSince < oldest { connection.close() }
    }

    func beginStop() {
        isStopping = true
        for door in doors { door.shut() }
        for connection in connections.values { connection.closeIfIdle() }
    }

    func endStop() {
        for connection in connections.values { connection.close() }
    }
}
