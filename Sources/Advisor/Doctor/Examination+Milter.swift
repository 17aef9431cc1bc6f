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
        let isUnused = entrances.allSatisfy { references("smtpd_milters", in: $0).isEmpty }
        for service in entrances {
            let references = references("smtpd_milters", in: service)
            if references.isEmpty {
                add(
                    isUnused ? .fault : .warning, isUnused ? "milter-nowhere" : "milter-not-here", service,
                    "listen.milter is set, but smtpd_milters of this service does not include it",
                    commands: append(to: "smtpd_milters", in: service))
            } else if isSwitchedOff(service) {
                add(
                    .fault, "milter-switched-off", service,
                    "receive_override_options includes no_milters: the milter sees no mail of this service",
                    commands: [
                        set("receive_override_options", to: overrides(of: service, without: "no_milters"), in: service)
                    ])
            }
            examineDefaultAction("smtpd_milters", in: service)
            examineTimeout(service)
        }
        if references("non_smtpd_milters", in: nil).isEmpty {
            add(
                .warning, "milter-not-for-sendmail", nil,
                "non_smtpd_milters does not include the milter: mail of sendmail(1) is neither checked nor counted",
                commands: append(to: "non_smtpd_milters", in: nil))
        } else {
            examineDefaultAction("non_smtpd_milters", in: nil)
        }
        for service in reinjections where !references("smtpd_milters", in: service).isEmpty && !isSwitchedOff(service) {
            let options = [setup.value("receive_override_options", in: service), "no_milters"].filter { !$0.isEmpty }
            add(
                .fault, "milter-twice", service,
                "the milter sees mail a second time when it returns from a content filter",
                commands: [override("receive_override_options", with: options.joined(separator: ","), in: service)])
        }
    }

    var usesMilter: Bool {
        entrances.contains { !references("smtpd_milters", in: $0).isEmpty && !isSwitchedOff($0) }
    }

    /// Whether the milter counts the mail of this service.
    func milterCounts(_ service: PostfixSetup.Service) -> Bool {
        configuration.milter.limits && !references("smtpd_milters", in: service).isEmpty && !isSwitchedOff(service)
    }

    private func isSwitchedOff(_ service: PostfixSetup.Service) -> Bool {
        options(of: service).contains("no_milters")
    }

    private func options(of service: PostfixSetup.Service) -> [String] {
        RestrictionList.words(setup.value("receive_override_options", in: service)[...], separators: ", \t")
    }

    private func overrides(of service: PostfixSetup.Service, without option: String) -> String {
        options(of: service).filter { $0 != option }.joined(separator: ",")
    }

    private func words(_ name: String, in service: PostfixSetup.Service?) -> [String] {
        RestrictionList.words(setup.raw(name, in: service)[...], separators: ", \t")
    }

    private func references(_ name: String, in service: PostfixSetup.Service?) -> [ServerReference] {
        RestrictionList.words(setup.value(name, in: service)[...], separators: ", \t").map(ServerReference.init)
            .filter { isOurs($0.address, configuration.listen.milter, in: service) }
    }

    private func append(to name: String, in service: PostfixSetup.Service?) -> [String] {
        let address = configuration.listen.milter.first?.description ?? ""
        return set(name, to: words(name, in: service) + [Self.acceptingByDefault(address)], in: service)
    }

    private static func acceptingByDefault(_ address: String) -> String { "{ \(address), default_action=accept }" }

    /// Sets a list of milters. A list in master.cf can't have spaces, so words with spaces become variables in main.cf.
    private func set(_ name: String, to words: [String], in service: PostfixSetup.Service?) -> [String] {
        guard service?.overrides[name] != nil else {
            return [set(name, to: words.joined(separator: ", "), in: service)]
        }
        var commands: [String] = []
        let plain = words.map { word in
            guard word.contains(" ") else { return word }
            let variable = "weir_milter" + (commands.isEmpty ? "" : "_\(commands.count + 1)")
            commands.append(set(variable, to: word))
            return "$\(variable)"
        }
        return commands + [set(name, to: plain.joined(separator: ","), in: service)]
    }

    private mutating func examineDefaultAction(_ name: String, in service: PostfixSetup.Service?) {
        for reference in references(name, in: service) {
            let action = reference.attributes["default_action"] ?? setup.value("milter_default_action", in: service)
            let isChosen = reference.attributes["default_action"] != nil || setup.set.contains("milter_default_action")
            guard action == "reject" || action == "tempfail" && !isChosen else { continue }
            let fixed = words(name, in: service).map { word in
                let own = ServerReference(setup.expanded(word, in: service))
                return own.address == reference.address ? Self.acceptingByDefault(own.address) : word
            }
            add(
                action == "reject" ? .fault : .warning, "milter-default-action", service,
                action == "reject"
                    ? "\(name): mail is rejected while the milter is unreachable (default_action=reject)"
                    : "\(name): mail is deferred while the milter is unreachable, by Postfix's default (tempfail)",
                commands: set(name, to: fixed, in: service))
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
            for word in RestrictionList.words(setup.value(name, in: service)[...], separators: ", \t") {
                let address = ServerReference(word).address
                guard ListenerAddress(address, queue: queue) == .inet(host: "127.0.0.1", port: Self.defaultPort),
                    !isOurs(address, configuration.listen.milter, in: service)
                else { continue }
                add(
                    .fault, "milter-nobody-listens", service,
                    "\(name) includes \(address), but listen.milter of weir.yaml does not",
                    configuration: ["listen: { milter: [\"inet:127.0.0.1:\(Self.defaultPort)\"] }"])
            }
        }
    }
}
