// SPDX-License-Identifier: Apache-2.0
internal import Settings
internal import Wire

/// Where smtpd asks the policy server.
extension Examination {
    private static let recipientLists = ["smtpd_recipient_restrictions", "smtpd_relay_restrictions"]
    private static let settlingLists = ["smtpd_data_restrictions", "smtpd_end_of_data_restrictions"]
    private static let earlyLists = [
        "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
    ]

    private static let usualPort = 10_040
    /// Longer than anybody waits for at a keyboard; Postfix's own is 100 seconds.
    private static let longestWait = 30

    mutating func examinePolicy() {
        for service in entrances {
            examineAddresses(service)
            for name in Self.recipientLists + Self.settlingLists { examine(name, in: service) }
            examineEarlyLists(service)
        }
        examineWhoAsks()
        examineGivingBack()
        for service in reinjections { examineReinjection(service) }
    }

    var asksPolicy: Bool {
        entrances.contains { service in (Self.recipientLists + Self.settlingLists).contains { asks($0, in: service) } }
    }

    // MARK: Lists

    /// The elements of a list as they are written, each with what it stands for.
    private func list(
        _ name: String, in service: PostfixSetup.Service?
    ) -> [(written: RestrictionList.Element, meant: [RestrictionList.Element])] {
        RestrictionList(setup.raw(name, in: service)).elements.map { ($0, meant($0, in: service, depth: 0)) }
    }

    private func meant(
        _ element: RestrictionList.Element, in service: PostfixSetup.Service?, depth: Int
    ) -> [RestrictionList.Element] {
        let elements = RestrictionList(setup.expanded(element.text, in: service)).elements
        guard depth < 10 else { return elements }
        let classes = Set(
            RestrictionList.words(setup.value("smtpd_restriction_classes", in: service)[...], separators: ", \t"))
        return elements.flatMap { element in
            guard classes.contains(element.text) else { return [element] }
            return RestrictionList(setup.value(element.text, in: service)).elements.flatMap {
                meant($0, in: service, depth: depth + 1)
            }
        }
    }

    /// The servers of a policy service that are Weir.
    private func references(
        _ elements: [RestrictionList.Element], in service: PostfixSetup.Service?
    ) -> [ServerReference] {
        elements.filter { $0.name == "check_policy_service" }.map { ServerReference($0.argument) }
            .filter { isOurs($0.address, configuration.listen.policy, in: service) }
    }

    /// A path is taken as within the queue directory, too: whether it is right for a chrooted service is another question.
    func isOurs(_ address: String, _ own: [Configuration.Endpoint], in service: PostfixSetup.Service?) -> Bool {
        guard let wanted = ListenerAddress(address, queue: queue) else { return false }
        return own.contains { endpoint in
            let listener = ListenerAddress(endpoint)
            if case .unix(let path) = wanted, listener == .unix(path: queue + path) { return true }
            return listener.answers(wanted)
        }
    }

    private func asks(_ name: String, in service: PostfixSetup.Service) -> Bool {
        list(name, in: service).contains { !references($0.meant, in: service).isEmpty }
    }

    // MARK: Faults of one list

    private mutating func examine(_ name: String, in service: PostfixSetup.Service) {
        let elements = list(name, in: service)
        guard let own = elements.firstIndex(where: { !references($0.meant, in: service).isEmpty }) else { return }
        let commands = mend(name, in: service)
        let permits = elements[..<own].flatMap(\.meant).map(\.name).filter(RestrictionList.permits.contains)
        if let permit = permits.first {
            add(
                .fault, "policy-behind-permit", service,
                "\(name) asks Weir behind \(permit), which ends the list: whom it lets pass is never counted",
                commands: commands)
        }
        for reference in references(elements[own].meant, in: service) {
            if reference.attributes["default_action"] == nil, !setup.set.contains("smtpd_policy_service_default_action")
            {
                add(
                    .fault, "policy-default-action", service,
                    "\(name): while Weir does not answer, mail is stopped with \"\(setup.value("smtpd_policy_service_default_action", in: service))\", as no default_action is given",
                    commands: commands)
            }
            let wait = reference.attributes["timeout"] ?? setup.value("smtpd_policy_service_timeout", in: service)
            if let seconds = Self.seconds(wait), seconds > Self.longestWait {
                add(
                    .warning, "policy-timeout", service,
                    "\(name): a client waits for \(wait) while Weir does not answer",
                    commands: commands)
            }
            if reference.address.hasPrefix("unix:/"), isChrooted(service),
                !configuration.listen.policy.contains(where: {
                    ListenerAddress($0) == .unix(path: queue + reference.address.dropFirst(5))
                })
            {
                add(
                    .fault, "policy-socket-in-chroot", service,
                    "\(name) asks at \(reference.address), which this service finds only as \(queue)\(reference.address.dropFirst(5)): it is chrooted",
                    commands: commands, configuration: ["listen: { policy: [\"inet:127.0.0.1:\(Self.usualPort)\"] }"])
            }
        }
    }

    /// Asked earlier than at RCPT it is no use: there is no recipient to count.
    private mutating func examineEarlyLists(_ service: PostfixSetup.Service) {
        guard setup.value("smtpd_delay_reject", in: service) == "no" else { return }
        for name in Self.earlyLists where asks(name, in: service) {
            add(
                .warning, "policy-too-early", service,
                "\(name) asks Weir before there is a recipient (smtpd_delay_reject = no); only limits that count connections apply there",
                commands: [set("smtpd_delay_reject", to: "yes", in: service)])
        }
    }

    /// Where Weir usually listens is asked, and it does not listen there.
    private mutating func examineAddresses(_ service: PostfixSetup.Service) {
        let wanted = (Self.recipientLists + Self.settlingLists + Self.earlyLists).flatMap {
            list($0, in: service).flatMap(\.meant)
        }
        .filter { $0.name == "check_policy_service" }.map { ServerReference($0.argument).address }
        for address in Set(wanted).sorted() where !isOurs(address, configuration.listen.policy, in: service) {
            guard ListenerAddress(address, queue: queue) == .inet(host: "127.0.0.1", port: Self.usualPort) else {
                continue
            }
            add(
                .fault, "policy-nobody-listens", service,
                "\(address) is asked, and weir.yaml listens on \(configuration.listen.policy.map(\.description).joined(separator: ", "))",
                configuration: ["listen: { policy: [\"\(address)\"] }"])
        }
    }

    // MARK: Which services ask

    private mutating func examineWhoAsks() {
        guard !configuration.limits.isEmpty else { return }
        let silent = entrances.filter { service in
            !(Self.recipientLists + Self.settlingLists).contains { asks($0, in: service) } && !milterCounts(service)
        }
        guard !silent.isEmpty else { return }
        let isNowhere = silent.count == entrances.count
        for service in silent {
            add(
                .fault, isNowhere ? "policy-nowhere" : "policy-not-here", service,
                "Weir is never asked here, so what comes in by this service is not counted",
                commands: mend(Self.recipientLists[0], in: service))
        }
    }

    private mutating func examineGivingBack() {
        let asking = entrances.filter { service in
            Self.recipientLists.contains { asks($0, in: service) } && !milterCounts(service)
        }
        let unsettled = asking.filter { service in !Self.settlingLists.contains { asks($0, in: service) } }
        if configuration.givesBackDropped {
            for service in unsettled {
                add(
                    .fault, "give-back-unsettled", service,
                    "give_back_dropped is true, and Weir is not told here what Postfix accepted: what is charged is given back, and no limit holds",
                    commands: mend(Self.settlingLists[1], in: service))
            }
        } else if unsettled.isEmpty, !asking.isEmpty {
            add(
                .note, "give-back", nil,
                "Weir is told everywhere what Postfix accepted; with give_back_dropped it would not count messages that were never finished",
                configuration: ["give_back_dropped: true"])
        }
    }

    // MARK: Re-injection

    private mutating func examineReinjection(_ service: PostfixSetup.Service) {
        for name in Self.recipientLists + Self.settlingLists + Self.earlyLists where asks(name, in: service) {
            let rest = list(name, in: service).filter { references($0.meant, in: service).isEmpty }.map(\.written.text)
            let value =
                name == Self.recipientLists[0]
                ? "permit_mynetworks,reject" : service.overrides[name] == nil ? "" : rest.joined(separator: ",")
            add(
                .fault, "counted-twice", service,
                "\(name) asks Weir about mail that comes back from a content filter: it was counted when it came in",
                commands: [override(name, with: value, in: service)])
        }
    }

    // MARK: Mending

    /// The commands that make of a list one that asks Weir in front of all permits, and lets mail pass while Weir is down.
    private func mend(_ name: String, in service: PostfixSetup.Service) -> [String] {
        var elements = list(name, in: service)
        var commands: [String] = []
        let own = elements.firstIndex { !references($0.meant, in: service).isEmpty }
        let reference = own.flatMap { references(elements[$0].meant, in: service).first }
        var written = own.map { elements[$0].written.text }
        if own == nil || reference.map({ isInNeed($0, in: service) }) ?? true {
            let context = reference?.attributes["policy_context"]
            let variable = "weir_policy" + (context.map { "_\($0.filter { $0.isLetter || $0.isNumber })" } ?? "")
            let address = address(for: service, asked: reference)
            let definition =
                "check_policy_service { \(address), timeout=10s, default_action=DUNNO\(context.map { ", policy_context=\($0)" } ?? "") }"
            if setup.raw(variable) != definition { commands.append(set(variable, to: definition)) }
            written = "$\(variable)"
        }
        if let own { elements.remove(at: own) }
        let place = elements.firstIndex {
            $0.meant.contains { RestrictionList.permits.contains($0.name) || $0.name == "reject" }
        }
        var texts = elements.map(\.written.text)
        texts.insert(written ?? "", at: place ?? texts.count)
        commands.append(set(name, to: texts.joined(separator: ", "), in: service))
        return commands
    }

    private func isInNeed(_ reference: ServerReference, in service: PostfixSetup.Service) -> Bool {
        let wait = reference.attributes["timeout"] ?? setup.value("smtpd_policy_service_timeout", in: service)
        return reference.attributes["default_action"] == nil || Self.seconds(wait) ?? 0 > Self.longestWait
            || reference.address.hasPrefix("unix:/") && isChrooted(service)
    }

    /// TCP is found by all services; a socket only by those that are not chrooted.
    private func address(for service: PostfixSetup.Service, asked reference: ServerReference?) -> String {
        if let reference, !(reference.address.hasPrefix("unix:/") && isChrooted(service)) { return reference.address }
        let own = configuration.listen.policy
        let found = own.first { if case .inet = $0 { true } else { false } } ?? (isChrooted(service) ? nil : own.first)
        return found?.description ?? "inet:127.0.0.1:\(Self.usualPort)"
    }
}
