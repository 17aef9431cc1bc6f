// SPDX-License-Identifier: Apache-2.0

/// Carrying out what was decided: charges, refusals, and what is given back later.
extension Ledger {
    // MARK: Refusals

    /// Counts a refused request, and reports it. What is refused only because the engine does not answer counts for
    /// nobody: an outage must not block those who send most.
    ///
    /// - Returns: the answer.
    func refuse(_ violation: Violation, _ request: Attributes) -> [UInt8] {
        let account = violation.account
        account.limit.refusals += 1
        if violation.reason != .noEngine { countRefusedTry(violation) }
        let blockEnd = violation.reason == .blocked || violation.reason == .noEngine ? nil : block(account)
        noteFullness(of: account)
        let event = LimitEvent(
            account: account, lane: violation.lane, until: blockEnd ?? violation.until, time: now,
            isShadowed: violation.isShadowed)
        let action = violation.answer.render(event.value(of:))
        observer?.refused(event, because: violation.reason, request, action: action)
        if blockEnd != nil {
            account.limit.blocks += 1
            observer?.blocked(event, request)
        }
        return action
    }

    private func countRefusedTry(_ violation: Violation) {
        let account = violation.account
        let isCharged =
            account.limit.limit.countRefused && violation.reason != .tooLarge && !violation.letsPass
        let amount = isCharged ? violation.amount : 0
        if amount > 0, account.limit.terms.isShared { shared?.chargeRefused(amount, to: account, at: now) }
        account.addRefused(charging: amount)
        journal.appendRefused(account, charged: amount, at: tick)
        noteChange(of: account)
    }

    /// Blocks a key that has had too many refused requests.
    ///
    /// - Returns: when the block ends; nil if the key is not blocked now.
    private func block(_ account: Account) -> LedgerTime? {
        guard let block = account.limit.limit.block else { return nil }
        let until = now + block.milliseconds
        if account.limit.limit.mode == .shadow {
            // Reported once and not set: otherwise the block would hold on the day the limit is enforced.
            return account.refusedTries == block.after ? until : nil
        }
        guard account.refusedTries >= block.after else { return nil }
        tellOthers(ofBlock: account, until: until)
        setBlock(of: account, until: until, byHand: false)
        return until
    }

    // MARK: Charges

    /// Carries out the plan's mail steps, and remembers the answer with the transaction.
    func record(_ identity: RequestIdentity, _ request: Attributes, action: [UInt8]?) {
        guard identity.transactionID != 0 || plan.steps.contains(where: { !$0.isOfConnection }) else { return }
        let transaction = identity.transaction ?? Transaction(id: identity.transactionID, lastSeen: now)
        if identity.transaction == nil, identity.transactionID != 0 { insert(transaction) }
        if identity.state.settles { transaction.isSettled = true }
        if identity.state == .endOfMessage { transaction.isEnded = true }
        for account in plan.shadowed { transaction.noteShadowed(account) }
        transaction.remember(identity.requestHash, refusedWith: action)
        if identity.recipientHash != 0 { rememberCharges(of: identity.recipientHash, in: transaction) }
        journal.beginTransaction(
            transaction, request: identity.requestHash, action: action, recipient: identity.recipientHash, at: tick)
        carryOut(for: transaction, request, ofConnection: false)
    }

    private func rememberCharges(of recipientHash: UInt64, in transaction: Transaction) {
        for step in plan.steps where !step.isOfConnection {
            transaction.remember(Self.chargeHash(of: recipientHash, to: step.account.hash))
        }
        for account in plan.shadowed {
            transaction.remember(Self.chargeHash(of: recipientHash, to: account.hash))
        }
    }

    /// Adds a transaction, and drops the oldest one if the table is full.
    func insert(_ transaction: Transaction) {
        if let evicted = transactions.insert(transaction) { drop(evicted) }
    }

    /// Carries out the steps of the plan that belong to a mail transaction or to a connection, and ends the journal
    /// entry that the caller began.
    func carryOut(for transaction: Transaction, _ request: Attributes, ofConnection: Bool) {
        for step in plan.steps where step.isOfConnection == ofConnection {
            if step.charge > 0 {
                charge(step, transaction, request)
            } else if step.giveBack > 0 {
                giveBack(step.giveBack, to: step.account, transaction)
            }
        }
        journal.endTransaction()
    }

    private func charge(_ step: Plan.Step, _ transaction: Transaction, _ request: Attributes) {
        let account = step.account
        let limit = account.limit
        var near: NearWindow?
        var fullest = 0.0
        for lane in 0..<limit.terms.refusedLane {
            if limit.terms.isShared { shared?.charge(step.charge, to: account, lane: lane, at: now) }
            let used = account.windows.charge(step.charge, lane: lane, slot: limit.terms.slots[lane])
            let admitted = account.admitted(lane: lane, at: now)
            let fullness = Double(used) / Double(max(1, admitted))
            limit.notePeak(
                of: account, lane: lane, used: used, admitted: admitted, fullness: fullness, wallTime: wallTimeNow)
            fullest = max(fullest, fullness)
            if near == nil { near = nearWindow(lane, of: account, used: used, admitted: admitted) }
        }
        warn(of: account, near, request)
        limit.fullest.note(account, fullness: fullest, at: now)
        transaction.charges.add(step.charge, to: account, at: now)
        journal.appendCharge(Int64(step.charge), to: account, age: 0)
        noteChange(of: account)
    }

    /// A window that is near its limit, or may be, with what other hosts have used.
    private struct NearWindow {
        let lane: Int
        let asksOthers: Bool
    }

    private func nearWindow(_ lane: Int, of account: Account, used: UInt64, admitted: UInt64) -> NearWindow? {
        if account.limit.terms.isShared, let shared {
            guard shared.warnings.isDue(account, lane: lane, used: used, admitted: admitted, at: now) else {
                return nil
            }
            // Hosts ask each other about texts. So this host warns of other keys by itself.
            if String(validating: account.key, as: UTF8.self) != nil {
                return NearWindow(lane: lane, asksOthers: true)
            }
        }
        let isNear = used &* 100 >= admitted &* account.limit.terms.limit.warnAt
        return isNear ? NearWindow(lane: lane, asksOthers: false) : nil
    }

    /// - Parameter window: nil if none is near its limit.
    private func warn(of account: Account, _ window: NearWindow?, _ request: Attributes) {
        guard let window else {
            account.hasWarned = false
            return
        }
        guard window.asksOthers || !account.hasWarned else { return }
        let event = LimitEvent(
            account: account, lane: window.lane, until: now, time: now,
            isShadowed: account.limit.terms.limit.mode == .shadow)
        if window.asksOthers {
            shared?.warnings.noteQuestion(account, at: now)
            observer?.mayBeNear(event, request)
        } else {
            account.hasWarned = true
            observer?.near(event, request)
        }
    }

    private func giveBack(_ amount: UInt64, to account: Account, _ transaction: Transaction) {
        transaction.charges.change(account) { charge in
            charge.giveBack(amount) { part, time in
                if !account.isRemoved { account.giveBack(part, chargedAt: time) }
                if account.limit.terms.isShared { shared?.giveBack(part, to: account, chargedAt: time) }
                journal.appendCharge(-Int64(part), to: account, age: now - time)
            }
        }
        noteChange(of: account)
    }

    // MARK: Transactions that end without a message

    /// The client has ended the transaction or disconnected. Gives back what it was charged, if it was not accepted and
    /// the settings say so.
    package func close(_ id: UInt64) {
        owner.check()
        guard settings.givesBackDropped, let transaction = transactions[id] else { return }
        drop(transaction)
    }

    /// Gives back all that a transaction was charged: the MTA accepts nothing of it, and the client will repeat it as
    /// another transaction.
    ///
    /// - Parameter keepsPerRecipient: limits per recipient stay charged.
    package func withdraw(_ id: UInt64, keepsPerRecipient: Bool = false) {
        owner.check()
        guard let transaction = transactions[id], transaction.isCharged else { return }
        giveBackAll(of: transaction, keepsPerRecipient: keepsPerRecipient)
    }

    /// The names of the limits that a transaction is charged to, in the order of the charges.
    package func limitsCharged(by id: UInt64) -> [String] {
        owner.check()
        guard let transaction = transactions[id] else { return [] }
        return transaction.charges.map(\.account).filter { transaction.charged(to: $0) > 0 }.map(\.limit.limit.name)
    }

    /// The transaction has left the table, or its client has ended it.
    func drop(_ transaction: Transaction) {
        guard settings.givesBackDropped, !transaction.isSettled, transaction.isCharged else { return }
        giveBackAll(of: transaction)
    }

    private func giveBackAll(of transaction: Transaction, keepsPerRecipient: Bool = false) {
        journal.beginTransaction(transaction, request: 0, action: nil, at: tick)
        for account in transaction.charges.map(\.account)
        where !(keepsPerRecipient && account.limit.terms.isPerRecipient) {
            giveBack(transaction.charged(to: account), to: account, transaction)
        }
        journal.endTransaction()
    }
}
