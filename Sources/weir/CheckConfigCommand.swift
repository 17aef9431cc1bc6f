// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Settings

struct CheckConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-config",
        abstract: "Says all that is wrong with a configuration.",
        discussion: """
            Every fault and warning is a line on standard error: file:line:column: key: what is wrong, and what is \
            allowed. The tables that the configuration names are read too. Nothing is changed. The exit status is 0 \
            where the service would take the configuration, and 1 where it would not.

            Example: weir check-config --config /etc/weir/weir.yaml && systemctl reload weir
            """)

    @OptionGroup var options: ConfigurationOptions

    @Flag(help: "Print one JSON object to standard output, and nothing to standard error.")
    var json = false

    func run() throws {
        let report = ConfigurationReport(ConfigurationReader.read(path: options.config), path: options.config)
        if json {
            try StandardOutput.write(line: report.json())
        } else {
            StandardError.write(report.diagnostics(inColour: Terminal.takesColour(STDERR_FILENO)))
            if let summary = report.summary { try StandardOutput.write(line: summary) }
        }
        if !report.isValid { throw ExitCode(1) }
    }
}
