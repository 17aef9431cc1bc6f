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
            SIGHUP reloads the configuration, SIGTERM stops the service. Under systemd it uses notifications, the \
            watchdog and socket activation.

            Exit status: 69 a listener can't be opened, 78 the configuration has errors.

            Example: weir serve --config /etc/weir/weir.yaml
            """)

    @OptionGroup var options: ConfigurationOptions

    func run() async throws {
        do {
            try await Daemon.serve(configurationPath: options.config)
        } catch {
            StandardError.complain("\(error)", by: "serve")
            throw ExitCode(error is ConfigurationFaults ? EX_CONFIG : EX_UNAVAILABLE)
        }
    }
}
