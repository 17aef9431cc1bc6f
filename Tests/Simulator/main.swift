// SPDX-License-Identifier: Apache-2.0
// Simulates the service: see Tests/simulate.
import Glibc
import Report
import Settings

var first: UInt64 = 1
var count: UInt64 = 1
var stride: UInt64 = 1
var tells = false
var stopsAtFailure = false
var arguments = Array(CommandLine.arguments.dropFirst())
while !arguments.isEmpty {
    let name = arguments.removeFirst()
    if name == "--timeline" {
        tells = true
        continue
    }
    if name == "--until-failure" {
        stopsAtFailure = true
        continue
    }
    guard let value = arguments.first.flatMap({ UInt64($0) }) else {
        print("usage: Simulator [--first N] [--seeds N] [--stride N] [--timeline] [--until-failure]")
        exit(64)
    }
    arguments.removeFirst()
    switch name {
    case "--first": first = value
    case "--seeds": count = value
    case "--stride": stride = value
    default:
        print("Simulator: unknown option \(name)")
        exit(64)
    }
}

let folder = "/dev/shm/weir-simulator-\(getpid())"
mkdir(folder, 0o700)
mkdir(folder + "/ledger", 0o700)
let simulation = Simulation(folder: folder, log: EventLog(destination: .file("/dev/null")))
let failures = simulation.run(first: first, count: count, stride: stride, tells: tells, stopsAtFailure: stopsAtFailure)
simulation.removeFolder()
exit(failures == 0 ? 0 : 1)
