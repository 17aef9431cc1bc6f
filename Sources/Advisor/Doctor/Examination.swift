// SPDX-License-Identifier: Apache-2.0
package import Filter
package import Report
package import Settings

/// Examines how a Postfix instance and Weir are connected. The findings depend only on the two inputs.
package struct Examination {
    let setup: PostfixSetup
    let configuration: Configuration
    /// The tables that `configuration` names.
    let rules: ContentRules
    /// ` -c DIRECTORY` for the printed commands; empty for the system's instance.
    private let directoryOption: String
    private(set) var findings: [Finding] = []
    /// Services that several filters share are examined once.
    var examinedTransports: Set<String> = []
    var examinedCleanups: Set<String> = []

    /// All smtpd services.
    let servers: [PostfixSetup.Service]
    /// The smtpd services to which content filters return mail.
    let reinjections: [PostfixSetup.Service]
    /// The other smtpd services, which receive new mail.
    let entrances: [PostfixSetup.Service]

    /// - Parameter directory: of main.cf and master.cf; nil for the system's instance.
    package static func findings(
        in setup: PostfixSetup, configuration: Configuration, rules: ContentRules, directory: String?
    ) -> [Finding] {
        var examination = Examination(setup, configuration, rules, directory)
        examination.addComplaints()
        examination.examinePolicy()
        examination.examineMilter()
        examination.examineFilter()
        examination.examineCommands()
        examination.examineReceived()
        examination.examineLimits()
        examination.examineBareNewlines()
        let order = Finding.Severity.allCases
        return examination.findings.enumerated().sorted { one, other in
            (order.firstIndex(of: one.element.severity)!, one.offset) < (
                order.firstIndex(of: other.element.severity)!, other.offset
            )
        }.map(\.element)
    }

    /// The stages that see this instance's mail, in order.
    package static func stages(
        in setup: PostfixSetup, configuration: Configuration, rules: ContentRules
    ) -> [ProbeStage] {
        let examination = Examination(setup, configuration, rules, nil)
        return ProbeStage.allCases.filter { stage in
            switch stage {
            case .policy: examination.asksPolicy
            case .milter: examination.usesMilter
            case .filter: examination.usesFilter
            }
        }
    }

    private init(
        _ setup: PostfixSetup, _ configuration: Configuration, _ rules: ContentRules, _ directory: String?
    ) {
        self.setup = setup
        self.configuration = configuration
        self.rules = rules
        directoryOption = directory.map { " -c \(Self.quoted($0))" } ?? ""
        servers = setup.services.filter { $0.program == "smtpd" }
        let nextHops = configuration.listen.filter.map { ListenerAddress($0.nextHop) }
        func isReinjection(_ service: PostfixSetup.Service) -> Bool {
            guard service.type == "inet", let address = ListenerAddress(service: service.name) else { return false }
            // The reinjection service of another filter has an empty content_filter.
            return nextHops.contains(where: address.answers)
                || address.isLoopback && service.overrides["content_filter"] == ""
        }
        reinjections = servers.filter(isReinjection)
        entrances = servers.filter { !isReinjection($0) }
    }

    var queue: String { setup.value("queue_directory") }

    /// Seconds, of `10s`, `100` or `5m`; nil for anything else.
    static func seconds(_ text: String) -> Int? {
        guard let unit = text.last, let factor = ["s": 1, "m": 60, "h": 3600, "d": 86_400][unit] else {
            return Int(text)
        }
        return Int(text.dropLast()).map { $0 * factor }
    }

    /// Whether the service runs chrooted in the queue directory.
    func isChrooted(_ service: PostfixSetup.Service) -> Bool {
        let isModern = (Double(setup.value("compatibility_level")) ?? 0) >= 1
        return service.chroot == "y" || service.chroot == "-" && !isModern
    }

    // MARK: Findings

    /// Adds the warnings of postconf, such as `postconf: warning: main.cf: missing '}' in ...`
    private mutating func addComplaints() {
        for complaint in setup.complaints {
            let text = complaint.split(separator: ": ", maxSplits: 1).last.map(String.init) ?? complaint
            // Other programs may keep their own parameters in main.cf.
            add(
                text.contains(": unused parameter: ") ? .note : .warning, "postconf-warning", nil,
                "postconf says: \(text)")
        }
    }

    mutating func add(
        _ severity: Finding.Severity, _ kind: String, _ service: PostfixSetup.Service?, _ text: String,
        commands: [String] = [],
        configuration: [String] = []
    ) {
        findings.append(
            Finding(
                severity: severity, kind: kind, place: service?.id ?? "main.cf", text: text, commands: commands,
                configuration: configuration))
    }

    // MARK: Commands

    /// Sets a parameter for the service if the service overrides it, else in main.cf.
    func set(_ name: String, to value: String, in service: PostfixSetup.Service?) -> String {
        guard let service, service.overrides[name] != nil else { return set(name, to: value) }
        return override(name, with: value, in: service)
    }

    func set(_ name: String, to value: String) -> String {
        "postconf\(directoryOption) -e \(Self.quoted("\(name)=\(value)"))"
    }

    /// Sets a parameter for one service. Lists are separated by commas, as values in master.cf can't have spaces.
    func override(_ name: String, with value: String, in service: PostfixSetup.Service) -> String {
        let words = RestrictionList.words(value[...], separators: ", \t").joined(separator: ",")
        return "postconf\(directoryOption) -P \(Self.quoted("\(service.id)/\(name)=\(words)"))"
    }

    func add(service line: String) -> String {
        let words = line.split(separator: " ")
        return "postconf\(directoryOption) -M \(Self.quoted("\(words[0])/\(words[1])=\(line)"))"
    }

    func remove(_ service: PostfixSetup.Service) -> String {
        "postconf\(directoryOption) -MX \(Self.quoted(service.id))"
    }

    private static func quoted(_ text: String) -> String {
        text.contains { !$0.isLetter && !$0.isNumber && !"/._-".contains($0) }
            ? "'\(text.replacing("'", with: "'\\''"))'" : text
    }
}
