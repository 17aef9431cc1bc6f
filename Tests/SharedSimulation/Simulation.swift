// SPDX-License-Identifier: Apache-2.0
package import Sharing

/// Hosts, an engine, a network and clocks under one seed, with faults. Checks against an exact log that no interval of
/// a window's length ever admits more than N over all hosts.
///
/// The network drops, delays and duplicates calls, and partitions hosts. Clocks differ and drift; the engine's are set.
/// Hosts crash between journal and answer, reboot, stay down for long and never return. The engine fails over with lost
/// writes while the old primary lives on, restarts from an old dump, and is flushed. Limits and lists of hosts change.
package final class Simulation {
    package enum Violation: Sendable {
        case moreThanN(lane: Lane, held: Int64, allowed: Int64)
        /// Somebody who has kept trying was admitted.
        case admittedAgain(Lane)
        /// A change has replaced a newer one on a host.
        case undone(host: String, SharedChange)
        /// Some time after the last fault, hosts differ, or lack the newest change.
        case disagreement(SharedChange.Subject)
    }

    /// A version of the limits, and when each host has taken it.
    struct Version {
        let terms: Terms
        let most: [Lane: Int64]
        var firstTaken: Int64?
        var taken: Set<String> = []
        /// When the last host has taken it.
        var confirmed: Int64?
    }

    package let plan: SimulationPlan
    let rules: SharingRules
    package var random: SeededRandom
    package private(set) var now: Int64 = 0
    private var events = Events()
    var hosts: [SimulatedHost] = []
    /// Those that take calls, the newest last.
    var servers: [SimulatedServer] = []
    var cut: Set<String> = []
    private var serverCount = 0
    var versions: [Version] = []
    private var log = ExactLog()
    private var tries = TriesLog()
    package private(set) var violation: Violation?
    private var made: [SharedChange.Subject: [(by: SimulatedHost, change: SharedChange, at: Int64)]] = [:]
    private var newest: [String: [SharedChange.Subject: SharedChange.Version]] = [:]
    private(set) var isCalm = false
    package private(set) var timeline: [String] = []
    private let isTracing: Bool
    var lastSmallStep: Int64 = .min / 2
    /// All requests come to this host at present.
    private var onlyHost: String?
    package var admitted = 0
    package var refused = 0
    package var calls = 0
    /// Told each call, with the server's number, its clock, and its answer.
    package var observer: ((_ server: Int, _ clock: Int64, _ isOlder: Bool, _ call: Call, _ answer: Answer) -> Void)?
    /// Told when a server begins with the data of another: epoch and run id are all that matters of them.
    package var copyObserver: ((_ server: Int, _ epoch: Int64, _ run: String) -> Void)?

    package init(plan: SimulationPlan, rules: SharingRules = .all, seed: UInt64, tracing: Bool = false) {
        self.plan = plan
        self.rules = rules
        isTracing = tracing
        onlyHost = plan.onlyHost
        random = SeededRandom(seed: seed)
        versions = plan.versions.map { Version(terms: $0.terms, most: $0.most) }
        addServer(Engine())
        for name in plan.hosts { hosts.append(SimulatedHost(name, in: self)) }
    }

    func trace(_ text: @autoclosure () -> String) {
        guard isTracing else { return }
        let milliseconds = String(now % 1000 + 1000).dropFirst()
        timeline.append("\(now / 1000).\(milliseconds)  \(text())")
    }

    func after(_ delay: Int64, _ run: @escaping () -> Void) { events.add(at: now + delay, run) }

    /// - Returns: whether no rule of the ledger was violated.
    @discardableResult
    package func run() -> Bool {
        for host in hosts where versions[0].terms.hosts.contains(host.name) {
            host.take(version: 0)
            host.beat()
        }
        for index in versions.indices.dropFirst() { scheduleVersion(index) }
        scheduleRequests()
        if plan.hasFaults { after(random.time(0...plan.longestWindow)) { [self] in scheduleFaults() } }
        if plan.changeInterval > 0 {
            scheduleChanges()
            after(plan.length) { [self] in calmDown() }
        }
        let end = plan.length + (plan.changeInterval > 0 ? Self.calm : 0)
        while violation == nil, let event = events.next(), event.time <= end {
            now = event.time
            event.run()
        }
        if violation == nil, isCalm { checkAgreement() }
        // What is left refers to this object.
        events = Events()
        return violation == nil
    }

    package func admittedUnits(in lane: Lane) -> Int64 { log.admitted[lane] ?? 0 }

    // MARK: Requests

    private func scheduleRequests() {
        var pause: Int64 = 0
        if random.happens(plan.pauses) {
            pause = random.happens(0.2) ? random.time(0...plan.longestWindow) : 0
            onlyHost = random.happens(0.7) ? random.pick(plan.hosts) : nil
        }
        after(pause + random.interval(mean: plan.meanInterval)) { [self] in
            let host = hosts.first { $0.name == onlyHost } ?? random.pick(hosts)
            let keys = random.happens(0.3) ? plan.keys : [random.pick(plan.keys)]
            host.request(keys: keys, units: random.pick(plan.units))
            scheduleRequests()
        }
    }

    func admit(
        _ lane: Lane, _ units: Int64, _ request: Int, by host: SimulatedHost, reset: SharedChange.Version?,
        factor: Int64
    ) {
        let held = log.add(
            ExactLog.Entry(
                host: host.name, request: request, time: now, units: units, reset: reset, factor: factor), to: lane)
        if let time = plan.staysRefused, now >= time {
            fail(.admittedAgain(lane))
            trace("ADMITTED, though somebody keeps trying: lane \(lane.key)/\(lane.window)")
        }
        let allowed = self.allowed(lane) * held.factor
        // A host of version 1 hears of no reset.
        let most = plan.olderHosts.isEmpty ? max(held.underReset, held.sinceReset) : held.sinceReset
        guard most > allowed else { return }
        fail(.moreThanN(lane: lane, held: most, allowed: allowed))
        trace("MORE THAN N: lane \(lane.key)/\(lane.window) holds \(most), allowed are \(allowed)")
    }

    func refuse(_ lanes: [(lane: Lane, units: Int64)], by host: SimulatedHost) {
        for (lane, units) in lanes {
            tries.add(units, to: lane, by: host.name, at: now, longestWindow: plan.longestWindow)
        }
    }

    func hasTaken(_ call: Call.Exchange, of host: SimulatedHost, sent: Int64) {
        guard plan.countsRefused else { return }
        tries.hear(Set(call.lanes.map(\.lane)), of: host.name, sent: sent, at: now)
    }

    /// A host has spent units of a pool. The engine must not have granted them if refused requests had filled it.
    func checkTries(_ lane: Lane, pool: Int64) {
        guard plan.checksTries else { return }
        let granted = now - plan.timing.validity - plan.longestDelay
        let known = tries.units(of: lane, since: now - lane.window, heardBefore: granted)
        guard known >= pool else { return }
        fail(.admittedAgain(lane))
        trace("ADMITTED, though \(known) were tried: lane \(lane.key)/\(lane.window), whose pool is \(pool)")
    }

    func isLost(_ host: SimulatedHost) { tries.forget(nil, of: host.name) }

    private func fail(_ violation: Violation) { self.violation = self.violation ?? violation }

    func giveBack(_ lane: Lane, _ request: Int, of host: SimulatedHost) {
        log.giveBack(request, of: host.name, in: lane)
    }

    /// The largest N of all versions that may hold in the interval that ends now.
    private func allowed(_ lane: Lane) -> Int64 {
        let settled = versions.lastIndex { ($0.confirmed ?? .max) <= now - lane.window } ?? 0
        return versions[settled...].filter { $0.firstTaken != nil }.compactMap { $0.most[lane] }.max() ?? 0
    }

    // MARK: Changes by administrators

    /// How long the hosts have to agree after the last fault.
    private static let calm: Int64 = 15_000

    private func scheduleChanges() {
        after(random.interval(mean: plan.changeInterval)) { [self] in
            guard !isCalm else { return }
            let (host, key) = (random.pick(hosts), random.pick(plan.keys))
            let kind = random.pick(plan.changeKinds)
            let ends = random.happens(0.3)
            let value = kind == .reset || ends ? "" : random.pick(["2", "3"])
            let lasts = value.isEmpty ? 0 : random.pick([100, 1000, plan.longestWindow, 10 * plan.length])
            host.administer(kind, key: key, value: value, lasts: lasts)
            scheduleChanges()
        }
    }

    /// The wall clock of a host may be wrong by hours.
    func wallError() -> Int64 { random.time(0...10_000_000) }

    func note(_ carriedOut: [(change: SharedChange, isOwn: Bool)], by host: SimulatedHost) {
        for (change, isOwn) in carriedOut {
            let ending = change.value.isEmpty ? "ends" : "\(change.value) until \(change.until)"
            trace(
                "\(host.name) \(isOwn ? "makes" : "learns") \(change.subject.text) \(change.version.number): \(ending)")
            if isOwn { made[change.subject, default: []].append((host, change, now)) }
            if change.subject.kind == .reset {
                log.reset(UInt64(change.subject.key[0]), at: now)
                tries.forget(UInt64(change.subject.key[0]), of: host.name)
            }
            let before = newest[host.name]?[change.subject]
            if let before, change.version < before { fail(.undone(host: host.name, change)) }
            newest[host.name, default: [:]][change.subject] = change.version
        }
    }

    /// No more faults: all hosts run, and reach the one engine that is left.
    private func calmDown() {
        trace("calm")
        isCalm = true
        cut.removeAll()
        servers = Array(servers.suffix(1))
        for host in hosts { host.comeBack() }
    }

    private func checkAgreement() {
        let hosts = hosts.filter { !$0.isGoneForGood && !$0.isOlder }
        for (subject, made) in made {
            // Of a host that is lost, the others may know nothing.
            let newest = made.filter { !$0.by.isGoneForGood }.max { $0.change.version < $1.change.version }
            guard let newest else { continue }
            // It may end on other hosts later: the engine's time does not count pauses.
            let lasting = newest.by.effect(of: subject, after: 60_000 + newest.by.timeLost)?.version
            let versions = hosts.map { $0.effect(of: subject)?.version }
            let agree = versions.allSatisfy { version in
                lasting.map { version == $0 } ?? version.map { $0 >= newest.change.version } ?? true
            }
            guard !agree else { continue }
            trace("the hosts do not agree on \(subject.text)")
            return fail(.disagreement(subject))
        }
    }

    // MARK: Versions

    private func scheduleVersion(_ index: Int) {
        let begin = plan.length * Int64(index) / Int64(versions.count + 1)
        for host in hosts {
            after(begin + random.time(0...plan.length / 10)) { host.take(version: index) }
        }
    }

    func hasTaken(_ host: SimulatedHost, version: Int) {
        versions[version].firstTaken = versions[version].firstTaken ?? now
        versions[version].taken.insert(host.name)
        for index in versions.indices where versions[index].confirmed == nil {
            let needed = Set(versions[max(index - 1, 0)...index].flatMap(\.terms.hosts))
            // A host that never returns confirms nothing; it is declared gone when all it has used has expired.
            let live = needed.filter { name in !(hosts.first { $0.name == name }?.isGoneForGood ?? false) }
            if live.isSubset(of: versions[index].taken) { versions[index].confirmed = now }
        }
    }

    // MARK: Servers

    @discardableResult
    func addServer(_ engine: Engine) -> SimulatedServer {
        serverCount += 1
        let server = SimulatedServer(number: serverCount, engine: engine, clock: MachineClock(&random))
        servers.append(server)
        copyObserver?(server.number, engine.epoch, engine.run)
        return server
    }

    func isCut(_ host: SimulatedHost, _ server: SimulatedServer) -> Bool {
        plan.hasFaults && !isCalm && (cut.contains("\(host.name) \(server.number)") || random.happens(0.01))
    }

    func delay() -> Int64 {
        guard plan.hasFaults, !isCalm else { return 1 }
        return Int64(Double(random.pick(plan.delays)) * random.unit())
    }

    func isPrimary(_ server: SimulatedServer) -> Bool { servers.contains { $0 === server } }
}

final class SimulatedServer {
    let number: Int
    var engine: Engine
    var clock: MachineClock
    /// What a replica may have.
    var history: [Engine] = []

    init(number: Int, engine: Engine, clock: MachineClock) {
        self.number = number
        self.engine = engine
        self.clock = clock
    }

    func remember() {
        if history.count > 12 { history.removeFirst() }
        history.append(engine)
    }

    var run: String { "run\(number)" }
}
