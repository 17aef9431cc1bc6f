// SPDX-License-Identifier: Apache-2.0

/// Replaying batches of the journal.
extension LedgerRecovery {
    package func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        var reader = JournalReader(content)
        let anchor = try JournalBatch.readAnchor(&reader)
        try note(sequence: sequence)
        let time = advance(to: ledger.catchUp(to: anchor.time))
        while !reader.isAtEnd {
            switch try reader.readEntry() {
            case .account: try replayOpened(&reader)
            case .transaction: try replayTransaction(&reader, sequence, time)
            case .refused:
                let account = try readAccount(&reader, changedBy: sequence)
                let charged = try reader.readAmount()
                if let account { changeCounts(of: account) { $0.addRefused(charging: charged) } }
            case .blocked:
                let account = try readAccount(&reader, changedBy: sequence)
                let until = try reader.readTime()
                let byHand = try reader.read() == 1
                account?.setBlock(until: until.milliseconds == 0 ? nil : until, byHand: byHand)
            case .raisedCounts:
                let account = try readAccount(&reader, changedBy: sequence)
                let until = try reader.readTime()
                let counts = try reader.readCounts()
                if let windows = account?.limit.limit.rates.map(\.window), windows.count == counts.count {
                    account?.setRaised(zip(counts, windows).map(Rate.init), until: until)
                }
            case .raised:
                let account = try readAccount(&reader, changedBy: sequence)
                let until = try reader.readTime()
                let rates = try reader.readRates()
                account?.setRaised(rates, until: until)
            case .reset:
                try readAccount(&reader, changedBy: sequence)?.reset(at: time)
            }
        }
    }

    /// The account of an entry, marked as changed; nil if it is gone, or if its row has the batch's effects already.
    private func readAccount(
        _ reader: inout JournalReader, changedBy sequence: UInt64
    ) throws(JournalDamage) -> Account? {
        guard let account = account(try reader.read()), account.savedSequence < sequence else { return nil }
        noteChange(of: account)
        return account
    }

    private func replayOpened(_ reader: inout JournalReader) throws(JournalDamage) {
        let id = try reader.read()
        let limit = limits[try reader.read()]
        let key = try reader.readField()
        try check(id: id, offset: reader.offset)
        noteID(id)
        guard let limit, account(id) == nil else { return }
        // A row has the key under a later id: the key was idle in between.
        if let later = limit.accounts.find(ledger.hash(of: key, of: limit)), later.id > id { return }
        let account = open(id: id, key: key, limit: limit)
        opened[id] = account
        // The next checkpoint deletes the segment that holds this entry, and later entries refer to the id.
        ledger.noteChange(of: account)
    }

    // MARK: Transactions

    private func replayTransaction(
        _ reader: inout JournalReader, _ sequence: UInt64, _ time: LedgerTime
    ) throws(JournalDamage) {
        let id = try reader.readHash()
        let request = try reader.readHash()
        let flags = TransactionFlags(rawValue: try reader.read())
        let action = flags.contains(.refused) ? try reader.readField() : nil
        let recipient = flags.contains(.recipient) ? try reader.readHash() : 0
        let transaction = id == 0 ? nil : changed(id, by: sequence, at: time)
        if let transaction {
            transaction.lastSeen = time
            transaction.isSettled = flags.contains(.settled)
            if flags.contains(.newConnection) { (transaction.charges, transaction.refusals) = (Charges(), []) }
            if request != 0 { transaction.remember(request, refusedWith: action) }
        }
        while case let accountID = try reader.read(), accountID != 0 {
            let amount = try reader.readSigned()
            let age = try reader.read()
            guard amount.magnitude <= SlidingWindows.largestAmount, age <= UInt64(time.milliseconds) else {
                throw JournalDamage(offset: reader.offset)
            }
            guard let account = account(accountID) else { continue }
            let isNew = account.savedSequence < sequence
            if isNew { noteChange(of: account) }
            if amount > 0 {
                if isNew { changeCounts(of: account) { $0.charge(UInt64(amount)) } }
                // What a reset has ended must not be added to: it would take this charge along.
                _ = transaction?.charged(to: account)
                transaction?.charges.add(UInt64(amount), to: account, at: time)
                if recipient != 0 { transaction?.remember(Ledger.chargeHash(of: recipient, to: account.hash)) }
            } else {
                if isNew { account.giveBack(amount.magnitude, chargedAt: time + -Int64(age)) }
                transaction?.noteGivenBack(amount.magnitude, to: account)
            }
        }
    }

    /// The transaction of an entry; nil if its saved copy has the batch's effects already.
    private func changed(_ id: UInt64, by sequence: UInt64, at time: LedgerTime) -> Transaction? {
        let transaction = transaction(id, lastSeen: time)
        return transaction.savedSequence < sequence ? transaction : nil
    }
}
