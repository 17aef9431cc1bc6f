// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Report
import Rules

struct TestAlertCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "alert",
        abstract: "Sends a test alert through the running service, and says what became of it.",
        discussion: """
            The service itself sends the notice, with the configuration and the rights that it has. Nothing waits \
            and nothing is tried again: a channel has delivered the notice or says why not.

            Exit status: 0 every channel delivered it, 1 one did not or is not configured, 64 there is no such \
            channel, 69 the service is unreachable, 77 the user may not ask it.

            Example: weir alert --test mail
            """)

    enum Channel: String, CaseIterable, ExpressibleByArgument {
        case webhook, command, mail, all
    }

    @OptionGroup var options: ConfigurationOptions

    @Option(
        help: ArgumentHelp(
            "Channel of `alerts` in weir.yaml to send a test notice through, or all.", valueName: "channel"))
    var test: Channel

    func run() async throws {
        let message = AdminMessages.AlertTest(channel: test == .all ? nil : "alerts.\(test.rawValue)")
        let outcomes = try await Admin.ask(options, by: "alert") { try await $0.testAlerts(message) }
        for outcome in outcomes { try StandardOutput.write(line: printable(outcome.description.utf8)) }
        if !outcomes.allSatisfy(\.isDelivered) { throw ExitCode(1) }
    }
}
