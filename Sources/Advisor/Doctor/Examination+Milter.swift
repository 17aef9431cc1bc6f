// SPDX-License-Identifier: Apache-2.0
import Filter
import Settings
import Wire

/// Which services show their mail to the milter.
extension Examination {
    private static let usualPort = 10_041

    mutating func examineMilter() {
        examineAddresses()
        guard !configuration.listen.milter.isEmpty else { return }
        let seen = entrances.filter { !references("smtpd_milters", in: $0).isEmpty }
        for service in entrances {
            let references = references("smtpd_milters", in: service)
            if references.isEmpty {
                add(
                    seen.isEmpty ? .fault : .warning, seen.isEmpty ? "milter-nowhere" : "milter-not-here", service,
                    "listen.milter is set, and this service shows no mail to it",
                    commands: append(to: "smtpd_milters", in: service))
            } else if isSwitchedOff(service) {
                add(
                    .fault, "milter-switched-off", service,
                    "receive_override_options has no_milters: the milter sees no mail of this service",
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
                "mail of sendmail(1) is not shown to the milter: it is neither checked nor counted",
                commands: append(to: "non_smtpd_milters", in: nil))
        } else {
            examineDefaultAction("non_smtpd_milters", in: nil)
        }
        for service in reinjections where !references("smtpd_milters", in: service).isEmpty && !isSwitchedOff(service) {
            let options = [setup.value("receive_override_options", in: service), "no_milters"].filter { !$0.isEmpty }
            add(
                .fault, "milter-twice", service,
                "mail that comes back from a content filter is shown to the milter a second time",
                commands: [override("receive_override_options", with: options.joined(separator: ","), in: service)])
        }
    }

    var showsToMilter: Bool {
        entrances.contains { !references("smtpd_milters", in: $0).isEmpty && !isSwitchedOff($0) }
    }

    /// Whether the milter charges what comes in by this service.
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
        return set(name, to: words(name, in: service) + [Self.letsPass(address)], in: service)
    }

    private static func letsPass(_ address: String) -> String { "{ \(address), default_action=accept }" }

    /// Where master.cf has the list, which can hold no blanks, the milters that need some get names in main.cf.
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
            let mended = words(name, in: service).map { word in
                let own = ServerReference(setup.expanded(word, in: service))
                return own.address == reference.address ? Self.letsPass(own.address) : word
            }
            add(
                action == "reject" ? .fault : .warning, "milter-default-action", service,
                action == "reject"
                    ? "\(name): while the milter does not answer, mail is refused for good (default_action=reject)"
                    : "\(name): while the milter does not answer, mail waits, as nothing is said (milter_default_action=tempfail)",
                commands: set(name, to: mended, in: service))
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
                "Postfix waits \(wait) for the milter's verdict, and checks.message_budget gives the checks as long or longer",
                configuration: ["checks: { message_budget: \(max(1, seconds / 2))s }"])
        }
    }

    /// Where Weir's milter usually listens is asked, and it does not listen there.
    private mutating func examineAddresses() {
        let seen = entrances.filter { !isSwitchedOff($0) }
        for (name, service) in seen.map({ ("smtpd_milters", $0 as PostfixSetup.Service?) }) + [
            ("non_smtpd_milters", nil)
        ] {
            for word in RestrictionList.words(setup.value(name, in: service)[...], separators: ", \t") {
                let address = ServerReference(word).address
                guard ListenerAddress(address, queue: queue) == .inet(host: "127.0.0.1", port: Self.usualPort),
                    !isOurs(address, configuration.listen.milter, in: service)
                else { continue }
                add(
                    .fault, "milter-nobody-listens", service,
                    "\(name) has \(address), and listen.milter of weir.yaml has not",
                    configuration: ["listen: { milter: [\"inet:127.0.0.1:\(Self.usualPort)\"] }"])
            }
        }
    }
}
