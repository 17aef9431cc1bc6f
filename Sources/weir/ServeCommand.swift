// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Service
import Settings

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Runs the service in the foreground.",
        discussion: """
            SIGHUP reads the configuration again, SIGTERM ends the service. systemd's notifications, watchdog and \
            socket activation are used where they are offered. The exit status is 78 where the configuration has \
            faults, and 69 where a listener can't be opened.

            Example: weir serve --config /etc/weir/weir.yaml
            """)

    @OptionGroup var options: ConfigurationOptions

    func run() async throws {
        do {
            try await Daemon.serve(configurationPath: options.config)
        } catch {
            StandardError.write("weir serve: \(error)\n")
            throw ExitCode(error is ConfigurationFaults ? EX_CONFIG : EX_UNAVAILABLE)
        }
    }
}
