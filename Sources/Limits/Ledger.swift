// SPDX-License-Identifier: Apache-2.0
internal import Patterns

/// Counts what requests use, decides them, and hands every change to a store.
///
/// `decide` works in memory only and appends journal entries to the current batch; `commit` hands the batch to the
/// store. An answer may go out only after the commit, so a crash loses no count that a client has seen the answer to.
///
///     beginTick -> prepare, prepare, ... -> fetch -> decide, decide, ... -> commit -> (answers go out) -> maintain
///
/// Requests are prepared in groups because the accounts of a large ledger are not in the processor's caches. `fetch`
/// prefetches the memory of a whole group at once, instead of waiting for it request by request.
///
/// A request is charged to every limit that applies to it or, if one of them refuses it, to none.
///
/// A ledger belongs to one thread, an event loop. Debug builds assert this at each entry point (`owner`).
package final class Ledger {
    package struct Settings: Equatable, Sendable {
        /// Gives back what a transaction was charged if it ends before DATA. Correct only if Postfix asks at DATA or
        /// END-OF-MESSAGE too.
        package var givesBackDropped = false
        /// The most accounts in all limits together. Beyond it, the least used of a sample is evicted.
        package var mostAccounts = 2_000_000
        package var mostTransactions = 262_144

        package init() {}
    }

    var owner = ThreadOwner()
    let store: any LedgerStore
    package weak var observer: (any LedgerObserver)?
    package internal(set) var limits: [LimitState] = []
    /// The limits shared with other hosts; nil without `shared`.
    package var shared: SharedCounts?
    /// Whether the request that is being decided has waited for the engine in vain.
    var lacksAnswer = false
    var settings: Settings
    private var clock: LedgerClock
    private(set) var tick: ClockAnchor
    let hashKey: SipHash.Key
    var transactions: TransactionTable
    /// The entries since the last commit.
    var journal = JournalBatch()
    /// The sequence number of the last batch that was handed to the store.
    var sequence: UInt64 = 0
    var lastAccountID: UInt64 = 0
    var lastLimitID: UInt64 = 0
    var accountCount = 0
    /// Whether some limit counts connections.
    var limitsConnections = false
    /// The index of `policy_context` in a request, if some limit looks at it.
    var contextAttribute: Int?
    /// Incremented by each reload: accounts of an older generation have their tables looked up again.
    var generation: UInt32 = 0
    var upkeep = Upkeep()
    let scratch = MatchScratch(limits: Condition.matchLimits)
    /// Working space in which keys are built.
    var keyBuffer: [UInt8] = []
    var prepared = PreparedRequests()
    /// Numbers the decided requests, and wraps. Starts with a number that no account has before the first request.
    var requestNumber: UInt32 = 1
    /// What the current request will charge and give back.
    var plan = Plan()

    /// - Throws: if the store can't be opened, read or written. The store is unchanged then.
    package init(
        limits: [Limit], settings: Settings, clocks: any SystemClocks, store: any LedgerStore
    ) throws(StoreError) {
        self.store = store
        self.settings = settings
        let stored = try store.open()
        hashKey = stored.hashKey
        clock = LedgerClock(clocks: clocks, resuming: stored.lastBatch.flatMap(JournalBatch.anchor(of:)))
        tick = clock.anchor()
        transactions = TransactionTable(capacity: settings.mostTransactions)
        register(limits, replacing: stored.limits)
        let recovery = LedgerRecovery(ledger: self)
        try store.recover(into: recovery)
        recovery.finish()
        beginTick()
        evictSurplus(most: .max)
        for limit in self.limits { limit.accounts.forEach(noteFullness) }
        do throws(UpkeepFault) {
            try beginCheckpoint()
        } catch {
            throw error.storeError
        }
        // A ledger may be opened on one thread and used on another.
        owner = ThreadOwner()
    }

    deinit {
        for limit in limits { limit.removeAccounts() }
    }

    // MARK: Time

    /// The time of this tick. All requests of one tick happen at the same time.
    package var now: LedgerTime { tick.time }

    var wallTimeNow: Int64 { tick.reading.wall }

    /// Reads the clock. Call it before the first request of a tick.
    package func beginTick() {
        owner.check()
        readClock()
    }

    private func readClock() {
        let before = now
        tick = clock.anchor()
        for limit in limits {
            // The machine slept for long, or stored counts are much later: slot numbers may have wrapped.
            if now - before > limit.terms.mostUnused { limit.accounts.forEach { $0.expire(by: now) } }
            limit.terms.setTime(now)
        }
    }

    /// Advances the clock to a time that the store holds: nothing stored can be in the future.
    ///
    /// - Returns: `time`, or the present if the clock does not accept a time that late (`LedgerClock.advance`).
    func catchUp(to time: LedgerTime) -> LedgerTime {
        guard time > now else { return time }
        // The replay of a batch has set them to its own time.
        for limit in limits { limit.terms.setTime(now) }
        clock.advance(to: time)
        readClock()
        return min(time, now)
    }

    // MARK: Committing

    /// Hands the current batch to the store.
    ///
    /// - Throws: if the store can't write it. The counts stay in memory, and the next checkpoint saves them.
    package func commit() throws(StoreError) {
        owner.check()
        guard !journal.isEmpty else { return }
        sequence += 1
        defer { journal.removeAll() }
        try store.append(journal.content, sequence: sequence)
    }

    /// Drops the current batch, which the store can't write. The next checkpoint saves its effects.
    package func discardBatch() {
        owner.check()
        journal.removeAll()
        upkeep.needsCheckpoint = true
    }

    /// Writes batches that the store has held back (`durability: relaxed`).
    package func flush() throws(StoreError) {
        owner.check()
        try store.flush()
    }
}
