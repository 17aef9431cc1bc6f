// SPDX-License-Identifier: Apache-2.0

/// Finding, opening and evicting accounts.
extension Ledger {
    func existingAccount(_ hash: KeyHash, of limit: LimitState) -> Account? {
        guard let account = limit.accounts.find(hash) else { return nil }
        if account.generation != generation { lookUpException(of: account) }
        return account
    }

    /// The account of a canonical key; nil if there is none.
    func existingAccount(key: [UInt8], of limit: LimitState) -> Account? {
        existingAccount(hash(of: key, of: limit), of: limit)
    }

    /// Opens an account for the key of a request; nil if the request has no such key.
    func openAccount(_ hash: KeyHash, _ request: Attributes, of limit: LimitState) -> Account? {
        guard limit.terms.limit.key.build(request, into: &keyBuffer) else { return nil }
        return openAccount(hash, key: keyBuffer, of: limit)
    }

    /// Opens an account for a key that has none.
    func openAccount(_ hash: KeyHash, key: [UInt8], of limit: LimitState) -> Account {
        if accountCount >= settings.mostAccounts { _ = evictOne() }
        lastAccountID += 1
        // Copied: `key` may be `keyBuffer`, which has room for the longest key.
        let account = Account(id: lastAccountID, key: key.withUnsafeBytes { Array($0) }, hash: hash, limit: limit)
        insert(account)
        lookUpException(of: account)
        journal.appendOpened(account, at: tick)
        noteChange(of: account)
        return account
    }

    func insert(_ account: Account) {
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

    /// The account has left memory. The next checkpoint deletes its row, if it has one.
    func noteRemoval(of account: Account) {
        account.wasIdle = account.isEmpty
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

    /// The account has changed. The next checkpoint saves it.
    func noteChange(of account: Account) {
        // A transaction may refer to an account that has left memory.
        guard !account.isDirty, !account.isRemoved else { return }
        account.isDirty = true
        upkeep.dirty.append(account)
    }

    func noteFullness(of account: Account) {
        guard let fullness = account.fullness(at: now) else { return }
        account.limit.fullest.note(account, fullness: fullness, at: now)
    }

    // MARK: Tables

    /// Looks up the key, or its parts, in the limit's tables.
    func lookUpException(of account: Account) {
        account.generation = generation
        let limit = account.limit.limit
        guard !limit.exempt.isEmpty || !limit.overrides.isEmpty else {
            account.exception?.isExempt = false
            account.exception?.overridden = []
            return
        }
        let values = limit.key.lookupValues(of: account.key)
        let exempt = Self.lookup(values, in: limit.exempt).map { !LookupTable.isDunno($0) } ?? false
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

    // MARK: Eviction

    /// Evicts the least used of a sample of 16 accounts, read from the position of the sweep, so that all have their
    /// turn.
    ///
    /// Accounts that an administrator has blocked or raised stay, and so do those that the current request uses. A key
    /// that its limit has blocked is evicted only if the sample holds no other. If 4096 slots hold no candidate at all,
    /// the ledger keeps one account more than the settings say.
    ///
    /// - Parameter isRecovering: whether batches from before the present slots are still to be replayed. The accounts
    ///   of the sample must not enter these slots: they would take the charges of those batches to them, and what is
    ///   given back of these would not be found in the slots in which it was charged.
    /// - Returns: whether an account was evicted.
    func evictOne(isRecovering: Bool = false) -> Bool {
        var least: (account: Account, rank: UInt64)?
        var seen = 0
        var stretches = 0
        while seen < 16, stretches < 64 {
            stretches += 1
            sweepSlots(64) { account in
                guard !account.isHeldByAdministrator(at: now), !isInUse(account) else { return }
                seen += 1
                let used = account.limit.terms.lanes.indices.reduce(0) { sum, lane in
                    sum + (isRecovering ? account.peek(lane: lane) : account.used(lane: lane))
                }
                let rank = account.isBlockedOrRaised(at: now) ? .max : used
                if least.map({ rank < $0.rank }) ?? true { least = (account, rank) }
            }
        }
        guard let account = least?.account else { return false }
        observer?.evicted(account, at: now)
        remove(account)
        return true
    }

    /// Evicts accounts beyond the number that the settings allow, `most` at a time. A journal may restore many that
    /// were evicted before, and a reload may lower the number.
    func evictSurplus(most: Int) {
        var left = min(most, accountCount - settings.mostAccounts)
        while left > 0, evictOne() { left -= 1 }
    }
}

extension KeyDefinition {
    /// What tables are searched for, in this order: the whole key, then its parts.
    func lookupValues(of key: [UInt8]) -> [(bytes: [UInt8], isHost: Bool)] {
        let values = zip(values(of: key), parts).map { (bytes: $0, isHost: $1.isHost) }
        return parts.count > 1 ? [(key, false)] + values : values
    }
}

extension Limit {
    /// The rates in a table's result, which replace the limit's rates of the same windows: `500/1m 5000/1h`.
    ///
    /// A rate whose window the limit does not have has no effect; reading the configuration reports it.
    static func rates(ofOverride text: String) -> [Rate] {
        words(ofOverride: text).compactMap { Rate($0) }
    }

    /// The words of a table's result, each of which should be a rate.
    package static func words(ofOverride text: String) -> [Substring] {
        text.split(whereSeparator: { $0 == " " || $0 == "," || $0 == "\t" })
    }
}
