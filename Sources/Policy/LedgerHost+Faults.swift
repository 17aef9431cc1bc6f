// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Limits
internal import Loop
internal import NIOCore
internal import Report
internal import Settings
internal import Sharing
internal import Storage

/// Opening the ledger, faults of its store, and retries.
extension LedgerHost {
    static func open(
        _ configuration: Configuration, _ clocks: any SystemClocks, _ log: EventLog, _ alerts: Alerts
    ) -> Result<Opened, StoreError> {
        let notice: SQLiteStore.Notice = { notice in
            log.error(notice)
            alerts.raise(trouble: "the ledger's files", notice)
        }
        let store = configuration.makeStore(notice: notice)
        return Result { () throws(StoreError) in
            let ledger = try Ledger(
                limits: configuration.limits, settings: configuration.ledgerSettings, clocks: clocks, store: store)
            let sharedStore = try openShared(configuration, ledger, notice)
            return Opened(
                ledger: ledger, store: store, sharedStore: sharedStore, audit: try store.recentAudit(mostAudit))
        }
    }

    /// Opens what is kept of shared limits, after the lock of the ledger is taken.
    private static func openShared(
        _ configuration: Configuration, _ ledger: Ledger, _ notice: SQLiteStore.Notice
    ) throws(StoreError) -> SharedStore? {
        guard let settings = configuration.sharedCounts else { return nil }
        let (store, contents) = try SharedStore.open(
            besides: configuration.ledger.store.path, durability: configuration.ledger.durability, notice: notice)
        let kept = contents.state.map {
            KeptState($0, pools: contents.pools, changes: contents.changes, numbers: contents.numbers)
        }
        ledger.shared = SharedCounts(
            settings, limits: configuration.limits, kept: kept, versions: contents.versions)
        return store
    }

    /// Installs the opened ledger, or handles the fault.
    ///
    /// - Parameter isOutdated: whether the configuration was reloaded meanwhile.
    func finishOpening(_ outcome: Result<Opened, StoreError>, isOutdated: Bool = false) {
        loop.assertInLoop()
        guard !isStopped else { return }
        defer { endFirstOpening() }
        endTick()
        do throws(StoreError) {
            let opened = try outcome.get()
            opened.ledger.beginTick()
            opened.ledger.observer = observer
            ledger = opened.ledger
            store = opened.store
            sharedStore = opened.sharedStore
            if isOutdated {
                let relaxed = opened.ledger.reload(configuration.limits, settings: configuration.ledgerSettings)
                opened.ledger.shared?.configure(configuration.limits)
                endBlocks(of: relaxed)
            }
            opened.ledger.adoptAll()
            for entry in opened.audit { audit.append(entry) }
            killPoint("ledger-opened")
        } catch {
            return fail(error)
        }
        guard let trouble else { return }
        self.trouble = nil
        if trouble.error == Self.isBeingOpened {
            if requests > 0 { log.notice("the ledger is open; \(requests) requests before were not counted") }
            return
        }
        log.notice("the ledger is open; requests are counted again")
        alerts.raise(recovery: Self.alertSubject, "is open; requests are counted again")
    }

    /// The trouble of a start, until the first attempt has ended.
    static let isBeingOpened = StoreError("it is being opened")

    func endFirstOpening() {
        for waiter in waitingForOpening ?? [] { waiter.resume(!isStopped) }
        waitingForOpening = nil
    }

    /// The answer while there is no ledger, for log lines.
    var answerWithoutLedger: String {
        "requests are answered \(configuration.answerWithoutLedger.rawValue.uppercased())"
    }

    /// What holds while the ledger is open, but can't be saved; for log lines.
    var answerWithoutStore: String {
        configuration.onFailure == .dunno ? "limits are enforced from memory" : "mail is deferred"
    }

    /// Opens the ledger on a queue of its own, while requests are answered without it.
    func reopen(after trouble: Trouble) {
        self.trouble = Trouble(error: trouble.error, retryAt: .distantFuture)
        opening.async { [self, configuration, clocks, log, alerts, reloads] in
            let outcome = Self.open(configuration, clocks, log, alerts)
            loop.execute { self.finishOpening(outcome, isOutdated: reloads != self.reloads) }
        }
    }

    func fail(_ error: StoreError) {
        loop.assertInLoop()
        if trouble?.error != error {
            let state = ledger == nil ? "is unavailable" : "is not saved"
            let effect = ledger == nil ? answerWithoutLedger : answerWithoutStore
            log.error(
                "\(Self.alertSubject) \(state): \(error.message); \(effect); retrying every second. "
                    + "Check free space, permissions, and which process locks the file.")
            alerts.raise(trouble: Self.alertSubject, "\(state): \(error.message)")
        }
        trouble = Trouble(error: error, retryAt: .now() + Self.retryInterval)
        unsaved = nil
    }

    func retry(after trouble: Trouble) {
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
}
