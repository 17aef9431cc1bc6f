// SPDX-License-Identifier: Apache-2.0

/// Where a key stands with one limit, for people to read.
package struct Standing: Equatable, Sendable {
    package struct Usage: Equatable, Sendable {
        package var rate: Rate
        package var used: UInt64
        package var admitted: UInt64
        /// When there is room for one more; nil where there is now.
        package var freesAt: LedgerTime?
        /// What was charged in each slot of the window, oldest first; nil where it was not asked for.
        package var history: [UInt64]?
    }

    package var limit: String
    package var count: CountUnit
    package var mode: Limit.Mode
    package var key: [UInt8]
    package var usages: [Usage]
    package var refusedTries: UInt64
    package var blockedUntil: LedgerTime?
    package var raisedUntil: LedgerTime?
    package var isExempt: Bool
}

/// What an administrator can do to a key.
package enum Intervention: Equatable, Sendable {
    /// Forgets what has been counted, and ends a block.
    case reset
    /// Other counts for some windows of the limit, for a time.
    case raise([Rate], until: LedgerTime)
    case block(until: LedgerTime)
    case unblock
}

/// What an administrator asks for can't be told or done; nothing has been changed.
package enum AdministrationFault: Error, Equatable, CustomStringConvertible {
    case unknownLimit(String, known: [String])
    /// No request has such a key, in any limit that is meant.
    case noKey(String, limits: [String])
    /// A rate names a window that no limit has for which it is meant.
    case unknownWindow(Rate, limits: [String])

    package var description: String {
        switch self {
        case .unknownLimit(let name, let known):
            known.isEmpty
                ? "there is no limit \(name), nor any other"
                : "there is no limit \(name) (there are \(known.joined(separator: ", ")))"
        case .noKey(let key, let limits):
            "'\(key)' is no key of \(limits.isEmpty ? "any limit" : limits.joined(separator: ", "))"
        case .unknownWindow(let rate, let limits):
            "no window of \(Rate.text(ofDuration: rate.window.milliseconds)) in \(limits.joined(separator: ", "))"
        }
    }
}

extension Ledger {
    /// The limit of a name, or all where none is named.
    package func limits(named name: String?) throws(AdministrationFault) -> [LimitState] {
        guard let name else { return limits }
        let named = limits.filter { $0.limit.name == name }
        if named.isEmpty { throw .unknownLimit(name, known: limits.map(\.limit.name)) }
        return named
    }

    /// The limits in which `text` means a key, each with the key; only `name` where one is named.
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

    /// A client may have sent what no canonical form takes; as such a key is told, it is understood.
    private func key(meantBy text: [UInt8], of limit: LimitState) -> [UInt8]? {
        limit.limit.key.canonical(text) ?? (existingAccount(hash(of: text, of: limit), of: limit) == nil ? nil : text)
    }

    /// Where a key stands with every limit that knows it; only with `limit` where one is named.
    package func standings(ofKey key: [UInt8], limit name: String?) throws(AdministrationFault) -> [Standing] {
        try keys(meantBy: key, limit: name)
            .compactMap { limit, key in
                existingAccount(hash(of: key, of: limit), of: limit).map { standing(of: $0, withHistory: true) }
            }
    }

    package func standing(of account: Account, withHistory: Bool = false) -> Standing {
        let limit = account.limit
        // Tables may be others since it was asked for last.
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

    /// The longest list that `fullest` tells.
    package static var mostFullest: Int { FullestAccounts.most }

    /// Where the `most` fullest accounts stand, of all limits or of one, the fullest first.
    package func fullest(
        _ most: Int, limit name: String?, withHistory: Bool = false
    ) throws(AdministrationFault) -> [Standing] {
        var measured = try limits(named: name).flatMap { $0.fullest.measured(at: now) }
        measured.sort { ($0.fullness, $1.account.id) > ($1.fullness, $0.account.id) }
        return measured.prefix(most).map { standing(of: $0.account, withHistory: withHistory) }
    }

    /// The wall clock's time of a ledger time, in milliseconds since 1970: for people to read.
    package func wallTime(of time: LedgerTime) -> Int64 {
        wallTimeNow + (time - now)
    }

    /// When the last checkpoint began, in milliseconds since 1970, and how long the last took that came to its end.
    package var lastCheckpoint: (began: Int64, took: Int64?) {
        (wallTime(of: upkeep.checkpointBegan), upkeep.checkpointTook)
    }

    /// A walk over all accounts, a piece at a time, while requests are decided in between.
    package struct Walk {
        fileprivate var limit = 0
        fileprivate var cursor = AccountTable.Cursor()

        package init() {}
    }

    /// Visits the accounts of the next `slots` slots; false when all have been.
    package func walk(_ walk: inout Walk, slots: Int, _ body: (Account) -> Void) -> Bool {
        guard walk.limit < limits.count else { return false }
        if !limits[walk.limit].accounts.visit(from: &walk.cursor, slots: slots, body) {
            walk.limit += 1
            walk.cursor = AccountTable.Cursor()
        }
        return walk.limit < limits.count
    }

    /// The limits in which `text` means a key, each with the key and whether it is known; none is no fault.
    package func meanings(of text: [UInt8]) -> [(limit: String, key: [UInt8], isKnown: Bool)] {
        limits.compactMap { limit in
            guard let key = key(meantBy: text, of: limit) else { return nil }
            return (limit.limit.name, key, existingAccount(hash(of: key, of: limit), of: limit) != nil)
        }
    }

    /// Carries out an intervention at every limit that knows the key, or that is named; the result is kept by the next
    /// `commit`.
    ///
    /// - Returns: where the key stands now; empty where no limit was meant.
    package func intervene(
        _ intervention: Intervention, onKey text: [UInt8], limit name: String?
    ) throws(AdministrationFault) -> [Standing] {
        var meant = try keys(meantBy: text, limit: name)
        if name == nil { meant.removeAll { limit, key in existingAccount(hash(of: key, of: limit), of: limit) == nil } }
        if case .raise(let rates, _) = intervention, !meant.isEmpty {
            for rate in rates where !meant.contains(where: { $0.limit.limit.has(rate.window) }) {
                let known = meant.map {
                    "\($0.limit.limit.name) (\($0.limit.limit.rates.map(\.description).joined(separator: ", ")))"
                }
                throw .unknownWindow(rate, limits: known)
            }
            meant.removeAll { meant in !rates.contains { meant.limit.limit.has($0.window) } }
        }
        return meant.map { limit, key in
            let hash = hash(of: key, of: limit)
            let account = existingAccount(hash, of: limit) ?? openAccount(hash, key: key, of: limit)
            apply(intervention, to: account)
            return standing(of: account)
        }
    }

    /// Why mail passes a limit that blocks a key; nil where it does not.
    package func remark(onBlockBy name: String) -> String? {
        guard let limit = limits.first(where: { $0.limit.name == name })?.limit else { return nil }
        if limit.mode == .shadow { return "mail passes all the same: \(name) is in shadow mode" }
        return limit.over.letsPass ? "mail passes all the same: over of \(name) refuses nothing" : nil
    }

    private func apply(_ intervention: Intervention, to account: Account) {
        switch intervention {
        case .reset:
            openBatch()
            journal.write(.reset)
            journal.write(account.id)
            account.reset(at: now)
            setBlock(of: account, until: nil, byHand: true)
        case .raise(let rates, let until):
            account.setRaised(rates, until: until)
            openBatch()
            journal.write(.raised)
            journal.write(account.id)
            journal.write(signed: until.milliseconds)
            journal.write(rates)
        case .block(let until):
            setBlock(of: account, until: until, byHand: true)
        case .unblock:
            setBlock(of: account, until: nil, byHand: true)
        }
        noteChange(of: account)
        noteFullness(of: account)
    }

    func setBlock(of account: Account, until: LedgerTime?, byHand: Bool) {
        guard until != nil || account.exception?.blockedUntil != nil else { return }
        account.setBlock(until: until, byHand: byHand)
        openBatch()
        journal.write(.blocked)
        journal.write(account.id)
        journal.write(signed: until?.milliseconds ?? 0)
        journal.write(byHand ? 1 : 0)
    }
}

extension Ledger {
    /// Takes the limits of a new configuration. A limit that counts the same by the same name keeps its counts, window
    /// by window; what is gone is forgotten.
    package func reload(_ limits: [Limit], settings: Settings) throws(StoreError) {
        precondition(!isAsked, "a request is judged by the limits under which it was prepared")
        try register(
            limits,
            known: self.limits.map { .init(id: $0.storedID, name: $0.limit.name, signature: $0.limit.signature) })
        self.settings = settings
        generation += 1
    }

    /// Makes `limits` the ones in use, known to the store, with the accounts of those that were in use before.
    ///
    /// - Throws: where the store does not take what is new; nothing has been changed then.
    func register(_ newLimits: [Limit], known: [StoredLimit]) throws(StoreError) {
        let before = limits
        lastLimitID = max(lastLimitID, known.map(\.id).max() ?? 0)
        var stored: [StoredLimit] = []
        for limit in newLimits {
            let same = known.first { $0.name == limit.name && $0.signature == limit.signature }
            if same == nil { lastLimitID += 1 }
            stored.append(same ?? StoredLimit(id: lastLimitID, name: limit.name, signature: limit.signature))
        }
        try store.register(stored.filter { !known.contains($0) })
        let states = zip(newLimits, stored).map { limit, stored in
            continuing(limit, stored, from: before.first { $0.storedID == stored.id })
        }
        for state in before where !states.contains(where: { $0 === state }) {
            // Its accounts leave memory and, with the next checkpoint, the store.
            state.accounts.forEach(noteRemoval)
            state.accounts = AccountTable()
            state.fullest = FullestAccounts()
        }
        limits = states
        limitsConnections = newLimits.contains { $0.count.isOfConnection }
        context = newLimits.lazy.compactMap(\.contextAttribute).first
        accountCount = states.reduce(0) { $0 + $1.accounts.count }
        upkeep.sweepLimit = 0
        upkeep.sweepCursor = AccountTable.Cursor()
    }

    private func continuing(_ limit: Limit, _ stored: StoredLimit, from before: LimitState?) -> LimitState {
        guard let before else {
            let state = LimitState(limit: limit, storedID: stored.id)
            state.terms.setTime(now)
            return state
        }
        before.replaceTerms(with: limit, at: now, changed: noteChange)
        return before
    }
}
