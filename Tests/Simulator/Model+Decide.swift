// SPDX-License-Identifier: Apache-2.0

/// Deciding requests: "What is charged when" and "Refusals" of docs/limits.md.
extension Model {
    /// What a request would change at one limit.
    private struct Step {
        var limit: LimitPlan
        var account: Account
        var charge = 0
        var giveBack = 0
        /// What has to fit into an empty window.
        var whole = 0
    }

    private enum Reason {
        case over, tooLarge, blocked
    }

    private struct Violation {
        var limit: LimitPlan
        var account: Account
        var reason: Reason
        var rate: PlannedRate
        var amount: Int
        var until: Int64

        var letsPass: Bool { reason == .over && limit.warnsOnly }
    }

    /// Decides and charges a request that arrives over a policy connection.
    ///
    /// - Returns: the action; nil for DUNNO.
    mutating func decide(_ request: Request, over policyConnection: Int) -> String? {
        events += 1
        if request.state.isOfMessage {
            let last = lastTransactions.updateValue(request.transaction, forKey: policyConnection)
            if let last, last != request.transaction { end(last) }
        }
        return decide(request)
    }

    /// A policy connection was closed.
    mutating func close(_ policyConnection: Int) {
        if let last = lastTransactions.removeValue(forKey: policyConnection) { end(last) }
    }

    /// A transaction has ended: gives its charge back if it ended before DATA.
    private mutating func end(_ id: String) {
        guard givesBackDropped, var transaction = transactions[id], !transaction.isSettled else { return }
        giveBackAll(of: &transaction)
        transactions[id] = transaction
    }

    /// Whether requests that differ in `policy_context` are different ones.
    var looksAtContext: Bool { limits.contains { $0.context != nil } }

    private var countsConnections: Bool { limits.contains { $0.count == .connections } }

    private mutating func decide(_ request: Request) -> String? {
        let identity = looksAtContext ? request : request.anywhere
        if request.state.isOfMessage, let answer = transactions[request.transaction]?.answers[identity] {
            return answer
        }
        let connection = "\(request.client) \(request.port)"
        if countsConnections, let refusal = connections[connection]?.refusal { return refusal }
        var transaction = transactions[request.transaction] ?? Transaction()
        forgetResets(in: &transaction)
        let (charges, concernsCounted) = (transaction.charges, concernsCounted(request))
        var (steps, shadowed, refusing, passing): ([Step], [Step], Violation?, Violation?) = ([], [], nil, nil)
        let judging = judging(request, &transaction)
        let judged = Set(judging.map(\.account))
        for step in judging {
            let limit = step.limit
            guard let violation = violation(of: step) else {
                steps.append(step)
                continue
            }
            if limit.isShadow, violation.reason != .blocked || !(accounts[step.account]?.isBlockedByHand ?? false) {
                if step.giveBack > 0 { steps.append(step) }
                if request.state.settles, transaction.shadowed.contains(step.account) { continue }
                _ = refuse(violation)
                shadowed.append(step)
                transaction.shadowed.insert(step.account)
            } else if violation.letsPass {
                passing = passing ?? violation
                steps.append(step)
            } else {
                refusing = refusing ?? violation
            }
        }
        let action = (refusing ?? passing).map { refuse($0) }
        if refusing != nil {
            steps = []
            if request.state.settles { giveBackAll(of: &transaction) }
        } else if request.state.settles {
            settleOthers(than: judged, request, &transaction)
        }
        noteJudged(request, steps, shadowed, in: &transaction)
        carryOut(steps, of: connection, in: &transaction)
        if let refusing, refusing.limit.count == .connections, refusing.reason == .over {
            connections[connection, default: Connection()].refusal = action
        }
        let wasJudged = concernsCounted || !judged.isEmpty || transaction.charges != charges
        remember(identity, answered: action, wasJudged: wasJudged, transaction)
        return action
    }

    /// A limit that has judged a recipient in one context does not judge it again in another.
    private func judging(_ request: Request, _ transaction: inout Transaction) -> [Step] {
        let steps = limits.compactMap { step(of: $0, request, transaction) }.filter { step in
            transaction.judged[Judged(request: request.anywhere, account: step.account)] == nil
        }
        for step in steps { transaction.judgedLast[step.account] = events }
        return steps
    }

    private func noteJudged(
        _ request: Request, _ steps: [Step], _ shadowed: [Step], in transaction: inout Transaction
    ) {
        guard looksAtContext, request.state == .rcpt else { return }
        for step in steps where step.limit.count != .connections {
            transaction.judged[Judged(request: request.anywhere, account: step.account)] = step.charge > 0
        }
        for step in shadowed { transaction.judged[Judged(request: request.anywhere, account: step.account)] = false }
    }

    /// A request that no limit judges is judged anew when it is repeated.
    private mutating func remember(
        _ request: Request, answered action: String?, wasJudged: Bool, _ changed: Transaction
    ) {
        let settles = request.state.settles && transactions[request.transaction].map { !$0.isSettled } ?? false
        guard request.state.isOfMessage, wasJudged || settles else { return }
        var transaction = changed
        if request.state.settles { transaction.isSettled = true }
        transaction.answers[request] = .some(action)
        transactions[request.transaction] = transaction
    }

    private mutating func carryOut(_ steps: [Step], of connection: String, in transaction: inout Transaction) {
        for step in steps {
            if step.giveBack > 0 { giveBack(step.giveBack, to: step.account, in: &transaction) }
            guard step.charge > 0 else { continue }
            let charge = charge(step.charge, to: step.account, step.limit)
            if step.limit.count == .connections {
                connections[connection, default: Connection()].limits.insert(step.limit.name)
                connections[connection]?.isCounted = true
            } else {
                if transaction.charges[step.account] == nil { transaction.order.append(step.account) }
                transaction.charges[step.account, default: []].append(charge)
            }
        }
    }

    /// A reset ends what was charged before it.
    func forgetResets(in transaction: inout Transaction) {
        for account in transaction.order {
            guard let resetAt = accounts[account]?.resetAt else { continue }
            transaction.charges[account]?.removeAll { $0.time <= resetAt }
        }
    }

    // MARK: Judging

    private func applies(_ limit: LimitPlan, to request: Request) -> Bool {
        !request.value(of: limit.key).isEmpty && limit.context.map { $0 == request.context } ?? true
    }

    /// Whether a limit applies that counts connections, and the connection was counted before.
    private func concernsCounted(_ request: Request) -> Bool {
        limits.contains { $0.count == .connections && applies($0, to: request) && isCounted(request, by: $0) }
    }

    private func step(of limit: LimitPlan, _ request: Request, _ transaction: Transaction) -> Step? {
        guard applies(limit, to: request) else { return nil }
        let key = request.value(of: limit.key)
        let account = Account(limit: limit.name, key: key)
        if limit.exempt.contains(key), block(account, by: limit) == nil { return nil }
        var step = Step(limit: limit, account: account)
        let charged = transaction.charged(to: account)
        if limit.count == .connections, isCounted(request, by: limit) { return step }
        guard let total = total(limit.count, after: request, charged: charged) else { return step }
        if limit.count == .connections {
            (step.charge, step.whole) = (1, 1)
        } else {
            step.charge = max(0, total - charged)
            step.giveBack = max(0, charged - total)
            step.whole = limit.count == .recipients && request.state == .rcpt ? 1 : total
        }
        return step
    }

    /// A limit that looks at `policy_context` may apply to a later request of the connection than others.
    private func isCounted(_ request: Request, by limit: LimitPlan) -> Bool {
        guard let connection = connections["\(request.client) \(request.port)"] else { return false }
        return limit.context == nil ? connection.isCounted : connection.limits.contains(limit.name)
    }

    /// The table "What is charged when"; nil if the request charges nothing.
    private func total(_ unit: Unit, after request: Request, charged: Int) -> Int? {
        switch (unit, request.state) {
        case (.connections, _): 1
        case (_, .helo): nil
        case (.recipients, .rcpt): charged + 1
        case (.recipients, _): request.recipientCount
        case (.messages, _): 1
        case (.bytes, .end): request.size
        case (.bytes, _): max(charged, request.size)
        }
    }

    /// A request must fit into every window. Of several that have no room, the one that has room last.
    private func violation(of step: Step) -> Violation? {
        func violation(_ reason: Reason, _ rate: PlannedRate, _ until: Int64) -> Violation {
            Violation(
                limit: step.limit, account: step.account, reason: reason, rate: rate, amount: step.charge, until: until)
        }
        if let until = block(step.account, by: step.limit) { return violation(.blocked, step.limit.rates[0], until) }
        guard step.charge > 0 else { return nil }
        var worst: Violation?
        for rate in step.limit.rates {
            let admitted = admitted(step.account, by: step.limit, in: rate)
            if used(step.account, in: rate.window) + step.charge <= admitted { continue }
            if step.whole > admitted || step.charge > admitted { return violation(.tooLarge, rate, now) }
            let until = room(for: step.charge, in: rate.window, under: admitted, of: step.account)
            if worst.map({ until > $0.until }) ?? true { worst = violation(.over, rate, until) }
        }
        return worst
    }

    /// Counts a refused request, and blocks the key after too many.
    private mutating func refuse(_ violation: Violation) -> String {
        let (limit, account, now) = (violation.limit, violation.account, now)
        change(account, limit) { $0.refused.append(now) }
        if limit.countsRefused, violation.reason != .tooLarge, !violation.letsPass, violation.amount > 0 {
            _ = charge(violation.amount, to: account, limit)
        }
        var until = violation.until
        if let block = limit.block, violation.reason != .blocked, refusedRequests(account) >= block.after {
            if !limit.isShadow {
                until = now + block.length
                change(account, limit) { ($0.blockedUntil, $0.isBlockedByHand) = (until, false) }
            }
        }
        let rate = violation.rate
        let text =
            "\(limit.name) \(admitted(account, by: limit, in: rate)) \(Self.text(ofWindow: rate.window)) "
            + "\(max(1, (until - now + 999) / 1000))"
        if violation.reason == .tooLarge { return "REJECT 5.7.1 \(text)" }
        if violation.reason == .blocked { return "REJECT 5.7.2 \(text)" }
        return "\(limit.warnsOnly ? "WARN" : "DEFER_IF_PERMIT 4.7.1") \(text)"
    }

    private static func text(ofWindow window: Int64) -> String {
        for (unit, length) in [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)] as [(_, Int64)]
        where window % length == 0 {
            return "\(window / length)\(unit)"
        }
        return "\(window / 1000)s"
    }

    // MARK: Settling

    /// Gives back what was charged at RCPT to accounts that the request itself does not name.
    private mutating func settleOthers(
        than judged: Set<Account>, _ request: Request, _ transaction: inout Transaction
    ) {
        for account in transaction.order where !judged.contains(account) {
            guard let limit = limits.first(where: { $0.name == account.limit }) else { continue }
            let charged = transaction.charged(to: account)
            var target = charged
            if limit.key == .recipient {
                // If one recipient is left, the others are given back. Otherwise nobody knows which are left.
                // A limit that looks at `policy_context` may be asked about the one that is left, too.
                let isLeft = limit.context != nil && account.key == request.recipient
                if !request.recipient.isEmpty, !isLeft { target = 0 }
            } else {
                target = min(charged, total(limit.count, after: request, charged: charged) ?? charged)
            }
            if target < charged { giveBack(charged - target, to: account, in: &transaction) }
        }
    }
}
