// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Advisor
import ArgumentParser
import Filter
import Foundation
import LoadGenerator
import Loop
import NIOCore
import NIOPosix
import Report
import Settings
import Wire

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Finds mistakes in how Postfix and Weir are connected, and prints fixes.",
        discussion: """
            Reads weir.yaml, main.cf and master.cf, and asks the running service about its ledger, its next hops and \
            its last reload. With `shared`, it examines the engine, too. For each finding it prints the commands or \
            the lines of weir.yaml that fix it. It changes nothing. After applying a fix, run postfix reload.

            Exit status: 0 no findings or only notes, 1 faults or warnings, 66 the password can't be read, \
            69 postconf failed, or smtpd or the service is unreachable, or smtpd lacks what --user or --starttls \
            needs, 74 standard output can't be written, 78 the configuration has errors.

            Examples:
              weir doctor --postfix /etc/postfix-out
              weir doctor --try --smtp inet:127.0.0.1:587 --user alice@example.org
            """)

    @OptionGroup var options: ConfigurationOptions

    @Option(
        help: ArgumentHelp(
            "Directory of main.cf and master.cf (default: that of the system, and all its other instances).",
            valueName: "directory"),
        completion: .directory)
    var postfix: String?

    @Flag(name: .customLong("no-service"), help: "Don't ask the service and the engine of `shared`.")
    var skipsService = false

    @Flag(
        name: .customLong("try"),
        help: "Instead, send a probe message through the running Postfix and Weir, and report which stages saw it.")
    var tries = false

    @Option(help: ArgumentHelp("With --try: address of smtpd, on this machine.", valueName: "target"))
    var smtp = LoadTarget.inet(host: "127.0.0.1", port: 25)

    @Option(
        help: ArgumentHelp(
            "With --try: recipient of the probe (default: postmaster at Postfix's myhostname).", valueName: "address"))
    var to: String?

    @Flag(help: "With --try: require STARTTLS. With --user, TLS is used wherever smtpd offers it.")
    var starttls = false

    @Option(help: ArgumentHelp("With --try: log in as this user; asks for the password.", valueName: "name"))
    var user: String?

    @Option(
        help: ArgumentHelp("With --user: file whose first line is the password.", valueName: "file"),
        completion: .file())
    var passwordFile: String?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard tries || !starttls && user == nil else { throw ValidationError("--user and --starttls need --try") }
        guard user != nil || passwordFile == nil else { throw ValidationError("--password-file needs --user") }
        guard to.map({ $0.wholeMatch(of: /[!#-;=?-~]+/) != nil }) ?? true else {
            throw ValidationError("--to must be an address")
        }
    }

    /// The findings of a Postfix instance, or of the service.
    private struct Report: Encodable {
        let instance: String
        let findings: [Finding]
        /// The protections of the running service.
        var protections: AdminMessages.Protections?
    }

    func run() async throws {
        let outcome = try options.read()
        let (configuration, rules) = (outcome.configuration, outcome.rules)
        if tries { return try await run(trialOf: configuration, rules) }
        var reports: [Report] = []
        do {
            let instances = try Self.instances(postfix)
            for (index, instance) in instances.enumerated() {
                let others = (instances[..<index] + instances[(index + 1)...]).map(\.setup)
                let findings = Examination.findings(
                    in: instance.setup, beside: others, configuration: configuration, rules: rules,
                    directory: instance.directory)
                reports.append(Report(instance: instance.setup.value("config_directory"), findings: findings))
            }
        } catch let failure as Postconf.Failure {
            throw Self.unavailable("\(failure)")
        }
        if !skipsService {
            reports.append(try await Self.report(ofServiceOf: configuration))
            if let engine = configuration.shared.engine {
                reports.append(
                    Report(instance: "\(engine)", findings: EngineExamination.findings(configuration.shared)))
            }
        }
        if json {
            try StandardOutput.write(line: JSONText.indented(reports))
        } else {
            try show(reports)
        }
        let isHealthy = reports.allSatisfy { $0.findings.allSatisfy { $0.severity == .note } }
        throw ExitCode(isHealthy ? 0 : 1)
    }

    private func run(trialOf configuration: Configuration, _ rules: ContentRules) async throws {
        do {
            let setup = try Postconf.setup(directory: postfix)
            let login = try user.map { ProbeMail.Login(user: $0, password: try password(of: $0)) }
            let trial = DoctorTrial(
                configuration: configuration, rules: rules, setup: setup, target: smtp, recipient: to,
                requiresTLS: starttls, login: login)
            let report = try await trial.run()
            try StandardOutput.write(line: json ? JSONText.indented(report) : DoctorTrial.text(report))
            if !report.isHealthy { throw ExitCode(1) }
        } catch let failure as Postconf.Failure {
            throw Self.unavailable("\(failure)")
        } catch let failure as ProbeMail.Failure {
            throw Self.unavailable("\(failure)")
        } catch let failure as AdminClient.Failure {
            throw Self.unavailable("\(failure)")
        }
    }

    private static let largestPasswordFile = 1 << 20

    /// The password from the file, or from the terminal, which does not show it.
    private func password(of user: String) throws -> [UInt8] {
        func fail(_ reason: String) -> ExitCode {
            StandardError.complain(reason, by: "doctor")
            return ExitCode(EX_NOINPUT)
        }
        let bytes: [UInt8]
        if let passwordFile {
            guard let handle = FileHandle(forReadingAtPath: passwordFile),
                let data = try? handle.read(upToCount: Self.largestPasswordFile) ?? Data()
            else { throw fail("can't read \(passwordFile): \(String(cString: strerror(errno)))") }
            bytes = Array(data)
        } else {
            guard let line = isatty(STDIN_FILENO) == 1 ? getpass("Password of \(user): ") : nil else {
                throw fail("there is no terminal to ask for the password; use --password-file")
            }
            bytes = Array(UnsafeRawBufferPointer(start: line, count: strlen(line)))
        }
        let password = Array(bytes.prefix { $0 != 0x0a && $0 != 0x0d })
        guard !password.isEmpty else { throw fail("the password is empty") }
        return password
    }

    private static func unavailable(_ reason: String) -> ExitCode {
        StandardError.complain(reason, by: "doctor")
        return ExitCode(EX_UNAVAILABLE)
    }

    /// The setup in a directory; all setups of the system if that is nil.
    private static func instances(_ directory: String?) throws -> [(setup: PostfixSetup, directory: String?)] {
        let setup = try Postconf.setup(directory: directory)
        guard directory == nil else { return [(setup, directory)] }
        let others = setup.value("multi_instance_directories").split { " ,\t".contains($0) }.map(String.init)
        return [(setup, nil)] + (try others.map { (try Postconf.setup(directory: $0), $0) })
    }

    private func show(_ reports: [Report]) throws {
        for report in reports {
            let findings = report.findings.isEmpty ? "no findings" : quantity(report.findings.count, "finding")
            try StandardOutput.write(line: "\(report.instance): \(findings)")
            var shown: Set<String> = []
            for finding in report.findings {
                try StandardOutput.write(
                    line: "\n\(finding.severity.rawValue): \(finding.place): \(finding.text) [\(finding.kind)]")
                if !finding.commands.isEmpty, shown.isSuperset(of: finding.commands) {
                    try StandardOutput.write(line: "    (the commands above fix this, too)")
                } else {
                    for command in finding.commands { try StandardOutput.write(line: "    \(command)") }
                    shown.formUnion(finding.commands)
                }
                for line in finding.configuration { try StandardOutput.write(line: "    weir.yaml: \(line)") }
            }
            if let protections = report.protections {
                try StandardOutput.write(line: "\(report.instance): \(protections.summary)")
            }
        }
    }

    // MARK: The service

    private static let connectTimeout: TimeAmount = .seconds(2)
    /// How long to wait for an answer of the service, which may hang.
    static let adminTimeout: TimeAmount = .seconds(10)

    /// A finding for each listener of the configuration that can't be connected to.
    private static func unreachableListeners(of configuration: Configuration) async -> [Finding] {
        var findings: [Finding] = []
        for (key, endpoint) in configuration.listen.all {
            guard let reason = await connectFailure(endpoint) else { continue }
            findings.append(
                Finding(
                    severity: .fault, kind: "service-not-there", place: "weir.yaml",
                    text: "\(key): \(endpoint) is unreachable: \(reason)", commands: ["systemctl status weir"],
                    configuration: []))
        }
        return findings
    }

    private static func report(ofServiceOf configuration: Configuration) async throws -> Report {
        let unreachable = await unreachableListeners(of: configuration)
        let client = AdminClient(configuration, timeout: adminTimeout)
        do {
            let protections = try await client.protections()
            let findings = await unreachable + faults(of: client) + gaps(protections)
            return Report(instance: "weir serve", findings: findings, protections: protections)
        } catch let failure as AdminClient.Failure {
            let isKnown = unreachable.contains { $0.text.hasPrefix("listen.admin: ") }
            return Report(instance: "weir serve", findings: unreachable + (isKnown ? [] : [finding(failure)]))
        }
    }

    /// Why a service that accepts connections can't be asked.
    private static func finding(_ failure: AdminClient.Failure) -> Finding {
        let fault = failure.isOverdue ? "hangs" : "can't be asked"
        let (kind, text, commands) =
            switch failure.kind {
            case .unreachable:
                (
                    "service-in-trouble",
                    "the service accepts connections, but \(fault): \(failure)",
                    ["systemctl restart weir"]
                )
            case .inTrouble:
                ("service-in-trouble", "the service is in trouble: \(failure)", ["journalctl -u weir -n 50"])
            case .notPermitted, .refused:
                (
                    "service-not-asked", "the service can't be asked, and weir limits and weir top fail: \(failure)",
                    failure.description.contains("restart the service") ? ["systemctl restart weir"] : []
                )
            }
        return Finding(
            severity: .fault, kind: kind, place: "weir.yaml", text: text, commands: commands, configuration: [])
    }

    /// What a service that accepts connections does not do.
    private static func faults(of client: AdminClient) async -> [Finding] {
        func finding(
            _ severity: Finding.Severity, _ kind: String, _ text: String, commands: [String] = [],
            configuration: [String] = []
        ) -> Finding {
            Finding(
                severity: severity, kind: kind, place: "weir.yaml", text: text, commands: commands,
                configuration: configuration)
        }
        func inTrouble(_ reason: String) -> Finding {
            let text = "the service is in trouble, and /readyz answers 503: \(reason)"
            return finding(.fault, "service-in-trouble", text, commands: ["journalctl -u weir -n 50"])
        }
        do {
            let snapshot = try await client.snapshot()
            let limits = snapshot.status.limits
            var findings = snapshot.status.trouble.map { [inTrouble($0)] } ?? []
            for way in snapshot.ways {
                guard let hop = way.values.nextHop, let trouble = hop.trouble else { continue }
                let text = "\(way.name) can't reach its next hop \(hop.address), so mail waits: \(trouble.cause)"
                findings.append(finding(.fault, "next-hop-down", text))
            }
            if let fault = snapshot.reload?.fault {
                let text = "the last reload was rejected, and the service keeps its configuration from before: \(fault)"
                findings.append(finding(.warning, "reload-rejected", text, commands: ["systemctl reload weir"]))
            }
            if snapshot.status.trouble == nil, !limits.isEmpty, limits.allSatisfy({ $0.mode == "shadow" }) {
                let text =
                    "all limits are in shadow mode: they count and log, and refuse nothing; those with "
                    + "mode: enforce refuse"
                findings.append(finding(.note, "shadow-only", text))
            }
            return findings
        } catch {
            return [inTrouble("\(error)")]
        }
    }

    /// What the process could have given up.
    private static func gaps(_ protections: AdminMessages.Protections) -> [Finding] {
        var gaps = protections.faults.map { ("sandbox-incomplete", "the sandbox is not complete: \($0)") }
        if protections.user == "root" { gaps.append(("runs-as-root", "the service runs as root")) }
        return gaps.map { kind, text in
            Finding(severity: .note, kind: kind, place: "weir.yaml", text: text, commands: [], configuration: [])
        }
    }

    private static func connectFailure(_ endpoint: Endpoint) async -> String? {
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
