// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Advisor
import ArgumentParser
import Foundation
import LoadGenerator
import Loop
import NIOCore
import NIOPosix
import Settings
import Wire

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Finds what is hooked up wrongly between Postfix and Weir, and says how to mend it.",
        discussion: """
            Reads the configuration and what postconf says of main.cf and master.cf, and tries whether the service answers. Of each finding \
            it prints the commands or the lines of weir.yaml that mend it. It changes nothing by itself; after changes: postfix reload.

            Exit status: 0 nothing was found but notes, 1 faults or warnings, 69 postconf, smtpd or the service cannot be asked, 74 standard \
            output cannot be written, 78 the configuration has faults.

            Example: weir doctor --postfix /etc/postfix-out
            """)

    @OptionGroup var options: ConfigurationOptions

    @Option(
        help: ArgumentHelp(
            "The folder of main.cf and master.cf (default: all instances that the system's Postfix knows).",
            valueName: "folder"))
    var postfix: String?

    @Flag(name: .customLong("no-service"), help: "Do not try whether the service answers.")
    var skipsService = false

    @Flag(
        name: .customLong("try"),
        help: "Instead, send one probe mail through the running Postfix and Weir, and say where it came by.")
    var tries = false

    @Option(help: ArgumentHelp("Where smtpd listens, for --try; on this machine.", valueName: "target"))
    var smtp = LoadTarget.inet(host: "127.0.0.1", port: 25)

    @Option(
        help: ArgumentHelp(
            "Whom the probe is to, for --try (default: postmaster at Postfix's myhostname).", valueName: "address"))
    var to: String?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard to.map({ $0.wholeMatch(of: /[!#-;=?-~]+/) != nil }) ?? true else {
            throw ValidationError("--to is an address")
        }
    }

    /// An instance of Postfix, and what was found there.
    private struct Report: Encodable {
        let instance: String
        let findings: [Finding]
    }

    func run() async throws {
        let configuration = try options.read().configuration
        if tries { return try await run(trialOf: configuration) }
        var reports: [Report] = []
        do {
            let setup = try Postconf.setup(directory: postfix)
            reports.append(report(setup, configuration, directory: postfix))
            if postfix == nil {
                for directory in setup.value("multi_instance_directories").split(whereSeparator: { " ,\t".contains($0) }
                ).map(String.init) {
                    reports.append(
                        report(try Postconf.setup(directory: directory), configuration, directory: directory))
                }
            }
        } catch let failure as Postconf.Failure {
            throw Self.unavailable("\(failure)")
        }
        if !skipsService { reports.append(Report(instance: "weir serve", findings: await Self.trying(configuration))) }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
            try StandardOutput.write(line: String(decoding: encoder.encode(reports), as: UTF8.self))
        } else {
            try show(reports)
        }
        let isWell = reports.allSatisfy { $0.findings.allSatisfy { $0.severity == .note } }
        throw ExitCode(isWell ? 0 : 1)
    }

    private func run(trialOf configuration: Configuration) async throws {
        do {
            let setup = try Postconf.setup(directory: postfix)
            let trial = DoctorTrial(configuration: configuration, setup: setup, target: smtp, recipient: to)
            let report = try await trial.run()
            if json { try Admin.printJSON(report) } else { try StandardOutput.write(line: DoctorTrial.text(report)) }
            if !report.isWell { throw ExitCode(1) }
        } catch let failure as Postconf.Failure {
            throw Self.unavailable("\(failure)")
        } catch let failure as ProbeMail.Failure {
            throw Self.unavailable("\(failure)")
        } catch let failure as AdminClient.Failure {
            throw Self.unavailable("\(failure)")
        }
    }

    private static func unavailable(_ reason: String) -> ExitCode {
        StandardError.write("weir doctor: \(reason)\n")
        return ExitCode(EX_UNAVAILABLE)
    }

    private func report(_ setup: PostfixSetup, _ configuration: Configuration, directory: String?) -> Report {
        Report(
            instance: setup.value("config_directory"),
            findings: Examination.findings(in: setup, configuration: configuration, directory: directory))
    }

    private func show(_ reports: [Report]) throws {
        for report in reports {
            try StandardOutput.write(
                line: "\(report.instance): "
                    + (report.findings.isEmpty ? "nothing found" : "\(report.findings.count) found"))
            for finding in report.findings {
                try StandardOutput.write(
                    line: "\n\(finding.severity.rawValue): \(finding.place): \(finding.text) [\(finding.kind)]")
                for command in finding.commands { try StandardOutput.write(line: "    \(command)") }
                for line in finding.configuration { try StandardOutput.write(line: "    weir.yaml: \(line)") }
            }
        }
    }

    // MARK: The service

    private static let connectTimeout: TimeAmount = .seconds(2)

    /// Whether somebody listens where the configuration says.
    private static func trying(_ configuration: Configuration) async -> [Finding] {
        let listen = configuration.listen
        let endpoints =
            listen.policy.map { ("listen.policy", $0) } + listen.milter.map { ("listen.milter", $0) }
            + listen.filter.map { ("listen.filter", $0.listen) } + [("listen.admin", listen.admin)]
        var findings: [Finding] = []
        for (key, endpoint) in endpoints {
            guard let reason = await failure(to: endpoint) else { continue }
            findings.append(
                Finding(
                    severity: .fault, kind: "service-not-there", place: "weir.yaml",
                    text: "\(key): nobody answers on \(endpoint): \(reason)", commands: ["systemctl status weir"],
                    configuration: []))
        }
        return findings
    }

    private static func failure(to endpoint: Configuration.Endpoint) async -> String? {
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connectTimeout(connectTimeout)
        do {
            let channel =
                switch endpoint {
                case .inet(let host, let port): try await bootstrap.connect(host: host, port: port).get()
                case .unix(let path, _, _): try await bootstrap.connect(unixDomainSocketPath: path).get()
                }
            try? await channel.close().get()
            return nil
        } catch {
            return error.systemReason
        }
    }
}
