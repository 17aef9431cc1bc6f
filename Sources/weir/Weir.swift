// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Report
import Rules
import Settings

@main
struct Weir: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir",
        abstract: "A filter service for Postfix: sending limits and content checks.",
        version: "weir \(WeirVersion.current)",
        subcommands: [
            ServeCommand.self, CheckConfigCommand.self, LimitsCommand.self, CheckCommand.self, QueryCommand.self,
            FilterCommand.self, TopCommand.self, LoadCommand.self, DoctorCommand.self, ImportCommand.self,
            ReplayCommand.self, SetupCommand.self, CheckHealthCommand.self, TestAlertCommand.self,
            HostsCommand.self,
        ])

    /// On the main thread: `ServeCommand` needs a process without others.
    @MainActor static func main() async {
        requireArguments()
        let isService = CommandLine.arguments.dropFirst().first == "serve"
        // `Preparation` blocks it before it reads the configuration. Until then there is nothing to reload.
        if isService { signal(SIGHUP, SIG_IGN) }
        do {
            if let mistake = mistake(in: CommandLine.arguments.dropFirst()) { throw mistake }
            if isService, let serve = try parseAsRoot() as? ServeCommand {
                try await serve.run()
            } else {
                // Completions ask the service, on other threads.
                try await run(await asyncParseAsRoot())
            }
            try StandardOutput.flush()
        } catch {
            // Write what is still in the buffer.
            do { try StandardOutput.flush() } catch { end(with: error) }
            end(with: error)
        }
    }

    /// Swift reads them from a file. Without any, the parser would print the help and end with 0: pipe(8) would take
    /// the message of `weir filter` for delivered.
    private static func requireArguments() {
        guard CommandLine.argc < 1 else { return }
        StandardError.write("weir: can't read the command line from /proc/self/cmdline: /proc must be mounted\n")
        exit(withError: ExitCode(EX_TEMPFAIL))
    }

    private static func run(_ command: sending any ParsableCommand) async throws {
        var command = command
        do {
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let error as ValidationError {
            throw UsageFault(text: error.message, usage: usageString(for: type(of: command)))
        }
    }

    /// Finds an unknown command before the parser complains about the options that follow it, and a key that the
    /// parser takes for options.
    private static func mistake(in arguments: ArraySlice<String>) -> UsageFault? {
        var command: any ParsableCommand.Type = Weir.self
        var rest = arguments.first == "help" ? arguments.dropFirst() : arguments
        while let word = rest.first, !word.hasPrefix("-"), !command.configuration.subcommands.isEmpty {
            let subcommands = command.configuration.subcommands
            guard let next = subcommands.first(where: { $0._commandName == word }) else {
                let names = subcommands.map { $0._commandName }.joined(separator: ", ")
                return UsageFault(
                    text: "unknown command '\(printable(word.utf8))'; commands are \(names)",
                    usage: usageString(for: command))
            }
            command = next
            rest = rest.dropFirst()
        }
        return keyLikeOptions(in: rest, of: command)
    }

    /// `weir limits show -dash`: with its `h`, it would print the help. No command of `limits` has an option of one
    /// letter but `-h`.
    private static func keyLikeOptions(
        in arguments: ArraySlice<String>, of command: any ParsableCommand.Type
    ) -> UsageFault? {
        let takesKeys = LimitsCommand.configuration.subcommands.contains { $0 == command }
        let options = arguments.prefix { $0 != "--" }
        guard takesKeys, let word = options.first(where: { $0.hasPrefix("-") && !$0.hasPrefix("--") && $0.count > 2 })
        else { return nil }
        let shown = printable(word.utf8)
        return UsageFault(
            text: "unknown option '\(shown)'; write a key that begins with '-' after all options: -- '\(shown)'",
            usage: usageString(for: command))
    }

    private static func end(with error: any Error) -> Never {
        let isFilter = CommandLine.arguments.dropFirst().first == "filter"
        switch error {
        // A usage error in master.cf must defer mail, not bounce it: pipe(8) bounces on EX_USAGE.
        case let fault as UsageFault where isFilter: exit(withError: FilterCommand.deferral(fault.description))
        case _ where isFilter && exitCode(for: error) == .validationFailure:
            exit(withError: FilterCommand.deferral(fullMessage(for: error)))
        case let failure as StandardOutput.Failure where isFilter:
            exit(withError: FilterCommand.deferral(failure.description))
        case let fault as UsageFault:
            StandardError.write("Error: \(fault)\n")
            exit(withError: ExitCode(EX_USAGE))
        case let failure as StandardOutput.Failure where failure.isBrokenPipe:
            // Die of SIGPIPE, which the process ignores, as other commands do.
            signal(SIGPIPE, SIG_DFL)
            raise(SIGPIPE)
            exit(withError: ExitCode(128 + SIGPIPE))
        case let failure as StandardOutput.Failure:
            StandardError.write("weir: \(failure)\n")
            exit(withError: ExitCode(EX_IOERR))
        default: exit(withError: error)
        }
    }
}

/// A wrong command line, and the usage line of its command.
private struct UsageFault: Error, CustomStringConvertible {
    let text: String
    let usage: String

    var description: String { "\(text)\nUsage: \(usage)" }
}

struct ConfigurationOptions: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "Configuration file; WEIR_CONFIG in the environment sets another default.", valueName: "file"),
        completion: .file())
    var config = Self.defaultPath

    /// The file that `WEIR_CONFIG` names, or that of an installed service.
    static let defaultPath = {
        guard let path = getenv("WEIR_CONFIG"), path.pointee != 0 else { return Configuration.defaultPath }
        return String(cString: path)
    }()

    /// The configuration and its rules, for a command that needs all of it.
    ///
    /// - Throws: `ExitCode` 78 (EX_CONFIG) after printing all faults.
    func read() throws -> ConfigurationReader.Outcome {
        switch ConfigurationReader.read(path: config) {
        case .success(let outcome):
            return outcome
        case .failure(let faults):
            StandardError.write("\(faults)\n")
            throw ExitCode(EX_CONFIG)
        }
    }

    /// The part of the configuration that says where the running service listens. Faults elsewhere in the file don't
    /// matter: the service may be running with an older version.
    ///
    /// - Throws: `ExitCode` 78 (EX_CONFIG) for a fault in that part.
    func readAdmin() throws -> Configuration {
        switch ConfigurationReader.read(path: config) {
        case .success(let outcome):
            return outcome.configuration
        case .failure(let faults):
            guard let readable = Self.admin(in: faults) else {
                StandardError.write("\(faults)\n")
                throw ExitCode(EX_CONFIG)
            }
            StandardError.write(
                "weir: \(config) has errors (run weir check-config); asking the running service anyway\n")
            return readable
        }
    }

    /// Like `readAdmin`, for a command that says itself what is wrong with the file.
    ///
    /// - Returns: nil without the part that says where the service listens; and the first fault of the file, if any.
    func readPart() -> (Configuration?, fault: String?) {
        switch ConfigurationReader.read(path: config) {
        case .success(let outcome):
            return (outcome.configuration, nil)
        case .failure(let faults):
            let others = faults.all.count - 1
            return (Self.admin(in: faults), "\(faults.all[0])\(others > 0 ? " (and \(others) more)" : "")")
        }
    }

    /// What could be read, if the faults are not in the part that says where the service listens.
    private static func admin(in faults: ConfigurationFaults) -> Configuration? {
        let isUnusable = faults.all.contains { fault in
            fault.key.isEmpty || fault.key.hasPrefix("listen") || fault.key.hasPrefix("ledger")
        }
        return isUnusable ? nil : faults.readable
    }
}
