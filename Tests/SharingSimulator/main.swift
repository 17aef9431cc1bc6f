// SPDX-License-Identifier: Apache-2.0
import Glibc
import SharedSimulation
import Sharing

// Runs the simulation of a shared ledger over many seeds. Exit status 1 if one of them violates what
// the ledger promises.
//
// --timeline prints what happened in one seed; --calls prints its calls to the engine, for Tests/sharing.

var seeds: UInt64 = 1000
var first: UInt64 = 1
var rules = SharingRules.all
var timeline: UInt64?
var calls: UInt64?
var plan: (UInt64) -> SimulationPlan = SimulationPlan.random

func exitWithUsage() -> Never {
    print(
        """
        usage: SharingSimulator [--seeds N] [--first SEED] [--plan PLAN] [--without RULE]
               SharingSimulator --timeline SEED | --calls SEED [--plan PLAN] [--without RULE]
        plans: \(SimulationPlan.named.keys.sorted().joined(separator: " "))
        rules: \(SharingRules.names.map(\.name).joined(separator: " "))
        """)
    exit(64)
}

var arguments = CommandLine.arguments.dropFirst()
while let option = arguments.popFirst() {
    guard let value = arguments.popFirst() else { exitWithUsage() }
    switch (option, UInt64(value)) {
    case ("--seeds", let number?): seeds = number
    case ("--first", let number?): first = number
    case ("--timeline", let number?): timeline = number
    case ("--calls", let number?): calls = number
    case ("--plan", _):
        guard let named = SimulationPlan.named[value] else { exitWithUsage() }
        plan = named
    case ("--without", _):
        guard let rule = SharingRules.names.first(where: { $0.name == value })?.rule else { exitWithUsage() }
        rules.remove(rule)
    default: exitWithUsage()
    }
}

if let seed = timeline {
    let simulation = Simulation(plan: plan(seed), rules: rules, seed: seed, tracing: true)
    simulation.run()
    print(simulation.timeline.joined(separator: "\n"))
} else if let seed = calls {
    printCalls(of: Simulation(plan: plan(seed), seed: seed), seed: seed)
} else {
    var (admitted, refused, calls) = (0, 0, 0)
    var bad: [UInt64] = []
    for seed in first..<first + seeds {
        let simulation = Simulation(plan: plan(seed), rules: rules, seed: seed)
        if !simulation.run() { bad.append(seed) }
        admitted += simulation.admitted
        refused += simulation.refused
        calls += simulation.calls
    }
    print("\(seeds) seeds: \(admitted) admitted, \(refused) refused, \(calls) calls; violations in \(bad.count)")
    if let seed = bad.first { print("the first: --timeline \(seed); others: \(bad.dropFirst().prefix(10))") }
    exit(bad.isEmpty ? 0 : 1)
}
