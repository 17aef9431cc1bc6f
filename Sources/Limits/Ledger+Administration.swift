// SPDX-License-Identifier: Apache-2.0

/// What administrators ask of the ledger.
extension Ledger {
    // MARK: Keys

    /// The limit of this name; all limits if `name` is nil.
    package func limits(named name: String?) throws(AdministrationFault) -> [LimitState] {
        owner.check()
        guard let name else { return limits }
        let named = limits.filter { $0.limit.name == name }
        if named.isEmpty { throw .unknownLimit(name, known: limits.map(\.limit.name)) }
        return named
    }

    /// The limits of which `text` is a key, each with the canonical key.
    ///
    /// - Parameter name: considers this limit only, if not nil.
    package func keys(
        meantBy text: [UInt8], limit name: String?
    ) throws(AdministrationFault) -> [(limit: LimitState, key: [UInt8])] {
        let candidates = try limits(named: name)
        let keys = candidates.compactMap { limit in key(meantBy: text, of: limit).map { (limit, $0) } }
        if keys.isEmpty {
            let described = candidates.map {
                "\($0.limit.name), which counts by \($0.limit.key.parts.map(\.name).joined(separator: "|"))"
            }
            throw .noKey(String(decoding: text, as: UTF8.self), limits: described)
        }
        return keys
    }

    /// The canonical key for `text`. A client may have sent a value that has no canonical form: such a key is found by
    /// its text as it is.
    private func key(meantBy text: [UInt8], of limit: LimitState) -> [UInt8]? {
        limit.limit.key.canonical(text) ?? (existingAccount(key: text, of: limit) == nil ? nil : text)
    }

    /// Those of `candidates` of which `text` is a key, each with the canonical key and whether there is an account for
    /// it.
    package func meanings(
        of text: [UInt8], in candidates: ArraySlice<LimitState>
    ) -> [(limit: String, key: [UInt8], isKnown: Bool)] {
        owner.check()
        return candidates.compactMap { limit in
            guard let key = key(meantBy: text, of: limit) else { return nil }
            return (limit.limit.name, key, existingAccount(key: key, of: limit) != nil)
        }
    }

    /// Those of `candidates` of which `text` is a key, each with the canonical key, and how it stands there; nil where
    /// there is no account for it.
    package func standings(
        ofText text: [UInt8], in candidates: ArraySlice<LimitState>, most: Int
    ) -> [(limit: String, key: [UInt8], standing: Standing?)] {
        owner.check()
        var found: [(limit: String, key: [UInt8], standing: Standing?)] = []
        for limit in candidates where found.count < most {
            guard let key = key(meantBy: text, of: limit) else { continue }
            found.append((limit.limit.name, key, standing(ofKey: key, in: limit)))
        }
        return found
    }

    /// How a canonical key stands with a limit, with its history; nil if there is no account for it.
    package func standing(ofKey key: [UInt8], in limit: LimitState) -> Standing? {
        owner.check()
        return existingAccount(key: key, of: limit).map { standing(of: $0, withHistory: true) }
    }

    // MARK: Standings

    /// How a key stands with each limit that has an account for it.
    ///
    /// - Parameter name: considers this limit only, if not nil.
    package func standings(ofKey key: [UInt8], limit name: String?) throws(AdministrationFault) -> [Standing] {
        try keys(meantBy: key, limit: name).compactMap { limit, key in standing(ofKey: key, in: limit) }
    }

    package func standing(of account: Account, withHistory: Bool = false) -> Standing {
        owner.check()
        let limit = account.limit
        // A reload may have changed the tables since.
        if account.generation != generation { lookUpException(of: account) }
        let usages = limit.limit.rates.indices.map { lane in
            let admitted = account.admitted(lane: lane, at: now)
            let fitting = account.fitting(1, lane: lane, at: now)
            return Standing.Usage(
                rate: limit.limit.rates[lane], used: account.used(lane: lane), admitted: admitted,
                freesAt: fitting == now ? nil : fitting, history: withHistory ? history(of: account, lane: lane) : nil)
        }
        return Standing(
            limit: limit.limit.name, count: limit.limit.count, mode: limit.limit.mode, key: account.key, usages: usages,
            refusedTries: account.refusedTries, blockedUntil: account.blockedUntil(at: now),
            raisedUntil: account.exception?.raised.flatMap { $0.until > now ? $0.until : nil },
            isExempt: account.exception?.isExempt ?? false)
    }

    private func history(of account: Account, lane: Int) -> [UInt64] {
        let slot = account.limit.terms.slots[lane]
        var amounts = [UInt64](repeating: 0, count: Int(Window.slots) + 1)
        account.windows.forEachSlot(lane: lane, slot: slot) { charged, amount in
            let age = Int(slot - charged)
            if amounts.indices.contains(age) { amounts[amounts.count - 1 - age] += amount }
        }
        return amounts
    }

    /// The wall clock's time of a ledger time, in milliseconds since 1970: for people to read.
    package func wallTime(of time: LedgerTime) -> Int64 {
        wallTimeNow + (time - now)
    }

    /// When the last checkpoint began (milliseconds since 1970), and how long the last completed one took
    /// (milliseconds).
    package var lastCheckpoint: (began: Int64, took: Int64?) {
        (wallTime(of: upkeep.checkpointBegan), upkeep.checkpointTook)
    }

    // MARK: Interventions

    /// Carries out an intervention at the named limit, or at every limit that has an account for the key. The next
    /// `commit` writes it to the store.
    ///
    /// - Returns: how the key stands now; empty if no limit has an account for it.
    package func intervene(
        _ intervention: Intervention, onKey text: [UInt8], limit name: String?, by author: ChangeAuthor
    ) throws(AdministrationFault) -> [Standing] {
        owner.check()
        let meant = try keys(affectedBy: intervention, on: text, limit: name)
        return meant.map { limit, key in
            let hash = hash(of: key, of: limit)
            let account = existingAccount(hash, of: limit) ?? openAccount(hash, key: key, of: limit)
            carryOut(intervention, to: account, by: author)
            return standing(of: account)
        }
    }

    /// The limits at which an intervention is carried out, each with the key.
    ///
    /// - Throws: `unknownWindow` if a raise names a window that none of them has.
    private func keys(
        affectedBy intervention: Intervention, on text: [UInt8], limit name: String?
    ) throws(AdministrationFault) -> [(limit: LimitState, key: [UInt8])] {
        var keys = try keys(meantBy: text, limit: name)
        if name == nil { keys.removeAll { limit, key in existingAccount(key: key, of: limit) == nil } }
        guard case .raise(let rates, _) = intervention, !keys.isEmpty else { return keys }
        for rate in rates where !keys.contains(where: { $0.limit.limit.has(rate.window) }) {
            let described = keys.map {
                "\($0.limit.limit.name) (\($0.limit.limit.rates.map(\.description).joined(separator: ", ")))"
            }
            throw .unknownWindow(rate, limits: described)
        }
        keys.removeAll { item in !rates.contains { item.limit.limit.has($0.window) } }
        return keys
    }

    /// Why mail of a blocked key still passes; nil if it does not.
    package func remark(onBlockBy name: String) -> String? {
        guard let limit = limits.first(where: { $0.limit.name == name })?.limit else { return nil }
        return limit.blockOver.letsPass ? "mail still passes: 'block.over' of \(name) does not refuse" : nil
    }

    func carryOut(_ intervention: Intervention, to account: Account, by author: ChangeAuthor) {
        tellOthers(of: intervention, to: account, by: author)
        shared?.warnings.forget(account.hash, before: lastChange(ofKey: account.key, in: account.limit))
        switch intervention {
        case .reset:
            if account.limit.terms.isShared { shared?.forget(account.key, of: account.limit) }
            journal.appendReset(account, at: tick)
            account.reset(at: now)
            setBlock(of: account, until: nil, byHand: true)
        case .raise(let rates, let until):
            account.setRaised(rates, until: until)
            journal.appendRaise(account, rates, until: until, at: tick)
        case .unraise:
            guard account.exception?.raised != nil else { return }
            account.setRaised([], until: now)
            journal.appendRaise(account, [], until: now, at: tick)
        case .block(let until):
            setBlock(of: account, until: until, byHand: true)
        case .unblock:
            setBlock(of: account, until: nil, byHand: true)
        }
        noteChange(of: account)
        noteFullness(of: account)
    }

    func setBlock(of account: Account, until: LedgerTime?, byHand: Bool) {
        // Without a block, there may still be refused requests to forget. Whether a block that has ended is known does
        // not matter then: an idle key forgets it.
        guard until != nil || account.exception?.blockedUntil != nil || account.refusedTries > 0 else { return }
        account.setBlock(until: until, byHand: byHand)
        account.exception?.blockGeneration = generation
        journal.appendBlock(account, until: until, byHand: byHand, at: tick)
    }
}
