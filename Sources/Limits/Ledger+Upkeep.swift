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
    /// Changed since they were saved last.
    var dirty: [Account] = []
    /// Left memory, but not the store yet.
    var removed: [UInt64] = []
    var saving: [Account] = []
    /// Idle accounts of one sweep.
    var swept: [Account] = []
    var savedCount = 0
    var transactionPosition = 0
    /// Pieces that the store has not taken yet, in their order.
    var waiting: [CheckpointPiece] = []
    var sweepLimit = 0
    var sweepCursor = AccountTable.Cursor()
    /// The journal can't be trusted to hold what memory holds; only a checkpoint can make that good.
    var needsCheckpoint = false

    static let rowsPerPiece = 512
    static let transactionsPerPiece = 1024
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
    /// - Parameter checkpoints: false lets a new checkpoint wait, for a while after one has failed.
    /// - Returns: a fault of the store that has come up meanwhile.
    package func maintain(slots: Int, checkpoints: Bool = true) -> UpkeepFault? {
        // First, while nothing waits to be committed: a row counts up to the last batch and no further.
        let failure = continueCheckpoint(slots: slots, mayBegin: checkpoints)
        sweepSlots(max(1, slots / 4)) { account in
            if let fullness = account.fullness(at: now) {
                account.limit.fullest.note(account, fullness: fullness, at: now)
            } else if !account.isDirty, !account.isSetApart(at: now) {
                upkeep.swept.append(account)
            }
        }
        for account in upkeep.swept { remove(account) }
        upkeep.swept.removeAll(keepingCapacity: true)
        for _ in 0..<max(1, slots / 16) {
            guard let expired = transactions.popExpired(at: now, attempts: 16) else { break }
            dropped(expired)
        }
        return failure
    }

    /// Starts a checkpoint, unless one is under way.
    package func beginCheckpoint() throws(UpkeepFault) {
        guard upkeep.phase == .idle else { return }
        do throws(StoreError) { try commit() } catch { throw .journal(error) }
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

    private func continueCheckpoint(slots: Int, mayBegin: Bool) -> UpkeepFault? {
        do throws(UpkeepFault) {
            switch upkeep.phase {
            case .idle:
                if mayBegin, store.wantsCheckpoint(age: now - upkeep.checkpointBegan) || upkeep.needsCheckpoint { try beginCheckpoint() }
            case .saving:
                savePieces(slots: slots)
            case .finishing:
                switch store.checkpointProgress {
                case .running: break
                case .done:
                    upkeep.phase = .idle
                    upkeep.checkpointTook = now - upkeep.checkpointBegan
                    upkeep.saving = []
                case .failed(let error): throw .checkpoint(error)
                }
            }
            return nil
        } catch {
            abandonCheckpoint()
            return error
        }
    }

    private func abandonCheckpoint() {
        upkeep.phase = .idle
        upkeep.needsCheckpoint = true
        upkeep.waiting = []
        for account in upkeep.saving { account.isDirty = true }
        upkeep.dirty += upkeep.saving
        upkeep.saving = []
    }

    private func savePieces(slots: Int) {
        var left = slots
        while true {
            while let piece = upkeep.waiting.first {
                guard store.save(piece) else { return }
                upkeep.waiting.removeFirst()
                if case .end = piece {
                    upkeep.phase = .finishing
                    return
                }
            }
            guard left > 0 else { return }
            left -= prepareNextPiece(most: left)
        }
    }

    /// Adds what comes next in the checkpoint to `waiting`; returns how much it was.
    private func prepareNextPiece(most: Int) -> Int {
        let rest = upkeep.saving[upkeep.savedCount...]
        if !rest.isEmpty {
            let rows = rest.prefix(min(Upkeep.rowsPerPiece, most)).map(row)
            upkeep.savedCount += rows.count
            upkeep.waiting.append(.accounts(rows))
            return rows.count
        }
        if !upkeep.removed.isEmpty {
            upkeep.waiting.append(.removed(upkeep.removed))
            upkeep.removed = []
            return 1
        }
        var writer = JournalWriter()
        var count = 0
        var rows: [AccountRow] = []
        while count < min(Upkeep.transactionsPerPiece, most),
            let transaction = transactions.transaction(at: &upkeep.transactionPosition)
        {
            writer.write(transaction)
            count += 1
            // Whoever reads the transaction must find its accounts, those opened since the checkpoint began as well.
            for charge in transaction.charges where !charge.account.isStored { rows.append(row(of: charge.account)) }
        }
        if !rows.isEmpty { upkeep.waiting.append(.accounts(rows)) }
        upkeep.waiting.append(count > 0 ? .transactions(sequence: sequence, content: Array(writer.content)) : .end)
        return count + rows.count + 1
    }

    private func row(of account: Account) -> AccountRow {
        account.isDirty = false
        account.isStored = true
        var writer = JournalWriter()
        writer.write(account)
        return AccountRow(
            id: account.id, limit: account.limit.storedID, key: account.key, sequence: sequence, content: Array(writer.content))
    }
}
