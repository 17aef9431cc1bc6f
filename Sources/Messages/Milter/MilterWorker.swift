// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Loop
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report
internal import Synchronization
internal import Wire

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

/// The milter on one loop: what its connections share.
///
/// Sendable, unchecked: all state belongs to the loop; other threads use only `loop`, which is constant.
final class MilterWorker: @unchecked Sendable {
    let desk: Reception.Desk
    let host: LedgerHost
    let checks: MessageChecks
    let shared: MilterShared
    let log: EventLog
    /// The last offer, used again while rules and settings stay the same.
    private var offer: MilterOffer?

    init(
        desk: Reception.Desk, shared: MilterShared, host: LedgerHost, checks: MessageChecks,
        log: EventLog
    ) {
        self.desk = desk
        self.shared = shared
        self.host = host
        self.checks = checks
        self.log = log
        desk.admit = { [unowned self] client, endpoint, isOverBound in
            isOverBound ? nil : MilterConnection(client, worker: self, isTCP: endpoint.isTCP)
        }
    }

    var loop: SocketLoop { desk.loop }
    var isStopping: Bool { desk.isStopping }

    func closed(_ client: Int32) { desk.closed(client) }

    /// The rules and settings in force.
    func makeOffer() -> MilterOffer {
        let (rules, settings) = (checks.rules(), shared.settings)
        if let offer, offer.rules === rules, offer.settings === settings { return offer }
        let offer = MilterOffer(rules, settings)
        self.offer = offer
        return offer
    }
}
