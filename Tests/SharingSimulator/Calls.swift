// SPDX-License-Identifier: Apache-2.0
import SharedSimulation
import Sharing

/// Prints the calls of one seed, and what the Swift engine answers, one per line with tabs between the fields: the
/// server, its clock, the function, the number of keys, keys and arguments, "->", the reply. A line "copy" says with
/// which epoch and run id a server begins. Tabs within a field are spaces.
func printCalls(of simulation: Simulation, seed: UInt64) {
    simulation.observer = { server, clock, isOlder, call, answer in
        var (function, keys, arguments) = call.arguments(group: "seed\(seed)server\(server)")
        var reply = answer.reply
        if isOlder { makeOlder(call, &function, &keys, &arguments, &reply) }
        let fields = [String(server), String(clock), function, String(keys.count)] + keys + arguments + ["->"] + reply
        print(fields.map { String($0.map { $0 == "\t" ? " " : $0 }) }.joined(separator: "\t"))
    }
    simulation.copyObserver = { server, epoch, run in
        print(["copy", "{weir:seed\(seed)server\(server)}:", String(epoch), run].joined(separator: "\t"))
    }
    simulation.run()
}

/// What a host of version 1 sends and gets, which knows of no changes by administrators.
private func makeOlder(
    _ call: Call, _ function: inout String, _ keys: inout [String], _ arguments: inout [String],
    _ reply: inout [String]
) {
    function = "weir_sharing_1" + function.dropFirst(EngineLibrary.name.count)
    guard case .exchange(let exchange) = call else { return }
    keys.removeSubrange(3..<6)
    arguments.removeSubrange(11..<14 + 5 * exchange.changes.count)
    if reply.count > 3 { reply.removeSubrange(3..<5) }
}
