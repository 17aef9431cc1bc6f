// SPDX-License-Identifier: Apache-2.0
internal import Settings
internal import Wire

/// Which restriction lists ask the policy server, and how.
extension Examination {
    private static let recipientLists = ["smtpd_recipient_restrictions", "smtpd_relay_restrictions"]
    private static let settlingLists = ["smtpd_data_restrictions", "smtpd_end_of_data_restrictions"]
    private static let earlyLists = [
        "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
    ]

    private static let defaultPort = 10_040
    /// Seconds. Postfix's default of 100 s is too long for a user who waits for a mail to be sent.
    private static let longestTimeout = 30

    mutating func examinePolicy() {
        for service in entrances {
            examineAddresses(service)
            for name in recipientLists(of: service) + Self.settlingLists { examine(name, in: service) }
            examineEarlyLists(service)
        }
        examineSilentServices()
        examineUnreachableLimits()
        examineGiveBack()
        for service in reinjections { examineReinjection(service) }
    }

    var asksPolicy: Bool { entrances.contains(where: asks) }

    /// The lists that smtpd evaluates for each recipient. With smtpd_delay_reject, those for client, HELO and sender
    /// are among them.
    private func recipientLists(of service: PostfixSetup.Service) -> [String] {
        let isDelayed = setup.value("smtpd_delay_reject", in: service) != "no"
        return Self.recipientLists + (isDelayed ? Self.earlyLists : [])
    }

    /// Whether the service asks the policy server about mail.
    private func asks(_ service: PostfixSetup.Service) -> Bool {
        (recipientLists(of: service) + Self.settlingLists).contains { asks($0, in: service) }
    }

    /// Whether neither the policy server nor the milter is asked about the limits.
    var isNeverAsked: Bool { !entrances.contains { asks($0) || milterCounts($0) } }

    /// The values of policy_context that the service sends.
    func contexts(of service: PostfixSetup.Service) -> Set<String> {
        let lists = (recipientLists(of: service) + Self.settlingLists).flatMap { list($0, in: service) }
        return Set(references(lists.flatMap(\.expanded), in: service).map { $0.attributes["policy_context"] ?? "" })
    }

    // MARK: Lists

    /// The elements of a list, each as written and with variables and restriction classes expanded.
    private func list(
        _ name: String, in service: PostfixSetup.Service?
    ) -> [(written: RestrictionList.Element, expanded: [RestrictionList.Element])] {
        RestrictionList(setup.raw(name, in: service)).elements.map { ($0, expanded($0, in: service, depth: 0)) }
    }

    private func expanded(
        _ element: RestrictionList.Element, in service: PostfixSetup.Service?, depth: Int
    ) -> [RestrictionList.Element] {
        let elements = RestrictionList(setup.expanded(element.text, in: service)).elements
        guard depth < 10 else { return elements }
        let classes = Set(
            RestrictionList.words(setup.value("smtpd_restriction_classes", in: service)[...], separators: ", \t"))
        return elements.flatMap { element in
            guard classes.contains(element.text) else { return [element] }
            return RestrictionList(setup.value(element.text, in: service)).elements.flatMap {
                expanded($0, in: service, depth: depth + 1)
            }
        }
    }

    /// The policy servers of these elements that are Weir.
    private func references(
        _ elements: [RestrictionList.Element], in service: PostfixSetup.Service?
    ) -> [ServerReference] {
        elements.filter { $0.name == "check_policy_service" }.map { ServerReference($0.argument) }
            .filter { isOurs($0.address, configuration.listen.policy, in: service) }
    }

    /// Whether an address is one of our listeners. Paths may also be below the queue directory; whether a chrooted
    /// service can reach them is checked elsewhere.
    func isOurs(_ address: String, _ own: [Endpoint], in service: PostfixSetup.Service?) -> Bool {
        guard let wanted = ListenerAddress(address, queue: queue) else { return false }
        return own.contains { endpoint in
            let listener = ListenerAddress(endpoint)
            if case .unix(let path) = wanted, listener == .unix(path: queue + path) { return true }
            return listener.answers(wanted)
        }
    }

    func asks(_ name: String, in service: PostfixSetup.Service) -> Bool {
        list(name, in: service).contains { !references($0.expanded, in: service).isEmpty }
    }

    // MARK: One list

    private mutating func examine(_ name: String, in service: PostfixSetup.Service) {
        let elements = list(name, in: service)
        guard let own = elements.firstIndex(where: { !references($0.expanded, in: service).isEmpty }) else { return }
        let commands = fixCommands(name, in: service)
        let permits = elements[..<own].flatMap(\.expanded).map(\.name).filter(RestrictionList.permits.contains)
        let all = references(elements.flatMap(\.expanded), in: service)
        if all.count > 1 {
            // The commands of the other findings leave Weir once, too.
            let isOnlyFinding = permits.isEmpty && !all.contains { needsFix($0, in: service) }
            add(
                .warning, "policy-listed-twice", service, "\(name) asks Weir more than once for each recipient",
                commands: isOnlyFinding
                    ? setList(name, to: withoutRepetition(elements, in: service), in: service) : commands)
        }
        if let permit = permits.first {
            add(
                .fault, "policy-behind-permit", service,
                "\(name) asks Weir after \(permit), which ends the list: mail that it permits is never counted",
                commands: commands)
        }
        for reference in references(elements[own].expanded, in: service) {
            examine(reference, of: name, in: service, commands: commands)
        }
    }

    private mutating func examine(
        _ reference: ServerReference, of name: String, in service: PostfixSetup.Service, commands: [Change]
    ) {
        if reference.attributes["default_action"] == nil, !setup.set.contains("smtpd_policy_service_default_action") {
            let action = setup.value("smtpd_policy_service_default_action", in: service)
            add(
                .fault, "policy-default-action", service,
                "\(name) sets no default_action: while Weir is unreachable, smtpd answers \"\(action)\"",
                commands: commands)
        }
        let timeout = reference.attributes["timeout"] ?? setup.value("smtpd_policy_service_timeout", in: service)
        if let seconds = Self.seconds(timeout), seconds > Self.longestTimeout {
            add(
                .warning, "policy-timeout", service,
                "\(name): clients wait \(timeout) while Weir does not answer",
                commands: commands)
        }
        guard reference.address.hasPrefix("unix:/"), isChrooted(service) else { return }
        let path: String = queue + reference.address.dropFirst(5)
        if !configuration.listen.policy.contains(where: { ListenerAddress($0) == .unix(path: path) }) {
            add(
                .fault, "policy-socket-in-chroot", service,
                "\(name) uses \(reference.address), but this service is chrooted and looks for \(path)",
                commands: commands, configuration: ["listen: { policy: [\"inet:127.0.0.1:\(Self.defaultPort)\"] }"])
        }
    }

    /// Before RCPT there is no recipient to count.
    private mutating func examineEarlyLists(_ service: PostfixSetup.Service) {
        guard setup.value("smtpd_delay_reject", in: service) == "no" else { return }
        for name in Self.earlyLists where asks(name, in: service) {
            add(
                .warning, "policy-too-early", service,
                "\(name) asks Weir before RCPT (smtpd_delay_reject = no): only limits on connections apply there",
                commands: [set("smtpd_delay_reject", to: "yes", in: service)])
        }
    }

    /// Finds references to the policy server's default port where it doesn't listen on that port.
    private mutating func examineAddresses(_ service: PostfixSetup.Service) {
        for address in policyServers(of: service).sorted() where isDeserted(address, in: service) {
            let listeners = configuration.listen.policy.map(\.description)
            // Other services may ask at the addresses that weir.yaml has.
            let wanted = (asksPolicy ? listeners : []) + ["inet:127.0.0.1:\(Self.defaultPort)"]
            add(
                .fault, "policy-nobody-listens", service,
                "smtpd asks \(address), but listen.policy of weir.yaml is \(listeners.joined(separator: ", "))",
                configuration: ["listen: { policy: [\(wanted.map { "\"\($0)\"" }.joined(separator: ", "))] }"])
        }
    }

    /// Whether an address is the policy server's default one, and the policy server doesn't listen there.
    private func isDeserted(_ address: String, in service: PostfixSetup.Service) -> Bool {
        !isOurs(address, configuration.listen.policy, in: service)
            && ListenerAddress(address, queue: queue) == .inet(host: "127.0.0.1", port: Self.defaultPort)
    }

    /// The addresses of policy servers that a service asks.
    private func policyServers(of service: PostfixSetup.Service) -> Set<String> {
        let elements = (Self.recipientLists + Self.settlingLists + Self.earlyLists).flatMap {
            list($0, in: service).flatMap(\.expanded)
        }
        return Set(
            elements.filter { $0.name == "check_policy_service" }.map { ServerReference($0.argument).address })
    }

    // MARK: All services

    private mutating func examineSilentServices() {
        // A service that asks at the default address needs an address in weir.yaml, not another question.
        let silent = entrances.filter { service in
            !asks(service) && !milterCounts(service)
                && !policyServers(of: service).contains { isDeserted($0, in: service) }
                && configuration.limits.contains { canApply($0, in: service, context: "") }
        }
        for service in silent {
            add(
                .fault, isNeverAsked ? "policy-nowhere" : "policy-not-here", service,
                "this service never asks Weir: its mail is not counted",
                commands: fixCommands(Self.recipientLists[0], in: service))
        }
    }

    private mutating func examineGiveBack() {
        let asking = entrances.filter { service in
            recipientLists(of: service).contains { asks($0, in: service) } && !milterCounts(service)
        }
        let unsettled = asking.filter { service in !Self.settlingLists.contains { asks($0, in: service) } }
        if configuration.givesBackDropped {
            for service in unsettled {
                add(
                    .fault, "give-back-unsettled", service,
                    "give_back_dropped is true, but this service never reports accepted mail to Weir: every charge is "
                        + "given back, and no limit holds",
                    commands: fixCommands(Self.settlingLists[1], in: service))
            }
        } else if unsettled.isEmpty, !asking.isEmpty {
            add(
                .note, "give-back", nil,
                "all services tell Weir which mail was accepted. Set give_back_dropped, and messages that were never "
                    + "finished will not count",
                configuration: ["give_back_dropped: true"])
        }
    }

    // MARK: Reinjection

    private mutating func examineReinjection(_ service: PostfixSetup.Service) {
        for name in Self.recipientLists + Self.settlingLists + Self.earlyLists where asks(name, in: service) {
            let rest = list(name, in: service).filter { references($0.expanded, in: service).isEmpty }
                .map(\.written.text)
            let value =
                name == Self.recipientLists[0]
                ? "permit_mynetworks,reject" : service.overrides[name] == nil ? "" : rest.joined(separator: ",")
            add(
                .fault, "counted-twice", service,
                "\(name) asks Weir about mail returned by a content filter, which has already been counted",
                commands: [override(name, with: value, in: service)])
        }
    }

    // MARK: Fixes

    /// The commands that make a list ask Weir before all permits, and accept mail while Weir is unreachable.
    ///
    /// - Parameter context: the policy_context that this service alone is to send; nil to keep what it sends.
    func fixCommands(_ name: String, in service: PostfixSetup.Service, context wanted: String? = nil) -> [Change] {
        let elements = list(name, in: service)
        var commands: [Change] = []
        let own = elements.firstIndex { !references($0.expanded, in: service).isEmpty }
        let reference = own.flatMap { references(elements[$0].expanded, in: service).first }
        var written = own.map { elements[$0].written.text }
        let isShared = own.map { elements[$0].expanded.count > 1 } ?? false
        if own == nil || wanted != nil || isShared || reference.map({ needsFix($0, in: service) }) ?? true {
            let context = wanted ?? reference?.attributes["policy_context"]
            let definition =
                "check_policy_service { \(address(for: service, instead: reference)), timeout=10s, "
                + "default_action=DUNNO" + (context.map { ", policy_context=\($0)" } ?? "") + " }"
            let variable = variable(
                "weir_policy" + (context.map { "_\($0.filter { $0.isLetter || $0.isNumber })" } ?? ""), for: definition)
            if setup.raw(variable) != definition { commands.append(.parameter(variable, value: definition)) }
            written = "$\(variable)"
        }
        var texts: [String] = []
        var place: Int?
        for element in elements {
            let isOwn = !references(element.expanded, in: service).isEmpty
            // What else is in the same variable or class stays.
            let kept = isOwn ? element.expanded.filter { references([$0], in: service).isEmpty } : element.expanded
            let ends = kept.contains { RestrictionList.permits.contains($0.name) || $0.name == "reject" }
            if place == nil, ends { place = texts.count }
            texts += isOwn ? kept.map(\.text) : [element.written.text]
        }
        texts.insert(written ?? "", at: place ?? texts.count)
        return commands + setList(name, to: texts, in: service, beside: commands, alone: wanted != nil)
    }

    /// Sets a list where it is set now, or for this service alone. A value in master.cf can't have spaces, so variables
    /// of main.cf stand for elements with braces.
    private func setList(
        _ name: String, to texts: [String], in service: PostfixSetup.Service, beside others: [Change] = [],
        alone: Bool = false
    ) -> [Change] {
        guard alone || service.overrides[name] != nil else {
            return [.parameter(name, value: texts.joined(separator: ", "))]
        }
        var definitions: [Change] = []
        let plain = texts.map { text in
            guard text.contains("{ ") || text.contains(", ") else { return text }
            let variable = variable("weir_restriction", for: text, beside: others + definitions)
            definitions.append(.parameter(variable, value: text))
            return "$\(variable)"
        }
        let list = override(name, with: plain.joined(separator: ", "), in: service)
        return definitions.filter { !isInForce($0) } + [list]
    }

    /// The list with Weir where it is first.
    private func withoutRepetition(
        _ elements: [(written: RestrictionList.Element, expanded: [RestrictionList.Element])],
        in service: PostfixSetup.Service
    ) -> [String] {
        var isListed = false
        return elements.filter { element in
            guard !references(element.expanded, in: service).isEmpty else { return true }
            defer { isListed = true }
            return !isListed
        }.map(\.written.text)
    }

    private func needsFix(_ reference: ServerReference, in service: PostfixSetup.Service) -> Bool {
        let timeout = reference.attributes["timeout"] ?? setup.value("smtpd_policy_service_timeout", in: service)
        return reference.attributes["default_action"] == nil || Self.seconds(timeout) ?? 0 > Self.longestTimeout
            || reference.address.hasPrefix("unix:/") && isChrooted(service)
    }

    /// An address that the service can reach: a UNIX socket outside the queue directory is unreachable in a chroot.
    private func address(for service: PostfixSetup.Service, instead reference: ServerReference?) -> String {
        if let reference, !(reference.address.hasPrefix("unix:/") && isChrooted(service)) { return reference.address }
        let own = configuration.listen.policy
        if let found = own.first(where: { if case .inet = $0 { true } else { false } }) { return found.description }
        let paths = own.compactMap { if case .unix(let path, _, _) = $0 { path } else { nil } }
        // Relative to the queue directory, which is the chroot.
        if let path = paths.first(where: { $0.hasPrefix(queue + "/") }) {
            return "unix:\(path.dropFirst(queue.count + 1))"
        }
        return paths.first.flatMap { isChrooted(service) ? nil : "unix:\($0)" } ?? "inet:127.0.0.1:\(Self.defaultPort)"
    }
}
