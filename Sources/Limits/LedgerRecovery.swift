// SPDX-License-Identifier: Apache-2.0

/// Rebuilds a ledger from its store: the rows and transactions of the last checkpoint, then the batches of the journal.
///
/// Rows and transactions were saved at different moments. A batch is applied to an account only if its sequence number
/// is above that of the account's row, and to a transaction likewise.
package final class LedgerRecovery: RecoverySink {
    package let ledger: Ledger
    let limits: [UInt64: LimitState]
    /// Accounts from rows, by rising ids.
    private var stored: [Account] = []
    /// Accounts opened by the journal.
    var opened: [UInt64: Account] = [:]
    /// How many accounts were evicted since those were last dropped from `stored` and `opened`.
    private var evicted = 0
    private let mostAccounts: Int
    /// When expired slots were last removed from the accounts that batches have changed.
    private var expiredBy = LedgerTime(milliseconds: 0)
    private let mostUnused: Int64
    /// The time of the last batch.
    private var batchTime = LedgerTime(milliseconds: 0)
    /// The ids of accounts whose rows hold counts from after a batch that changes them, which only damage causes.
    private var newerThanBatch: Set<UInt64> = []

    /// At most this many accounts are kept beyond the number that the settings allow, until all is read. Charges in the
    /// journal to an evicted account are lost, and the journal does not say under which id its key came back.
    private static let mostSurplus = 65_536

    /// Ids and sequence numbers are counted up from 1. More than this in one step is damage: with a million a second,
    /// it takes nine years.
    private static let mostAhead: UInt64 = 1 << 48

    init(ledger: Ledger) {
        self.ledger = ledger
        limits = Dictionary(uniqueKeysWithValues: ledger.limits.map { ($0.storedID, $0) })
        mostUnused = ledger.limits.reduce(.max) { min($0, $1.terms.mostUnused) }
        let most = ledger.settings.mostAccounts
        mostAccounts = most + min(most, Self.mostSurplus)
    }

    /// Brings the accounts from the time of the last batch to the present.
    func finish() {
        expire(by: ledger.now)
        // Damage may have given an account's id to a row of a removed limit, which the next checkpoint deletes.
        ledger.upkeep.removed.removeAll { opened[$0].map { !$0.isRemoved } ?? false }
    }

    /// Prepares limits and accounts for a batch.
    ///
    /// - Returns: the time at which the batch counts. It is later than `time` if a batch before it was.
    func advance(to time: LedgerTime) -> LedgerTime {
        batchTime = max(batchTime, time)
        if batchTime - expiredBy > mostUnused { expire(by: batchTime) }
        for limit in limits.values { limit.terms.setTime(batchTime) }
        return batchTime
    }

    /// Accounts that no batch has changed need no expiry: their rows were restored for the present.
    private func expire(by time: LedgerTime) {
        for account in ledger.upkeep.dirty where !newerThanBatch.contains(account.id) { account.expire(by: time) }
        expiredBy = time
    }

    /// Notes that a batch changes the account. Call it before the change.
    func noteChange(of account: Account) {
        if !account.isDirty, account.isStored, hasNewerCounts(account) { newerThanBatch.insert(account.id) }
        ledger.noteChange(of: account)
    }

    /// Whether something counts in a window that began after the batch.
    private func hasNewerCounts(_ account: Account) -> Bool {
        let lanes = account.limit.terms.lanes
        return lanes.indices.contains { lane in
            let present = lanes[lane].slot(at: ledger.now)
            return present - account.limit.terms.slots[lane] > Window.slots
                && account.windows.used(lane: lane, slot: present) > 0
        }
    }

    /// Changes counts of an account at the time of the batch. If the account has newer counts, the change counts from
    /// now on: for longer, never shorter.
    func changeCounts(of account: Account, _ change: (Account) -> Void) {
        guard newerThanBatch.contains(account.id) else { return change(account) }
        account.limit.terms.setTime(ledger.now)
        change(account)
        account.limit.terms.setTime(batchTime)
    }

    /// New accounts get ids after this one, unless damage has made it far too large.
    func noteID(_ id: UInt64) {
        if id > ledger.lastAccountID, id - ledger.lastAccountID <= Self.mostAhead { ledger.lastAccountID = id }
    }

    /// Throws if an id is impossible: ids are counted up from 1.
    func check(id: UInt64, offset: Int = 0) throws(JournalDamage) {
        guard id <= 1 << 62 else { throw JournalDamage(offset: offset) }
    }

    /// The next batch gets a number after this one.
    ///
    /// - Throws: if the number is impossible. Batches that were numbered on from it could not be read.
    func note(sequence: UInt64) throws(JournalDamage) {
        guard sequence <= ledger.sequence + Self.mostAhead else { throw JournalDamage(offset: 0) }
        ledger.sequence = max(ledger.sequence, sequence)
    }

    // MARK: Rows

    package func recover(account row: AccountRow) throws(JournalDamage) {
        try check(id: row.id)
        noteID(row.id)
        guard let limit = limits[row.limit] else {
            ledger.upkeep.removed.append(row.id)
            return
        }
        let account = open(id: row.id, key: row.key, limit: limit)
        stored.append(account)
        account.isStored = true
        do throws(JournalDamage) {
            try note(sequence: row.sequence)
        } catch {
            // Nothing says which batches the row's counts include. Those of the journal count, and the next checkpoint
            // replaces the row.
            ledger.noteChange(of: account)
            throw error
        }
        account.savedSequence = row.sequence
        let outcome = row.content.withUnsafeBytes { bytes in
            Result { () throws(JournalDamage) in
                var reader = JournalReader(bytes)
                try readContent(of: account, &reader)
            }
        }
        try outcome.get()
    }

    func open(id: UInt64, key: [UInt8], limit: LimitState) -> Account {
        let hash = ledger.hash(of: key, of: limit)
        if let earlier = limit.accounts.find(hash) {
            // The key was idle for a while, and got a new id when it came back.
            ledger.remove(earlier)
        }
        if ledger.accountCount >= mostAccounts { evict() }
        let account = Account(id: id, key: key, hash: hash, limit: limit)
        account.generation = .max
        ledger.insert(account)
        return account
    }

    /// Evicts the least used account of a sample, as the ledger does later.
    private func evict() {
        guard ledger.evictOne(isRecovering: true) else { return }
        evicted += 1
        // Half of the accounts that the lists keep alive were evicted.
        guard evicted > ledger.accountCount else { return }
        evicted = 0
        stored.removeAll(where: \.isRemoved)
        opened = opened.filter { !$1.isRemoved }
    }

    func account(_ id: UInt64) -> Account? {
        guard let last = stored.last, id <= last.id else { return opened[id] }
        var (low, high) = (0, stored.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if stored[middle].id < id { low = middle + 1 } else { high = middle }
        }
        return stored[low].id == id ? stored[low] : opened[id]
    }

    // MARK: Transactions

    package func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        try note(sequence: sequence)
        var reader = JournalReader(content)
        while !reader.isAtEnd {
            let id = try reader.readHash()
            guard id != 0 else { throw JournalDamage(offset: reader.offset) }
            let lastSeen = ledger.catchUp(to: try reader.readTime())
            let transaction = transaction(id, lastSeen: lastSeen)
            transaction.lastSeen = lastSeen
            transaction.savedSequence = sequence
            try readContent(of: transaction, &reader)
        }
    }

    /// The transaction of this id, added if there is none.
    func transaction(_ id: UInt64, lastSeen: LedgerTime) -> Transaction {
        if let existing = ledger.transactions[id] { return existing }
        let transaction = Transaction(id: id, lastSeen: lastSeen)
        // An evicted transaction gives nothing back here: what it gave back is in the journal.
        _ = ledger.transactions.insert(transaction)
        return transaction
    }
}
