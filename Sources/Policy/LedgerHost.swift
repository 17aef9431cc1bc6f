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
    /// Where requests are kept as they came.
    private(set) var capture: CaptureFile?
    private let observer: DecisionLog
    package private(set) var configuration: Configuration
    private let clocks: any SystemClocks
    /// Speaks of attributes by the same indexes as the limits.
    var parser: PolicyRequestParser
    /// Kept where a milter asks, too.
    var sessions = PolicySessions()
    private(set) var keepsSessions: Bool
    private var ledger: Ledger?
    private var store: (any LedgerStore)?
    /// What administrators did lately.
    package private(set) var audit = Recent<AuditEntry>(most: LedgerHost.mostAudit)
    private static let mostAudit = 100
    /// An administrator's search is under way.
    var isSearching = false
    private var trouble: Trouble?
    /// What kept counts in memory, while those are not saved yet.
    private var unsaved: StoreError?
    /// Where a ledger that could not be opened at the start is opened: it may wait for a lock, and read for long.
    private let opening = DispatchQueue(label: "weir.opening", qos: .utility)
    private var reloads = 0
    /// Have a request that waits to be decided.
    private var asking: [any Client] = []
    /// Are being decided, while those of them that have more to ask do so.
    private var deciding: [any Client] = []
    /// Wait for the batch to be kept.
    private var awaiting: [any Client] = []
    private var isTickUnderWay = false
    private var tickBegan = NIODeadline.now()
    private var activity = PolicyActivity()
    package private(set) var requests: UInt64 = 0
    private var isStopped = false
    private var nextSummary: NIODeadline
    /// When it is looked whether the store's files are where they were.
    private var nextLook = NIODeadline.now()

    /// Whoever asks: one request at a time.
    package protocol Client: AnyObject {
        /// Where a probe of the doctor has come to by it.
        static var stage: ProbeStage { get }
        /// Shows the request.
        func withRequest(_ body: (Attributes) -> Void)
        /// Takes the decision, which may go out when the client is released; may submit the next request.
        func take(_ decision: Decision)
        /// The batch is kept: answers may go out.
        func release()
    }

    /// The store does not take batches, or could not be opened.
    private struct Trouble {
        let error: StoreError
        let retryAt: NIODeadline
    }

    /// A ledger that was opened, on its way to the loop. Sendable, unchecked: nobody else has it.
    private struct Opened: @unchecked Sendable {
        let ledger: Ledger
        let store: any LedgerStore
        let audit: [AuditEntry]
    }

    private static let retryInterval: TimeAmount = .seconds(1)
    private static let upkeepInterval: TimeAmount = .milliseconds(50)
    /// Accounts looked at in one go: some microseconds beside the answers, more when there is nothing else to do.
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

    /// Opens the ledger. Where that fails the service runs all the same, answers as `on_failure` says, and tries again.
    package func start() {
        loop.preconditionInLoop()
        take(Self.open(configuration, clocks, log, alerts))
        loop.endOfTurn = { [unowned self] in if isTickUnderWay { endTick() } }
        loop.schedule(every: Self.upkeepInterval) { [self] in
            guard !isStopped else { return false }
            pause()
            return true
        }
    }

    /// Commits what is waiting and saves everything, within `deadline`.
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
                // Before a row is written that holds what has been given back meanwhile.
                do throws(StoreError) { try ledger.commit() } catch { throw .journal(error) }
                // The writer is slower, and has a thread of its own.
                usleep(1000)
            }
        } catch {
            let kept =
                trouble == nil
                ? "the journal holds everything" : "what was counted while the ledger could not be kept is lost"
            log.error("could not save a last checkpoint (\(kept)): \(error.storeError.message)")
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
                    "limit \(limit.limit.name): \(keys) keys are forgotten with their counts and blocks: it is gone, or counts something else now"
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

    /// Takes a client's request, to be decided when this turn of the loop has read all that there is.
    package func submit(_ client: any Client) {
        if !isTickUnderWay { beginTick() }
        if let judging { client.withRequest(judging.prepare) }
        asking.append(client)
    }

    /// The ledger, where requests are put to it: not while it can't be kept, if mail is deferred then. The same from the
    /// beginning of a tick to its end.
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
                for client in deciding { client.take(troubled) }
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

    /// - Returns: whether the answer is an action.
    private func decide(_ client: any Client, in ledger: Ledger) -> Bool {
        var decision: Decision?
        client.withRequest { request in
            decision = ledger.decide(request)
            if observer.logsPasses, decision?.action == nil { observer.passed(request) }
        }
        guard var decision else { return false }
        if probes.isActive { decision = exempt(decision, ifProbe: client) }
        client.take(decision)
        if let action = decision.action { activity.count(action) }
        return decision.action != nil
    }

    /// What a probe of the doctor was charged is given back, and nothing is refused to it.
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

    /// Nothing of the mail transaction is accepted, and it will come again.
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

    /// Runs when everything that this turn of the loop has read is handled.
    private func endTick() {
        decideAll()
        isTickUnderWay = false
        commit()
        for client in awaiting { client.release() }
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

    /// Runs every 50 ms, between two ticks: what has to be done then however busy the loop is, and more upkeep where it is not.
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
            "\(file) was removed or replaced while it was in use: put it back, or restart the service, which begins anew where nothing is"
        )
    }

    private func upkeep(slots: Int) {
        guard trouble == nil, let ledger else { return }
        switch ledger.maintain(slots: slots) {
        case nil:
            if unsaved != nil, ledger.isSaved {
                unsaved = nil
                log.notice("the ledger is kept again; what was counted in memory meanwhile is saved")
                alerts.raise(recovery: Self.alertSubject, "is kept again")
            }
        case .checkpoint(let error):
            let loss =
                unsaved == nil
                ? "nothing is lost, counts are kept in its journal, which grows"
                : "what was counted in memory before is lost if the service ends now"
            log.complain(
                .failedCheckpoint,
                "the ledger could not be checkpointed: \(error.message); \(loss); trying again, at least every minute. "
                    + "Check free space, permissions and who reads the file.")
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
        _ configuration: Configuration, _ clocks: any SystemClocks, _ log: EventLog, _ alerts: Alerts
    ) -> Result<Opened, StoreError> {
        let store = configuration.makeStore(notice: { notice in
            log.error(notice)
            alerts.raise(trouble: "the ledger's files", notice)
        })
        return Result { () throws(StoreError) in
            let ledger = try Ledger(
                limits: configuration.limits, settings: configuration.ledgerSettings, clocks: clocks, store: store)
            return Opened(ledger: ledger, store: store, audit: try store.recentAudit(mostAudit))
        }
    }

    /// - Parameter isOutdated: the configuration is another by now.
    private func take(_ outcome: Result<Opened, StoreError>, isOutdated: Bool = false) {
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
        opening.async { [self, configuration, clocks, log, alerts, reloads] in
            let outcome = Self.open(configuration, clocks, log, alerts)
            loop.execute { self.take(outcome, isOutdated: reloads != self.reloads) }
        }
    }

    private func fail(_ error: StoreError) {
        if trouble?.error != error {
            let answer = configuration.onFailure == .dunno ? "limits are enforced from memory" : "mail is deferred"
            log.error(
                "the ledger can't be kept: \(error.message); "
                    + (ledger == nil
                        ? "requests are answered \(configuration.onFailure.rawValue.uppercased())" : answer)
                    + "; trying again every second. Check free space, permissions and who holds the file.")
            alerts.raise(trouble: Self.alertSubject, "can't be kept: \(error.message)")
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
            log.notice("the ledger takes counts again; saving what was counted in memory meanwhile")
            unsaved = trouble.error
            self.trouble = nil
        } catch {
            fail(error.storeError)
        }
    }

    /// Logs what an administrator has changed, and keeps it.
    func record(_ entry: AuditEntry) {
        loop.preconditionInLoop()
        log.notice("audit: \(entry)")
        audit.append(entry)
        store?.record(entry)
    }

    private static let alertSubject = "the ledger"

    /// Whether counts are being kept; the reason where they are not.
    package var fault: StoreError? { trouble?.error ?? unsaved }

    package var journalBytes: Int { store?.journalBytes ?? 0 }
    package var evictedKeys: UInt64 { observer.evictedKeys }

    /// The ledger, for an administrator's request.
    ///
    /// - Throws: `LedgerUnavailable` while it can't be opened, and what `body` throws.
    package func withLedger<T>(_ body: (Ledger) throws -> T) throws -> T {
        loop.preconditionInLoop()
        guard let ledger else { throw LedgerUnavailable(reason: trouble?.error.message ?? "the service is stopping") }
        if !isTickUnderWay { beginTick() }
        return try body(ledger)
    }
}

/// Nobody can tell or change what is counted: the ledger can't be opened.
package struct LedgerUnavailable: Error {
    package let reason: String
}

extension Configuration {
    /// Whether a milter asks the ledger about its messages.
    fileprivate var milterAsks: Bool { !listen.milter.isEmpty && milter.limits }

    /// The store of the ledger; no other place makes one.
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
