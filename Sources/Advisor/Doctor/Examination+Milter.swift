// SPDX-License-Identifier: Apache-2.0
import Filter
import Settings
import Wire

/// Which services use the milter, and how.
extension Examination {
    private static let defaultPort = 10_041

    mutating func examineMilter() {
        examineAddresses()
        guard !configuration.listen.milter.isEmpty else { return }
        let isUnused = entrances.allSatisfy {
            references("smtpd_milters", in: $0).isEmpty && tableWithMilter($0) == nil
        }
        for service in entrances {
            let references = references("smtpd_milters", in: service)
            if references.isEmpty, let table = tableWithMilter(service) {
                add(
                    .note, "milter-by-table", service,
                    "only clients in \(table) (smtpd_milter_maps) use the milter, as smtpd_milters does not include it")
            } else if references.isEmpty {
                add(
                    isUnused ? .fault : .warning, isUnused ? "milter-nowhere" : "milter-not-here", service,
                    "listen.milter is set, but smtpd_milters of this service does not include it",
                    commands: addition(to: "smtpd_milters", in: service))
            } else if isSwitchedOff(service) {
                add(
                    .fault, "milter-switched-off", service,
                    "receive_override_options includes no_milters: the milter sees no mail of this service",
                    commands: [
                        set("receive_override_options", to: overrides(of: service, without: "no_milters"), in: service)
                    ])
            }
            examineChroot("smtpd_milters", of: service, in: service)
            examineList("smtpd_milters", in: service)
            examineTimeout(service)
        }
        if !usesMilterForSendmail {
            add(
                .warning, "milter-not-for-sendmail", nil,
                "non_smtpd_milters does not include the milter: mail of sendmail(1) is neither checked nor counted",
                commands: addition(to: "non_smtpd_milters", in: nil))
        }
        for cleanup in setup.services where cleanup.program == "cleanup" {
            examineChroot("non_smtpd_milters", of: cleanup, in: nil)
        }
        examineList("non_smtpd_milters", in: nil)
        for service in reinjections where !references("smtpd_milters", in: service).isEmpty && !isSwitchedOff(service) {
            let options = [setup.value("receive_override_options", in: service), "no_milters"].filter { !$0.isEmpty }
            add(
                .fault, "milter-twice", service,
                "the milter sees mail a second time when it returns from a content filter",
                commands: [override("receive_override_options", with: options.joined(separator: ","), in: service)])
        }
    }

    var usesMilter: Bool { entrances.contains(where: usesMilter) }

    func usesMilter(_ service: PostfixSetup.Service) -> Bool {
        !references("smtpd_milters", in: service).isEmpty && !isSwitchedOff(service)
    }

    /// Whether all mail, that of sendmail(1) included, goes through the milter or a filter.
    var seesAllMail: Bool {
        filtersAllMail
            || usesMilterForSendmail
                && entrances.allSatisfy(usesMilter)
    }

    /// Whether the milter sees mail of sendmail(1).
    var usesMilterForSendmail: Bool { !references("non_smtpd_milters", in: nil).isEmpty }

    /// Whether the milter counts the mail of this service.
    func milterCounts(_ service: PostfixSetup.Service) -> Bool {
        configuration.milter.limits && usesMilter(service)
    }

    func isSwitchedOff(_ service: PostfixSetup.Service) -> Bool {
        options(of: service).contains("no_milters")
    }

    private func options(of service: PostfixSetup.Service) -> [String] {
        setup.words("receive_override_options", in: service)
    }

    private func overrides(of service: PostfixSetup.Service, without option: String) -> String {
        options(of: service).filter { $0 != option }.joined(separator: ",")
    }

    /// The words of a list as it is written, not expanded.
    private func writtenWords(_ name: String, in service: PostfixSetup.Service?) -> [String] {
        RestrictionList.words(setup.raw(name, in: service))
    }

    private func references(_ name: String, in service: PostfixSetup.Service?) -> [ServerReference] {
        setup.words(name, in: service)
            .filter { isOurs(milter: $0, in: service) }.map(ServerReference.init)
    }

    /// Whether an element of a list of milters is Weir.
    func isOurs(milter: String, in service: PostfixSetup.Service?) -> Bool {
        isOurs(ServerReference(milter).address, milterListeners, in: service)
    }

    /// Adds the milter, as the first: a milter behind it may sign the message, which no other must edit afterwards.
    private func addition(to name: String, in service: PostfixSetup.Service?) -> [Change] {
        let own = ServerReference(configuration.listen.milter.first?.description ?? "")
        return set(name, to: [Self.acceptingByDefault(own)] + writtenWords(name, in: service), in: service)
    }

    /// The milter with its other settings.
    private static func acceptingByDefault(_ milter: ServerReference) -> String {
        let settings = milter.attributes.filter { $0.key != "default_action" }.sorted { $0.key < $1.key }
        let texts = [milter.address, "default_action=accept"] + settings.map { "\($0.key)=\($0.value)" }
        return "{ \(texts.joined(separator: ", ")) }"
    }

    /// Sets a list of milters. A list in master.cf can't have spaces, so words with spaces become variables in main.cf.
    private func set(_ name: String, to words: [String], in service: PostfixSetup.Service?) -> [Change] {
        guard service?.overrides[name] != nil else {
            return [set(name, to: words.joined(separator: ", "), in: service)]
        }
        var definitions: [Change] = []
        let plain = words.map { word in
            guard word.contains(" ") else { return word }
            let variable = variable("weir_milter", for: word, beside: definitions)
            definitions.append(.parameter(variable, value: word))
            return "$\(variable)"
        }
        return definitions.filter { !isInForce($0) } + [set(name, to: plain.joined(separator: ","), in: service)]
    }

    private mutating func examineList(_ name: String, in service: PostfixSetup.Service?) {
        examineRepetition(name, in: service)
        examineOrder(name, in: service)
        examineDefaultAction(name, in: service)
    }

    /// A milter that is listed twice, often by `$smtpd_milters` and once more, checks and charges each message twice.
    private mutating func examineRepetition(_ name: String, in service: PostfixSetup.Service?) {
        guard references(name, in: service).count > 1 else { return }
        var isListed = false
        var rest: [String] = []
        for word in writtenWords(name, in: service) {
            let expanded = RestrictionList.words(setup.expanded(word, in: service))
            let (own, others) = (
                expanded.filter { isOurs(milter: $0, in: service) },
                expanded.filter { !isOurs(milter: $0, in: service) }
            )
            if own.isEmpty || !isListed && own.count == 1 {
                rest.append(word)
            } else {
                rest += (isListed ? [] : [own[0]]) + others
            }
            isListed = isListed || !own.isEmpty
        }
        add(
            .fault, "milter-listed-twice", service,
            "\(name) has the milter more than once: each message is checked and charged as often",
            commands: set(name, to: rest, in: service))
    }

    /// A message that was signed must not be edited afterwards.
    private mutating func examineOrder(_ name: String, in service: PostfixSetup.Service?) {
        let list = setup.words(name, in: service)
        guard rules.mayEdit, let own = list.firstIndex(where: { isOurs(milter: $0, in: service) }),
            let signer = list[..<own].first(where: Self.signs)
        else { return }
        let rest = list.filter { !isOurs(milter: $0, in: service) }
        add(
            .warning, "milter-behind-signer", service,
            "\(name) has Weir behind \(ServerReference(signer).address), which signs or verifies DKIM: what Weir edits "
                + "breaks the signature",
            commands: set(name, to: [list[own]] + rest, in: service))
    }

    /// By the usual names and ports of OpenDKIM, dkimpy-milter, OpenARC, Rspamd and amavisd-milter.
    private static func signs(_ milter: String) -> Bool {
        let address = ServerReference(milter).address.lowercased()
        return ["dkim", "rspamd", "openarc", "amavis"].contains { address.contains($0) }
            || ["8891", "8892", "8894", "12301", "11332"].contains { address.hasSuffix(":\($0)") }
    }

    private mutating func examineDefaultAction(_ name: String, in service: PostfixSetup.Service?) {
        for reference in references(name, in: service) {
            let action = reference.attributes["default_action"] ?? setup.value("milter_default_action", in: service)
            let isChosen =
                reference.attributes["default_action"] != nil || isSet("milter_default_action", in: service)
            let isDeferred = ["tempfail", "shutdown"].contains(action)
            guard action == "reject" || isDeferred && !isChosen else { continue }
            let fixed = writtenWords(name, in: service).map { word in
                let own = ServerReference(setup.expanded(word, in: service))
                return own.address == reference.address ? Self.acceptingByDefault(own) : word
            }
            add(
                action == "reject" ? .fault : .warning, "milter-default-action", service,
                action == "reject"
                    ? "\(name): mail is rejected while the milter is unreachable (default_action=reject)"
                    : "\(name): mail is deferred while the milter is unreachable, by Postfix's default (\(action))",
                commands: set(name, to: fixed, in: service))
        }
    }

    /// A chrooted process finds no socket outside the queue directory.
    ///
    /// - Parameters:
    ///   - process: the smtpd or cleanup that speaks to the milter.
    ///   - service: whose value of the parameter counts; nil for that of main.cf.
    private mutating func examineChroot(
        _ name: String, of process: PostfixSetup.Service, in service: PostfixSetup.Service?
    ) {
        for reference in references(name, in: service) {
            guard let path = pathInChroot(reference.address, milterListeners, of: process) else { continue }
            let listener = Endpoint.inet(host: "127.0.0.1", port: Self.defaultPort)
            let address = reachable(milterListeners, from: process)
            let fixed = writtenWords(name, in: service).flatMap { word in
                let expanded = RestrictionList.words(setup.expanded(word, in: service))
                guard expanded.contains(where: { ServerReference($0).address == reference.address }) else {
                    return [word]
                }
                return expanded.map { milter in
                    ServerReference(milter).address == reference.address
                        ? milter.replacing(reference.address, with: address ?? listener.description) : milter
                }
            }
            add(
                .fault, "milter-socket-in-chroot", process,
                "\(name) uses \(reference.address), but this service is chrooted and looks for \(path)",
                commands: set(name, to: fixed, in: service),
                configuration: address == nil ? Self.lines(adding: listener, to: milterListeners, of: "milter") : [])
            if address == nil { milterListeners.append(listener) }
        }
    }

    private mutating func examineTimeout(_ service: PostfixSetup.Service) {
        for reference in references("smtpd_milters", in: service) {
            let wait = reference.attributes["content_timeout"] ?? setup.value("milter_content_timeout", in: service)
            guard let seconds = Self.seconds(wait), seconds * 1000 <= configuration.checks.messageBudget else {
                continue
            }
            add(
                .warning, "milter-timeout", service,
                "milter_content_timeout is \(wait), not longer than checks.message_budget: Postfix may time out first",
                configuration: ["checks: { message_budget: \(max(1, seconds / 2))s }"])
        }
    }

    /// Finds references to the milter's default port where it doesn't listen on that port.
    private mutating func examineAddresses() {
        let active = entrances.filter { !isSwitchedOff($0) }
        for (name, service) in active.map({ ("smtpd_milters", $0 as PostfixSetup.Service?) }) + [
            ("non_smtpd_milters", nil)
        ] {
            for word in setup.words(name, in: service) {
                let address = ServerReference(word).address
                guard let server = ListenerAddress(address, queue: queue), server.isLocal(port: Self.defaultPort),
                    !isOurs(address, milterListeners, in: service)
                else { continue }
                let listener = Endpoint.inet(host: "127.0.0.1", port: Self.defaultPort)
                add(
                    .fault, "milter-nobody-listens", service,
                    "\(name) includes \(address), but listen.milter of weir.yaml does not",
                    configuration: Self.lines(adding: listener, to: milterListeners, of: "milter"))
                milterListeners.append(listener)
            }
        }
    }
}
