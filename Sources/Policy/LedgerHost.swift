// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Glibc
package import Limits
package import Loop
package import NIOCore
package import Report
package import Settings
package import Sharing
internal import Storage
internal import Synchronization
internal import Wire

/// Runs the ledger on its loop: the one on which policy requests arrive.
///
/// All requests that one turn of the loop has read are decided and committed together at the end of the turn; then
/// their answers are sent. The batch grows with the load, nothing is handed between threads, and a single request does
/// not wait for others.
///
/// Sendable, unchecked: all state belongs to `loop`, on which every method runs. A milter's question from another loop
/// is first handed to this one.
package final class LedgerHost: @unchecked Sendable {
    package let loop: SocketLoop
    let log: EventLog
    package let alerts: Alerts
    package let probes: ProbeBoard
    /// The file that records incoming requests.
    var capture: CaptureFile?
    let observer: DecisionLog
    package internal(set) var configuration: Configuration
    let clocks: any SystemClocks
    /// Speaks of attributes by the same indexes as the limits.
    var parser: PolicyRequestParser
    /// Used only if a milter consults the limits, too.
    var sessions = PolicySessions()
    var keepsSessions: Bool
    var milterCharges = MilterCharges()
    let milterQueue = Mutex(MilterQueue())
    var ledger: Ledger?
    var store: (any LedgerStore)?
    /// The newest entries of the audit trail.
    package internal(set) var audit = Recent<AuditEntry>(most: LedgerHost.mostAudit)
    static let mostAudit = 100
    /// What finishes the administrators' changes of this tick. Called after the commit, with the fault that has kept
    /// them from being saved.
    var unsavedChanges: [(StoreError?) -> Void] = []
    /// Lists of keys, the fullest first.
    let listings: WalkQueue
    /// Searches for keys.
    let searches: WalkQueue
    /// What the limits know of single keys.
    let lookups: WalkQueue
    /// Changes to many keys.
    let changes: WalkQueue
    var trouble: Trouble?
    /// The fault that kept counts in memory only, until they are saved.
    var unsaved: StoreError?
    /// Opens the ledger, at the start and after failures. It may wait for a lock and read for a long time.
    let opening = DispatchQueue(label: "weir.opening", qos: .utility)
    /// What waits for the end of the first attempt to open the ledger; nil when it has ended.
    var waitingForOpening: [OpeningWaiter]? = []
    var reloads = 0
    /// Clients whose request waits for a decision.
    var asking: [any Client] = []
    /// Clients of the current pass. They may submit their next request meanwhile, to `asking`.
    var deciding: [any Client] = []
    /// The limits shared with other hosts; nil without `shared`.
    var sharing: SharedLimits?
    /// Called with the address of the engine when it is in use, and with nil when it is no longer. Not of Sentinel.
    package var onEngine: (EngineAddress?) -> Void = { _ in }
    /// Called when the other hosts must be asked about a key of a shared limit (`SharedWarnings`).
    package var onNear: (_ key: KeyName, _ client: String) -> Void = { _, _ in }
    /// Where the ledger keeps what it knows of them.
    var sharedStore: SharedStore?
    /// Clients whose requests have waited for the engine, and are decided for the last time. `isAnswered` is false if
    /// they have waited in vain.
    var resuming: [(client: any Client, isAnswered: Bool)] = []
    /// Clients that have a decision and wait for the commit.
    var awaiting: [any Client] = []
    var isTickUnderWay = false
    var tickBegan = NIODeadline.now()
    var activity = PolicyActivity()
    package internal(set) var requests: UInt64 = 0
    var isStopped = false
    var nextSummary: NIODeadline
    /// When to check next that the store's files are still in place.
    var nextLook = NIODeadline.now()

    /// Puts one request at a time to the ledger.
    package protocol Client: AnyObject {
        /// The stage that a doctor's probe has reached with this client.
        static var stage: ProbeStage { get }
        /// Calls `body` with the request.
        func withRequest(_ body: (Attributes) -> Void)
        /// Whether nobody waits for the decision any more. The request is then not charged.
        var isGone: Bool { get }
        /// The request is about to be decided; `transaction` is 0 if it belongs to none. Called if dropped transactions
        /// are given back.
        func willBeDecided(in transaction: UInt64)
        /// The request waits for the engine. The client keeps it beyond this turn of the loop.
        func suspended()
        /// The decision for the request. The answer must wait for `committed`; the next request may be submitted now.
        func decided(_ decision: Decision)
        /// The batch is committed: answers may go out.
        func committed()
    }

    /// The store rejects batches, or could not be opened.
    struct Trouble {
        let error: StoreError
        let retryAt: NIODeadline
    }

    /// A ledger that was opened, on its way to the loop. Sendable, unchecked: it has one owner at a time.
    struct Opened: @unchecked Sendable {
        let ledger: Ledger
        let store: any LedgerStore
        let sharedStore: SharedStore?
        let audit: [AuditEntry]
    }

    static let retryInterval: TimeAmount = .seconds(1)
    static let upkeepInterval: TimeAmount = .milliseconds(50)
    /// Accounts visited per step of upkeep: a few microseconds after a tick with answers, more in an idle loop.
    static let slotsPerTick = 16
    static let slotsPerPause = 2048

    package init(
        configuration: Configuration, loop: SocketLoop, clocks: any SystemClocks, log: EventLog, alerts: Alerts,
        probes: ProbeBoard
    ) {
        self.loop = loop
        self.configuration = configuration
        self.clocks = clocks
        self.log = log
        self.alerts = alerts
        self.probes = probes
        listings = WalkQueue(loop, mostWaiting: 100)
        searches = WalkQueue(loop, mostWaiting: 0)
        lookups = WalkQueue(loop, mostWaiting: 100)
        changes = WalkQueue(loop, mostWaiting: 20_000)
        capture = configuration.log.capture.map { CaptureFile(path: $0, log: log) }
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        keepsSessions = configuration.milterAsks
        nextSummary = .now() + .seconds(configuration.log.summaryInterval)
        observer = DecisionLog(log: log, alerts: alerts)
        observer.logsPasses = configuration.log.decisions
        observer.localOver = configuration.milterAsks ? configuration.milter.localOver : nil
        observer.onNear = { [unowned self] in onNear($0, $1) }
        observer.onRefusal = { [unowned self] in activity.note($0) }
    }

    // MARK: Life cycle

    /// Begins to open the ledger. Until it is open, requests are answered as `on_no_ledger` says. If it can't be
    /// opened, the service runs without it, and retries.
    package func start() {
        loop.preconditionInLoop()
        reopen(after: Trouble(error: Self.isBeingOpened, retryAt: .distantFuture))
        loop.endOfTurn = { [unowned self] in if isTickUnderWay { endTick() } }
        loop.schedule(every: Self.upkeepInterval) { [self] in
            guard !isStopped else { return false }
            pause()
            return true
        }
        sharing = SharedLimits(configuration.shared, host: self)
        sharing?.start()
    }

    /// Logs that the ledger is still being opened, and what that means for mail.
    package func reportSlowOpening() {
        guard !isStopped, trouble?.error == Self.isBeingOpened else { return }
        log.notice("opening the ledger \(configuration.ledger.store.path); \(answerWithoutLedger) until it is open")
    }

    /// Returns when the first attempt to open the ledger has ended, whether the ledger is open then or not.
    ///
    /// - Returns: false if the service stops before, or after `limit`.
    @discardableResult
    package func firstOpening(within limit: TimeAmount? = nil) async -> Bool {
        await withCheckedContinuation { continuation in
            loop.execute { [self] in
                let waiter = OpeningWaiter(continuation)
                guard waitingForOpening != nil else { return waiter.resume(!isStopped) }
                waitingForOpening?.append(waiter)
                if let limit { loop.schedule(in: limit) { waiter.resume(false) } }
            }
        }
    }

    /// Commits pending requests and writes a last checkpoint, by `deadline`.
    package func stop(by deadline: NIODeadline) {
        loop.preconditionInLoop()
        isStopped = true
        sharing?.stop()
        endFirstOpening()
        endTick()
        flush()
        loop.endOfTurn = {}
        summarize()
        capture?.flush(by: deadline)
        guard let ledger else { return }
        do throws(UpkeepFault) {
            ledger.beginTick()
            if trouble == nil { try ledger.beginCheckpoint() } else { try ledger.restartJournal() }
            while ledger.isCheckpointRunning, NIODeadline.now() < deadline {
                if let fault = ledger.maintain(slots: Self.slotsPerPause) { throw fault }
                // Withdrawals must reach the journal before the checkpoint writes rows that include them.
                do throws(StoreError) { try ledger.flush() } catch { throw .journal(error) }
                // Wait for the writer: it is slower and has its own thread.
                usleep(1000)
            }
        } catch {
            let kept =
                trouble == nil
                ? "the journal holds everything" : "counts that were held in memory only are lost"
            log.error("can't write the last checkpoint (\(kept)): \(error.storeError.message)")
        }
        self.ledger = nil
        store = nil
        sharedStore = nil
    }

    /// Logs and stores a change to a key, as of now.
    ///
    /// - Parameters:
    ///   - details: of a raise or a block, or of a change to many keys.
    ///   - limits: those that have the key.
    func record(
        _ action: KeyAction, of key: String, by user: String, details: String = "", reason: String, limits: [String]
    ) {
        loop.preconditionInLoop()
        let entry = AuditEntry(
            time: Int64(time(nil)), user: user, action: action.rawValue, key: key, details: details, reason: reason,
            limits: limits)
        log.notice("audit: \(entry)")
        audit.append(entry)
        store?.record(entry)
    }

    static let alertSubject = "the ledger"

    /// Why counts are not saved to disk; nil if they are.
    package var fault: StoreError? { trouble?.error ?? unsaved }

    /// What is wrong with the ledger, and what that means for mail; nil while counts are saved.
    package var troubleText: String? {
        fault.map { fault in
            ledger == nil
                ? "the ledger is not open, and \(answerWithoutLedger): \(fault.message)"
                : "counts are not saved; \(answerWithoutStore): \(fault.message)"
        }
    }

    /// nil while the engine of shared limits is in use, and without `shared`.
    package var engineTrouble: EngineTrouble? { sharing?.engineTrouble }

    package var journalBytes: Int { store?.journalBytes ?? 0 }
    package var evictedKeys: UInt64 { observer.evictedKeys }

    /// The ledger, for an administrator's request.
    ///
    /// - Throws: `LedgerUnavailable` while it is not open; rethrows errors of `body`.
    package func withLedger<T>(_ body: (Ledger) throws -> T) throws -> T {
        loop.preconditionInLoop()
        guard let ledger else { throw LedgerUnavailable(reason: trouble?.error.message ?? "the service is stopping") }
        beginTick()
        return try body(ledger)
    }
}

/// Waits for the first attempt to open the ledger. Belongs to the ledger's loop.
final class OpeningWaiter {
    private var continuation: CheckedContinuation<Bool, Never>?

    init(_ continuation: CheckedContinuation<Bool, Never>) {
        self.continuation = continuation
    }

    /// Only the first call counts.
    func resume(_ hasEnded: Bool) {
        continuation.take()?.resume(returning: hasEnded)
    }
}

/// The ledger is not open, so counts can be neither read nor changed.
package struct LedgerUnavailable: Error {
    package let reason: String
}

extension Configuration {
    /// Whether a milter consults the limits.
    var milterAsks: Bool { !listen.milter.isEmpty && milter.limits }

    /// The store of the ledger. This is the only place that creates one.
    func makeStore(notice: @escaping @Sendable (String) -> Void) -> any LedgerStore {
        switch ledger.store {
        case .sqlite(let path): SQLiteStore(path: path, durability: ledger.durability, notice: notice)
        }
    }

    var ledgerSettings: Ledger.Settings {
        var settings = Ledger.Settings()
        settings.givesBackDropped = givesBackDropped
        settings.mostAccounts = ledger.mostKeys
        return settings
    }
}
