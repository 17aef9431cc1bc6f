// SPDX-License-Identifier: Apache-2.0
import SharedSimulation
import Sharing
import Testing

struct SimulationTests {
    /// `Tests/sharing --seeds 1000000` looks further.
    @Test(arguments: 0..<2 as Range<UInt64>)
    func noIntervalAdmitsMoreThanTheLimit(part: UInt64) {
        for seed in part * 500 + 1...part * 500 + 500 {
            let simulation = Simulation(plan: .random(seed: seed), seed: seed)
            guard simulation.run() else { return Self.report(seed) }
        }
    }

    @Test func longGrantsAdmitNoMoreThanTheLimit() {
        for seed: UInt64 in 1...50 {
            let simulation = Simulation(plan: .longGrants(seed: seed), seed: seed)
            #expect(simulation.run(), "seed \(seed) of the plan longGrants")
        }
    }

    /// N holds where the engine forgets, and hosts are added and removed.
    @Test(arguments: ["forgetfulEngine", "returns", "strangers"])
    func hostsComeAndGo(name: String) throws {
        let plan = try #require(SimulationPlan.named[name])
        for seed: UInt64 in 1...200 {
            let simulation = Simulation(plan: plan(seed), seed: seed)
            #expect(simulation.run(), "seed \(seed) of the plan \(name)")
        }
    }

    /// All hosts agree on what administrators have done, and resets and raises let no more than N through.
    @Test(arguments: ["changes", "busyAdministrators", "raises", "mixed"])
    func administratorsActOnAllHosts(name: String) throws {
        let plan = try #require(SimulationPlan.named[name])
        for seed: UInt64 in 1...200 {
            let simulation = Simulation(plan: plan(seed), seed: seed)
            #expect(simulation.run(), "seed \(seed) of the plan \(name)")
        }
    }

    /// Refused requests count on all hosts: N holds, and who keeps trying stays refused.
    @Test(arguments: [("refused", 200 as UInt64), ("persistent", 50)])
    func refusedRequestsCountOnAllHosts(name: String, seeds: UInt64) throws {
        let plan = try #require(SimulationPlan.named[name])
        for seed in 1...seeds {
            let simulation = Simulation(plan: plan(seed), seed: seed)
            #expect(simulation.run(), "seed \(seed) of the plan \(name)")
        }
    }

    @Test(arguments: SharingRules.names.map(\.name))
    func eachRuleIsNeeded(name: String) throws {
        let rule = try #require(SharingRules.names.first { $0.name == name }?.rule)
        let plan =
            switch rule {
            case .stopEarly, .endAtReboot: SimulationPlan.longGrants
            case .identifyEpochs, .noWayBack: SimulationPlan.forgetfulEngine
            case .confirmReturn: SimulationPlan.returns
            case .beKnown: SimulationPlan.strangers
            case .newestWins, .tellAgain, .keepEnded: SimulationPlan.changes
            case .changesFirst, .ownPool: SimulationPlan.busyAdministrators
            case .fixedShares: SimulationPlan.raises
            case .tellRefused: SimulationPlan.persistent
            default: SimulationPlan.random
            }
        let isFound = (1...2000 as ClosedRange<UInt64>).contains { seed in
            !Simulation(plan: plan(seed), rules: SharingRules.all.subtracting(rule), seed: seed).run()
        }
        #expect(isFound, "2,000 seeds without \(name) violate nothing")
    }

    @Test func aSeedAlwaysTellsTheSame() {
        let timelines = (0..<2).map { _ in
            let simulation = Simulation(plan: .random(seed: 7), seed: 7, tracing: true)
            simulation.run()
            return simulation.timeline
        }
        #expect(!timelines[0].isEmpty)
        #expect(timelines[0] == timelines[1])
    }

    /// The part of N that is admitted per window where three times as many ask.
    @Test(arguments: [
        (share: 500 as Int64, host: nil as String?, least: 0.9), (share: 0, host: nil, least: 0.9),
        (share: 100, host: "mx2", least: 0.9), (share: 0, host: "mx2", least: 0.9),
        // The shares of the other hosts are out of reach.
        (share: 500, host: "mx2", least: 0.9 * 2 / 3),
    ])
    func mostOfTheLimitIsAdmitted(share: Int64, host: String?, least: Double) {
        let plan = SimulationPlan.use(share: share, onlyHost: host)
        let simulation = Simulation(plan: plan, seed: 1)
        #expect(simulation.run())
        let windows = Double(plan.length) / Double(plan.timing.longestWindow)
        let used = Double(simulation.admittedUnits(in: plan.lanes[0])) / windows / 300
        #expect(used >= least, "\(used) of N")
    }

    private static func report(_ seed: UInt64) {
        let simulation = Simulation(plan: .random(seed: seed), seed: seed, tracing: true)
        simulation.run()
        Issue.record("seed \(seed) admits more than N:\n\(simulation.timeline.suffix(200).joined(separator: "\n"))")
    }
}
