// SPDX-License-Identifier: Apache-2.0
import ArgumentParser

@main
struct Weir: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir",
        abstract: "A filter service for Postfix: holds every sender to its rate.",
        subcommands: [ServeCommand.self, CheckConfigCommand.self, LimitsCommand.self, LoadCommand.self])
}

struct ConfigurationOptions: ParsableArguments {
    @Option(name: .long, help: "The configuration file.")
    var config = "/etc/weir/weir.yaml"
}
