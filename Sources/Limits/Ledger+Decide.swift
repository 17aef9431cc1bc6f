// SPDX-License-Identifier: Apache-2.0

extension ProtocolState {
    /// Whether a request in this state says what Postfix accepted, and so settles what RCPT was charged.
    var settles: Bool { self == .data || self == .endOfMessage }
}

/// Identifies a request within its mail transaction.
struct RequestIdentity {
    let state: ProtocolState
    /// 0 if the request belongs to no transaction (VRFY, HELO and the like).
    let transactionID: UInt64
    /// Distinguishes the request from the others of the transaction. Postfix repeats a request after an error.
    var requestHash: UInt64 = 0
    /// Distinguishes the recipient from the others, in whatever `policy_context`; 0 if no limit looks at that.
    var recipientHash: UInt64 = 0
    /// The transaction, if the ledger has it already.
    var transaction: Transaction?
}

extension Ledger {
    /// Decides a request and charges it, in memory. The answer may go out after the next `commit`.
    ///
    /// - Precondition: requests are decided in the order in which they were prepared.
    package func decide(_ request: Attributes) -> Decision {
        owner.check()
        let (waiting, applicable) = prepared.removeFirst()
        let identity = identify(request, waiting)
        if let transaction = identity.transaction {
            transaction.lastSeen = now
            if identity.state == .endOfMessage { transaction.isEnded = true }
            if transaction.hasAnswered(identity.requestHash) {
                return Decision(
                    action: transaction.refusal(of: identity.requestHash), transaction: identity.transactionID)
            }
        }
        let connection = limitsConnections ? self.connection(of: request, identity.state) : nil
        if let refusal = connection?.refusal {
            return Decision(action: refusal, transaction: identity.transactionID)
        }
        plan.removeAll()
        requestNumber &+= 1
        var violations = Violations()
        for index in applicable { judge(prepared.limits[index], request, identity, connection, &violations) }
        let action = (violations.refusing ?? violations.passing).map { refuse($0, request) }
        planSettlement(request, identity, isRefused: violations.refusing != nil)
        // A first DATA settles its transaction, whether or not it changes an amount.
        let settles = identity.state.settles && !(identity.transaction?.isSettled ?? true)
        if !plan.isEmpty || action != nil || settles {
            record(identity, request, action: action)
            if let connection { record(connection, request, violation: violations.refusing, action: action) }
        }
        return Decision(action: action, transaction: identity.transactionID)
    }

    /// Drops the oldest prepared request, which nobody waits for any more. It is not charged.
    package func skip() {
        owner.check()
        _ = prepared.removeFirst()
    }

    func identify(_ request: Attributes, _ prepared: PreparedRequests.Request) -> RequestIdentity {
        var identity = RequestIdentity(state: prepared.state, transactionID: prepared.transactionID)
        guard identity.transactionID != 0 else { return identity }
        // The numbers are those that `CountUnit.Charge.total` reads.
        var hash = SipHash(key: hashKey)
        hash.combine(UInt64(identity.state.rawValue) << 56 | request.recipientCount << 40 ^ request.size)
        hash.combine(request.recipient)
        let recipientHash = hash.finalize() | 1
        identity.requestHash = recipientHash
        identity.transaction = transactions[identity.transactionID]
        if let contextAttribute {
            // Each hook is a request of its own, to which other limits may apply. The limits that apply at several
            // hooks have charged the recipient at the first.
            var hash = SipHash(key: hashKey)
            hash.combine(recipientHash)
            hash.combine(request[contextAttribute])
            identity.requestHash = hash.finalize() | 1
            if identity.state == .rcpt { identity.recipientHash = recipientHash }
        }
        return identity
    }

    /// Stands for the charge of a recipient to an account. A transaction remembers it like a request, so that the
    /// recipient is charged once for all values of `policy_context`.
    static func chargeHash(of recipientHash: UInt64, to key: KeyHash) -> UInt64 {
        recipientHash ^ key.low | 1
    }

    // MARK: Judging

    /// Adds what one limit makes of the request to the plan, or to the violations.
    private func judge(
        _ applicable: PreparedRequests.ApplicableLimit, _ request: Attributes, _ identity: RequestIdentity,
        _ connection: ClientConnection?, _ violations: inout Violations
    ) {
        let limit = applicable.limit.takeUnretainedValue()
        if hasCharged(applicable, identity) { return }
        guard let step = step(of: limit, applicable.key, request, identity, connection) else { return }
        step.account.lastRequest = requestNumber
        guard let violation = violation(of: step) else { return plan.steps.append(step) }
        if violation.isShadowed {
            shadow(violation, of: step, request, identity)
        } else if violation.letsPass {
            violations.passing = violations.passing ?? violation
            plan.steps.append(step)
        } else {
            violations.refusing = violations.refusing ?? violation
        }
    }

    /// Whether the recipient was charged to a limit at another hook.
    func hasCharged(_ applicable: PreparedRequests.ApplicableLimit, _ identity: RequestIdentity) -> Bool {
        guard identity.recipientHash != 0, let transaction = identity.transaction else { return false }
        return transaction.hasAnswered(Self.chargeHash(of: identity.recipientHash, to: applicable.key))
    }

    /// What a limit charges or gives back for a request; nil if there is nothing to charge or to refuse.
    func step(
        of limit: LimitState, _ key: KeyHash, _ request: Attributes, _ identity: RequestIdentity,
        _ connection: ClientConnection?
    ) -> Plan.Step? {
        let unit = limit.terms.limit.count
        if unit.isOfConnection, connection?.isCounted ?? false { plan.hasSilentLimit = true }
        let charge = unit.charge(in: identity.state)
        let counts = charge != .nothing && (!unit.isOfConnection || connection?.isNew(to: limit) ?? false)
        guard let account = existingAccount(key, of: limit) ?? (counts ? openAccount(key, request, of: limit) : nil)
        else { return nil }
        if account.exception?.isExempt ?? false, account.blockedUntil(at: now) == nil { return nil }
        var step = Plan.Step(account: account)
        if counts {
            let charged = identity.transaction?.charged(to: account) ?? 0
            let total = charge.total(after: request, charged: charged)
            if total > charged { step.charge = total - charged } else { step.giveBack = charged - total }
            step.whole = charge.indivisible(ofTotal: total)
        }
        return step
    }

    /// Why a step can't be carried out; of several windows, the one that has room last.
    private func violation(of step: Plan.Step) -> Violation? {
        let account = step.account
        if let until = account.blockedUntil(at: now) {
            return Violation(account: account, reason: .blocked, lane: 0, amount: step.charge, until: until)
        }
        guard step.charge > 0 else { return nil }
        var worst: Violation?
        for lane in 0..<account.limit.terms.refusedLane {
            let admitted = account.admitted(lane: lane, at: now)
            if account.used(lane: lane) &+ step.charge <= admitted {
                guard let reason = lacksRoom(step, lane: lane) else { continue }
                // It may be free sooner or later: nobody knows what other hosts will use.
                let until = now + account.limit.terms.lanes[lane].milliseconds / Window.slots
                if reason == .tooLarge {
                    return Violation(account: account, reason: reason, lane: lane, amount: step.charge, until: now)
                }
                if worst.map({ until > $0.until }) ?? true {
                    worst = Violation(account: account, reason: .over, lane: lane, amount: step.charge, until: until)
                }
                continue
            }
            guard step.whole <= admitted, let fitting = account.fitting(step.charge, lane: lane, at: now) else {
                return Violation(account: account, reason: .tooLarge, lane: lane, amount: step.charge, until: now)
            }
            if worst.map({ fitting > $0.until }) ?? true {
                worst = Violation(account: account, reason: .over, lane: lane, amount: step.charge, until: fitting)
            }
        }
        return worst.map { lacksEngine($0) ? $0.because(.noEngine) : $0 }
    }

    /// Counts and reports what a limit in shadow mode would have refused.
    private func shadow(
        _ violation: Violation, of step: Plan.Step, _ request: Attributes, _ identity: RequestIdentity
    ) {
        if step.giveBack > 0 { plan.steps.append(step) }
        // Reported for a recipient already: not once more for the whole message.
        if identity.state.settles, identity.transaction?.wasShadowed(step.account) ?? false {
            plan.hasSilentLimit = true
            return
        }
        _ = refuse(violation, request)
        plan.shadowed.append(step.account)
    }

    /// Whether the request that is being decided uses an account.
    func isInUse(_ account: Account) -> Bool {
        account.lastRequest == requestNumber
    }

    // MARK: Settling

    /// Plans what DATA or END-OF-MESSAGE gives back. A message that is refused whole is charged nothing, so a refusal
    /// gives back all that its recipients were charged.
    private func planSettlement(_ request: Attributes, _ identity: RequestIdentity, isRefused: Bool) {
        if isRefused { plan.steps.removeAll(keepingCapacity: true) }
        guard identity.state.settles, let transaction = identity.transaction else { return }
        for charge in transaction.charges {
            let account = charge.account
            if isRefused {
                plan.steps.append(Plan.Step(account: account, giveBack: transaction.charged(to: account)))
            } else if !isInUse(account) {
                let charged = transaction.charged(to: account)
                let target = settlementTarget(of: account, charged: charged, request, identity.state)
                if target < charged { plan.steps.append(Plan.Step(account: account, giveBack: charged - target)) }
            }
        }
    }

    /// What an account stays charged that RCPT was charged to, but whose key this request does not have.
    private func settlementTarget(
        of account: Account, charged: UInt64, _ request: Attributes, _ state: ProtocolState
    ) -> UInt64 {
        let limit = account.limit
        // One recipient is left, and the account is not its: the recipients charged to it were rejected.
        if limit.terms.isPerRecipient, !request.recipient.isEmpty, !isOfAnotherContext(account, request) { return 0 }
        // Several recipients are left, and the request does not say which.
        if limit.limit.key.isPerRecipient { return charged }
        return min(charged, limit.limit.count.charge(in: state).total(after: request, charged: charged))
    }

    /// Whether an account has the key of a request to which its limit may not apply only because of `policy_context`.
    private func isOfAnotherContext(_ account: Account, _ request: Attributes) -> Bool {
        let limit = account.limit
        return limit.terms.looksAtContext && limit.limit.key.build(request, into: &keyBuffer)
            && hash(of: keyBuffer, of: limit) == account.hash
    }
}
