// SPDX-License-Identifier: Apache-2.0
import Advisor
import ArgumentParser
import Filter
import Foundation
import Limits
import Report
import Rules
import Settings

struct SetupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "setup",
        abstract: "Asks five questions, writes a first weir.yaml, and prints the lines for Postfix.",
        discussion: """
            Replaces the weir.yaml of the package while nobody has changed it. Overwrites no other file, and changes \
            nothing else: it prints the postconf commands that connect this Postfix, as weir doctor does. If there is \
            a mail log, it suggests rates from it, as weir replay does.

            Exit status: 0 success, 64 standard input is not a terminal, 66 a log can't be read, 69 weir.yaml is \
            written, but postconf failed, 73 the file exists or can't be written, 74 standard output can't be written.

            Example: weir setup --yes --output /tmp/weir.yaml
            """)

    @Option(help: ArgumentHelp("File to write.", valueName: "file"), completion: .file())
    var output = Configuration.defaultPath

    @Flag(help: "Ask nothing, and take every default.")
    var yes = false

    @Option(
        help: ArgumentHelp(
            "Directory of main.cf and master.cf (default: that of the system).", valueName: "directory"),
        completion: .directory)
    var postfix: String?

    @Option(
        help: ArgumentHelp(
            "Mail log for the suggested rates; can be repeated (default: /var/log/mail.log and mail.log.1, if any).",
            valueName: "file"),
        completion: .file())
    var log: [String] = []

    /// The package has copied this file to /etc/weir/weir.yaml.
    private static let sample = "/usr/share/weir/weir.yaml"

    func run() throws {
        let replacesSample = isSample
        guard replacesSample || access(output, F_OK) != 0 else { throw Self.exists(output) }
        guard yes || isatty(STDIN_FILENO) == 1 else {
            StandardError.complain("standard input is not a terminal; --yes takes every default", by: "setup")
            throw ExitCode(EX_USAGE)
        }
        if replacesSample {
            try StandardOutput.write(line: "\(output) is as the package has brought it, and will be replaced.")
        }
        let setup = Result { try Postconf.setup(directory: postfix) }
        let answers = try answers(for: try? setup.get())
        try write(answers.yaml, replacingSample: replacesSample)
        try StandardOutput.write(line: "wrote \(output)\n  \(Self.summary(of: answers))\n\nNow, in this order:")
        try show(
            "1. Start Weir with this file. The last command says OK when it is ready.",
            commandsForMail(of: answers, in: try? setup.get()) + startCommands)
        switch setup {
        case .success(let setup):
            try showCommands(for: setup)
            try showTest(of: answers, in: setup)
        case .failure(let failure):
            try StandardOutput.flush()
            StandardError.complain(
                "\(failure)\nWhen Postfix is there, weir doctor prints the lines for it.", by: "setup")
            throw ExitCode(EX_UNAVAILABLE)
        }
    }

    // MARK: Answers

    private func answers(for setup: PostfixSetup?) throws -> SetupAnswers {
        var answers = SetupAnswers()
        if let setup, !canApply(answers, in: setup) { answers.subject = .client }
        if let setup { try setAlertAddress(of: &answers, in: setup) }
        var questions = SetupQuestions(asks: !yes)
        try questions.ask(
            "Count mail by login, by client address (client), or by sender domain of logins (domain)?",
            \.subject, of: &answers)
        if let setup, !canApply(answers, in: setup) {
            try StandardOutput.write(
                line: "  note: no smtpd of this Postfix offers a login, so nothing will be counted")
        }
        answers.rates = try suggestedRates(for: answers)
        try questions.askRates(of: &answers)
        try questions.ask(
            "Check the content of messages too, as a milter, a content filter after the queue (filter), or not (none)?",
            \.contentInterface, of: &answers)
        try questions.askAddress(of: &answers)
        if let address = answers.alertAddress, !address.contains("@") {
            try StandardOutput.write(line: "  note: \(address) has no @, so a user or an alias here gets the alerts")
        }
        try questions.askShadow(of: &answers)
        if answers.subject == .client, answers.shadowUntil == nil {
            try StandardOutput.write(
                line: "  note: this refuses other mail servers, too. Add those that may send more to the networks that "
                    + "the limit leaves out (in weir.yaml, below when)")
        }
        return answers
    }

    private func setAlertAddress(of answers: inout SetupAnswers, in setup: PostfixSetup) throws {
        var own = answers
        own.alertAddress = "postmaster@\(setup.value("myhostname"))"
        if own.problem == nil {
            answers = own
        } else {
            try StandardOutput.write(
                line: "  note: myhostname of this Postfix, '\(printable(setup.value("myhostname").utf8))', is no "
                    + "domain, so alerts have no address yet")
        }
    }

    private func canApply(_ answers: SetupAnswers, in setup: PostfixSetup) -> Bool {
        guard case .success(let outcome) = ConfigurationReader.read(Array(answers.yaml.utf8), file: output) else {
            return false
        }
        return Examination.limitsCanApply(in: setup, configuration: outcome.configuration, rules: outcome.rules)
    }

    /// Rates from the logs, or the usual ones without logs.
    private func suggestedRates(for answers: SetupAnswers) throws -> [Rate] {
        let usual = ["/var/log/mail.log.1", "/var/log/mail.log"].filter { (path: String) in access(path, R_OK) == 0 }
        let logs = log.isEmpty ? usual : log
        guard !logs.isEmpty,
            case .success(let outcome) = ConfigurationReader.read(Array(answers.yaml.utf8), file: output)
        else { return answers.rates }
        try StandardOutput.write(line: "Reading \(logs.joined(separator: ", ")) ...")
        try StandardOutput.flush()
        do {
            let report = try Replay(outcome.configuration, over: logs).run()
            guard let limit = report.limits.first, limit.keys > 0 else {
                try StandardOutput.write(line: "  no mail there that this limit counts: no suggestion")
                return answers.rates
            }
            try StandardOutput.write(
                line: "  \(quantity(limit.counted, "recipient")), \(quantity(limit.keys, "key")): the suggestion fits "
                    + "all but outliers")
            return SetupAnswers.rates(suggested: limit.windows.map(\.suggested))
        } catch let failure as StandardOutput.Failure {
            throw failure
        } catch {
            StandardError.complain("\(error)", by: "setup")
            throw ExitCode(EX_NOINPUT)
        }
    }

    // MARK: The file

    private static func exists(_ path: String) -> ExitCode {
        StandardError.complain(
            "\(path) exists and is not overwritten. Write another file:\n"
                + "    weir setup --output \(ShellWord.quoted("\(path).new"))",
            by: "setup")
        return ExitCode(EX_CANTCREAT)
    }

    /// The file is the sample of the package, byte for byte.
    private var isSample: Bool {
        var status = stat()
        guard lstat(output, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            let sample = FileManager.default.contents(atPath: Self.sample)
        else { return false }
        return FileManager.default.contents(atPath: output) == sample
    }

    /// Creates the file, readable for the group `weir` if that exists and the user may give it the file. A sample is
    /// replaced at once: no reader sees a part of the new file.
    private func write(_ text: String, replacingSample: Bool) throws {
        // A name of its own: a run that was killed may have left its file.
        let path = replacingSample ? "\(output).setup-\(UUID().uuidString)" : output
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o640)
        if descriptor < 0, errno == EEXIST { throw Self.exists(path) }
        do {
            guard descriptor >= 0 else { throw Self.systemError }
            if let group = getgrnam("weir") { _ = fchown(descriptor, uid_t.max, group.pointee.gr_gid) }
            let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
            try file.write(contentsOf: Data(text.utf8))
            try file.close()
            if replacingSample {
                // The questions take a while, in which somebody may have edited the file.
                guard isSample else {
                    unlink(path)
                    throw Self.exists(output)
                }
                guard rename(path, output) == 0 else { throw Self.systemError }
            }
        } catch let code as ExitCode {
            throw code
        } catch {
            // Only what this process has created.
            if descriptor >= 0 { unlink(path) }
            StandardError.complain("can't write \(output): \(Self.reason(error))", by: "setup")
            throw ExitCode(EX_CANTCREAT)
        }
    }

    private static var systemError: POSIXError { POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }

    private static func reason(_ error: any Error) -> String {
        String(cString: strerror((error as? POSIXError)?.code.rawValue ?? EIO))
    }

    // MARK: Next steps

    private static func summary(of answers: SetupAnswers) -> String {
        let subject =
            switch answers.subject {
            case .login: "login"
            case .client: "client address"
            case .domain: "sender domain of logins"
            }
        let rates = answers.rates.map(\.description).joined(separator: ", ")
        let mode = answers.shadowUntil.map { ". In shadow mode, it only logs; on \($0), write mode: enforce" } ?? ""
        return "each \(subject) may send to \(rates) recipients\(mode)"
    }

    private func show(_ step: String, _ lines: [String]) throws {
        try StandardOutput.write(line: "\n\(step)\n" + lines.map { "    \($0)" }.joined(separator: "\n"))
    }

    /// Postfix must not ask before Weir answers.
    private var startCommands: [String] {
        let usual = Configuration.defaultPath
        // A second service would take the ports and the ledger of the one that is installed.
        if output != usual, access(usual, F_OK) == 0 {
            // cp keeps the owner and the mode of the old file.
            return [
                "diff \(usual) \(file)", "cp \(file) \(usual)", "systemctl restart weir", "weir check-health",
            ]
        }
        let start = startsUnit ? "systemctl restart weir" : "weir serve\(fileOption)    # in another terminal"
        return ["weir check-config\(fileOption)", start, "weir check-health\(fileOption)"]
    }

    private var startsUnit: Bool {
        let usual = Configuration.defaultPath
        return output == usual || access(usual, F_OK) == 0
    }

    /// sendmail(1) gives alerts to the system's instance of Postfix, whatever `--postfix` says.
    private func commandsForMail(of answers: SetupAnswers, in setup: PostfixSetup?) -> [String] {
        guard answers.alertAddress != nil, startsUnit, let setup else { return [] }
        let isSystems = postfix == nil
        return SetupAnswers.commandsForMail(
            queue: isSystems ? setup.value("queue_directory") : "/var/spool/postfix",
            group: isSystems ? setup.value("setgid_group") : "postdrop")
    }

    /// The option of commands after `startCommands` that names the file.
    private var fileOption: String { startsUnit ? "" : " --config \(file)" }

    /// The file as a word of a command.
    private var file: String { ShellWord.quoted(output) }

    private func showCommands(for setup: PostfixSetup) throws {
        guard case .success(let outcome) = ConfigurationReader.read(path: output) else { return }
        let findings = Examination.findings(
            in: setup, configuration: outcome.configuration, rules: outcome.rules, directory: postfix)
        let name = setup.value("config_directory")
        guard !findings.isEmpty else {
            return try StandardOutput.write(line: "\n2. Postfix (\(name)) needs no change.")
        }
        var lines: [String] = []
        var shown: Set<String> = []
        for finding in findings {
            let commands = finding.commands.filter { !shown.contains($0) }
            let isFixed = commands.isEmpty && !finding.commands.isEmpty
            lines.append(
                "# \(finding.place): \(finding.text)" + (isFixed ? " (the commands above fix this, too)" : ""))
            lines += finding.configuration.map { "# in weir.yaml: \($0)" }
            lines += commands
            shown.formUnion(commands)
        }
        if !shown.isEmpty {
            let folder = ShellWord.quoted(name)
            lines.insert("cp -p \(folder)/main.cf \(folder)/main.cf.before-weir", at: 0)
            lines.insert("cp -p \(folder)/master.cf \(folder)/master.cf.before-weir", at: 1)
            lines.append("postfix\(postfix.map { " -c \(ShellWord.quoted($0))" } ?? "") reload")
        }
        let isConnected = findings.allSatisfy { $0.severity == .note || $0.kind == "postconf-warning" }
        let step = isConnected ? "Postfix (\(name)) is connected already. To look at:" : "Connect Postfix (\(name)):"
        try show("2. \(step)", lines)
    }

    private func showTest(of answers: SetupAnswers, in setup: PostfixSetup) throws {
        let doctor = "weir doctor\(postfix.map { " --postfix \(ShellWord.quoted($0))" } ?? "")\(fileOption)"
        var lines = [doctor, "\(doctor) --try    # sends a probe that nobody receives"]
        if answers.subject != .client, setup.services.contains(where: { $0.id == "submission/inet" }) {
            lines[1] = "\(doctor) --try --smtp inet:127.0.0.1:587 --user LOGIN    # sends a probe that nobody receives"
        }
        if answers.alertAddress != nil { lines.append("weir alert --test mail\(fileOption)") }
        try show("3. See that it works:", lines)
    }
}
