// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Settings
internal import Wire

/// Which restriction lists ask the policy server, and how.
extension Examination {
    static let recipientLists = ["smtpd_recipient_restrictions", "smtpd_relay_restrictions"]
    static let settlingLists = ["smtpd_data_restrictions", "smtpd_end_of_data_restrictions"]
    static let earlyLists = [
        "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
    ]

    static let defaultPolicyPort = 10_040
    /// Seconds. Postfix's default of 100 s is too long for a user who waits for a mail to be sent.
    static let longestTimeout = 30

    mutating func examinePolicy() {
        for service in entrances {
            examineAddresses(service)
            for name in recipientLists(of: service) + Self.settlingLists { examine(name, in: service) }
            examineEarlyLists(service)
        }
        examineSilentServices()
        examineUnreachableLimits()
        examinePartlyCounted()
        examineGiveBack()
        for service in reinjections { examineReinjection(service) }
    }

    var asksPolicy: Bool { entrances.contains(where: asks) }

    /// The lists that smtpd evaluates for each recipient. With smtpd_delay_reject, those for client, HELO and sender
    /// are among them.
    func recipientLists(of service: PostfixSetup.Service) -> [String] {
        let isDelayed = setup.isOn("smtpd_delay_reject", in: service)
        return Self.recipientLists + (isDelayed ? Self.earlyLists : [])
    }

    /// Whether the service asks the policy server about mail.
    private func asks(_ service: PostfixSetup.Service) -> Bool {
        (recipientLists(of: service) + Self.settlingLists).contains { asks($0, in: service) }
    }

    /// Whether neither the policy server nor the milter is asked about the limits.
    var isNeverAsked: Bool { !entrances.contains { asks($0) || milterCounts($0) || classByTable($0) != nil } }

    // MARK: One list

    private mutating func examine(_ name: String, in service: PostfixSetup.Service) {
        let elements = list(name, in: service)
        let flat = elements.flatMap(\.expanded)
        guard let own = flat.firstIndex(where: { isOurs($0, in: service) }) else { return }
        let commands = fixCommands(name, in: service)
        let end = RestrictionList.end(of: flat[..<own])
        let onlyWarns = flat[..<own].last?.name == RestrictionList.warning
        let all = references(flat, in: service)
        if all.count > 1 {
            // The commands of the other findings leave Weir once, too.
            let isOnlyFinding = end == nil && !onlyWarns && !all.contains { needsFix($0, in: service) }
            add(
                .warning, "policy-listed-twice", service, "\(name) asks Weir more than once for each recipient",
                commands: isOnlyFinding ? repetitionCommands(name, in: service) : commands)
        }
        if let end, RestrictionList.permits.contains(end) {
            add(
                .fault, "policy-behind-permit", service,
                "\(name) asks Weir after \(end), which ends the list: mail that it permits is never counted",
                commands: commands)
        } else if let end {
            add(
                .fault, "policy-behind-reject", service,
                "\(name) asks Weir after \(end), which ends the list: Weir is never asked there", commands: commands)
        }
        if onlyWarns {
            add(
                .fault, "policy-only-warns", service,
                "\(name) asks Weir after \(RestrictionList.warning): Postfix logs what Weir refuses, and accepts it",
                commands: commands)
        }
        let first = elements.first { $0.expanded.contains { isOurs($0, in: service) } }
        for reference in references(first?.expanded ?? [], in: service) {
            examine(reference, of: name, in: service, commands: commands)
        }
    }

    private mutating func examine(
        _ reference: ServerReference, of name: String, in service: PostfixSetup.Service, commands: [Change]
    ) {
        if lacksDefaultAction(reference, in: service) {
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
        guard let path = pathInChroot(reference.address, policyListeners, of: service) else { return }
        let listener = Endpoint.inet(host: "127.0.0.1", port: Self.defaultPolicyPort)
        let isNew = reachable(policyListeners, from: service) == nil
        add(
            .fault, "policy-socket-in-chroot", service,
            "\(name) uses \(reference.address), but this service is chrooted and looks for \(path)",
            commands: commands,
            configuration: isNew ? Self.lines(adding: listener, to: policyListeners, of: "policy") : [])
        if isNew { policyListeners.append(listener) }
    }

    func lacksDefaultAction(_ reference: ServerReference, in service: PostfixSetup.Service) -> Bool {
        reference.attributes["default_action"] == nil && !isSet("smtpd_policy_service_default_action", in: service)
    }

    /// Before RCPT there is no recipient to count.
    private mutating func examineEarlyLists(_ service: PostfixSetup.Service) {
        guard !setup.isOn("smtpd_delay_reject", in: service),
            configuration.limits.contains(where: { $0.count != .connections })
        else { return }
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
            let listeners = policyListeners.map(\.description).joined(separator: ", ")
            let listener = Endpoint.inet(host: "127.0.0.1", port: Self.defaultPolicyPort)
            // Other services may ask at the addresses that weir.yaml has.
            add(
                .fault, "policy-nobody-listens", service,
                "smtpd asks \(address), but listen.policy of weir.yaml is \(listeners)",
                configuration: Self.lines(adding: listener, to: asksPolicy ? policyListeners : [], of: "policy"))
            policyListeners.append(listener)
        }
    }

    /// Whether an address is the policy server's default one, and the policy server doesn't listen there.
    private func isDeserted(_ address: String, in service: PostfixSetup.Service) -> Bool {
        !isOurs(address, policyListeners, in: service)
            && ListenerAddress(address, queue: queue)?.isLocal(port: Self.defaultPolicyPort) ?? false
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
            !asks(service) && !milterCounts(service) && tableWithMilter(service) == nil
                && !policyServers(of: service).contains { isDeserted($0, in: service) }
                && configuration.limits.contains { canApply($0, in: service, context: "") }
        }
        for service in silent {
            if let name = classByTable(service) {
                add(
                    .note, "policy-by-table", service,
                    "this service asks Weir only where a table returns \(name); weir doctor can't see for which mail")
                continue
            }
            add(
                .fault, isNeverAsked ? "policy-nowhere" : "policy-not-here", service,
                "this service never asks Weir: its mail is not counted",
                commands: fixCommands(listForQuestion(service), in: service))
        }
    }

    /// The list in which a silent service is to ask: the one in which main.cf asks if the service overrides it, so that
    /// others do not ask twice.
    private func listForQuestion(_ service: PostfixSetup.Service) -> String {
        recipientLists(of: service).first { service.overrides[$0] != nil && asks($0, in: nil) }
            ?? Self.recipientLists[0]
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
            let isRecipientList = Self.recipientLists.contains(name)
            // Without one of these lists, smtpd does not start. A filter outside mynetworks must stay permitted.
            let texts =
                if isRecipientList, permitsLoopback(service) {
                    ["permit_mynetworks", "reject"]
                } else if isRecipientList || service.overrides[name] != nil {
                    textsWithoutWeir(of: name, in: service)
                } else {
                    [String]()
                }
            add(
                .fault, "counted-twice", service,
                "\(name) asks Weir about mail returned by a content filter, which has already been counted",
                commands: setList(name, to: texts, in: service, alone: true))
        }
    }

    private func permitsLoopback(_ service: PostfixSetup.Service) -> Bool {
        setup.words("mynetworks", in: service).contains {
            $0.hasPrefix("127.") || $0.hasPrefix("[::1]")
        }
    }
}
