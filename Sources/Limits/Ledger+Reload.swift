// SPDX-License-Identifier: Apache-2.0

/// A limit that a reload has made more generous, so that blocks that it has set itself should end.
package struct RelaxedLimit {
    package let state: LimitState
    /// What has changed, for the log.
    package let change: String
    /// The ledger's generation since the reload: blocks of an earlier one should end.
    package let generation: UInt32
}

extension Limit {
    /// In what this limit is more generous than an earlier one; nil if its blocks stay.
    fileprivate func relaxation(of earlier: Limit) -> String? {
        if keepsBlocks { return nil }
        if block == nil, earlier.block != nil { return "block was removed" }
        let isRaised = earlier.rates.contains { old in
            rates.first { $0.window == old.window }.map { $0.count > old.count } ?? true
        }
        return isRaised ? "rates were raised" : nil
    }
}

/// What a reload drops of a limit.
package struct DroppedState {
    package let limit: Limit
    /// The number of keys that a limit loses which does not go on; nil for one that goes on with other windows.
    package let keys: Int?
    /// The keys that administrators had blocked. A limit that goes on keeps its blocks.
    package fileprivate(set) var blocked: [[UInt8]] = []
    /// The keys whose raises end, because the windows that they name are gone.
    package fileprivate(set) var raised: [[UInt8]] = []

    fileprivate init(limit: Limit, keys: Int?) {
        (self.limit, self.keys) = (limit, keys)
    }
}

/// Limits that come and go with the configuration.
extension Ledger {
    /// What a reload is about to drop of each limit, in the order of the limits. To be asked before `reload`.
    package func dropped(by limits: [Limit]) -> [DroppedState] {
        owner.check()
        let next = Dictionary(limits.map { ("\($0.name)\n\($0.signature)", $0) }) { first, _ in first }
        return self.limits.compactMap { state in
            let limit = state.limit
            let successor = next["\(limit.name)\n\(limit.signature)"]
            if let successor, limit.rates.allSatisfy({ successor.has($0.window) }) { return nil }
            var dropped = DroppedState(limit: limit, keys: successor == nil ? state.accountCount : nil)
            state.accounts.forEach { account in
                guard let exception = account.exception else { return }
                if successor == nil, exception.isBlockedByHand, exception.blocks(at: now) {
                    dropped.blocked.append(account.key)
                }
                if exception.raises(at: now), let rates = exception.raised?.rates,
                    !rates.contains(where: { successor?.has($0.window) ?? false })
                {
                    dropped.raised.append(account.key)
                }
            }
            return (dropped.keys ?? dropped.raised.count) > 0 ? dropped : nil
        }
    }

    /// Replaces the limits by those of a new configuration. A limit that has the name and the signature of an old one
    /// keeps its counts, window by window. The others lose theirs.
    ///
    /// - Returns: the limits that are more generous now.
    @discardableResult
    package func reload(_ limits: [Limit], settings: Settings) -> [RelaxedLimit] {
        owner.check()
        precondition(prepared.isEmpty, "a request must be decided under the limits for which it was prepared")
        let before = self.limits.map { (state: $0, limit: $0.limit) }
        let isRegistered = register(
            limits,
            replacing: self.limits.map { .init(id: $0.storedID, name: $0.limit.name, signature: $0.limit.signature) })
        // The batch of this tick takes the registration to the store, also if it has no entries.
        if isRegistered { journal.begin(at: tick) }
        self.settings = settings
        generation += 1
        let kept = Set(self.limits.map(ObjectIdentifier.init))
        return before.compactMap { state, limit in
            guard kept.contains(ObjectIdentifier(state)) else { return nil }
            return state.limit.relaxation(of: limit).map {
                RelaxedLimit(state: state, change: $0, generation: generation)
            }
        }
    }

    /// Puts `newLimits` into use, and registers with the store those that it lacks or must forget.
    ///
    /// - Parameter stored: the limits that the store has now.
    /// - Returns: whether the store had to be told anything.
    @discardableResult
    func register(_ newLimits: [Limit], replacing stored: [StoredLimit]) -> Bool {
        let old = limits
        lastLimitID = max(lastLimitID, stored.map(\.id).max() ?? 0)
        let identified = identify(newLimits, among: stored)
        let known = Set(stored.map(\.id))
        let registered = identified.filter { !known.contains($0.id) } + removed(from: stored, without: newLimits)
        if !registered.isEmpty { store.register(registered) }
        let oldByID = Dictionary(old.map { ($0.storedID, $0) }) { first, _ in first }
        let states = zip(newLimits, identified).map { limit, identity in
            state(of: limit, identity, continuing: oldByID[identity.id])
        }
        let kept = Set(states.map(ObjectIdentifier.init))
        for state in old where !kept.contains(ObjectIdentifier(state)) { removeAccounts(of: state) }
        limits = states
        limitsConnections = newLimits.contains { $0.count.isOfConnection }
        contextAttribute = newLimits.lazy.compactMap(\.contextAttribute).first
        accountCount = states.reduce(0) { $0 + $1.accounts.count }
        upkeep.restartSweep()
        return !registered.isEmpty
    }

    /// Gives each limit the id of the stored one that counts the same under the same name, or a new id.
    private func identify(_ limits: [Limit], among stored: [StoredLimit]) -> [StoredLimit] {
        let storedByName = Dictionary(grouping: stored, by: \.name)
        return limits.map { limit in
            if let same = storedByName[limit.name]?.first(where: { $0.signature == limit.signature }) { return same }
            lastLimitID += 1
            return StoredLimit(id: lastLimitID, name: limit.name, signature: limit.signature)
        }
    }

    /// What takes the place of limits that are not in use any more. Otherwise, a limit of the same name would continue
    /// their counts after a restart.
    private func removed(from stored: [StoredLimit], without limits: [Limit]) -> [StoredLimit] {
        let names = Set(limits.map(\.name))
        return stored.filter { !$0.isRemoved && !names.contains($0.name) }.map { limit in
            lastLimitID += 1
            return .removed(id: lastLimitID, name: limit.name)
        }
    }

    private func state(of limit: Limit, _ identity: StoredLimit, continuing old: LimitState?) -> LimitState {
        guard let old else {
            let state = LimitState(limit: limit, storedID: identity.id)
            state.terms.setTime(now)
            return state
        }
        old.replaceTerms(with: limit, at: now, changed: noteChange)
        return old
    }

    /// The accounts leave memory now, and the store with the next checkpoint.
    private func removeAccounts(of limit: LimitState) {
        limit.accounts.forEach(noteRemoval)
        limit.removeAccounts()
    }
}
