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
            ReplayCommand.self,
        ])

    static func main() async {
        do {
            try await run(parse())
            try StandardOutput.flush()
        } catch {
            // What was written before goes out, too.
            do { try StandardOutput.flush() } catch { end(with: error) }
            end(with: error)
        }
    }

    private static func parse() throws -> any ParsableCommand {
        if let mistake = unknownCommand(in: CommandLine.arguments.dropFirst()) { throw mistake }
        return try parseAsRoot()
    }

    private static func run(_ command: any ParsableCommand) async throws {
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

    /// A word that is none of the commands, where one has to be: the options behind it are nobody's fault.
    private static func unknownCommand(in arguments: some Sequence<String>) -> UsageFault? {
        var command: any ParsableCommand.Type = Weir.self
        for word in arguments {
            let subcommands = command.configuration.subcommands
            guard !subcommands.isEmpty, !word.hasPrefix("-"), word != "help" else { return nil }
            guard let next = subcommands.first(where: { $0._commandName == word }) else {
                let names = subcommands.map { $0._commandName }.joined(separator: ", ")
                return UsageFault(
                    text: "there is no command '\(printable(word.utf8))' (there are \(names))",
                    usage: usageString(for: command))
            }
            command = next
        }
        return nil
    }

    private static func end(with error: any Error) -> Never {
        let isFilter = CommandLine.arguments.dropFirst().first == "filter"
        switch error {
        // pipe(8) would bounce all mail for a mistake in master.cf.
        case let fault as UsageFault where isFilter: exit(withError: FilterCommand.complain(fault.description))
        case _ where isFilter && exitCode(for: error) == .validationFailure:
            exit(withError: FilterCommand.complain(fullMessage(for: error)))
        case let failure as StandardOutput.Failure where isFilter:
            exit(withError: FilterCommand.complain(failure.description))
        case let fault as UsageFault:
            StandardError.write("Error: \(fault)\n")
            exit(withError: ExitCode(EX_USAGE))
        case let failure as StandardOutput.Failure where failure.isBrokenPipe:
            // As if nobody here had asked to be spared the signal.
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

/// What is wrong with a command line, and how that command is used.
private struct UsageFault: Error, CustomStringConvertible {
    let text: String
    let usage: String

    var description: String { "\(text)\nUsage: \(usage)" }
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
            throw ExitCode(EX_CONFIG)
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
                throw ExitCode(EX_CONFIG)
            }
            StandardError.write(
                "weir: \(config) has faults that `weir check-config` tells; asking the running service\n")
            return faults.readable
        }
    }
}
