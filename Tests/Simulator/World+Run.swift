// SPDX-License-Identifier: Apache-2.0
import Limits
import Policy
import Report
import SimulatedMachine

extension World {
    /// The world whose process has just died.
    nonisolated(unsafe) static weak var current: World?
    /// Whether a process is at the moment of its death.
    nonisolated(unsafe) static var isDying = false

    /// Runs the scenario to its end, then restarts and compares once more.
    func run() throws(Failure) {
        Self.current = self
        sim_at_death { World.current?.die() }
        defer { finish() }
        history = [model]
        try boot()
        for operation in scenario.operations {
            try carryOut(operation)
            if isDead { try recover() }
        }
        try endTurn()
        if isDead { try recover() }
        sim_repair()
        try carryOut(.advance(1000))
        try carryOut(.look)
        try carryOut(.restart)
        try carryOut(.look)
    }

    /// Called at the moment of death: what has been answered by now was answered. That may be while the service is
    /// released, so `service` is nil before it is.
    private func die() {
        receive()
        Self.isDying = true
        service?.runTasks()
        Self.isDying = false
    }

    private func finish() {
        sim_repair()
        closePolicyConnections()
        service?.abandon()
        _ = service.take()
    }

    private func carryOut(_ operation: Operation) throws(Failure) {
        if case .ask = operation {} else { try endTurn() }
        if isDead { return }
        try noteForgotten()
        switch operation {
        case .ask(let session, let ask, let endsTurn): try self.ask(session, ask, endsTurn: endsTurn)
        case .abandon(let session):
            sessions[session].isInMessage = false
            sessions[session].last = nil
        case .hangUp(let session): hangUp(session)
        case .advance(let milliseconds): advance(milliseconds)
        case .stepClock(let milliseconds):
            tell("the wall clock is set by \(milliseconds) ms")
            clocks.step(by: milliseconds)
            steps.append((milliseconds, .max))
        case .intervene(let intervention, let limit, let key): try intervene(intervention, limit, key)
        case .reload(let number):
            tell("reload: configuration \(number)")
            // Times have milliseconds: what was charged before the reload was charged earlier.
            advance(1)
            if isDead { return }
            try reload(to: number)
            note()
            advance(1)
        case .checkpoint:
            if service?.host.fault == nil {
                tell("checkpoint")
                service?.wantCheckpoint()
                service?.step()
            }
        case .runJob: sim_run_job()
        case .restart: try restart()
        case .kill(let calls): arm(calls, power: nil)
        case .losePower(let calls, let seed): arm(calls, power: seed)
        case .fail(let calls, let count, let error, let kinds):
            tell("\(count) calls will fail after \(calls): errno \(error), kinds \(kinds)")
            sim_fail_in(calls, count, error, kinds)
        case .repair:
            tell("repaired")
            sim_repair()
        case .flip(let seed, let part):
            if sim_flip_bit(seed, part) { tell("a bit flips in a file of \(part)") }
            isUncertain = true
            if part == "ledger.sqlite" { mayBeFlipped = true }
        case .look: try look()
        }
    }

    private func arm(_ calls: UInt64, power: UInt64?) {
        tell("\(power == nil ? "the kill" : "the loss of power") will come at call \(calls)")
        powerLoss = power
        sim_kill_in(calls)
    }

    // MARK: Requests

    private func ask(_ index: Int, _ ask: Ask, endsTurn: Bool) throws(Failure) {
        if sessions[index].isWaiting { try endTurn() }
        if isDead { return }
        renewIfOld(index)
        let began = sessions[index].isInMessage
        guard let request = sessions[index].request(ask) else { return }
        if !began, sessions[index].isInMessage { sessions[index].messageBegan = sim_now() }
        if sessions[index].descriptor < 0 {
            try endTurn()
            if isDead { return }
            openPolicyConnection(index)
            note()
            if isDead { return }
        }
        sessions[index].last = request
        sessions[index].lastAsked = sim_now()
        sessions[index].isWaiting = true
        PolicySocket.send(request.text, to: sessions[index].descriptor)
        asking.append((index, request, nil))
        if endsTurn { try endTurn() }
    }

    /// Lets the service answer the requests of this turn, and compares its answers with the model's.
    func endTurn() throws(Failure) {
        guard !asking.isEmpty, !isDead, let service else { return }
        let wasFaulty = service.host.fault != nil
        synchronize()
        service.step()
        if !isDead { receive() }
        defer { asking = [] }
        for (index, request, reply) in asking {
            let policyConnection = sessions[index].policyConnection
            if let reply {
                sessions[index].note(reply)
                if reply.contains("Service temporarily unavailable"), wasFaulty, scenario.defersOnFailure {
                    tell("\(request.summary) -> \(reply)")
                    continue
                }
            }
            let action =
                if let reply, scenario.mostKeys != nil, !isDead {
                    try decideForgetting(request, over: policyConnection, reply)
                } else {
                    decide(request, over: policyConnection)
                }
            tell("\(request.summary) -> \(reply ?? "no answer")")
            if let reply, reply != action {
                throw Failure(kind: .answer, message: "\(request.summary): answered \(reply), expected \(action)")
            }
            if reply == nil, !isDead { throw Failure(kind: .answer, message: "\(request.summary): no answer") }
        }
        note(wasAnswered: asking.contains { $0.reply != nil })
        // Sockets that were ready in this turn come first in the next, unless the kernel has seen them idle.
        if !isDead { service.step() }
    }

    /// What the model answers.
    private func decide(_ request: Request, over policyConnection: Int) -> String {
        var action: String?
        change { action = $0.decide(request, over: policyConnection) }
        return action ?? "DUNNO"
    }

    /// Adds the model's state to the history. What is durable ends the history before it.
    func note(wasAnswered: Bool = false) {
        clean()
        change { $0.noted = sim_now() }
        history.append(model)
        leftByKill += 1
        guard let service else { return }
        if isDead {
            // The answers went out after the commit, unless the disk was at fault.
            if wasAnswered, scenario.kind != .errors, scenario.durability != "relaxed", powerLoss == nil || keepsPower {
                leftByKill = 1
                if !powerLossIsPossible { history.removeFirst(history.count - 1) }
            }
            if scenario.kind == .errors { isUncertain = true }
            return
        }
        if service.host.fault != nil {
            isUncertain = true
        } else if powerLossIsPossible {
            if scenario.durability != "relaxed" { leftByKill = 1 }
            forget(olderThan: Self.writeback)
        } else if scenario.durability == "relaxed" {
            if isUncertain, scenario.kind == .errors { isUncertain = false }
            forget(olderThan: 100)
        } else {
            if scenario.kind == .errors { isUncertain = false }
            history.removeFirst(history.count - 1)
        }
    }

    var keepsPower: Bool { scenario.durability == "power" && scenario.kind == .power }

    /// Whether a loss of power may take back what a kill does not.
    var powerLossIsPossible: Bool {
        scenario.kind == .damage || scenario.kind == .power && !keepsPower
    }

    /// Drops the states before the newest one of that age.
    private func forget(olderThan age: Int64) {
        while history.count > 1, history[1].noted + age <= sim_now() { history.removeFirst() }
    }

    private func hangUp(_ index: Int) {
        guard sessions[index].descriptor >= 0, let service else { return }
        tell("the smtpd of session \(index) ends")
        PolicySocket.close(sessions[index].descriptor)
        sessions[index].descriptor = -1
        synchronize()
        service.step()
        change { $0.close(sessions[index].policyConnection) }
        note()
        if !isDead { renewSession(index) }
    }

    // MARK: Time and administrators

    /// The model's time is the ledger's.
    func synchronize() {
        change { $0.now = SimulatedClocks.wallAtStart + sim_now() + drift }
    }

    private func advance(_ milliseconds: Int64) {
        tell("\(milliseconds) ms pass")
        for part in [min(milliseconds, 60), milliseconds - min(milliseconds, 60)] where part > 0 {
            sim_advance(part)
            service?.step()
            if isDead { break }
            while sim_waiting_jobs() > 0, part > 1000, !isDead { sim_run_job() }
        }
        synchronize()
        note()
    }

    private func intervene(_ intervention: Intervention, _ limit: Int, _ key: Int) throws(Failure) {
        guard let plan = model.limits.dropFirst(limit).first, let service else { return }
        let name = Population.key(plan.key, generation * Population.perGeneration + key)
        synchronize()
        let account = Model.Account(limit: plan.name, key: name)
        let keyChange = intervention.change(of: name, by: plan)
        let host = service.host
        var outcome = "saved"
        let wasAnswered = Box<Bool>()
        do {
            try service.perform {
                _ = try await host.apply(keyChange)
                wasAnswered.value = !sim_is_dead() || World.isDying
            }
            change { $0.intervene(intervention, account) }
        } catch let error as ChangeNotSaved {
            outcome = "not saved: \(error.reason)"
            change { $0.intervene(intervention, account) }
        } catch {
            outcome = "refused: \(error)"
        }
        tell("administrator: \(intervention) of \(name) at \(plan.name): \(outcome)")
        touched.insert(account)
        try noteForgotten(sparing: [account])
        note()
        // Its answer waits until it is written, whatever the durability.
        if outcome == "saved", wasAnswered.value ?? false, !isUncertain, !powerLossIsPossible {
            history.removeFirst(history.count - 1)
        }
        if !isDead { advance(1) }
    }
}

extension Intervention {
    fileprivate func change(of key: String, by plan: LimitPlan) -> KeyChange {
        func change(_ action: KeyAction, _ rates: [Rate], _ seconds: Int64?) -> KeyChange {
            KeyChange(
                action, key: key, limit: plan.name, rates: rates, duration: seconds, reason: "", user: "root",
                details: "")
        }
        switch self {
        case .block(let seconds): return change(.block, [], seconds)
        case .unblock: return change(.unblock, [], nil)
        case .reset: return change(.reset, [], nil)
        case .raise(let rate, let seconds):
            let rate = Rate(count: UInt64(rate.count), window: Window(milliseconds: rate.window))
            return change(.raise, [rate], seconds)
        }
    }
}
