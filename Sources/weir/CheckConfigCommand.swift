// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Settings

struct CheckConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-config",
        abstract: "Checks a configuration and its tables.",
        discussion: """
            Prints each error and warning as a line on standard error: file:line:column: key: what is wrong, and which \
            values are allowed. Also checks the tables that the configuration names, and warns of accounts and \
            directories that this machine lacks. Changes nothing.

            Exit status: 0 the service would load the configuration, 1 it would not.

            Example: weir check-config --config /etc/weir/weir.yaml && systemctl reload weir
            """)

    @OptionGroup var options: ConfigurationOptions

    /// Accepted only to say what was probably meant.
    @Argument(help: .hidden)
    var words: [String] = []

    @Flag(help: "Print one JSON object on standard output and nothing on standard error.")
    var json = false

    func validate() throws {
        guard let word = words.first else { return }
        throw ValidationError("unexpected argument '\(word)'; did you mean --config \(word)?")
    }

    func run() throws {
        let report = ConfigurationReport(
            ConfigurationReader.read(path: options.config, examinesMachine: true), path: options.config)
        if json {
            try StandardOutput.write(line: report.json())
        } else {
            StandardError.write(report.diagnostics(inColour: Terminal.takesColour(STDERR_FILENO)))
            if let summary = report.summary { try StandardOutput.write(line: summary) }
        }
        if !report.isValid { throw ExitCode(1) }
    }
}
