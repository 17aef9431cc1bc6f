// SPDX-License-Identifier: Apache-2.0

/// The state of the work that the ledger does between answers, a little at a time: checkpoints, and the sweep for idle
/// accounts.
struct Upkeep {
    enum Phase {
        case idle
        /// The ledger hands changed accounts to the store, then removed ids, then transactions.
        case saving
        /// The store has everything and is writing.
        case finishing
    }

    // MARK: The checkpoint

    var phase = Phase.idle
    /// When the last checkpoint began.
    private(set) var checkpointBegan = LedgerTime(milliseconds: 0)
    /// How long the last completed checkpoint took, in milliseconds; nil before the first.
    private(set) var checkpointTook: Int64?
    /// Accounts that changed since the running checkpoint began, or since the last one saved them.
    var dirty: [Account] = []
    /// Where `releaseRemoved` continues in `dirty`.
    private var dirtyPosition = 0
    /// Ids of accounts that have left memory and still have a row.
    var removed: [UInt64] = []
    /// The accounts of these whose rows the running checkpoint deletes. Accounts that leave memory later have to wait
    /// for the next checkpoint: transactions that the running one saves may refer to their rows.
    private var removing: [UInt64] = []
    /// The ids of `removing` that were not handed to the store yet.
    private(set) var removingNext: [UInt64] = []
    /// Accounts that have left memory, and whose rows the running checkpoint writes for the sake of transactions.
    var kept: Set<UInt64> = []
    /// The accounts that the running checkpoint saves.
    private var saving: [Account] = []
    /// How many of `saving` have been handed over.
    private var savedCount = 0
    var transactionPosition = 0
    /// Pieces to hand to the store next, in order, and the number of rows and transactions in them.
    var pending: [CheckpointPiece] = []
    var pendingRows = 0
    /// The journal may lack something that memory holds. Only a checkpoint can save it.
    var needsCheckpoint = false
    /// How long the next checkpoint waits after one that failed, in milliseconds, and until when.
    private var retryDelay: Int64 = 0
    private var retryAt = LedgerTime(milliseconds: 0)

    private static let retryDelays: ClosedRange<Int64> = 1000...60_000

    mutating func checkpointStarted(at time: LedgerTime, transactionPosition: Int) {
        phase = .saving
        checkpointBegan = time
        saving = dirty
        savedCount = 0
        dirty = []
        removed += kept
        (removing, removingNext, removed, kept) = (removed, removed, [], [])
        self.transactionPosition = transactionPosition
        needsCheckpoint = false
    }

    mutating func checkpointCompleted(at time: LedgerTime) {
        phase = .idle
        checkpointTook = time - checkpointBegan
        saving = []
        removing = []
        retryDelay = 0
    }

    mutating func checkpointFailed(at time: LedgerTime) {
        retryDelay = min(max(2 * retryDelay, Self.retryDelays.lowerBound), Self.retryDelays.upperBound)
        retryAt = time + retryDelay
    }

    func isWaitingToRetry(at time: LedgerTime) -> Bool { time < retryAt }

    /// Gives the running checkpoint up. The next one saves what this one was to save.
    mutating func abandonCheckpoint() {
        phase = .idle
        needsCheckpoint = true
        pending = []
        pendingRows = 0
        removed += removing
        (removing, removingNext) = ([], [])
        for (index, account) in saving.enumerated() where !account.isRemoved {
            // Saved, and changed again since: it is in `dirty` already.
            if index < savedCount, account.isDirty { continue }
            account.isDirty = true
            dirty.append(account)
        }
        saving = []
    }

    /// The next accounts to save, and counts them as handed over; empty after the last.
    mutating func nextAccounts(most: Int) -> ArraySlice<Account> {
        let accounts = saving[savedCount...].prefix(most)
        savedCount += accounts.count
        return accounts
    }

    /// The ids of accounts whose rows the running checkpoint deletes; empty after the first call.
    mutating func takeRemoved() -> [UInt64] {
        defer { removingNext = [] }
        return removingNext
    }

    /// Drops dirty accounts that have left memory. Called for each account that leaves, it looks at four, so they stay
    /// few even if checkpoints fail for long.
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

    // MARK: The sweep

    /// Idle accounts that one step of the sweep has found.
    var idle: [Account] = []
    /// The limit whose accounts are swept, and the position in its table.
    var sweepLimit = 0
    var sweepCursor = AccountTable.Cursor()

    mutating func restartSweep() {
        sweepLimit = 0
        sweepCursor = AccountTable.Cursor()
    }
}

/// An error of the store that showed between answers.
package enum UpkeepFault: Error, Equatable, Sendable {
    /// A checkpoint failed and was given up. The journal keeps every count, and grows.
    case checkpoint(StoreError)
    /// The store can't write batches.
    case journal(StoreError)

    package var storeError: StoreError {
        switch self {
        case .checkpoint(let error), .journal(let error): error
        }
    }
}
