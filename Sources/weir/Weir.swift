// SPDX-License-Identifier: Apache-2.0
import ArgumentParser

@main
struct Weir: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "A filter service for Postfix: sending limits and content checks.",
        subcommands: [CheckCommand.self, QueryCommand.self])
}
