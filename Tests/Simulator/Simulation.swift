// SPDX-License-Identifier: Apache-2.0
import Glibc
import Report

/// Runs seeds, and shortens those that fail.
final class Simulation {
    private let folder: String
    private let log: EventLog

    init(folder: String, log: EventLog) {
        self.folder = folder
        self.log = log
    }

    /// - Parameter stopsAtFailure: whether the first seed that fails is the last.
    /// - Returns: how many seeds have failed.
    func run(first: UInt64, count: UInt64, stride: UInt64, tells: Bool, stopsAtFailure: Bool) -> Int {
        var failures = 0
        var restarts = 0
        for number in 0..<count {
            let seed = first + number * stride
            var generator = Generator(seed: seed)
            let scenario = generator.scenario()
            let world = World(scenario, folder: folder, log: log, isTold: tells)
            let failure = Self.outcome(world)
            restarts += world.restarts
            if tells { for line in world.timeline ?? [] { print(line) } }
            guard let failure else { continue }
            failures += 1
            print("seed \(seed) (\(scenario.kind), \(scenario.durability)): \(failure.message)")
            report(shortened(scenario, failure))
            if stopsAtFailure { break }
        }
        print("\(count) seeds from \(first), every \(stride): \(failures) failed; \(restarts) starts")
        return failures
    }

    private static func outcome(_ world: World) -> Failure? {
        do throws(Failure) {
            try world.run()
            return nil
        } catch {
            return error
        }
    }

    /// Drops operations and limits as long as the scenario still fails in the same way.
    private func shortened(_ scenario: Scenario, _ failure: Failure) -> Scenario {
        func fails(_ scenario: Scenario) -> Bool {
            Self.outcome(World(scenario, folder: folder, log: log, isTold: false))?.kind == failure.kind
        }
        var scenario = scenario
        var size = scenario.operations.count / 2
        while size >= 1 {
            var start = 0
            var isShorter = false
            while start < scenario.operations.count {
                var candidate = scenario
                candidate.operations.removeSubrange(start..<min(start + size, candidate.operations.count))
                if fails(candidate) {
                    scenario = candidate
                    isShorter = true
                } else {
                    start += size
                }
            }
            if size == 1, isShorter { continue }
            size /= 2
        }
        for name in Set(scenario.configurations.joined().map(\.name)).sorted() {
            var candidate = scenario
            for index in candidate.configurations.indices {
                candidate.configurations[index].removeAll { $0.name == name }
            }
            if fails(candidate) { scenario = candidate }
        }
        return scenario
    }

    /// Prints the timeline of a scenario that fails.
    private func report(_ scenario: Scenario) {
        let world = World(scenario, folder: folder, log: log, isTold: true)
        let failure = Self.outcome(world)
        print("  durability \(scenario.durability), give_back_dropped \(scenario.givesBackDropped), limits:")
        for (number, limits) in scenario.configurations.enumerated() {
            print("  configuration \(number):")
            for limit in limits {
                let lines = limit.yaml(in: "TABLES").split(separator: "\n")
                print("    " + lines.map { $0.drop { $0 == " " } }.joined(separator: "; "))
            }
        }
        for line in world.timeline ?? [] { print("  \(line)") }
        print("  \(failure?.message ?? "the shortened scenario does not fail again")")
    }

    func removeFolder() {
        // Files only: the folders were made by this process.
        for path in [folder + "/ledger", folder] {
            for name in Self.names(in: path) { unlink("\(path)/\(name)") }
            rmdir(path)
        }
    }

    /// The files in a folder.
    static func names(in folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
