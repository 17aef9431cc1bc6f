// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Glibc
package import Limits
package import Loop
package import NIOCore
package import Report
package import Settings
internal import Storage
internal import Wire

/// Runs the ledger on its loop: the one on which policy requests arrive.
///
/// All requests that one turn of the loop has read are decided and committed together at the end of the turn; then
/// their answers go out. So the batch grows with the load by itself, nothing hops between threads,
/// and a single request waits for nobody.
///
/// Sendable, unchecked: all state belongs to `loop`, on which every method runs; what a milter asks from another loop
/// is put on this one first.
package final class LedgerHost: @unchecked Sendable {
    package let loop: SocketLoop
    private let log: EventLog
    package let alerts: Alerts
    package let probes: ProbeBoard
    /// The file that records incoming requests.
    private(set) var capture: CaptureFile?
    private let observer: DecisionLog
    package private(set) var configuration: Configuration
    private let clocks: any SystemClocks
    /// Speaks of attributes by the same indexes as the limits.
    var parser: PolicyRequestParser
    /// Used only if a milter consults the limits, too.
    var sessions = PolicySessions()
    private(set) var keepsSessions: Bool
    private var ledger: Ledger?
    private var store: (any LedgerStore)?
    /// The newest entries of the audit trail.
    package private(set) var audit = Recent<AuditEntry>(most: LedgerHost.mostAudit)
    private static let mostAudit = 100
    /// Whether an administrator's search is running.
    var isSearching = false
    private var trouble: Trouble?
    /// The fault that kept counts in memory only, until they are saved.
    private var unsaved: StoreError?
    /// Opens the ledger after a failed start. It may wait for a lock and read for a long time.
    private let opening = DispatchQueue(label: "weir.opening", qos: .utility)
    private var reloads = 0
    /// Clients whose request waits for a decision.
    private var asking: [any Client] = []
    /// Clients of the current pass. They may submit their next request meanwhile, to `asking`.
    private var deciding: [any Client] = []
    /// Clients that have a decision and wait for the commit.
    private var awaiting: [any Client] = []
    private var isTickUnderWay = false
    private var tickBegan = NIODeadline.now()
    private var activity = PolicyActivity()
    package private(set) var requests: UInt64 = 0
    private var isStopped = false
    private var nextSummary: NIODeadline
    /// When to check next that the store's files are still in place.
    private var nextLook = NIODeadline.now()

    /// Puts one request at a time to the ledger.
    package protocol Client: AnyObject {
        /// The stage that a doctor's probe has reached with this client.
        static var stage: ProbeStage { get }
        /// Calls `body` with the request.
        func withRequest(_ body: (Attributes) -> Void)
        /// The decision for the request. The answer must wait for `committed`; the next request may be submitted now.
        func decided(_ decision: Decision)
        /// The batch is committed: answers may go out.
        func committed()
    }

    /// The store rejects batches, or could not be opened.
    private struct Trouble {
        let error: StoreError
        let retryAt: NIODeadline
    }

    /// A ledger that was opened, on its way to the loop. Sendable, unchecked: it has one owner at a time.
    private struct Opened: @unchecked Sendable {
        let ledger: Ledger
        let store: any LedgerStore
        let audit: [AuditEntry]
    }

    private static let retryInterval: TimeAmount = .seconds(1)
    private static let upkeepInterval: TimeAmount = .milliseconds(50)
    /// Accounts visited per step of upkeep: a few microseconds after a tick with answers, more in an idle loop.
    private static let slotsPerTick = 16
    private static let slotsPerPause = 2048

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
        capture = configuration.log.capture.map { CaptureFile(path: $0, log: log) }
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        keepsSessions = configuration.milterAsks
        nextSummary = .now() + .seconds(configuration.log.summaryInterval)
        observer = DecisionLog(log: log, alerts: alerts)
        observer.logsPasses = configuration.log.decisions
        observer.onRefusal = { [unowned self] in activity.note($0) }
    }

    // MARK: Life cycle

    /// Opens the ledger. If that fails, the service runs without it, answers as `on_failure` says, and retries.
    package func start() {
        loop.preconditionInLoop()
        finishOpening(Self.open(configuration, clocks, log))
        loop.endOfTurn = { [unowned self] in if isTickUnderWay { endTick() } }
        loop.schedule(every: Self.upkeepInterval) { [self] in
            guard !isStopped else { return false }
            pause()
            return true
        }
    }

    /// Commits pending requests and writes a last checkpoint, by `deadline`.
    package func stop(by deadline: NIODeadline) {
        loop.preconditionInLoop()
        isStopped = true
        endTick()
        loop.endOfTurn = {}
        summarize()
        capture?.flush()
        guard let ledger else { return }
        do throws(UpkeepFault) {
            ledger.beginTick()
            if trouble == nil { try ledger.beginCheckpoint() } else { try ledger.restartJournal() }
            while ledger.isCheckpointRunning, NIODeadline.now() < deadline {
                if let fault = ledger.maintain(slots: Self.slotsPerPause) { throw fault }
                // Withdrawals must reach the journal before the checkpoint writes rows that include them.
                do throws(StoreError) { try ledger.commit() } catch { throw .journal(error) }
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
    }

    package func reload(_ configuration: Configuration) throws(StoreError) {
        loop.preconditionInLoop()
        endTick()
        if let ledger {
            ledger.beginTick()
            let before = ledger.limits.map { (limit: $0, keys: $0.accountCount) }
            try ledger.reload(configuration.limits, settings: configuration.ledgerSettings)
            for (limit, keys) in before where keys > 0 && !ledger.limits.contains(where: { $0 === limit }) {
                log.notice(
                    "limit \(limit.limit.name) was removed or counts something else now: "
                        + "dropped the counts and blocks of \(keys) keys"
                )
            }
        }
        reloads += 1
        self.configuration = configuration
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        keepsSessions = configuration.milterAsks
        observer.logsPasses = configuration.log.decisions
        if configuration.log.capture != capture?.path {
            capture = configuration.log.capture.map { CaptureFile(path: $0, log: log) }
        }
    }

    // MARK: Requests

    /// Queues a client's request. It is decided at the end of this turn of the loop.
    package func submit(_ client: any Client) {
        if !isTickUnderWay { beginTick() }
        if let judging { client.withRequest(judging.prepare) }
        asking.append(client)
    }

    /// The ledger that decides requests; nil while it is not saved and `on_failure` is `defer`. Constant within a tick.
    private var judging: Ledger? { trouble == nil || configuration.onFailure == .dunno ? ledger : nil }

    private func decideAll() {
        while !asking.isEmpty {
            swap(&asking, &deciding)
            requests &+= UInt64(deciding.count)
            var answered: UInt64 = 0
            if let judging {
                judging.fetch()
                for client in deciding { if decide(client, in: judging) { answered &+= 1 } }
            } else {
                for client in deciding { client.decided(troubled) }
                if let action = troubled.action {
                    answered = UInt64(deciding.count)
                    activity.count(action, requests: deciding.count)
                }
            }
            activity.settle(passed: UInt64(deciding.count) &- answered, at: uptime)
            if awaiting.isEmpty {
                swap(&awaiting, &deciding)
            } else {
                awaiting += deciding
                deciding.removeAll(keepingCapacity: true)
            }
        }
    }

    /// - Returns: whether the answer is an action other than DUNNO.
    private func decide(_ client: any Client, in ledger: Ledger) -> Bool {
        var decision: Decision?
        client.withRequest { request in
            decision = ledger.decide(request)
            if observer.logsPasses, decision?.action == nil { observer.passed(request) }
        }
        guard var decision else { return false }
        if probes.isActive { decision = exempt(decision, ifProbe: client) }
        client.decided(decision)
        if let action = decision.action { activity.count(action) }
        return decision.action != nil
    }

    /// Withdraws the charge of a doctor's probe, and never refuses it.
    private func exempt(_ decision: Decision, ifProbe client: any Client) -> Decision {
        var sighting = ProbeBoard.Sighting.none
        client.withRequest { request in
            let stage = type(of: client).stage
            let place = stage == .policy ? "policy server" : "milter"
            sighting = probes.see(
                request.sender, at: stage,
                "\(place), \(String(decoding: request.protocolState, as: UTF8.self))",
                decision.action.map { String(decoding: $0, as: UTF8.self) } ?? "DUNNO")
        }
        if case .none = sighting { return decision }
        withdraw(decision.transaction)
        return Decision(action: nil, transaction: 0)
    }

    /// Whole seconds since the machine's start.
    private var uptime: Int64 { Int64(tickBegan.uptimeNanoseconds / 1_000_000_000) }

    /// What the policy server has been doing, as of now.
    package func withActivity<T>(_ body: (inout PolicyActivity, _ second: Int64) -> T) -> T {
        body(&activity, Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000_000))
    }

    /// The mail transaction has ended, as far as its client can tell.
    package func close(_ transaction: UInt64) {
        guard configuration.givesBackDropped, let ledger else { return }
        if !isTickUnderWay { beginTick() }
        ledger.close(transaction)
    }

    /// No recipient of the mail transaction is accepted, and the client will retry it.
    package func withdraw(_ transaction: UInt64) {
        guard let ledger else { return }
        if !isTickUnderWay { beginTick() }
        ledger.withdraw(transaction)
    }

    private var troubled: Decision {
        switch configuration.onFailure {
        case .dunno: Decision(action: nil, transaction: 0)
        case .defer: Decision(action: Self.deferral, transaction: 0)
        }
    }

    private static let deferral = Array("DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, try again later".utf8)

    private func beginTick() {
        isTickUnderWay = true
        tickBegan = .now()
        ledger?.beginTick()
    }

    /// Runs at the end of a turn of the loop, after all input is handled.
    private func endTick() {
        decideAll()
        isTickUnderWay = false
        commit()
        for client in awaiting { client.committed() }
        if !awaiting.isEmpty {
            activity.record(latency: (.now() - tickBegan).nanoseconds, requests: awaiting.count, at: uptime)
        }
        awaiting.removeAll(keepingCapacity: true)
        upkeep(slots: Self.slotsPerTick)
    }

    private func commit() {
        guard let ledger else { return }
        guard trouble == nil else { return ledger.discardBatch() }
        do throws(StoreError) { try ledger.commit() } catch { fail(error) }
    }

    /// Runs every 50 ms between ticks: retries, the flush of the journal, and more upkeep if the loop is idle.
    private func pause() {
        if NIODeadline.now() >= nextSummary { summarize() }
        let isBusy = isTickUnderWay
        if isBusy { endTick() }
        if NIODeadline.now() >= nextLook {
            nextLook = .now() + Self.retryInterval
            if let file = store?.lostFile { fail(Self.lost(file)) }
        }
        if let trouble {
            if NIODeadline.now() >= trouble.retryAt { retry(after: trouble) }
        } else {
            ledger?.beginTick()
            commit()
            do throws(StoreError) { try ledger?.flush() } catch { fail(error) }
            if !isBusy { upkeep(slots: Self.slotsPerPause) }
        }
    }

    private static func lost(_ file: String) -> StoreError {
        StoreError(
            "\(file) was removed or replaced while it was in use: put it back, or restart the service to begin with an empty "
                + "ledger"
        )
    }

    private func upkeep(slots: Int) {
        guard trouble == nil, let ledger else { return }
        switch ledger.maintain(slots: slots) {
        case nil:
            if unsaved != nil, ledger.isSaved {
                unsaved = nil
                log.notice("the ledger is saved again, with the counts that were held in memory")
                alerts.raise(recovery: Self.alertSubject, "is saved again")
            }
        case .checkpoint(let error):
            let loss =
                unsaved == nil
                ? "no counts are lost, but the journal grows"
                : "counts held in memory are lost if the service ends now"
            log.complain(
                .failedCheckpoint,
                "the checkpoint of the ledger failed: \(error.message); \(loss); retrying at least every minute. "
                    + "Check free space, permissions, and which process reads the file.")
        case .journal(let error):
            fail(error)
        }
    }

    /// Logs the highest counts since the last summary, in the manner of anvil(8).
    private func summarize() {
        nextSummary = .now() + .seconds(configuration.log.summaryInterval)
        for limit in ledger?.limits ?? [] { observer.summarize(limit) }
    }

    // MARK: Trouble

    private static func open(
        _ configuration: Configuration, _ clocks: any SystemClocks, _ log: EventLog
    ) -> Result<Opened, StoreError> {
        let store = configuration.makeStore(notice: { log.error($0) })
        return Result { () throws(StoreError) in
            let ledger = try Ledger(
                limits: configuration.limits, settings: configuration.ledgerSettings, clocks: clocks, store: store)
            return Opened(ledger: ledger, store: store, audit: try store.recentAudit(mostAudit))
        }
    }

    /// Installs the opened ledger, or handles the fault.
    ///
    /// - Parameter isOutdated: whether the configuration was reloaded meanwhile.
    private func finishOpening(_ outcome: Result<Opened, StoreError>, isOutdated: Bool = false) {
        guard !isStopped else { return }
        endTick()
        do throws(StoreError) {
            let opened = try outcome.get()
            opened.ledger.beginTick()
            if isOutdated { try opened.ledger.reload(configuration.limits, settings: configuration.ledgerSettings) }
            opened.ledger.observer = observer
            ledger = opened.ledger
            store = opened.store
            for entry in opened.audit { audit.append(entry) }
        } catch {
            return fail(error)
        }
        guard trouble != nil else { return }
        trouble = nil
        log.notice("the ledger is open; requests are counted again")
        alerts.raise(recovery: Self.alertSubject, "is open; requests are counted again")
    }

    /// Opens the ledger while requests are answered without it.
    private func reopen(after trouble: Trouble) {
        self.trouble = Trouble(error: trouble.error, retryAt: .distantFuture)
        opening.async { [self, configuration, clocks, log, reloads] in
            let outcome = Self.open(configuration, clocks, log)
            loop.execute { self.finishOpening(outcome, isOutdated: reloads != self.reloads) }
        }
    }

    private func fail(_ error: StoreError) {
        if trouble?.error != error {
            let answer = configuration.onFailure == .dunno ? "limits are enforced from memory" : "mail is deferred"
            let state = ledger == nil ? "is unavailable" : "is not saved"
            log.error(
                "\(Self.alertSubject) \(state): \(error.message); "
                    + (ledger == nil
                        ? "requests are answered \(configuration.onFailure.rawValue.uppercased())" : answer)
                    + "; retrying every second. Check free space, permissions, and which process locks the file.")
            alerts.raise(trouble: Self.alertSubject, "\(state): \(error.message)")
        }
        trouble = Trouble(error: error, retryAt: .now() + Self.retryInterval)
        unsaved = nil
    }

    private func retry(after trouble: Trouble) {
        guard let ledger else { return reopen(after: trouble) }
        if let file = store?.lostFile { return fail(Self.lost(file)) }
        ledger.beginTick()
        ledger.discardBatch()
        do throws(UpkeepFault) {
            try ledger.restartJournal()
            log.notice("the store of the ledger is writable again; saving the counts held in memory")
            unsaved = trouble.error
            self.trouble = nil
        } catch {
            fail(error.storeError)
        }
    }

    /// Logs and stores an administrator's change.
    func record(_ entry: AuditEntry) {
        loop.preconditionInLoop()
        log.notice("audit: \(entry)")
        audit.append(entry)
        store?.record(entry)
    }

    private static let alertSubject = "the ledger"

    /// Why counts are not saved to disk; nil if they are.
    package var fault: StoreError? { trouble?.error ?? unsaved }

    package var journalBytes: Int { store?.journalBytes ?? 0 }
    package var evictedKeys: UInt64 { observer.evictedKeys }

    /// The ledger, for an administrator's request.
    ///
    /// - Throws: `LedgerUnavailable` while it is not open; rethrows errors of `body`.
    package func withLedger<T>(_ body: (Ledger) throws -> T) throws -> T {
        loop.preconditionInLoop()
        guard let ledger else { throw LedgerUnavailable(reason: trouble?.error.message ?? "the service is stopping") }
        if !isTickUnderWay { beginTick() }
        return try body(ledger)
    }
}

/// The ledger is not open, so counts can be neither read nor changed.
package struct LedgerUnavailable: Error {
    package let reason: String
}

extension Configuration {
    /// Whether a milter consults the limits.
    fileprivate var milterAsks: Bool { !listen.milter.isEmpty && milter.limits }

    /// The store of the ledger. This is the only place that creates one.
    fileprivate func makeStore(notice: @escaping @Sendable (String) -> Void) -> any LedgerStore {
        SQLiteStore(path: ledger.path, durability: ledger.durability, notice: notice)
    }

    var ledgerSettings: Ledger.Settings {
        var settings = Ledger.Settings()
        settings.givesBackDropped = givesBackDropped
        settings.mostAccounts = ledger.mostKeys
        return settings
    }
}
