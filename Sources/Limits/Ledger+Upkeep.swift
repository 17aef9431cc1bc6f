// SPDX-License-Identifier: Apache-2.0

/// What is done a little at a time, between answers: checkpoints, idle keys, transactions that are over.
struct Upkeep {
    enum Phase {
        case idle
        /// Accounts are handed to the store one after the other, then transactions.
        case saving
        /// The store has all it needs and is writing.
        case finishing
    }

    var phase = Phase.idle
    /// When the last checkpoint began.
    var checkpointBegan = LedgerTime(milliseconds: 0)
    /// How long the last one took that came to its end, in milliseconds; nil before that.
    var checkpointTook: Int64?
    /// Changed since they were saved last, or since the checkpoint under way began.
    var dirty: [Account] = []
    /// Where those that have left memory are looked for next.
    private var dirtyPosition = 0
    /// Left memory, but not the store yet.
    var removed: [UInt64] = []
    /// Handed to the store by the checkpoint under way.
    var removing: [UInt64] = []
    /// What the checkpoint under way saves; those from `savedCount` on are to come.
    var saving: [Account] = []
    /// Idle accounts of one sweep.
    var swept: [Account] = []
    var savedCount = 0
    var transactionPosition = 0
    /// Pieces that the store has not taken yet, in their order, and how much is in them.
    var waiting: [CheckpointPiece] = []
    var waitingRows = 0
    var sweepLimit = 0
    var sweepCursor = AccountTable.Cursor()
    /// The journal can't be trusted to hold what memory holds; only a checkpoint can make that good.
    var needsCheckpoint = false
    /// After checkpoints have failed, how long the next one waits, and until when.
    private var pause: Int64 = 0
    private var pauseEnds = LedgerTime(milliseconds: 0)

    private static let pauses: ClosedRange<Int64> = 1000...60_000

    func isPausing(at time: LedgerTime) -> Bool { time < pauseEnds }

    mutating func checkpointFailed(at time: LedgerTime) {
        pause = min(max(2 * pause, Self.pauses.lowerBound), Self.pauses.upperBound)
        pauseEnds = time + pause
    }

    mutating func checkpointDone(at time: LedgerTime) {
        phase = .idle
        checkpointTook = time - checkpointBegan
        saving = []
        removing = []
        pause = 0
    }

    /// Lets go of dirty accounts that have left memory. Looks at a few with each that leaves, so that they never are many
    /// beside the others, however long no checkpoint can be made.
    mutating func releaseRemoved() {
        for _ in 0..<4 where !dirty.isEmpty {
            if dirtyPosition >= dirty.count { dirtyPosition = 0 }
            if dirty[dirtyPosition].isRemoved {
                dirty.swapAt(dirtyPosition, dirty.count - 1)
                dirty.removeLast()
            } else {
                dirtyPosition += 1
            }
        }
    }
}

/// What has gone wrong between answers.
package enum UpkeepFault: Error, Equatable, Sendable {
    /// A checkpoint was given up. The journal goes on, and keeps every count; it only grows.
    case checkpoint(StoreError)
    /// Batches can't be kept.
    case journal(StoreError)

    package var storeError: StoreError {
        switch self {
        case .checkpoint(let error), .journal(let error): error
        }
    }
}

extension Ledger {
    /// Goes on with what is to be done between answers: about `slots` accounts of a checkpoint, and a quarter as many
    /// looked at for idle ones. Call it after `commit`.
    ///
    /// - Returns: a fault of the store that has come up meanwhile. After one of a checkpoint the next waits a second, and
    ///   twice as long with each that fails, up to a minute.
    package func maintain(slots: Int) -> UpkeepFault? {
        // First, while nothing waits to be committed: a row counts up to the last batch and no further.
        let failure = continueCheckpoint(slots: slots)
        sweepSlots(max(1, slots / 4)) { account in
            if let fullness = account.fullness(at: now) {
                account.limit.fullest.note(account, fullness: fullness, at: now)
            } else if !account.isSetApart(at: now) {
                upkeep.swept.append(account)
            }
        }
        for account in upkeep.swept { remove(account) }
        upkeep.swept.removeAll(keepingCapacity: true)
        giveUpSurplus(most: slots / 32)
        for _ in 0..<max(1, slots / 16) {
            guard let expired = transactions.popExpired(at: now, attempts: 16) else { break }
            dropped(expired)
        }
        return failure
    }

    /// Starts a checkpoint, unless one is under way.
    package func beginCheckpoint() throws(UpkeepFault) {
        guard upkeep.phase == .idle else { return }
        do throws(StoreError) {
            try commit()
            try store.flush()
        } catch {
            throw .journal(error)
        }
        // A journal must never be empty: its last batch tells the time of the counts.
        openBatch()
        sequence += 1
        defer { journal.removeAll() }
        do throws(StoreError) {
            try store.beginCheckpoint(with: journal.content, sequence: sequence)
        } catch {
            throw .checkpoint(error)
        }
        upkeep.phase = .saving
        upkeep.checkpointBegan = now
        upkeep.saving = upkeep.dirty
        upkeep.savedCount = 0
        upkeep.dirty = []
        upkeep.transactionPosition = transactions.firstPosition
        upkeep.needsCheckpoint = false
    }

    package var isCheckpointRunning: Bool { upkeep.phase != .idle }

    /// The last checkpoint that was begun is on disk: with the journal since, the store holds all that memory holds.
    package var isSaved: Bool { upkeep.phase == .idle && !upkeep.needsCheckpoint }

    /// Goes on after a fault of the store: a new piece of journal, and a checkpoint of all that it has missed.
    package func restartJournal() throws(UpkeepFault) {
        if upkeep.phase != .idle { abandonCheckpoint() }
        try beginCheckpoint()
    }

    /// Visits the next slots of all tables, round and round.
    func sweepSlots(_ slots: Int, _ body: (Account) -> Void) {
        guard !limits.isEmpty else { return }
        if upkeep.sweepLimit >= limits.count { upkeep.sweepLimit = 0 }
        // `body` may look at `upkeep`, so the cursor is no inout of it.
        var cursor = upkeep.sweepCursor
        let limit = limits[upkeep.sweepLimit]
        if limit.accounts.visit(from: &cursor, slots: slots, body) {
            upkeep.sweepCursor = cursor
        } else {
            limit.fullest.relax(at: now)
            upkeep.sweepCursor = AccountTable.Cursor()
            upkeep.sweepLimit += 1
        }
    }

    private func continueCheckpoint(slots: Int) -> UpkeepFault? {
        do throws(UpkeepFault) {
            switch upkeep.phase {
            case .idle:
                guard !upkeep.isPausing(at: now) else { break }
                if store.wantsCheckpoint(age: now - upkeep.checkpointBegan) || upkeep.needsCheckpoint {
                    try beginCheckpoint()
                }
            case .saving:
                savePieces(slots: slots)
            case .finishing:
                switch store.checkpointProgress {
                case .running: break
                case .done: upkeep.checkpointDone(at: now)
                case .failed(let error): throw .checkpoint(error)
                }
            }
            return nil
        } catch {
            abandonCheckpoint()
            if case .checkpoint = error { upkeep.checkpointFailed(at: now) }
            return error
        }
    }

    private func abandonCheckpoint() {
        upkeep.phase = .idle
        upkeep.needsCheckpoint = true
        upkeep.waiting = []
        upkeep.waitingRows = 0
        upkeep.removed += upkeep.removing
        upkeep.removing = []
        for (index, account) in upkeep.saving.enumerated() where !account.isRemoved {
            // One that was saved, and has changed since, is among the dirty ones already.
            if index < upkeep.savedCount, account.isDirty { continue }
            account.isDirty = true
            upkeep.dirty.append(account)
        }
        upkeep.saving = []
    }

    private func savePieces(slots: Int) {
        var left = slots
        while true {
            var isEnd = false
            if case .end? = upkeep.waiting.last { isEnd = true }
            if isEnd || upkeep.waitingRows >= store.rowsTogether {
                guard store.save(upkeep.waiting) else { return }
                upkeep.waiting = []
                upkeep.waitingRows = 0
                if isEnd {
                    upkeep.phase = .finishing
                    return
                }
            }
            guard left > 0 else { return }
            let prepared = prepareNextPiece(most: min(left, store.rowsTogether))
            upkeep.waitingRows += prepared
            left -= prepared
        }
    }

    /// Adds what comes next in the checkpoint to `waiting`, as much as there is time for between two answers; returns how much it was.
    private func prepareNextPiece(most: Int) -> Int {
        let rest = upkeep.saving[upkeep.savedCount...].prefix(most)
        if !rest.isEmpty {
            var rows: [AccountRow] = []
            for account in rest where !account.isRemoved {
                account.isDirty = false
                rows.append(row(of: account))
            }
            upkeep.savedCount += rest.count
            if !rows.isEmpty { upkeep.waiting.append(.accounts(rows)) }
            return rest.count
        }
        if !upkeep.removed.isEmpty {
            upkeep.waiting.append(.removed(upkeep.removed))
            upkeep.removing += upkeep.removed
            upkeep.removed = []
            return 1
        }
        var writer = JournalWriter()
        var count = 0
        var rows: [AccountRow] = []
        while count < most,
            let transaction = transactions.transaction(at: &upkeep.transactionPosition)
        {
            writer.write(transaction)
            count += 1
            // Whoever reads the transaction must find its accounts, those opened since the checkpoint began as well.
            transaction.charges.visit { charge in
                if !charge.account.isStored, !charge.account.isRemoved { rows.append(row(of: charge.account)) }
            }
        }
        if !rows.isEmpty { upkeep.waiting.append(.accounts(rows)) }
        upkeep.waiting.append(count > 0 ? .transactions(sequence: sequence, content: Array(writer.content)) : .end)
        return count + rows.count + 1
    }

    private func row(of account: Account) -> AccountRow {
        account.isStored = true
        var writer = JournalWriter()
        writer.write(account)
        return AccountRow(
            id: account.id, limit: account.limit.storedID, key: account.key, sequence: sequence,
            content: Array(writer.content))
    }
}
