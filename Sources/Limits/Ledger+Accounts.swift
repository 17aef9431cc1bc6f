// SPDX-License-Identifier: Apache-2.0

extension Ledger {
    func existingAccount(_ hash: KeyHash, of limit: LimitState) -> Account? {
        guard let account = limit.accounts.find(hash) else { return nil }
        if account.generation != generation { lookUpException(of: account) }
        return account
    }

    /// An account of a key that has none.
    func openAccount(_ hash: KeyHash, key: [UInt8], of limit: LimitState) -> Account {
        if accountCount >= settings.mostAccounts { _ = makeRoom() }
        lastAccountID += 1
        // Copied: `key` may be the buffer in which keys are built, with room for the longest.
        let account = Account(id: lastAccountID, key: key.withUnsafeBytes { Array($0) }, hash: hash, limit: limit)
        adopt(account)
        lookUpException(of: account)
        openBatch()
        journal.write(.account)
        journal.write(account.id)
        journal.write(limit.storedID)
        journal.write(key)
        noteChange(of: account)
        return account
    }

    func adopt(_ account: Account) {
        account.limit.accounts.insert(account)
        accountCount += 1
    }

    func remove(_ account: Account) {
        account.limit.fullest.remove(account)
        account.limit.accounts.remove(account)
        accountCount -= 1
        noteRemoval(of: account)
        if account.isDirty { upkeep.releaseRemoved() }
    }

    /// The account has left memory: the next checkpoint removes it from the store, if it is there, and saves it no more.
    func noteRemoval(of account: Account) {
        account.isRemoved = true
        if account.isStored { upkeep.removed.append(account.id) }
    }

    func hash(of key: [UInt8], of limit: LimitState) -> KeyHash {
        key.withUnsafeBytes { hash(of: $0, of: limit) }
    }

    func hash(of key: UnsafeRawBufferPointer, of limit: LimitState) -> KeyHash {
        var hash = SipHash(key: hashKey)
        hash.combine(limit.storedID)
        hash.combine(key)
        let (low, high) = hash.finalize128()
        return KeyHash(low: low, high: high)
    }

    /// The account has changed: the next checkpoint saves it.
    func noteChange(of account: Account) {
        // A transaction may know an account that has left memory.
        guard !account.isDirty, !account.isRemoved else { return }
        account.isDirty = true
        upkeep.dirty.append(account)
    }

    func noteFullness(of account: Account) {
        guard let fullness = account.fullness(at: now) else { return }
        account.limit.fullest.note(account, fullness: fullness, at: now)
    }

    /// Asks the limit's tables what they say of the key, or of its parts.
    func lookUpException(of account: Account) {
        account.generation = generation
        let limit = account.limit.limit
        guard !limit.exempt.isEmpty || !limit.overrides.isEmpty else {
            account.exception?.isExempt = false
            account.exception?.overridden = []
            return
        }
        let values = limit.key.lookupValues(of: account.key)
        let exempt = Self.lookup(values, in: limit.exempt).map { $0.uppercased() != "DUNNO" } ?? false
        let overridden = Self.lookup(values, in: limit.overrides).map(Limit.rates(ofOverride:)) ?? []
        guard exempt || !overridden.isEmpty || account.exception != nil else { return }
        account.makeException().isExempt = exempt
        account.makeException().overridden = overridden
    }

    private static func lookup(_ values: [(bytes: [UInt8], isHost: Bool)], in tables: [LookupTable]) -> String? {
        for value in values {
            for table in tables {
                if let result = table.lookup(value.bytes, isHost: value.isHost) { return result }
            }
        }
        return nil
    }

    /// Gives up the least used of a few accounts. They are taken from where the sweep stands, so each gets its turn.
    ///
    /// Those that somebody decided about, or that the present request is judged with, stay; one that is blocked by its limit goes
    /// where the others are, too. Where a long stretch
    /// of the tables holds nothing else, there is one account more than the settings admit.
    ///
    /// - Returns: whether there was one to give up.
    private func makeRoom() -> Bool {
        var least: (account: Account, rank: UInt64)?
        var seen = 0
        var stretches = 0
        while seen < 16, stretches < 64 {
            stretches += 1
            sweepSlots(64) { account in
                guard !account.isDecidedByHand(at: now), !isInUse(account) else { return }
                seen += 1
                let used = account.limit.terms.lanes.indices.reduce(0) { $0 + account.used(lane: $1) }
                let rank = account.isSetApart(at: now) ? .max : used
                if least.map({ rank < $0.rank }) ?? true { least = (account, rank) }
            }
        }
        guard let account = least?.account else { return false }
        observer?.evicted(account, at: now)
        remove(account)
        return true
    }

    /// Gives up accounts beyond what the settings admit, `most` at a time: a journal may bring back many that were given up
    /// before, and a reload may admit fewer.
    func giveUpSurplus(most: Int) {
        var left = min(most, accountCount - settings.mostAccounts)
        while left > 0, makeRoom() { left -= 1 }
    }
}

extension KeyDefinition {
    /// The key itself, then its parts: what tables are asked for, in this order.
    func lookupValues(of key: [UInt8]) -> [(bytes: [UInt8], isHost: Bool)] {
        let values = zip(values(of: key), parts).map { (bytes: $0, isHost: $1.isHost) }
        return parts.count > 1 ? [(key, false)] + values : values
    }
}

extension Limit {
    /// The rates that a table gives in place of some of a limit's, as in `500/1m 5000/1h`.
    ///
    /// A rate whose window the limit does not have changes nothing; the configuration reports it.
    static func rates(ofOverride text: String) -> [Rate] {
        words(ofOverride: text).compactMap { Rate($0) }
    }

    /// The result of an override, rate by rate.
    package static func words(ofOverride text: String) -> [Substring] {
        text.split(whereSeparator: { $0 == " " || $0 == "," || $0 == "\t" })
    }
}
