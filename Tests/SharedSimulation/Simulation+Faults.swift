// SPDX-License-Identifier: Apache-2.0
import Sharing

extension Simulation {
    func scheduleFaults() {
        after(random.interval(mean: plan.faultInterval)) { [self] in
            guard !isCalm else { return }
            fault()
            scheduleFaults()
        }
    }

    private func fault() {
        let host = random.pick(hosts)
        guard let server = servers.last else { return }
        switch random.pick(plan.faults) {
        case .failover: failover()
        case .restart: restart(server)
        case .flush: flush(server)
        case .partition: partition(host, server)
        case .healing:
            trace("all partitions heal")
            cut.removeAll()
        case .crash: host.crash(downFor: random.time(100...20_000), reboots: random.happens(0.5))
        case .longCrash:
            host.crash(downFor: random.time(1000...4 * plan.longestWindow), reboots: random.happens(0.7))
        case .death: if random.happens(0.2) { host.dieForGood() }
        case .step: step(server)
        case .crashInTurn, .lateCalls: break
        }
    }

    private func partition(_ host: SimulatedHost, _ server: SimulatedServer) {
        trace("\(host.name) is cut off from server \(server.number)")
        let pair = "\(host.name) \(server.number)"
        cut.insert(pair)
        after(random.time(0...2 * plan.longestWindow)) { [self] in cut.remove(pair) }
    }

    /// A replica without the last writes takes over, or an empty server; the old one may live on.
    private func failover() {
        guard servers.count == 1, let old = servers.last else { return }
        let lost = Int(random.time(0...12))
        let copies = old.history.count > lost && random.happens(0.8)
        let new = addServer(copies ? old.history[old.history.count - 1 - lost] : Engine())
        if random.happens(0.5) { new.clock = old.clock }
        trace("server \(new.number) takes over\(copies ? " without the last \(lost) writes" : ", empty")")
        guard random.happens(0.5) else {
            servers = [new]
            return
        }
        trace("server \(old.number) lives on")
        for host in hosts { cut.insert("\(host.name) \(random.pick([old, new]).number)") }
        after(random.time(1000...plan.timing.oldPrimary)) { [self] in
            servers.removeAll { $0 === old }
            trace("server \(old.number) ends")
        }
        after(random.time(1000...40_000)) { [self] in cut = cut.filter { !$0.hasSuffix(" \(new.number)") } }
    }

    private func restart(_ server: SimulatedServer) {
        guard servers.count == 1 else { return }
        servers.removeAll()
        let new = addServer(server.history.first ?? Engine())
        new.clock = server.clock
        trace("the engine restarts from an old dump, as server \(new.number)")
    }

    private func flush(_ server: SimulatedServer) {
        trace("FLUSHALL on server \(server.number)")
        server.engine = Engine()
        copyObserver?(server.number, 0, "")
    }

    /// Sets the clock of the engine's machine. Steps longer than the cap cost nothing, however many there are. The
    /// engine's windows have room for one shorter step forward.
    private func step(_ server: SimulatedServer) {
        let length = random.interval(mean: Double(plan.longestWindow)) * random.pick([-1, 1])
        if length > 0, length <= Timing.cap {
            guard now - lastSmallStep > 2 * plan.longestWindow else { return }
            lastSmallStep = now
        }
        trace("the clock of server \(server.number) is set by \(length) ms")
        server.clock.offset += length
    }
}
