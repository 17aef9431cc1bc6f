// SPDX-License-Identifier: Apache-2.0
package import Sharing

/// What a simulation consists of.
package struct SimulationPlan: Sendable {
    package struct Version: Sendable {
        package let terms: Terms
        package let most: [Lane: Int64]
    }

    package var hosts: [String]
    package var versions: [Version]
    package var lanes: [Lane]
    package var timing: Timing
    package var meanInterval: Double
    package var length: Int64
    package var units: [Int64] = [1]
    /// How often requests begin to come to another host alone, or to all again, with a pause or without.
    package var pauses = 0.0
    /// The part of the requests that are given back later.
    package var givesBack = 0.0
    /// What may go wrong. A seed has some of them, and so many of each.
    package var faults: [Fault] = []
    /// A call or an answer takes up to one of these.
    package var delays: [Int64] = [1, 1, 1, 10, 100, 1000, 3000]
    var longestDelay: Int64 { delays.max() ?? 0 }
    /// Milliseconds between two faults.
    package var faultInterval = 0.0
    /// All requests come to this host.
    package var onlyHost: String?
    /// Milliseconds between two changes by administrators; 0: there are none.
    package var changeInterval = 0.0
    package var changeKinds: [SharedChange.Kind] = [.block, .raise, .reset]
    /// Refused requests count like admitted ones.
    package var countsRefused = false
    /// From this time on, nothing may be admitted, because somebody keeps trying; nil: that is not so.
    package var staysRefused: Int64?
    /// Hosts of an earlier version of Weir, which know of no changes by administrators.
    package var olderHosts: Set<String> = []

    package enum Fault: CaseIterable, Sendable {
        case failover, restart, flush, partition, healing, crash, longCrash, death, step
        /// Of many turns and calls, not of single times.
        case crashInTurn, lateCalls
    }

    var crashInTurn: Double { faults.contains(.crashInTurn) ? 0.01 : 0 }
    var lateCalls: Double { faults.contains(.lateCalls) ? 0.15 : hasFaults ? 0.01 : 0 }
    var hasFaults: Bool { !faults.isEmpty }
    /// Two servers that take calls at once may hear of different refused requests.
    var checksTries: Bool { countsRefused && !faults.contains(.failover) }
    var keys: [UInt64] { Array(Set(lanes.map(\.key))).sorted() }
    var longestWindow: Int64 { timing.longestWindow }
    /// After this time, nothing that a dead host has used matters any more.
    var forgotten: Int64 { 2 * (longestWindow + timing.validity + timing.oldPrimary) }

    /// With faults, all of it from the seed.
    package static func random(seed: UInt64) -> SimulationPlan {
        var random = SeededRandom(seed: ~seed)
        let window: Int64 = random.pick([4000, 4000, 10_000, 10_000, 10_000, 60_000])
        let windows = random.happens(0.3) ? [window, window * 3] : [window]
        let keys: [UInt64] = random.happens(0.3) ? [1, 2] : [1]
        let lanes = keys.flatMap { key in windows.map { Lane(key: key, window: $0) } }
        let count = Int(random.time(2...5))
        let names = (1...count).map { "mx\($0)" }
        let most: Int64 = random.pick([1, 2, 3, 5, 10, 30])
        let share: Int64 = random.pick([0, 100, 250, 500, 800])
        var versions = [version(names, most, share, lanes, number: 1)]
        if random.happens(0.4) {
            let changed = random.pick([most, max(1, most / 2), most * 2])
            let hosts = count > 2 && random.happens(0.5) ? Array(names.dropLast()) : names
            if random.happens(0.5) { versions[0] = version(hosts, most, share, lanes, number: 1) }
            let after = random.happens(0.5) ? names : hosts
            let number: UInt64 = changed == most ? 1 : 2
            versions.append(version(after, changed, random.pick([share, 500]), lanes, number: number))
            if random.happens(0.4) { versions.append(version(hosts, most, share, lanes, number: 1)) }
        }
        let longest = lanes.map(\.window).max() ?? window
        var timing = Timing(longestWindow: longest, validity: random.pick([1000, window / 10, window / 4, window]))
        timing.timeout = random.pick([50, 1000, 5000])
        timing.heartbeat = random.pick([250, 500, 800])
        var faults = Fault.allCases.filter { _ in random.happens(0.5) }
        faults.append(.healing)
        return SimulationPlan(
            hosts: names, versions: versions, lanes: lanes, timing: timing,
            meanInterval: Double(window) / Double(most) / random.pick([1.5, 3, 6]), length: longest * 3,
            units: random.pick([[1], [1], [1, 2, 3]]), pauses: random.pick([0, 0.02, 0.1]),
            givesBack: random.pick([0, 0, 0.2]),
            faults: faults, faultInterval: Double(longest) / random.pick([2, 4, 8]))
    }

    /// Like `random`, with what brings out grants that are spent too late: grants are large and valid for long, and now
    /// and then nobody asks, or the host that asked is cut off.
    package static func longGrants(seed: UInt64) -> SimulationPlan {
        var plan = random(seed: seed)
        let lanes = [Lane(key: 1, window: 10_000)]
        plan.lanes = lanes
        plan.hosts = ["mx1", "mx2", "mx3"]
        plan.versions = [version(plan.hosts, 30, 0, lanes, number: 1)]
        plan.timing.longestWindow = 10_000
        plan.timing.heartbeat = 250
        plan.timing.timeout = 50
        plan.timing.validity = SeededRandom(seed: seed).picking([2500, 10_000, 10_000])
        plan.meanInterval = 10_000.0 / 30 / 8
        plan.pauses = 0.1
        plan.units = [1]
        plan.length = 120_000
        plan.delays = [1, 10]
        plan.faults = [.longCrash, .partition]
        plan.faultInterval = 4000
        return plan
    }

    /// Like `random`, with an engine that forgets often, and hosts that hear of it late.
    package static func forgetfulEngine(seed: UInt64) -> SimulationPlan {
        var plan = random(seed: seed)
        plan.timing.heartbeat = 250
        plan.delays = [1, 10, 100]
        plan.faults = [.flush, .flush, .failover, .lateCalls]
        plan.faultInterval = Double(plan.longestWindow) / 16
        return plan
    }

    /// Like `forgetfulEngine`, with a host that is added and soon removed again: the others return to earlier terms.
    package static func returns(seed: UInt64) -> SimulationPlan {
        var plan = forgetfulEngine(seed: seed)
        var random = SeededRandom(seed: seed &* 29)
        let lanes = [Lane(key: 1, window: 10_000)]
        plan.lanes = lanes
        plan.hosts = ["mx1", "mx2", "mx3"]
        let more = plan.hosts + ["mx4"]
        let (most, share): (Int64, Int64) = (random.pick([3, 10]), random.pick([0, 100]))
        plan.versions = [plan.hosts, more, plan.hosts].map { version($0, most, share, lanes, number: 1) }
        plan.hosts = more
        plan.timing.longestWindow = 10_000
        plan.timing.validity = 1000
        plan.meanInterval = 10_000.0 / Double(most) / 6
        plan.units = [1]
        plan.length = 40_000
        plan.faults = random.pick([[.flush], [.restart], [.flush, .crash]])
        plan.faultInterval = 2500
        return plan
    }

    /// Like `forgetfulEngine`, with a host that is added before the others know of it, and hosts that are cut off.
    package static func strangers(seed: UInt64) -> SimulationPlan {
        var plan = forgetfulEngine(seed: seed)
        var random = SeededRandom(seed: seed &* 41)
        let lanes = [Lane(key: 1, window: 10_000)]
        plan.lanes = lanes
        let (few, all) = (["mx1", "mx2"], ["mx1", "mx2", "mx3"])
        let share: Int64 = random.pick([0, 0, 500])
        plan.hosts = all
        plan.versions = [few, all].map { version($0, 4, share, lanes, number: 1) }
        plan.timing.longestWindow = 10_000
        plan.timing.validity = 1000
        plan.timing.oldPrimary = 1000
        plan.meanInterval = 10_000.0 / 4 / 8
        plan.units = [1]
        plan.length = 150_000
        plan.faults = [.flush, .partition, .healing]
        plan.faultInterval = 1500
        return plan
    }

    /// Like `random`, with administrators.
    package static func changes(seed: UInt64) -> SimulationPlan {
        var plan = random(seed: seed)
        var random = SeededRandom(seed: seed &* 31)
        plan.versions = [plan.versions[0]]
        let hosts = plan.versions[0].terms.hosts
        plan.hosts = hosts
        plan.changeInterval = Double(plan.longestWindow) / random.pick([2, 10, 40])
        plan.changeKinds = random.pick([[.block], [.raise], [.reset], [.reset, .raise], [.block, .raise, .reset]])
        plan.timing.changesPerCall = random.pick([1, 2, 100])
        return plan
    }

    /// Like `changes`, with frequent resets or raises, and many requests, now and then all of them at one host.
    package static func busyAdministrators(seed: UInt64) -> SimulationPlan {
        var plan = changes(seed: seed)
        var random = SeededRandom(seed: seed &* 37)
        let lanes = [Lane(key: 1, window: 10_000)]
        plan.lanes = lanes
        plan.versions = [version(plan.hosts, 10, random.pick([0, 0, 500]), lanes, number: 1)]
        plan.timing.longestWindow = 10_000
        plan.timing.validity = random.pick([1000, 10_000])
        plan.timing.heartbeat = 800
        plan.timing.changesPerCall = 1
        plan.changeKinds = random.pick([[.raise], [.reset], [.reset, .block, .raise]])
        plan.changeInterval = random.pick([1000, 5000])
        plan.meanInterval = 10_000.0 / 10 / 12
        plan.units = [1]
        plan.pauses = 0.05
        plan.delays = [1, 10, 100]
        plan.length = 60_000
        plan.faults = random.happens(0.5) ? [.lateCalls, .partition] : [.healing]
        plan.faultInterval = 20_000
        return plan
    }

    /// Like `busyAdministrators`, with raises of a small limit: the hosts' shares of it are none or one.
    package static func raises(seed: UInt64) -> SimulationPlan {
        var plan = busyAdministrators(seed: seed)
        plan.hosts = ["mx1", "mx2", "mx3", "mx4"]
        plan.versions = [version(plan.hosts, 3, 500, plan.lanes, number: 1)]
        plan.changeKinds = [.raise]
        plan.changeInterval = 5000
        plan.meanInterval = 10_000.0 / 3 / 12
        return plan
    }

    /// Like `changes`, with some hosts that know nothing of changes.
    package static func mixed(seed: UInt64) -> SimulationPlan {
        var plan = changes(seed: seed)
        plan.olderHosts = Set(plan.hosts.prefix(1 + Int(seed % 2)).dropLast(plan.hosts.count > 2 ? 0 : 1))
        if plan.olderHosts.isEmpty { plan.olderHosts = [plan.hosts[0]] }
        return plan
    }

    /// Like `random` or `changes`, where refused requests count. Few enough come that some of them are admitted.
    package static func refused(seed: UInt64) -> SimulationPlan {
        var plan = seed % 2 == 0 ? random(seed: seed) : changes(seed: seed)
        var random = SeededRandom(seed: seed &* 41)
        plan.countsRefused = true
        plan.meanInterval *= random.pick([1, 2, 4, 8])
        plan.pauses = 0.1
        return plan
    }

    /// Requests come to all hosts all the time, and refused ones count: without faults, none is admitted any more when
    /// the limit was reached once. No single host gets enough of them to know that by itself.
    package static func persistent(seed: UInt64) -> SimulationPlan {
        var plan = random(seed: seed)
        var random = SeededRandom(seed: seed &* 43)
        let window: Int64 = 20_000
        plan.lanes = random.pick([[Lane(key: 1, window: window)], [1, 2].map { Lane(key: $0, window: window) }])
        plan.hosts = ["mx1", "mx2", "mx3"]
        plan.versions = [version(plan.hosts, 30, random.pick([0, 100, 250]), plan.lanes, number: 1)]
        plan.timing = Timing(longestWindow: window, validity: random.pick([1000, 5000]))
        plan.meanInterval = Double(window) / 30 / 2.5 / Double(plan.lanes.count)
        plan.length = 6 * window
        plan.units = [1]
        (plan.pauses, plan.givesBack) = (0, 0)
        plan.countsRefused = true
        plan.faults = random.pick([[], [.flush, .restart, .crash, .crashInTurn, .lateCalls, .partition]])
        if plan.faults.isEmpty { plan.staysRefused = 2 * window }
        plan.faultInterval = Double(window) / 2
        return plan
    }

    /// By the names that the simulator's command uses.
    package static let named: [String: @Sendable (UInt64) -> SimulationPlan] = [
        "random": random, "longGrants": longGrants, "forgetfulEngine": forgetfulEngine, "returns": returns,
        "strangers": strangers, "changes": changes, "busyAdministrators": busyAdministrators, "raises": raises,
        "mixed": mixed, "refused": refused, "persistent": persistent,
    ]

    /// Three hosts without faults, which are asked for three times what they may admit.
    package static func use(share: Int64, onlyHost: String? = nil, units: [Int64] = [1]) -> SimulationPlan {
        let names = ["mx1", "mx2", "mx3"]
        let lanes = [Lane(key: 1, window: 60_000)]
        return SimulationPlan(
            hosts: names, versions: [version(names, 300, share, lanes, number: 1)], lanes: lanes,
            timing: Timing(longestWindow: 60_000, validity: 1000), meanInterval: 60_000.0 / 900, length: 600_000,
            units: units, onlyHost: onlyHost)
    }

    private static func version(
        _ hosts: [String], _ most: Int64, _ share: Int64, _ lanes: [Lane], number: UInt64
    ) -> Version {
        let shortest = lanes.map(\.window).min() ?? 1
        return Version(
            terms: Terms(hosts: hosts, share: share, limits: number),
            most: Dictionary(uniqueKeysWithValues: lanes.map { ($0, $0.window == shortest ? most : most * 2) }))
    }
}
