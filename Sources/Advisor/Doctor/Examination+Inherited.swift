// SPDX-License-Identifier: Apache-2.0
import Settings
import Wire

/// What the services to the filter and back take from main.cf, although it is for other mail.
extension Examination {
    /// The way to a filter on this machine. A filter elsewhere may well need TLS, or a bind address.
    mutating func examineInherited(transport: PostfixSetup.Service, of filter: Configuration.FilterListener) {
        guard isLocal(filter.listen) else { return }
        examineInherited(ServiceOverride.transport, in: transport)
        examineQueue(transport)
    }

    /// The pipe(8) services that run `weir filter`.
    mutating func examineCommands() {
        for service in setup.services where service.runsWeirFilter {
            examineInherited(ServiceOverride.command, in: service)
            examineQueue(service)
            guard setup.value("content_filter").hasPrefix("\(service.name):") else { continue }
            add(
                .fault, "filter-loop", nil,
                "content_filter is \(service.name), which returns mail with sendmail(1): that mail is filtered again, "
                    + "without end",
                commands: [.parameter("content_filter", value: "")]
                    + entrances.filter { $0.overrides["content_filter"] == nil }
                    .map { override("content_filter", with: setup.value("content_filter"), in: $0) })
        }
    }

    private mutating func examineQueue(_ transport: PostfixSetup.Service) {
        for effect in ServiceOverride.Effect.allCases {
            let harmful = ServiceOverride.queue.filter { limit in
                let name = "\(transport.name)_\(limit.name)"
                return limit.effect == effect && !setup.set.contains(name)
                    && isHarmful(limit, setup.value(name), instead: setup.defaultValue(name), in: nil)
            }
            guard !harmful.isEmpty else { continue }
            let names = harmful.map { "default_\($0.name)" }.joined(separator: ", ")
            add(
                effect.severity, "filter-inherits", nil,
                "main.cf sets \(names) for other mail; for the transport \(transport.name), that \(effect.text)",
                commands: harmful.map { .parameter("\(transport.name)_\($0.name)", value: $0.value) })
        }
    }

    /// The way back from a filter on this machine.
    mutating func examineInherited(reinjection: PostfixSetup.Service, of filter: Configuration.FilterListener) {
        guard isLocal(filter.nextHop.endpoint) else { return }
        // Another finding is about lists that ask Weir.
        let overrides = ServiceOverride.reinjection(for: filter.nextHop.endpoint).filter {
            !asks($0.name, in: reinjection)
        }
        examineInherited(overrides, in: reinjection)
        let name = setup.value("cleanup_service_name", in: reinjection)
        guard carriesOutVerdicts(name), let cleanup = setup.services.first(where: { $0.name == name }) else { return }
        if !examinedCleanups.contains(cleanup.id) {
            examinedCleanups.insert(cleanup.id)
            examineInherited(ServiceOverride.verdictCleanup, in: cleanup)
            examineDroppedHeaders(cleanup)
        }
    }

    private mutating func examineInherited(_ overrides: [ServiceOverride], in service: PostfixSetup.Service) {
        for effect in ServiceOverride.Effect.allCases {
            let harmful = overrides.filter { override in
                let name = override.named(for: service.program)
                return override.effect == effect && service.overrides[name] == nil && setup.knows(name)
                    && isHarmful(
                        override, setup.value(name, in: service), instead: setup.defaultValue(name), in: service)
            }
            guard !harmful.isEmpty else { continue }
            let names = harmful.map { $0.named(for: service.program) }
            add(
                effect.severity, "filter-inherits", service,
                "main.cf sets \(names.joined(separator: ", ")) for other mail; here, that \(effect.text)",
                commands: zip(names, harmful).map { override($0, with: $1.value, in: service) })
        }
    }

    private func isHarmful(
        _ override: ServiceOverride, _ value: String, instead defaultValue: String, in service: PostfixSetup.Service?
    ) -> Bool {
        guard value != defaultValue, value != override.value else { return false }
        let words = RestrictionList.words(value)
        switch override.harmless {
        case .none: return Self.seconds(value) ?? 1 != Self.seconds(override.value) ?? 0
        case .values(let values): return !values.contains(value)
        case .atLeast(let least): return Self.seconds(value).map { $0 != 0 && $0 < least } ?? true
        case .atMost(let most): return Self.seconds(value).map { $0 > most } ?? true
        case .indexedTables:
            let types: Set<Substring> = ["hash", "btree", "lmdb", "cdb", "dbm", "texthash", "inline"]
            return !words.allSatisfy { types.contains($0.prefix { $0 != ":" }) }
        case .loopback:
            let names: Set<String> = ["all", "loopback-only", "localhost", "::1", "0.0.0.0/0"]
            return !words.isEmpty
                && !words.contains { names.contains($0) || $0.hasPrefix("127.") || $0.hasPrefix("[::1]") }
        case .permitsFirst(let others):
            return !words.isEmpty && words[0] != "permit_mynetworks" && !others.isSuperset(of: words)
        case .containing(let word): return !words.contains(word)
        case .otherKeywords:
            let needed: Set<String> = ["8bitmime", "dsn", "pipelining", "size", "smtputf8", "xforward"]
            return !needed.isDisjoint(with: words.map { $0.lowercased() })
        case .exceptedClient:
            return !setup.words("smtpd_client_event_limit_exceptions", in: service)
                .contains { $0.hasPrefix("127.") }
        }
    }

    /// Before the queue, no other cleanup drops these headers.
    private mutating func examineDroppedHeaders(_ cleanup: PostfixSetup.Service) {
        let name = "message_drop_headers"
        let missing = droppedHeaders(in: nil).filter { !droppedHeaders(in: cleanup).contains($0) }
        guard !missing.isEmpty else { return }
        add(
            .warning, "filter-inherits", cleanup,
            "\(name) of main.cf has \(missing.joined(separator: ", ")), but not \(name) of this service: before the "
                + "queue, such headers stay",
            commands: [
                override(name, with: (droppedHeaders(in: cleanup) + missing).joined(separator: ","), in: cleanup)
            ])
    }

    private func droppedHeaders(in cleanup: PostfixSetup.Service?) -> [String] {
        setup.words("message_drop_headers", in: cleanup)
            .map { $0.lowercased() }
    }

    // MARK: Faults of older versions of Postfix

    /// HISTORY of Postfix: "SMTP server panic() in smtpd_proxy_filter when handling long mailbox From_ lines". Only a
    /// note, because distributions fix faults without a new version number.
    mutating func examineFromLines(_ service: PostfixSetup.Service?) {
        guard turnsAllFromLinesIntoHeaders == true else { return }
        add(
            .note, "filter-from-line", service,
            "Postfix \(setup.value("mail_version")): a first line with \"From \" and more than 2,048 bytes makes smtpd "
                + "panic before the queue, unless your distribution has fixed that; 3.7.21, 3.8.19, 3.9.13, 3.10.12 "
                + "and 3.11.5 have the fix")
    }

    /// Whether smtpd makes every `From ` line at the start of a message a header, as versions with that fault do, or
    /// only the first. nil for a version that does not say.
    var turnsAllFromLinesIntoHeaders: Bool? {
        let version = setup.value("mail_version").split(separator: "-").first ?? ""
        let numbers = version.split(separator: ".").map { Int($0) }
        guard numbers.count >= 2, numbers[0] == 3, let minor = numbers[1] else { return nil }
        guard (7...11).contains(minor) else { return minor < 7 }
        guard numbers.count == 3, let patch = numbers[2], let fixed = Self.fixedFromLines[minor] else { return nil }
        return patch < fixed
    }

    private static let fixedFromLines = [7: 21, 8: 19, 9: 13, 10: 12, 11: 5]

    /// Clients that end lines with a bare LF can hide a second message in a first one (SMTP smuggling). Only a note:
    /// many versions have this default, and Weir counts and checks what Postfix sees.
    mutating func examineBareNewlines() {
        let name = "smtpd_forbid_bare_newline"
        for service in entrances where setup.knows(name) && setup.value(name, in: service) == "no" {
            add(
                .note, "smtp-smuggling", service,
                "\(name) is no: a client can hide a second message, with a sender of its choice, in a message that a "
                    + "site in front of yours has passed on",
                commands: [set(name, to: "yes", in: service)])
        }
    }

    // MARK: New services

    /// `-o name=value` for each parameter that this Postfix knows; a deprecated one only if main.cf sets it.
    func options(_ overrides: [ServiceOverride], for program: String) -> String {
        overrides.compactMap { override in
            let name = override.named(for: program)
            guard setup.knows(name), !override.isDeprecated || setup.set.contains(name) else { return nil }
            guard name == "message_drop_headers" else { return "-o \(name)=\(override.value)" }
            let own = override.value.split(separator: ",").map(String.init)
            let others = droppedHeaders(in: nil).filter { !own.contains($0) }
            return "-o \(name)=\((own + others).joined(separator: ","))"
        }.joined(separator: " ")
    }

    private func isLocal(_ endpoint: Endpoint) -> Bool {
        let address = ListenerAddress(endpoint)
        guard case .inet(let host, _) = address else { return true }
        return address.isLoopback || ["", "0.0.0.0", "::"].contains(host)
    }
}
