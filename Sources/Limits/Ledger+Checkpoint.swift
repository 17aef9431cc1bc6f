// SPDX-License-Identifier: Apache-2.0

/// Checkpoints: the accounts that have changed are saved as rows, while requests are decided, until the older part of
/// the journal is no longer needed.
extension Ledger {
    /// Starts a checkpoint, unless one is running.
    package func beginCheckpoint() throws(UpkeepFault) {
        owner.check()
        guard upkeep.phase == .idle else { return }
        do throws(StoreError) {
            try commit()
            try store.flush()
        } catch {
            throw .journal(error)
        }
        // A journal is never empty: its last batch tells the time of the counts.
        journal.begin(at: tick)
        sequence += 1
        defer { journal.removeAll() }
        do throws(StoreError) {
            try store.beginCheckpoint(with: journal.content, sequence: sequence)
        } catch {
            throw .checkpoint(error)
        }
        upkeep.checkpointStarted(at: now, transactionPosition: transactions.firstPosition)
    }

    package var isCheckpointRunning: Bool { upkeep.phase != .idle }

    /// Whether the last checkpoint is complete: with the journal since, the store holds all that memory holds.
    package var isSaved: Bool { upkeep.phase == .idle && !upkeep.needsCheckpoint }

    /// Recovers from an error of the store: starts a new journal segment, and a checkpoint of all that the journal
    /// lacks.
    package func restartJournal() throws(UpkeepFault) {
        if upkeep.phase != .idle { upkeep.abandonCheckpoint() }
        try beginCheckpoint()
    }

    func continueCheckpoint(slots: Int) -> UpkeepFault? {
        do throws(UpkeepFault) {
            switch upkeep.phase {
            case .idle:
                guard !upkeep.isWaitingToRetry(at: now) else { break }
                if store.wantsCheckpoint(age: now - upkeep.checkpointBegan) || upkeep.needsCheckpoint {
                    try beginCheckpoint()
                }
            case .saving:
                try savePieces(slots: slots)
            case .finishing:
                switch store.checkpointProgress {
                case .running: break
                case .done: upkeep.checkpointCompleted(at: now)
                case .failed(let error): throw .checkpoint(error)
                }
            }
            return nil
        } catch {
            upkeep.abandonCheckpoint()
            if case .checkpoint = error { upkeep.checkpointFailed(at: now) }
            return error
        }
    }

    /// Hands pieces to the store in portions of `rowsTogether`, for about `slots` rows.
    ///
    /// The batches that they contain go first. Pieces are of different moments, and only the journal says what lies in
    /// between: without it, a message could be remembered as charged, and the key not have the charge.
    private func savePieces(slots: Int) throws(UpkeepFault) {
        var left = slots
        while true {
            var isEnd = false
            if case .end? = upkeep.pending.last { isEnd = true }
            if isEnd || upkeep.pendingRows >= store.rowsTogether {
                do throws(StoreError) { try store.flush() } catch { throw .journal(error) }
                guard store.save(upkeep.pending) else { return }
                upkeep.pending = []
                upkeep.pendingRows = 0
                if isEnd {
                    upkeep.phase = .finishing
                    return
                }
            }
            guard left > 0 else { return }
            let count = prepareNextPiece(most: min(left, store.rowsTogether))
            upkeep.pendingRows += count
            left -= count
        }
    }

    /// Adds the next piece of the checkpoint to `pending`.
    ///
    /// - Returns: the number of rows and transactions in it, and at least 1.
    private func prepareNextPiece(most: Int) -> Int {
        let accounts = upkeep.nextAccounts(most: most)
        if !accounts.isEmpty {
            appendRows(of: accounts)
            return accounts.count
        }
        if !upkeep.removingNext.isEmpty {
            upkeep.pending.append(.removed(upkeep.takeRemoved()))
            return 1
        }
        return prepareTransactions(most: most)
    }

    /// An account that has left memory since the checkpoint began must not keep its row as it is: this checkpoint
    /// deletes the journal that says what was given back since. If it was idle, open messages may refer to the row, and
    /// it stays until the next checkpoint, without counts. If it was evicted, or its limit was removed, its row goes.
    private func appendRows(of accounts: ArraySlice<Account>) {
        var rows: [AccountRow] = []
        var removed: [UInt64] = []
        for account in accounts {
            if !account.isRemoved || account.isStored && account.wasIdle {
                account.isDirty = false
                rows.append(row(of: account))
            } else if account.isStored {
                removed.append(account.id)
            }
        }
        if !rows.isEmpty { upkeep.pending.append(.accounts(rows)) }
        if !removed.isEmpty { upkeep.pending.append(.removed(removed)) }
    }

    private func prepareTransactions(most: Int) -> Int {
        var writer = JournalWriter()
        var count = 0
        var rows: [AccountRow] = []
        while count < most, let transaction = transactions.transaction(at: &upkeep.transactionPosition) {
            writer.write(transaction)
            count += 1
            // Recovery must find the accounts of a transaction, even those opened since the checkpoint began.
            transaction.charges.visit { charge in
                let account = charge.account
                if !account.isRemoved {
                    if !account.isStored { rows.append(row(of: account)) }
                } else if charge.total > 0, account.wasIdle, mayBeAsked(transaction, about: account.limit) {
                    // Idle: the message may be charged more (`Charges.transfer`), and the connection must not be
                    // counted again (`ClientConnection.isNew`). The next checkpoint deletes the row.
                    if upkeep.kept.insert(account.id).inserted { rows.append(row(of: account)) }
                }
            }
        }
        if !rows.isEmpty { upkeep.pending.append(.accounts(rows)) }
        upkeep.pending.append(count > 0 ? .transactions(sequence: sequence, content: Array(writer.content)) : .end)
        return count + rows.count + 1
    }

    /// Whether what a transaction or connection was charged may matter to a later request.
    private func mayBeAsked(_ transaction: Transaction, about limit: LimitState) -> Bool {
        !transaction.isEnded || limit.limit.count.isOfConnection && limit.terms.looksAtContext
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
