// SPDX-License-Identifier: Apache-2.0
import Glibc
import SharedSimulation
import Sharing

// Runs the simulation of a shared ledger over many seeds. Exit status 1 if one of them violates what
// the ledger promises.
//
//     SharingSimulator [--seeds 1000] [--first 1] [--without RULE] [--timeline SEED] [--calls SEED]
//                      [--plan random|longGrants|forgetfulEngine|changes|busyAdministrators|raises|mixed|refused|
//                              persistent]
//
// --timeline prints what happened in one seed; --calls prints its calls to the engine, for Tests/sharing.

var seeds: UInt64 = 1000
var first: UInt64 = 1
var rules = SharingRules.all
var timeline: UInt64?
var calls: UInt64?
var plan: (UInt64) -> SimulationPlan = SimulationPlan.random

func value(_ arguments: inout ArraySlice<String>) -> String {
    guard let value = arguments.popFirst() else { fatalError("an option lacks its value") }
    return value
}

var arguments = CommandLine.arguments.dropFirst()
while let option = arguments.popFirst() {
    let value = value(&arguments)
    switch option {
    case "--seeds": seeds = UInt64(value) ?? 0
    case "--first": first = UInt64(value) ?? 1
    case "--timeline": timeline = UInt64(value)
    case "--calls": calls = UInt64(value)
    case "--plan":
        guard let named = SimulationPlan.named[value] else { fatalError("no plan \(value)") }
        plan = named
    case "--without":
        guard let rule = SharingRules.names.first(where: { $0.name == value })?.rule else {
            fatalError("no rule \(value)")
        }
        rules.remove(rule)
    default: fatalError("no option \(option)")
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
