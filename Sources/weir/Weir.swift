// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Service

@main
struct Weir: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir",
        abstract: "A filter service for Postfix: sending limits and content checks.",
        version: "weir \(WeirVersion.current)",
        subcommands: [
            ServeCommand.self, CheckConfigCommand.self, LimitsCommand.self, CheckCommand.self, QueryCommand.self,
            FilterCommand.self, TopCommand.self, LoadCommand.self, DoctorCommand.self, ImportCommand.self,
            ReplayCommand.self,
        ])

    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch where CommandLine.arguments.dropFirst().first == "filter" && exitCode(for: error) == .validationFailure {
            // pipe(8) would bounce all mail for a mistake in master.cf.
            exit(withError: FilterCommand.complain(fullMessage(for: error)))
        } catch {
            exit(withError: error)
        }
    }
}

struct ConfigurationOptions: ParsableArguments {
    @Option(name: .long, help: "The configuration file.")
    var config = "/etc/weir/weir.yaml"

    /// The configuration and its rules, for a command that needs them whole.
    ///
    /// - Throws: `ExitCode` 78 (EX_CONFIG), after all faults have been named.
    func read() throws -> ConfigurationReader.Outcome {
        switch ConfigurationReader.read(path: config) {
        case .success(let outcome):
            return outcome
        case .failure(let faults):
            StandardError.write("\(faults)\n")
            throw ExitCode(78)
        }
    }

    /// As much of the configuration as tells where the running service is; that may have read an older file.
    ///
    /// - Throws: `ExitCode` 78 (EX_CONFIG), where the fault is in just that.
    func readAdmin() throws -> Configuration {
        switch ConfigurationReader.read(path: config) {
        case .success(let outcome):
            return outcome.configuration
        case .failure(let faults):
            let isLost = faults.all.contains { fault in
                fault.key.isEmpty || fault.key.hasPrefix("listen") || fault.key.hasPrefix("ledger")
            }
            if isLost {
                StandardError.write("\(faults)\n")
                throw ExitCode(78)
            }
            StandardError.write("weir: \(config) has faults that `weir check-config` tells; asking the running service\n")
            return faults.readable
        }
    }
}
