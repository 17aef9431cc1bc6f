// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Glibc
import NIOCore
import Settings

struct CheckHealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-health",
        abstract: "Checks the running service, as a plugin of Nagios, Icinga or Checkmk.",
        discussion: """
            Prints one line: the state, what is wrong, and performance data. Warnings: slow answers, a next hop that \
            is down, an engine of shared limits that can't be used, a configuration with errors or whose reload was \
            rejected, as many keys as ledger.most_keys allows. Critical: the service is unreachable, counts are not \
            saved, very slow answers.

            Exit status: 0 OK, 1 warning, 2 critical, 3 unknown: the configuration does not say where the service \
            listens, or the user may not ask the service.

            Example: weir check-health --slow 50
            """)

    @OptionGroup var options: ConfigurationOptions

    @Option(
        help: ArgumentHelp(
            "The p99 of the answer times of the last minute that is a warning; ten times as much is critical "
                + "(default: 100).",
            valueName: "milliseconds"),
        transform: NumberArgument.within(1...10_000))
    var slow = 100

    /// Plugins are killed after ten seconds by default.
    private static let timeout: Int64 = 5

    func run() async throws {
        let health = await health()
        try StandardOutput.write(line: health.line)
        throw ExitCode(health.state.rawValue)
    }

    private func health() async -> Health {
        let (configuration, fault) = options.readPart()
        guard let configuration else {
            return Health(state: .unknown, text: fault ?? "", performance: [])
        }
        do {
            let client = AdminClient(configuration, timeout: .seconds(Self.timeout))
            return Health(try await client.snapshot(), slow: slow, fileFault: fault)
        } catch let failure as AdminClient.Failure {
            return Health(failure, fileFault: fault)
        } catch {
            return Health(state: .unknown, text: "\(error)", performance: [])
        }
    }
}
