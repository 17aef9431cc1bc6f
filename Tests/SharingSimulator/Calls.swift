// SPDX-License-Identifier: Apache-2.0
import SharedSimulation
import Sharing

/// Prints the calls of one seed, and what the Swift engine answers, one per line with tabs between the fields: the
/// server, its clock, the function, the number of keys, keys and arguments, "->", the reply. A line "copy" says with
/// which epoch and run id a server begins.
func printCalls(seed: UInt64) {
    let simulation = Simulation(plan: .random(seed: seed), seed: seed)
    simulation.observer = { server, clock, call, answer in
        let (function, keys, arguments) = call.arguments(group: "seed\(seed)server\(server)")
        let fields = [String(server), String(clock), function, String(keys.count)] + keys + arguments
        print((fields + ["->"] + answer.reply).joined(separator: "\t"))
    }
    simulation.copyObserver = { server, epoch, run in
        print(["copy", "{weir:seed\(seed)server\(server)}:", String(epoch), run].joined(separator: "\t"))
    }
    simulation.run()
}
