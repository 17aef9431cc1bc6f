// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Loop
internal import NIOCore
package import Report
internal import Settings
internal import Sharing
internal import Storage

/// Requests and ticks: a tick decides and commits all requests that one turn of the loop has read.
extension LedgerHost.Client {
    package var isGone: Bool { false }
    package func willBeDecided(in transaction: UInt64) {}
    package func suspended() {}
}

extension LedgerHost {
    /// Queues a client's request. It is decided at the end of this turn of the loop.
    package func submit(_ client: any Client) {
        loop.assertInLoop()
        beginTick()
        if let judging { client.withRequest(judging.prepare) }
        asking.append(client)
    }

    /// The ledger that decides requests; nil while it is not saved and `on_failure` is `defer`. Constant within a tick.
    private var judging: Ledger? { trouble == nil || configuration.onFailure == .dunno ? ledger : nil }

    private func decideAll() {
        if !resuming.isEmpty { decideResumed() }
        while !asking.isEmpty {
            swap(&asking, &deciding)
            requests &+= UInt64(deciding.count)
            var passed: UInt64 = 0
            if let judging, sharing != nil {
                judging.fetch()
                passed = decideShared(in: judging)
            } else if let judging {
                judging.fetch()
                for client in deciding {
                    announce(client, in: judging)
                    if decide(client, in: judging) { passed &+= 1 }
                }
            } else {
                for client in deciding { client.decided(troubled) }
                if let action = troubled.action {
                    activity.count(action, requests: deciding.count)
                } else {
                    passed = UInt64(deciding.count)
                }
            }
            activity.recordTick(passed: passed, at: uptime)
            if awaiting.isEmpty {
                swap(&awaiting, &deciding)
            } else {
                awaiting += deciding
                deciding.removeAll(keepingCapacity: true)
            }
        }
    }

    /// Decides the clients of this pass, and removes those that must wait for the engine.
    ///
    /// - Returns: the number of answers that are DUNNO.
    private func decideShared(in ledger: Ledger) -> UInt64 {
        var passed: UInt64 = 0
        var decided = 0
        for index in deciding.indices {
            let client = deciding[index]
            var number: Int?
            announce(client, in: ledger)
            if !client.isGone { client.withRequest { number = ledger.putAside($0) } }
            if let number {
                sharing?.suspend(client, number)
            } else {
                if decide(client, in: ledger) { passed &+= 1 }
                deciding[decided] = client
                decided += 1
            }
        }
        deciding.removeSubrange(decided...)
        return passed
    }

    /// Decides the clients whose requests have waited for the engine, before all others: what was granted is for them.
    private func decideResumed() {
        let resumed = resuming
        resuming.removeAll(keepingCapacity: true)
        var passed: UInt64 = 0
        for (client, isAnswered) in resumed where !client.isGone {
            var decision = troubled
            if let judging {
                client.withRequest { request in
                    decision = judging.decideLast(request, isAnswered: isAnswered)
                    if observer.logsPasses, decision.action == nil { observer.passed(request) }
                }
            }
            if conclude(decision, client) { passed &+= 1 }
            awaiting.append(client)
        }
        activity.recordTick(passed: passed, at: uptime)
    }

    /// Tells the client whose request comes next that it is about to be decided.
    private func announce(_ client: any Client, in ledger: Ledger) {
        if configuration.givesBackDropped, !client.isGone { client.willBeDecided(in: ledger.nextTransaction) }
    }

    /// - Returns: whether the answer is DUNNO.
    private func decide(_ client: any Client, in ledger: Ledger) -> Bool {
        guard !client.isGone else {
            ledger.skip()
            return false
        }
        var decision: Decision?
        client.withRequest { request in
            decision = ledger.decide(request)
            if observer.logsPasses, decision?.action == nil { observer.passed(request) }
        }
        return decision.map { conclude($0, client) } ?? false
    }

    /// - Returns: whether the answer is DUNNO.
    private func conclude(_ decided: Decision, _ client: any Client) -> Bool {
        var decision = decided
        if probes.isActive { decision = exempt(decision, ifProbe: client) }
        client.decided(decision)
        if let action = decision.action { activity.count(action) }
        return decision.action == nil
    }

    /// Withdraws the charge of a doctor's probe, and never refuses it.
    private func exempt(_ decision: Decision, ifProbe client: any Client) -> Decision {
        var sighting = ProbeBoard.Sighting.none
        let limits = ledger?.limitsCharged(by: decision.transaction) ?? []
        client.withRequest { request in
            let stage = type(of: client).stage
            let place = stage == .policy ? "policy server" : "milter"
            sighting = probes.see(
                request.sender, at: stage,
                "\(place), \(String(decoding: request.protocolState, as: UTF8.self))",
                Self.outcome(of: decision, charging: limits), isRefused: Self.refuses(decision))
        }
        if case .none = sighting { return decision }
        withdraw(decision.transaction)
        return Decision(action: nil, transaction: 0)
    }

    /// Real mail with this answer would not be accepted.
    private static func refuses(_ decision: Decision) -> Bool {
        guard let action = decision.action else { return false }
        let word = AccessWord(action.prefix { $0 != UInt8(ascii: " ") })
        return word.map { !$0.letsPass } ?? [.defer, .reject].contains(PolicyAction(action))
    }

    private static func outcome(of decision: Decision, charging limits: [String]) -> String {
        let answer = decision.action.map { String(decoding: $0, as: UTF8.self) } ?? "DUNNO"
        if limits.isEmpty { return decision.action == nil ? "\(answer); no limit counts it" : answer }
        return "\(answer); charged to \(limits.joined(separator: ", ")), and given back"
    }

    /// Whole seconds since the machine's start.
    private var uptime: Int64 { Int64(tickBegan.uptimeNanoseconds / 1_000_000_000) }

    /// What the policy server has been doing, as of now.
    package func withActivity<T>(_ body: (inout PolicyActivity, _ second: Int64) -> T) -> T {
        loop.assertInLoop()
        return body(&activity, Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000_000))
    }

    /// The mail transaction has ended, as far as its client can tell.
    package func close(_ transaction: UInt64) {
        loop.assertInLoop()
        guard configuration.givesBackDropped, let ledger else { return }
        beginTick()
        ledger.close(transaction)
    }

    /// Withdraws what a mail transaction was charged.
    ///
    /// - Parameter keepsPerRecipient: limits per recipient stay charged.
    package func withdraw(_ transaction: UInt64, keepsPerRecipient: Bool = false) {
        loop.assertInLoop()
        guard let ledger else { return }
        beginTick()
        ledger.withdraw(transaction, keepsPerRecipient: keepsPerRecipient)
    }

    private var troubled: Decision {
        switch ledger == nil ? configuration.answerWithoutLedger : configuration.onFailure {
        case .dunno: Decision(action: nil, transaction: 0)
        case .defer: Decision(action: Self.deferral, transaction: 0)
        }
    }

    private static let deferral = Array("DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, try again later".utf8)

    /// Begins a tick, unless one is under way. It ends with this turn of the loop.
    func beginTick() {
        guard !isTickUnderWay else { return }
        isTickUnderWay = true
        tickBegan = .now()
        ledger?.beginTick()
    }

    /// Runs at the end of a turn of the loop, after all input is handled.
    func endTick() {
        loop.assertInLoop()
        decideAll()
        isTickUnderWay = false
        commit()
        answerChanges()
        for client in awaiting {
            client.committed()
            killPoint("answer-sent")
        }
        if !awaiting.isEmpty {
            activity.record(latency: (.now() - tickBegan).nanoseconds, requests: awaiting.count, at: uptime)
        }
        awaiting.removeAll(keepingCapacity: true)
        sharing?.endTurn()
        upkeep(slots: Self.slotsPerTick)
    }

    /// Before the journal: units of a pool that are stored without their charge make this host admit less. A charge
    /// without its units would be granted again.
    private func saveShared(of ledger: Ledger) throws(StoreError) {
        guard let shared = ledger.shared, let (unsaved, versions) = shared.takeUnsaved() else { return }
        do throws(StoreError) {
            try sharedStore?.save(unsaved, versions: versions) { shared.ledger.used(ofPool: $0) }
        } catch {
            shared.ledger.storeAll(unsaved)
            throw error
        }
    }

    func commit() {
        guard let ledger else { return }
        guard trouble == nil else { return ledger.discardBatch() }
        do throws(StoreError) {
            try saveShared(of: ledger)
            try ledger.commit()
        } catch {
            fail(error)
        }
    }
}
