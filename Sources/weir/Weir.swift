// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Service

@main
struct Weir: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir",
        abstract: "A filter service for Postfix: sending limits and content checks.",
        subcommands: [
            ServeCommand.self, CheckConfigCommand.self, LimitsCommand.self, CheckCommand.self, QueryCommand.self,
            LoadCommand.self,
        ])
}

struct ConfigurationOptions: ParsableArguments {
    @Option(name: .long, help: "The configuration file.")
    var config = "/etc/weir/weir.yaml"

    /// The configuration, for a command that needs it whole.
    ///
    /// - Throws: `ExitCode` 78 (EX_CONFIG), after all faults have been named.
    func read() throws -> Configuration {
        switch ConfigurationReader.read(path: config) {
        case .success(let outcome):
            return outcome.configuration
        case .failure(let faults):
            FileHandle.standardError.write(Data((faults.description + "\n").utf8))
            throw ExitCode(78)
        }
    }
}
