// SPDX-License-Identifier: Apache-2.0
import Glibc
import Limits
import Policy
import Report
import Settings
import SimulatedMachine

/// The service did something that the documents do not allow.
struct Failure: Error {
    enum Kind {
        case configuration, start, files, time, answer, counts, loss, surplus
    }

    var kind: Kind
    var message: String
}

/// Runs one scenario: the service on the simulated machine, and beside it the model.
final class World {
    let scenario: Scenario
    let folder: String
    private let log: EventLog
    let clocks: SimulatedClocks
    var service: Service?
    /// The service is as one of these says. There are several where it may have forgotten keys in several ways. They
    /// differ only in what open messages were charged.
    var models: [Model]
    var model: Model { models[0] }
    /// What the model was after each turn since the last state that a failure can't take back, that state included.
    var history: [Model] = []
    /// How many of these, the newest ones, may be what a kill leaves. A loss of power may leave any.
    var leftByKill = 1
    /// Answers since `history[0]` may be in memory only.
    var isUncertain = false
    /// A bit has flipped in a file whose pages have no checksums: a key may count anything.
    var mayBeFlipped = false
    var sessions: [Session] = []
    private var connections = 0
    private var policyConnections = 0
    var generation = 0
    var configuration = 0
    /// The requests of this turn, by session, in the order in which they were sent.
    var asking: [(session: Int, request: Request, reply: String?)] = []
    /// When the power fails.
    var powerLoss: UInt64?
    var lies = false
    var restarts = 0
    /// How far the ledger's time is ahead of the machine's. Only steps of the wall clock before a reboot change it.
    var drift: Int64 = 0
    /// The steps of the wall clock that the next reboot may show, oldest first, and until when the power has to fail
    /// for that: the last batch that the disk has must be from before the step.
    var steps: [(change: Int64, until: Int64)] = []
    /// Whether what counts nowhere any more can count again: a reboot with an earlier clock takes no time.
    private let mayGoBack: Bool
    /// The keys that an administrator has changed.
    var touched: Set<Model.Account> = []
    /// How many keys the service had when it was last asked.
    var keys = 0
    /// The inode of ledger.sqlite before a start; nil if there was none.
    var ledgerFile: UInt?
    /// A line for each event, if somebody will read it.
    var timeline: [String]?

    /// How long Linux keeps what was written from the disk, by default: vm.dirty_expire_centisecs and
    /// vm.dirty_writeback_centisecs.
    static let writeback: Int64 = 35_000

    init(_ scenario: Scenario, folder: String, log: EventLog, isTold: Bool) {
        self.scenario = scenario
        self.folder = folder
        self.log = log
        timeline = isTold ? [] : nil
        mayGoBack = scenario.operations.contains { if case .stepClock(let step) = $0 { step < 0 } else { false } }
        sim_begin(folder + "/ledger", scenario.seed, 10_000_000)
        clocks = SimulatedClocks()
        let model = Model(
            now: SimulatedClocks.wallAtStart + sim_now(), limits: scenario.configurations[0],
            givesBackDropped: scenario.givesBackDropped)
        models = [model]
        sessions = (0..<scenario.sessions).map { _ in newSession() }
    }

    func tell(_ line: @autoclosure () -> String) {
        guard timeline != nil else { return }
        let time = sim_now() - 10_000_000
        let milliseconds = String(1000 + time % 1000).dropFirst()
        timeline?.append("\(time / 1000).\(milliseconds) s  \(line())")
    }

    /// Changes all models in the same way.
    func change(_ body: (inout Model) -> Void) {
        for index in models.indices { body(&models[index]) }
    }

    func clean() {
        if !mayGoBack { change { $0.clean() } }
    }

    // MARK: Sessions

    private func newSession() -> Session {
        connections += 1
        var session = Session(connection: connections, generation: generation)
        session.began = sim_now()
        return session
    }

    func renewSession(_ index: Int) {
        let new = newSession()
        sessions[index].renew(connection: new.connection, generation: generation)
        sessions[index].began = new.began
    }

    /// Limits on connections know one for 5 minutes after its last request, and transactions are known for an hour.
    func renewIfOld(_ index: Int) {
        let now = sim_now()
        let countsConnections = scenario.configurations.joined().contains { $0.count == .connections }
        let session = sessions[index]
        if countsConnections, now - session.began > 240_000 { return renewSession(index) }
        if session.isInMessage, now - session.messageBegan > 3_000_000 { return renewSession(index) }
        if !session.isInMessage, now - session.lastAsked > 240_000 { sessions[index].last = nil }
    }

    func openPolicyConnection(_ index: Int) {
        guard sessions[index].descriptor < 0, let service else { return }
        policyConnections += 1
        sessions[index].descriptor = PolicySocket.connect(to: folder + "/policy")
        sessions[index].policyConnection = policyConnections
        service.step()
    }

    func closePolicyConnections() {
        for index in sessions.indices where sessions[index].descriptor >= 0 {
            PolicySocket.close(sessions[index].descriptor)
            sessions[index].descriptor = -1
        }
    }

    /// Reads the replies that have arrived.
    func receive() {
        for index in asking.indices where asking[index].reply == nil {
            let descriptor = sessions[asking[index].session].descriptor
            if descriptor >= 0 { asking[index].reply = PolicySocket.receive(from: descriptor) }
        }
    }

    // MARK: The service

    var isDead: Bool { sim_is_dead() }

    private func readConfiguration() throws(Failure) -> Configuration {
        var text = """
            listen: { policy: "unix:\(folder)/policy" }
            ledger: { store: "sqlite:\(folder)/ledger/ledger.sqlite", durability: \(scenario.durability) }
            on_failure: \(scenario.defersOnFailure ? "defer" : "dunno")
            give_back_dropped: \(scenario.givesBackDropped)
            limits:

            """
        for limit in scenario.configurations[configuration] {
            text += limit.yaml(in: folder)
            Self.write(limit.exemptTable, to: "\(folder)/\(limit.name).exempt")
            Self.write(limit.overridesTable, to: "\(folder)/\(limit.name).overrides")
        }
        switch ConfigurationReader.read(Array(text.utf8), file: "weir.yaml") {
        case .success(let outcome):
            var configuration = outcome.configuration
            // Fewer than the file may say.
            if let mostKeys = scenario.mostKeys { configuration.ledger.mostKeys = mostKeys }
            return configuration
        case .failure(let faults):
            throw Failure(kind: .configuration, message: "the configuration is wrong: \(faults)\n\(text)")
        }
    }

    private static func write(_ text: String, to path: String) {
        guard !text.isEmpty, let file = fopen(path, "w") else { return }
        fputs(text, file)
        fclose(file)
    }

    /// Starts the service, however often it is killed meanwhile, and waits until the ledger is open.
    func boot() throws(Failure) {
        var attempts = 0
        ledgerFile = inode(of: "ledger.sqlite")
        while true {
            attempts += 1
            if attempts > 20 {
                let fault = service?.host.fault?.message ?? ""
                throw Failure(kind: .start, message: "the service does not come up: \(fault)")
            }
            if attempts == 4 { sim_repair() }
            if isDead { endProcess() }
            if service == nil {
                tell("start")
                restarts += 1
                do {
                    service = try Service(readConfiguration(), clocks, log: log)
                } catch let failure as Failure {
                    throw failure
                } catch {
                    throw Failure(kind: .start, message: "the service does not start: \(error)")
                }
            }
            while sim_run_job() {}
            service?.step()
            if isDead { continue }
            if service?.isOpen ?? false { return try checkFiles() }
            tell("the ledger does not open: \(service?.host.fault?.message ?? "")")
            sim_advance(1000)
            service?.step()
        }
    }

    /// What is left of a process that has died, or of the machine.
    func endProcess() {
        closePolicyConnections()
        service?.abandon()
        _ = service.take()
        if let seed = powerLoss {
            tell("the power fails")
            steps.removeAll { $0.until < sim_now() }
            sim_lose_power(seed, Self.writeback)
            sim_lie(lies)
            sim_advance(20_000)
            clocks.reboot()
            powerLoss = nil
            ledgerFile = inode(of: "ledger.sqlite")
        } else {
            tell("killed")
        }
        sim_revive()
    }

    func reload(to number: Int) throws(Failure) {
        noteNewWindows(of: scenario.configurations[number])
        configuration = number
        let new = try readConfiguration()
        let lookedAtContext = model.looksAtContext
        for index in history.indices { history[index].reload(scenario.configurations[number]) }
        var relaxed: [String] = []
        change { relaxed = $0.reload(scenario.configurations[number]) }
        service?.host.reload(new)
        // What has been asked about a message is known by other names then.
        if model.looksAtContext != lookedAtContext { for index in sessions.indices { renewSession(index) } }
        // The keys of one limit after those of another are looked through for blocks that end.
        for _ in relaxed where !isDead {
            sim_advance(2)
            service?.step()
        }
        for limit in relaxed {
            tell("blocks of \(limit) end")
            history.append(model)
            leftByKill += 1
            change { $0.endBlocks(of: limit) }
        }
    }

    /// A window that a limit gains is empty. After a restart it may have what the store still holds. So may a limit
    /// that was removed and comes back, if the batch that says so may be lost.
    private func noteNewWindows(of limits: [LimitPlan]) {
        let keepsRemovals = (scenario.kind == .kills || keepsPower) && scenario.durability != "relaxed"
        func note(_ limit: LimitPlan, _ others: [LimitPlan]) {
            let other = others.first { $0.name == limit.name && $0.key == limit.key && $0.count == limit.count }
            if other == nil, keepsRemovals { return }
            for rate in limit.rates where !(other?.rates.contains { $0.window == rate.window } ?? false) {
                newWindows.insert("\(limit.name) \(rate.window)")
            }
        }
        for limit in limits where known.contains(limit.name) { note(limit, model.limits) }
        for limit in model.limits { note(limit, limits) }
        known.formUnion(limits.map(\.name))
    }
    /// The names of all limits so far.
    private lazy var known = Set(scenario.configurations[0].map(\.name))
    /// Limits and windows.
    var newWindows: Set<String> = []
}
