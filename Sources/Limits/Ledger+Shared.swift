// SPDX-License-Identifier: Apache-2.0
internal import Sharing

/// Requests of shared limits that need more than this host may use without asking.
extension Ledger {
    /// Sets aside the request that `decide` would take next, if only the engine can grant what it needs. It is not
    /// charged, and no limit has counted it. The caller decides it with `decideLast` when the engine has answered, or
    /// when the request has waited too long.
    ///
    /// - Returns: the number of the waiting request; nil if `decide` can take it now.
    package func putAside(_ request: Attributes) -> Int? {
        owner.check()
        guard let shared else { return nil }
        let (waiting, applicable) = prepared.first
        guard applicable.contains(where: { mayLackRoom(prepared.limits[$0], request, waiting.state, shared) })
        else { return nil }
        let identity = identify(request, waiting)
        if identity.transaction?.hasAnswered(identity.requestHash) ?? false { return nil }
        let connection = limitsConnections ? self.connection(of: request, identity.state) : nil
        if connection?.refusal != nil { return nil }
        var lanes: [(account: Account, lane: Int, units: UInt64)] = []
        var isLacking = false
        for index in applicable {
            let applicable = prepared.limits[index]
            let limit = applicable.limit.takeUnretainedValue()
            guard limit.terms.isShared, !hasCharged(applicable, identity),
                let step = step(of: limit, applicable.key, request, identity, connection), step.charge > 0,
                step.account.blockedUntil(at: now) == nil
            else { continue }
            for lane in 0..<limit.terms.refusedLane {
                let admitted = step.account.admitted(lane: lane, at: now)
                let total = step.account.used(lane: lane) &+ step.charge
                if total > admitted { return nil }
                isLacking = isLacking || !shared.holds(step.charge, in: step.account, lane: lane, at: now)
                lanes.append((step.account, lane, step.charge))
            }
        }
        // While it waits, others must not take what it has room for, or it would be refused below N.
        let demands = isLacking ? lanes.map { shared.demand($0.account, lane: $0.lane, units: $0.units, at: now) } : []
        guard isLacking, let number = shared.ask(demands, at: now) else { return nil }
        _ = prepared.removeFirst()
        return number
    }

    /// A quick look, without the transaction: whether the most that the request can charge may exceed the share.
    private func mayLackRoom(
        _ applicable: PreparedRequests.ApplicableLimit, _ request: Attributes, _ state: ProtocolState,
        _ shared: SharedCounts
    ) -> Bool {
        let limit = applicable.limit.takeUnretainedValue()
        guard limit.terms.isShared else { return false }
        let charge = limit.terms.limit.count.charge(in: state)
        guard charge != .nothing else { return false }
        guard let account = existingAccount(applicable.key, of: limit) else { return true }
        let most = charge.total(after: request, charged: 0)
        for lane in 0..<limit.terms.refusedLane where !shared.holds(most, in: account, lane: lane, at: now) {
            return true
        }
        return false
    }

    /// Decides a request that was put aside, before all prepared ones.
    ///
    /// - Parameter isAnswered: false if the engine has not answered in time.
    package func decideLast(_ request: Attributes, isAnswered: Bool) -> Decision {
        owner.check()
        lacksAnswer = !isAnswered
        defer { lacksAnswer = false }
        var others = PreparedRequests()
        swap(&others, &prepared)
        defer { swap(&others, &prepared) }
        prepare(request)
        return decide(request)
    }

    /// Whether a request was refused only because this host can't ask the engine, or has no answer. Other hosts may
    /// have used nothing.
    func lacksEngine(_ violation: Violation) -> Bool {
        let account = violation.account
        guard account.limit.terms.isShared, let shared, lacksAnswer || !shared.ledger.canAsk else { return false }
        return (0..<account.limit.terms.refusedLane).allSatisfy { lane in
            account.used(lane: lane) &+ violation.amount <= account.admitted(lane: lane, at: now)
        }
    }

    /// Whether a charge that fits under N lacks room on this host.
    func lacksRoom(_ step: Plan.Step, lane: Int) -> RefusalReason? {
        guard step.account.limit.terms.isShared, let shared,
            !shared.hasRoom(step.account, lane: lane, units: step.charge, at: now)
        else { return nil }
        let isTooLarge =
            step.whole == step.charge && shared.isTooLarge(step.account, lane: lane, units: step.charge, at: now)
        return isTooLarge ? .tooLarge : .over
    }
}
