// SPDX-License-Identifier: Apache-2.0
import Sharing

/// A host with its ledger, clock, and connection to the engine.
final class SimulatedHost {
    let name: String
    private unowned let simulation: Simulation
    private var clock: MachineClock
    private var ledger: SharedLedger
    /// The host's own windows: all that it has admitted.
    private var windows: [Lane: SlotCounts] = [:]
    /// What holds for keys: on a real host, the exceptions of its accounts.
    private var effects = HostEffects()
    private(set) var isUp = true
    /// It calls version 1 of the engine's library.
    let isOlder: Bool
    /// The changes that were carried out in this turn.
    private var carriedOut: [(change: SharedChange, isOwn: Bool)] = []
    private(set) var isGoneForGood = false
    private var server: SimulatedServer?
    /// Grows with each connection and crash: what belongs to an earlier one is dropped.
    private var generation = 0
    private var openCall = 0
    private var requestCount = 0
    private var asked: [Int: [SharedRequest.Demand]] = [:]
    /// The newest version that the host has taken; nil before the first.
    private var version: Int?
    /// By the host's clock, when it crashed: after a reboot, the clock goes on from there, or from the true time.
    private var stopped: Int64 = 0
    private var reboots = false
    /// How much later than elsewhere blocks and raises may end on this host, because no clock has counted its reboots.
    private(set) var timeLost: Int64 = 0

    init(_ name: String, in simulation: Simulation) {
        self.name = name
        self.simulation = simulation
        isOlder = simulation.plan.olderHosts.contains(name)
        clock = MachineClock(&simulation.random)
        ledger = SharedLedger(
            name: name, kept: KeptState(mark: simulation.random.next()), timing: simulation.plan.timing,
            rules: simulation.rules)
    }

    private var now: Int64 { clock.read(at: simulation.now) }

    // MARK: Turns

    /// One turn: what `body` changes is kept, and then its answers and the next call leave. A crash may come between.
    ///
    /// - Parameter body: returns the requests that have waited for the engine and are decided now.
    private func turn(deciding new: Int? = nil, _ body: (inout SharedLedger) -> [Int]) {
        guard isUp else { return }
        let before = (ledger.kept, windows, effects)
        carriedOut = []
        var decisions = body(&ledger).map { ($0, decide($0, isLast: true)) }
        if let new { decisions.append((new, decide(new, isLast: false))) }
        decisions += ledger.refuseOverdue(at: now).map { ($0, decide($0, isLast: true)) }
        let call = server == nil ? nil : ledger.nextCall(at: now)
        let crashes = !simulation.isCalm && simulation.random.happens(simulation.plan.crashInTurn)
        let keepsLate = !simulation.rules.contains(.keepFirst)
        if crashes && !keepsLate {
            let isKept = simulation.random.happens(0.5)
            simulation.trace("\(name) crashes \(isKept ? "between journal and answer" : "before the journal")")
            if isKept { simulation.note(carriedOut, by: self) }
            return crash(downFor: simulation.random.time(10...5000), reboots: false, to: isKept ? nil : before)
        }
        simulation.note(carriedOut, by: self)
        for (number, decision) in decisions { answer(number, decision) }
        if let call { send(call) }
        if crashes { crash(downFor: simulation.random.time(10...5000), reboots: false, to: before) }
    }

    /// A request's charges: the slot in each lane, the units of the pool, and how large that is.
    private struct Charge {
        var isRefusedAndCounts = false
        var slots: [Int64] = []
        var ofPool: [Int64] = []
        var pools: [Int64] = []
        var factors: [Int64] = []
        var resets: [SharedChange.Version?] = []
    }

    /// - Returns: the charge; nil if the request is refused or waits.
    private func decide(_ number: Int, isLast: Bool) -> (SharedDecision, Charge) {
        guard let asked = asked[number] else { return (.refused, Charge()) }
        var charge = Charge()
        let demands = asked.map { demand in
            windows[demand.lane, default: SlotCounts()].expire(at: demand.lane.slot(at: now))
            let factor = effects.factor(of: demand.lane.key, at: now)
            charge.factors.append(factor)
            charge.resets.append(effects.reset(of: demand.lane.key))
            return SharedRequest.Demand(
                lane: demand.lane, units: demand.units, most: demand.most.map { ($0, $1 * factor) },
                usual: demand.most,
                own: windows[demand.lane]?.entries ?? [])
        }
        let isOver = simulation.plan.countsRefused && zip(demands, charge.factors).contains { exceedsN($0, factor: $1) }
        if isOver || demands.contains(where: { effects.isBlocked($0.lane.key, at: now) }) {
            charge.isRefusedAndCounts = countRefused(demands)
            return (.refused, charge)
        }
        let decision = ledger.decide(SharedRequest(number: number, demands: demands), isLast: isLast, at: now)
        if case .refused = decision, ledger.canAsk { charge.isRefusedAndCounts = countRefused(demands) }
        guard case .admitted = decision else { return (decision, charge) }
        for demand in demands {
            charge.ofPool.append(ledger.charge(demand, at: now))
            charge.pools.append(ledger.pool(demand))
            windows[demand.lane]?.charge(demand.units, slot: demand.lane.slot(at: now))
            charge.slots.append(windows[demand.lane]?.entries.last?.number ?? 0)
        }
        return (decision, charge)
    }

    /// Whether the host's own windows tell that there is no room.
    private func exceedsN(_ demand: SharedRequest.Demand, factor: Int64) -> Bool {
        let most = version.flatMap { simulation.versions[$0].most[demand.lane] } ?? 0
        return (windows[demand.lane]?.total ?? 0) + demand.units > most * factor
    }

    /// - Returns: whether refused requests count, and this one is not just too large.
    private func countRefused(_ demands: [SharedRequest.Demand]) -> Bool {
        let isTooLarge = demands.contains { $0.units > ledger.share($0) + ledger.pool($0) }
        guard simulation.plan.countsRefused, !isTooLarge else { return false }
        for demand in demands {
            ledger.chargeRefused(demand.units, to: demand.lane, at: now)
            windows[demand.lane]?.charge(demand.units, slot: demand.lane.slot(at: now))
        }
        return true
    }

    /// Connects where there is no connection, and calls now and then.
    func beat() {
        let heartbeat = simulation.plan.timing.heartbeat
        simulation.after(simulation.plan.hasFaults ? heartbeat + simulation.random.time(0...20) : heartbeat) { [self] in
            if isUp, server == nil { connect() }
            turn { _ in [] }
            if !isGoneForGood { beat() }
        }
    }

    func take(version: Int) {
        guard isUp else {
            if !isGoneForGood { simulation.after(1000) { [self] in take(version: version) } }
            return
        }
        if let own = self.version, own > version { return }
        guard simulation.versions[version].terms.hosts.contains(name) else {
            // weir.yaml can't leave out its own host: one that is removed is stopped.
            if self.version != nil { dieForGood() }
            return
        }
        let isFirst = self.version == nil
        self.version = version
        ledger.configure(simulation.versions[version].terms)
        simulation.trace("\(name) takes version \(version)")
        simulation.hasTaken(self, version: version)
        if isFirst, version > 0 { beat() }
    }

    // MARK: Requests

    func request(keys: [UInt64], units: Int64) {
        guard isUp, version != nil else { return }
        let lanes = simulation.plan.lanes.filter { keys.contains($0.key) }
        let demands = lanes.map { lane in
            SharedRequest.Demand(
                lane: lane, units: units,
                most: simulation.versions.map { ($0.terms.limits, $0.most[lane] ?? 0) }, own: [])
        }
        requestCount += 1
        let number = requestCount
        asked[number] = demands
        turn(deciding: number) { _ in [] }
        simulation.after(simulation.plan.timing.timeout + 1) { [self] in
            if asked[number] != nil { turn { _ in [] } }
        }
    }

    private func answer(_ number: Int, _ decided: (decision: SharedDecision, charge: Charge)) {
        switch decided.decision {
        case .waits: return
        case .refused:
            simulation.refused += 1
            let demands = asked.removeValue(forKey: number) ?? []
            guard decided.charge.isRefusedAndCounts else { return }
            let units = demands.map { "\($0.units) of \($0.lane.key)/\($0.lane.window)" }.joined(separator: ", ")
            simulation.trace("\(name) refuses \(units), which counts")
            simulation.refuse(demands.map { ($0.lane, $0.units) }, by: self)
        case .admitted:
            simulation.admitted += 1
            guard let demands = asked.removeValue(forKey: number) else { return }
            let charge = decided.charge
            let units = demands.map { "\($0.units) of \($0.lane.key)/\($0.lane.window)" }.joined(separator: ", ")
            simulation.trace("\(name) admits \(units) (\(charge.ofPool.reduce(0, +)) from the pool)")
            for (index, demand) in demands.enumerated() {
                simulation.admit(
                    demand.lane, demand.units, number, by: self, reset: charge.resets[index],
                    factor: charge.factors[index])
                if charge.ofPool[index] > 0 { simulation.checkTries(demand.lane, pool: charge.pools[index]) }
            }
            guard simulation.random.happens(simulation.plan.givesBack) else { return }
            let delay = simulation.random.time(0...simulation.plan.longestWindow / 2)
            simulation.after(delay) { [self] in
                guard isUp, charge.resets == demands.map({ effects.reset(of: $0.lane.key) }) else { return }
                simulation.trace("\(name) gives back \(units)")
                for demand in demands { simulation.giveBack(demand.lane, number, of: self) }
                turn { ledger in
                    for (demand, slot) in zip(demands, charge.slots) {
                        windows[demand.lane]?.giveBack(demand.units, slot: slot)
                        ledger.giveBack(demand.units, to: demand.lane, slot: slot)
                    }
                    return []
                }
            }
        }
    }

    // MARK: Calls

    private func connect() {
        let reachable = simulation.servers.filter { !simulation.isCut(self, $0) }
        guard !reachable.isEmpty else { return }
        let server = simulation.random.pick(reachable)
        self.server = server
        generation += 1
        let call = ledger.connect(run: server.run, at: now)
        send(call)
    }

    private func hangUp() {
        server = nil
        generation += 1
        turn { $0.disconnect() }
    }

    private func send(_ call: Call) {
        guard let server else { return }
        simulation.calls += 1
        openCall += 1
        let (number, generation) = (openCall, self.generation)
        func isMine() -> Bool { isUp && self.generation == generation && openCall == number }
        let loses = simulation.random.happens(simulation.plan.lateCalls)
        let patience = loses ? simulation.random.time(0...1000) : 2000
        simulation.after(patience) { [self] in
            if isMine(), ledger.hasOpenCall {
                simulation.trace("\(name) gives up call \(number)")
                hangUp()
            }
        }
        let sent = simulation.now
        let copies = simulation.random.happens(simulation.plan.lateCalls) ? 2 : 1
        for _ in 0..<copies {
            simulation.after(simulation.delay()) { [self] in
                guard simulation.isPrimary(server), !simulation.isCut(self, server) else { return }
                let answer = run(call, on: server)
                if case .exchange(let call) = call, case .exchanged = answer {
                    simulation.hasTaken(call, of: self, sent: sent)
                }
                simulation.after(simulation.delay()) { [self] in
                    guard isMine(), ledger.hasOpenCall, !simulation.isCut(self, server) else { return }
                    receive(answer)
                }
            }
        }
    }

    private func run(_ call: Call, on server: SimulatedServer) -> Answer {
        let clock = server.clock.read(at: simulation.now)
        let answer = server.engine.answer(call, isOlder: isOlder, clock: clock, rules: simulation.rules)
        if simulation.plan.hasFaults { server.remember() }
        simulation.observer?(server.number, clock, isOlder, call, answer)
        simulation.trace("server \(server.number), \(name): \(call.summary) -> \(answer.summary)")
        return answer
    }

    private func receive(_ answer: Answer) {
        var hangsUp = false
        turn { ledger in
            let outcome = ledger.receive(answer, at: now)
            hangsUp = outcome.hangsUp
            for change in outcome.changes { carryOut(change, isOwn: false, &ledger) }
            return outcome.answered
        }
        if hangsUp { hangUp() }
    }

    // MARK: Changes by administrators

    func administer(_ kind: SharedChange.Kind, key: UInt64, value: String, lasts: Int64) {
        guard isUp, version != nil, !isOlder else { return }
        let subject = SharedChange.Subject(kind, limit: "limit", key: [UInt8(key)])
        turn { ledger in
            ledger.change(
                subject, to: value, until: now + lasts, author: SharedChange.Author(host: name),
                wall: now + simulation.wallError())
            if let change = ledger.kept.changes[subject] { carryOut(change, isOwn: true, &ledger) }
            return []
        }
    }

    private func carryOut(_ change: SharedChange, isOwn: Bool, _ ledger: inout SharedLedger) {
        carriedOut.append((change, isOwn))
        effects.take(change)
        guard change.subject.kind == .reset else { return }
        let lanes = simulation.plan.lanes.filter { change.subject.key == [UInt8($0.key)] }
        for lane in lanes { windows[lane] = SlotCounts() }
        ledger.forget(lanes)
    }

    /// The change that holds; nil if none does.
    func effect(of subject: SharedChange.Subject, after time: Int64 = 0) -> SharedChange? {
        effects[subject, now + time]
    }

    // MARK: Crashes

    func crash(
        downFor time: Int64, reboots: Bool, to kept: (KeptState, [Lane: SlotCounts], HostEffects)? = nil
    ) {
        guard isUp else { return }
        simulation.trace("\(name) is down for \(time) ms\(reboots ? ", and reboots" : "")")
        (isUp, server, stopped) = (false, nil, now)
        generation += 1
        simulation.refused += asked.count
        asked.removeAll()
        ledger = SharedLedger(
            name: name, kept: kept?.0 ?? ledger.kept, timing: simulation.plan.timing, rules: simulation.rules)
        windows = kept?.1 ?? windows
        effects = kept?.2 ?? effects
        self.reboots = reboots
        let crash = generation
        simulation.after(time) { [self] in if generation == crash { comeBack() } }
    }

    func comeBack() {
        guard !isUp, !isGoneForGood else { return }
        isUp = true
        if reboots {
            // The wall clock says how long the machine was down. If it was set back meanwhile, no time counts.
            if simulation.random.happens(0.5) {
                timeLost += now - stopped
                clock.offset += stopped - now
            }
            ledger.endGrants()
        }
        simulation.trace("\(name) is back")
    }

    /// Its machine is lost. It is declared gone when all that it has used has expired.
    func dieForGood() {
        crash(downFor: .max / 4, reboots: false)
        isGoneForGood = true
        simulation.isLost(self)
        declareGone(after: simulation.plan.forgotten)
    }

    private func declareGone(after delay: Int64) {
        simulation.after(delay) { [self] in
            for server in simulation.servers { server.engine.declareGone(name) }
            declareGone(after: 5000)
        }
    }
}

extension Call {
    var summary: String {
        switch self {
        case .hello(let call): return "hello, known epoch \(call.known), \(call.run)"
        case .exchange(let call):
            let lanes = call.lanes.map { report in
                let rows = report.rows.map { "\($0.units)@\($0.age)" }.joined(separator: " ")
                return "[\(report.lane.key)/\(report.lane.window) has \(rows); wants \(report.want) of \(report.pool)]"
            }
            return "\(call.connection).\(call.number) epoch \(call.epoch) \(lanes.joined(separator: " "))"
        }
    }
}

extension Answer {
    var summary: String { reply.joined(separator: " ") }
}
