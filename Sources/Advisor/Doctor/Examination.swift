// SPDX-License-Identifier: Apache-2.0
package import Filter
package import Report
package import Settings
internal import Wire

/// Examines how a Postfix instance and Weir are connected. The findings depend only on the two inputs, on whether the
/// table of verdicts exists, and on the lookup tables that main.cf and master.cf name.
package struct Examination {
    /// As it is after the changes that were proposed so far: what one finding mends needs no second one, and no two
    /// changes undo each other.
    private(set) var setup: PostfixSetup
    let configuration: Configuration
    /// The tables that `configuration` names.
    let rules: ContentRules
    /// The directory of main.cf and master.cf; nil for the system's instance.
    private let directory: String?
    private(set) var findings: [Finding] = []
    /// The examinations of the other instances.
    private(set) var others: [Examination] = []
    /// Services that several filters share are examined once.
    var examinedTransports: Set<String> = []
    var examinedCleanups: Set<String> = []
    /// The listeners of weir.yaml, and those that were proposed.
    var policyListeners: [Endpoint]
    var milterListeners: [Endpoint]
    var filterListeners: [Configuration.FilterListener]

    /// - Parameters:
    ///   - otherSetups: the setups of the other instances: what Weir does there need not be done here.
    ///   - directory: of main.cf and master.cf; nil for the system's instance.
    package static func findings(
        in setup: PostfixSetup, beside otherSetups: [PostfixSetup] = [], configuration: Configuration,
        rules: ContentRules, directory: String?
    ) -> [Finding] {
        var examination = Examination(setup, configuration, rules, directory)
        examination.others = otherSetups.map { Examination($0, configuration, rules, nil) }
        examination.addComplaints()
        examination.examinePolicy()
        examination.examineMilter()
        examination.examineFilter()
        examination.examineVerdictTables()
        examination.examineTables()
        examination.examineCommands()
        examination.examineReceived()
        examination.examineDoubleChecks()
        examination.examineLimits()
        examination.examineFromLinesSetting()
        examination.examineBareNewlines()
        return examination.sortedFindings
    }

    /// The most severe first.
    private var sortedFindings: [Finding] {
        var sorted = Finding.Severity.allCases.flatMap { severity in findings.filter { $0.severity == severity } }
        if let first = sorted.firstIndex(where: { $0.commands.contains { $0.hasPrefix("postconf ") } }) {
            let ends = setup.unfinishedFiles.map { Change.newline($0).command(directory: directory) }
            sorted[first].commands.insert(contentsOf: ends, at: 0)
        }
        return sorted
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

    /// Whether some smtpd service receives mail to which each limit can apply.
    package static func limitsCanApply(
        in setup: PostfixSetup, configuration: Configuration, rules: ContentRules
    ) -> Bool {
        let examination = Examination(setup, configuration, rules, nil)
        return configuration.limits.allSatisfy { limit in
            examination.entrances.contains { examination.canApply(limit, in: $0, context: "") }
        }
    }

    private init(
        _ setup: PostfixSetup, _ configuration: Configuration, _ rules: ContentRules, _ directory: String?
    ) {
        self.setup = setup
        self.configuration = configuration
        policyListeners = configuration.listen.policy
        milterListeners = configuration.listen.milter
        filterListeners = configuration.listen.filter
        self.rules = rules
        self.directory = directory
    }

    /// All smtpd services that run.
    var servers: [PostfixSetup.Service] { setup.services.filter { $0.program == "smtpd" && !isDisabled($0) } }
    /// The smtpd services to which content filters return mail.
    var reinjections: [PostfixSetup.Service] { servers.filter(isReinjection) }
    /// The other smtpd services, which receive new mail.
    var entrances: [PostfixSetup.Service] { servers.filter { !isReinjection($0) } }

    /// Whether master_service_disable has the service, by its type or by name and type. The first match decides, and
    /// one after `!` keeps the service.
    private func isDisabled(_ service: PostfixSetup.Service) -> Bool {
        let patterns = setup.words("master_service_disable")
        let match = patterns.first { [service.type, service.id].contains($0.drop { $0 == "!" }.lowercased()) }
        return match.map { $0.prefix { $0 == "!" }.count % 2 == 0 } ?? false
    }

    private func isReinjection(_ service: PostfixSetup.Service) -> Bool {
        takesFromWeir(service)
            || service.type == "inet" && ListenerAddress(service: service.name)?.isLoopback ?? false
                && isReinjectionOfOthers(service)
    }

    /// Whether a filter of weir.yaml sends its mail to a service.
    func takesFromWeir(_ service: PostfixSetup.Service) -> Bool {
        configuration.listen.filter.contains { takes(service, from: $0) }
    }

    /// Whether a filter sends its mail to a service. A service on all interfaces that filters its mail as main.cf says
    /// has the port of the next hop by chance, unless that is on loopback: the next hop is another machine.
    func takes(_ service: PostfixSetup.Service, from filter: Configuration.FilterListener) -> Bool {
        let nextHop = ListenerAddress(filter.nextHop.endpoint)
        guard filter.nextHop.variant == .smtp, service.type == "inet",
            let address = ListenerAddress(service: service.name), address.answers(nextHop)
        else { return false }
        return nextHop.isLoopback || !address.isOfAllInterfaces || isMadeForReturnedMail(service)
    }

    /// Whether a service on loopback takes mail back from another filter. One for logins, behind a proxy such as
    /// HAProxy, or on a port to which mail programs send, takes new mail.
    private func isReinjectionOfOthers(_ service: PostfixSetup.Service) -> Bool {
        let takesNewMail =
            service.overrides["smtpd_sasl_auth_enable"]?.lowercased() == "yes"
            || !(service.overrides["smtpd_upstream_proxy_protocol"] ?? "").isEmpty
            || ListenerAddress(service: service.name)?.isForNewMail ?? false
        return isMadeForReturnedMail(service) && !takesNewMail
    }

    /// Whether a service passes mail to no filter itself, or is told about the client by one.
    private func isMadeForReturnedMail(_ service: PostfixSetup.Service) -> Bool {
        ["content_filter", "smtpd_proxy_filter"].contains { service.overrides[$0] == "" }
            || service.overrides["smtpd_authorized_xforward_hosts"] != nil
    }

    var queue: String { setup.value("queue_directory") }

    /// Seconds, of `10s`, `100` or `5m`; nil for anything else, and for a number that Postfix can't hold in an int.
    static func seconds(_ text: String) -> Int? {
        let factors = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800]
        guard let unit = text.last.map({ String($0) }), let factor = factors[unit] else {
            return Int32(text).map { Int($0) }
        }
        return Int32(text.dropLast()).map { Int($0) * factor }
    }

    /// Whether the service runs chrooted in the queue directory.
    func isChrooted(_ service: PostfixSetup.Service) -> Bool {
        let isModern = (Int(setup.value("compatibility_level").prefix(while: \.isNumber)) ?? 0) >= 1
        return service.chroot == "y" || service.chroot == "-" && !isModern
    }

    /// The chroot of a new service: as the site has it for the program, whose tables may need sockets that the queue
    /// directory lacks.
    func chroot(of program: String) -> String {
        setup.services.first { $0.program == program }?.chroot ?? "n"
    }

    /// The path at which a chrooted service looks for a UNIX socket; nil if the service can reach that socket, or uses
    /// TCP.
    func pathInChroot(_ address: String, _ own: [Endpoint], of service: PostfixSetup.Service) -> String? {
        guard isChrooted(service), let kind = ["unix:", "local:"].first(where: { address.hasPrefix("\($0)/") })
        else { return nil }
        let path: String = queue + address.dropFirst(kind.count)
        return own.contains { ListenerAddress($0) == .unix(path: path) } ? nil : path
    }

    /// The first of our listeners that the service can reach, preferably by TCP.
    func reachable(_ own: [Endpoint], from service: PostfixSetup.Service) -> String? {
        if let found = own.first(where: \.isTCP) { return found.description }
        let paths = own.compactMap { if case .unix(let path, _, _) = $0 { path } else { nil } }
        // Relative to the queue directory, which is the chroot.
        if let path = paths.first(where: { $0.hasPrefix(queue + "/") }) {
            return "unix:\(path.dropFirst(queue.count + 1))"
        }
        return isChrooted(service) ? nil : paths.first.map { "unix:\($0)" }
    }

    // MARK: Findings

    /// Adds the warnings of postconf, such as `postconf: warning: main.cf: missing '}' in ...`
    private mutating func addComplaints() {
        for complaint in setup.complaints {
            let text = complaint.split(separator: ": ", maxSplits: 1).last.map(String.init) ?? complaint
            // Other programs may keep their own parameters in main.cf. Those of Postfix's own master.cf for mail user
            // agents are empty unless main.cf sets them.
            let isUsual = [": unused parameter: ", ": undefined parameter: mua_"].contains(where: text.contains)
            add(
                isUsual ? .note : .warning, "postconf-warning", nil,
                "postconf says: \(text)")
        }
    }

    /// Commands that would lose a condition such as `${stress?{...}}` are replaced by a hint.
    mutating func add(
        _ severity: Finding.Severity, _ kind: String, _ service: PostfixSetup.Service?, _ text: String,
        commands: [Change] = [],
        configuration: [String] = []
    ) {
        let lost = lostCondition(commands)
        let commands = lost == nil ? commands : []
        let hint = lost.map { "; change \($0.parameter) by hand, as commands would lose \($0.condition)" } ?? ""
        findings.append(
            Finding(
                severity: severity, kind: kind, place: service?.id ?? "main.cf", text: text + hint,
                commands: commands.map { $0.command(directory: directory) }, configuration: configuration))
        for change in commands { setup.apply(change) }
    }

    /// A condition that a parameter has now and would not have after these changes. What a service takes from main.cf
    /// and shall no longer take is not counted.
    private func lostCondition(_ changes: [Change]) -> (condition: String, parameter: String)? {
        var after = setup
        for change in changes { after.apply(change) }
        for change in changes {
            guard let (name, id) = change.parameter else { continue }
            let service = id.flatMap { id in setup.services.first { $0.id == id } }
            guard id == nil || service?.overrides[name] != nil else { continue }
            let kept = after.conditions(of: name, in: after.services.first { $0.id == id })
            if let lost = setup.conditions(of: name, in: service).first(where: { !kept.contains($0) }) {
                return (lost, name)
            }
        }
        return nil
    }

    /// The same while smtpd is under load, when `$stress` is not empty.
    var underLoad: Examination {
        var examination = self
        examination.setup.apply(.parameter("stress", value: "yes"))
        return examination
    }

    // MARK: Changes

    /// Changes for several services, each made for the setup that those before it leave.
    func commands(
        for services: [PostfixSetup.Service], _ fix: (Examination, PostfixSetup.Service) -> [Change]
    ) -> [Change] {
        var examination = self
        return services.flatMap { service in
            let own = fix(examination, service)
            for change in own { examination.setup.apply(change) }
            return own
        }
    }

    /// Sets a parameter for the service if the service overrides it, else in main.cf.
    func set(_ name: String, to value: String, in service: PostfixSetup.Service?) -> Change {
        guard let service, service.overrides[name] != nil else { return .parameter(name, value: value) }
        return override(name, with: value, in: service)
    }

    /// Sets a parameter for one service. Lists are separated by commas, as values in master.cf can't have spaces.
    func override(_ name: String, with value: String, in service: PostfixSetup.Service) -> Change {
        let words = RestrictionList.words(value).joined(separator: ",")
        return .override(service: service.id, name, value: words)
    }

    /// A name for a variable of main.cf with this definition: no other definition is ever replaced, because another
    /// service may use it.
    func variable(_ base: String, for definition: String, beside others: [Change] = []) -> String {
        var (name, number) = (base, 1)
        while !isFree(name, for: definition, beside: others) {
            number += 1
            name = "\(base)_\(number)"
        }
        return name
    }

    private func isFree(_ name: String, for definition: String, beside others: [Change]) -> Bool {
        let own = others.compactMap { other -> String? in
            guard case .parameter(name, let value) = other else { return nil }
            return value
        }
        return ["", definition].contains(setup.raw(name)) && own.allSatisfy { $0 == definition }
    }

    /// Whether somebody has set the parameter, for all services or for this one.
    func isSet(_ name: String, in service: PostfixSetup.Service?) -> Bool {
        service?.overrides[name] != nil || setup.set.contains(name)
    }

    /// Lines of weir.yaml that add a listener.
    static func lines(adding listener: Endpoint, to others: [Endpoint], of name: String) -> [String] {
        ["listen: { \(name): [\((others + [listener]).map(text).joined(separator: ", "))] }"]
    }

    /// An address as in weir.yaml.
    static func text(_ endpoint: Endpoint) -> String {
        guard case .unix(let path, let mode, let group) = endpoint else { return "\"\(endpoint)\"" }
        let owner = group.map { ", group: \($0)" } ?? ""
        return "{ unix: \(path), mode: \"0\(String(mode, radix: 8))\"\(owner) }"
    }

    /// Whether main.cf has the parameter so already.
    func isInForce(_ change: Change) -> Bool {
        guard case .parameter(let name, let value) = change else { return false }
        return setup.raw(name) == value
    }
}
