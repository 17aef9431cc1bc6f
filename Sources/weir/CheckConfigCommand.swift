// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Service

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
            print(try report.json())
        } else {
            FileHandle.standardError.write(Data(report.diagnostics(inColour: Self.errorsAreShownInColour).utf8))
            if let summary = report.summary { print(summary) }
        }
        if !report.isValid { throw ExitCode(1) }
    }

    /// On a terminal, unless its user has asked for none (no-color.org).
    private static var errorsAreShownInColour: Bool {
        let environment = ProcessInfo.processInfo.environment
        return isatty(STDERR_FILENO) == 1 && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    }
}
