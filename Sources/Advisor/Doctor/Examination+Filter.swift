// SPDX-License-Identifier: Apache-2.0
import Filter
import Settings
import Wire

/// How mail gets to the content filter and back.
extension Examination {
    /// A parameter that sends mail to a filter.
    private struct User {
        /// Nil for main.cf.
        let service: PostfixSetup.Service?
        let parameter: String
        /// The transport of content_filter; nil for smtpd_proxy_filter.
        let transport: String?
    }

    mutating func examineFilter() {
        for filter in configuration.listen.filter {
            let users = users(of: filter)
            if users.isEmpty, others.allSatisfy({ $0.users(of: filter).isEmpty }) { addNowhere(filter) }
            for user in users { examine(user, of: filter) }
            examineNextHop(of: filter)
        }
    }

    /// No command replaces another filter.
    private mutating func addNowhere(_ filter: Configuration.FilterListener) {
        let name = filter.mode == .afterQueue ? "content_filter" : "smtpd_proxy_filter"
        let others = ([setup.value(name)] + entrances.map { setup.value(name, in: $0) }).filter { !$0.isEmpty }
        let address = nextHopText(filter.listen)
        let commands: [Change] =
            filter.mode == .afterQueue
            ? transport(named: "weir", for: filter) + [.parameter(name, value: "weir:\(address)")]
            : entrances.map { override(name, with: address, in: $0) }
        let hint =
            others.first.map {
                "; \(name) is \($0): set \(name) for Weir at the smtpd that takes mail back from there, or let Weir be "
                    + "first and pass mail on"
            } ?? ""
        add(
            .fault, "filter-nowhere", nil,
            "neither content_filter nor smtpd_proxy_filter names the filter on \(filter.listen)\(hint)",
            commands: others.isEmpty ? commands : [])
    }

    var usesFilter: Bool { configuration.listen.filter.contains { !users(of: $0).isEmpty } }

    /// Whether all mail, that of sendmail(1) included, goes to a filter.
    var filtersAllMail: Bool {
        configuration.listen.filter.contains { filter in users(of: filter).contains { $0.service == nil } }
            && entrances.allSatisfy { $0.overrides["content_filter"] == nil }
    }

    /// The services that take mail of sendmail(1).
    private var pickups: [PostfixSetup.Service] { setup.services.filter { $0.program == "pickup" } }

    /// In Postfix's next-hop notation: `[127.0.0.1]:10025`, or a path from the queue directory.
    private func nextHopText(_ endpoint: Endpoint) -> String {
        switch endpoint {
        case .inet(let host, let port): "[\(host)]:\(port)"
        case .unix(let path, _, _): isInQueue(endpoint) ? "unix:\(path.dropFirst(queue.count + 1))" : "unix:\(path)"
        }
    }

    private func isInQueue(_ endpoint: Endpoint) -> Bool {
        guard case .unix(let path, _, _) = endpoint else { return false }
        return path.hasPrefix(queue + "/")
    }

    private func users(of filter: Configuration.FilterListener) -> [User] {
        var users: [User] = []
        if let transport = transport(to: filter, "content_filter", in: nil) {
            users.append(User(service: nil, parameter: "content_filter", transport: transport))
        }
        // One that takes mail back from another filter may pass it on.
        for service in servers.filter({ !takesFromWeir($0) }) + pickups {
            if service.overrides["content_filter"] != nil,
                let transport = transport(to: filter, "content_filter", in: service)
            {
                users.append(User(service: service, parameter: "content_filter", transport: transport))
            }
            if isProxied(to: filter, service) {
                users.append(User(service: service, parameter: "smtpd_proxy_filter", transport: nil))
            }
        }
        return users
    }

    /// The transport with which a parameter sends mail to the filter; nil if it sends mail elsewhere.
    private func transport(
        to filter: Configuration.FilterListener, _ name: String, in service: PostfixSetup.Service?
    ) -> String? {
        let value = setup.value(name, in: service)
        guard let colon = value.firstIndex(of: ":") else { return nil }
        return isOurs(String(value[value.index(after: colon)...]), [filter.listen], in: service)
            ? String(value[..<colon]) : nil
    }

    private func isProxied(to filter: Configuration.FilterListener, _ service: PostfixSetup.Service) -> Bool {
        let value = setup.value("smtpd_proxy_filter", in: service)
        return !value.isEmpty && isOurs(value, [filter.listen], in: service)
    }

    private mutating func examine(_ user: User, of filter: Configuration.FilterListener) {
        let isBeforeQueue = user.transport == nil
        if isBeforeQueue != (filter.mode == .beforeQueue) {
            let mode: Configuration.FilterListener.Mode = isBeforeQueue ? .beforeQueue : .afterQueue
            add(
                .warning, "filter-mode", user.service,
                "\(user.parameter) uses the filter on \(filter.listen), but its mode is \(filter.mode.rawValue)",
                configuration: lines(changing: filter) { $0.mode = mode })
        }
        if isBeforeQueue {
            examineChroot(ofProxied: user.service, to: filter)
            examineFromLines(user.service)
            examineTimeout(ofProxied: user.service)
        } else if let service = user.service, service.program == "smtpd", setup.value("content_filter").isEmpty,
            !pickups.contains(where: { $0.overrides["content_filter"] != nil }),
            !findings.contains(where: { $0.kind == "filter-not-for-sendmail" })
        {
            add(
                .note, "filter-not-for-sendmail", service,
                "mail of sendmail(1) is not filtered; to filter it, set content_filter in main.cf")
        }
        guard let name = user.transport else { return }
        guard let transport = setup.services.first(where: { $0.name == name && $0.type == "unix" }) else {
            add(
                .fault, "filter-transport", user.service,
                "\(user.parameter) uses the transport \(name), which is missing in master.cf: mail stays in the queue",
                commands: self.transport(named: name, for: filter))
            return
        }
        let variant: SMTPServerSession.Variant = transport.program == "lmtp" ? .lmtp : .smtp
        if variant != filter.variant {
            add(
                .fault, "filter-protocol", transport,
                "speaks \(variant.rawValue), but the filter on \(filter.listen) expects \(filter.variant.rawValue)",
                configuration: lines(changing: filter) { $0.variant = variant })
        }
        examineRecipients(transport, of: filter)
        if !examinedTransports.contains(transport.id) {
            examinedTransports.insert(transport.id)
            if let path = pathInChroot(to: filter, from: transport) {
                add(
                    .fault, "filter-socket-in-chroot", transport,
                    "is chrooted and looks for the filter at \(path): mail stays in the queue",
                    commands: [.unchroot(service: transport.id)])
            }
            examineInherited(transport: transport, of: filter)
        }
    }

    /// The line of weir.yaml with all filters, after the changes that were proposed so far and this one.
    private mutating func lines(
        changing filter: Configuration.FilterListener, _ change: (inout Configuration.FilterListener) -> Void
    ) -> [String] {
        if let index = configuration.listen.filter.firstIndex(of: filter) { change(&filterListeners[index]) }
        return ["listen: { filter: [\(filterListeners.map(Self.text).joined(separator: ", "))] }"]
    }

    /// A filter as in weir.yaml, without defaults.
    private static func text(_ filter: Configuration.FilterListener) -> String {
        let usual = Configuration.FilterListener(listen: filter.listen, nextHop: filter.nextHop)
        var keys = ["listen: \(text(filter.listen))", "next_hop: \"\(filter.nextHop)\""]
        if filter.variant != usual.variant { keys.append("protocol: \(filter.variant.rawValue)") }
        if filter.mode != usual.mode { keys.append("mode: \(filter.mode.rawValue)") }
        if !filter.networks.isEmpty {
            keys.append("networks: [\(filter.networks.map { "\"\($0)\"" }.joined(separator: ", "))]")
        }
        return "{ \(keys.joined(separator: ", ")) }"
    }

    private mutating func examineTimeout(ofProxied service: PostfixSetup.Service?) {
        let wait = setup.value("smtpd_proxy_timeout", in: service)
        guard let seconds = Self.seconds(wait), seconds * 1000 <= configuration.checks.messageBudget * 2 else { return }
        add(
            .warning, "filter-timeout", service,
            "smtpd_proxy_timeout is \(wait), less than twice checks.message_budget",
            commands: [set("smtpd_proxy_timeout", to: "100s", in: service)])
    }

    /// The path at which a chrooted service looks for the filter's UNIX socket; nil if it can reach the filter.
    private func pathInChroot(
        to filter: Configuration.FilterListener, from service: PostfixSetup.Service
    ) -> String? {
        guard case .unix(let path, _, _) = filter.listen, !isInQueue(filter.listen) else { return nil }
        return pathInChroot("unix:\(path)", [filter.listen], of: service)
    }

    private mutating func examineChroot(
        ofProxied service: PostfixSetup.Service?, to filter: Configuration.FilterListener
    ) {
        guard let service, let path = pathInChroot(to: filter, from: service) else { return }
        add(
            .fault, "filter-socket-in-chroot", service,
            "this service is chrooted and looks for the filter at \(path): it refuses all mail",
            commands: [.unchroot(service: service.id)])
    }

    private mutating func examineRecipients(
        _ transport: PostfixSetup.Service, of filter: Configuration.FilterListener
    ) {
        let name = "\(transport.name)_destination_recipient_limit"
        guard takesOneRecipient(filter), transport.program == "smtp", setup.value(name) != "1" else { return }
        add(
            .warning, "filter-one-recipient", transport,
            "may send several recipients, but the filter on \(filter.listen) takes one at a time, because it speaks "
                + "SMTP and its next hop LMTP: the others wait for another attempt",
            commands: [.parameter(name, value: "1")])
    }

    /// Whether SMTP has no reply for each recipient, as LMTP has.
    private func takesOneRecipient(_ filter: Configuration.FilterListener) -> Bool {
        filter.variant == .smtp && filter.nextHop.variant == .lmtp
    }

    private func transport(named name: String, for filter: Configuration.FilterListener) -> [Change] {
        guard !setup.services.contains(where: { $0.name == name && $0.type == "unix" }) else { return [] }
        let program = filter.variant.rawValue
        let chroot = filter.listen.isTCP || isInQueue(filter.listen) ? "y" : "n"
        let options = options(ServiceOverride.transport, for: program)
        return [.service("\(name) unix - - \(chroot) - 20 \(program) \(options)")]
            + ServiceOverride.queue.map {
                let isOne = takesOneRecipient(filter) && $0.name == "destination_recipient_limit"
                return .parameter("\(name)_\($0.name)", value: isOne ? "1" : $0.value)
            }
    }

    // MARK: Reinjection

    private mutating func examineNextHop(of filter: Configuration.FilterListener) {
        // An LMTP server delivers the mail: there is no way back into Postfix.
        guard filter.nextHop.variant == .smtp else { return }
        let nextHop = ListenerAddress(filter.nextHop.endpoint)
        let servers = servers.filter { takes($0, from: filter) }
        let isElsewhere = others.contains { other in other.servers.contains { other.takes($0, from: filter) } }
        if servers.isEmpty, !isElsewhere, nextHop.isLoopback, case .inet(let host, let port) = filter.nextHop.endpoint {
            let name = "\(host.contains(":") ? "[\(host)]" : host):\(port)"
            let overrides = ServiceOverride.reinjection(for: filter.nextHop.endpoint)
            let smtpd = "\(name) inet n - \(chroot(of: "smtpd")) - 0 smtpd \(options(overrides, for: "smtpd"))"
            add(
                .fault, "filter-no-way-back", nil,
                "no smtpd listens on \(filter.nextHop), the filter's next hop: mail stays in the queue",
                commands: addVerdictCleanup() + [.service(smtpd)])
        }
        for service in servers { examineReinjection(service, of: filter) }
    }

    private mutating func examineReinjection(_ service: PostfixSetup.Service, of filter: Configuration.FilterListener) {
        examineVerdict(service)
        examineInherited(reinjection: service, of: filter)
        if transport(to: filter, "content_filter", in: service) != nil {
            add(
                .fault, "filter-loop", service, "sends mail from the filter to the filter again: mail loop",
                commands: [override("content_filter", with: "", in: service)])
        }
        if isProxied(to: filter, service) {
            add(
                .fault, "filter-loop", service, "sends mail from the filter to the filter again: mail loop",
                commands: [override("smtpd_proxy_filter", with: "", in: service)])
        }
        if let address = ListenerAddress(service: service.name), case .inet(_, let port) = address,
            address.isOfAllInterfaces, ListenerAddress(filter.nextHop.endpoint).isLoopback
        {
            let options = service.overrides.sorted { $0.key < $1.key }
                .map {
                    " -o \($0.key)=\(RestrictionList.words($0.value).joined(separator: ","))"
                }.joined()
            add(
                .fault, "filter-way-back-open", service,
                "listens on all interfaces: anyone who can connect bypasses the filter and all checks before it",
                commands: [
                    .removal(service: service.id),
                    .service("127.0.0.1:\(port) inet n - \(service.chroot) - - smtpd\(options)"),
                ])
        }
    }
}
