// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Report
import Service
import Settings

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Runs the service in the foreground.",
        discussion: """
            SIGHUP reloads the configuration, SIGTERM stops the service. Under systemd it uses notifications, the \
            watchdog and socket activation.

            Started as root, it binds ports below 1024 and becomes the account that `user` names. The process \
            then gives up what it does not need; see "The sandbox" in docs/operation.md.

            Exit status: 69 a listener can't be opened, 78 the configuration has errors, `user` is an account that \
            does not exist, or a required restriction is missing; with --try-sandbox also 1 something was not refused.

            Example: weir serve --config /etc/weir/weir.yaml
            """)

    @OptionGroup var options: ConfigurationOptions

    @Flag(
        name: .customLong("try-sandbox"),
        help: "Instead, apply the restrictions, and report whether they refuse what they should.")
    var triesSandbox = false

    /// Here, the process has one thread.
    @MainActor func run() async throws {
        do {
            let preparation = try Preparation(configurationPath: options.config)
            if triesSandbox { return try tryOut(preparation) }
            try await Daemon.serve(preparation)
        } catch let code as ExitCode {
            throw code
        } catch {
            let text = "weir serve: \(error)"
            // journald takes each line as an entry of its own, with its level before it (sd-daemon(3)).
            StandardError.write(
                Journal.reads(STDERR_FILENO)
                    ? text.split(separator: "\n").map { "<3>\($0)\n" }.joined() : text + "\n")
            throw ExitCode(Self.status(of: error))
        }
    }

    /// EX_CONFIG for what a restart would find again: the unit's RestartPreventExitStatus names it.
    private static func status(of error: any Error) -> Int32 {
        switch error {
        case is ConfigurationFaults, is ServiceUser.Failure, is Sandbox.Missing: EX_CONFIG
        default: EX_UNAVAILABLE
        }
    }

    private func tryOut(_ preparation: Preparation) throws {
        let attempts = SandboxTrial.run(preparation)
        for attempt in attempts { try StandardOutput.write(line: attempt.description) }
        if attempts.contains(where: { !$0.isRefused }) { throw ExitCode(1) }
    }
}
