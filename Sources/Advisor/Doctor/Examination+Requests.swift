// SPDX-License-Identifier: Apache-2.0
import Limits
import Settings

/// What a service asks Weir about.
struct SentRequest {
    /// protocol_state
    let state: String
    /// policy_context
    let context: String

    /// The state of requests about a recipient.
    static let recipient = "RCPT"
    static let endOfMessage = "END-OF-MESSAGE"
}

/// What requests a service sends, and which limits count only a part of the mail for want of others.
extension Examination {
    /// The requests that a service sends to the policy server or the milter.
    func requests(of service: PostfixSetup.Service) -> [SentRequest] {
        let lists = Self.earlyLists + Self.recipientLists + Self.settlingLists
        let own = lists.flatMap { name in
            contexts(of: list(name, in: service).flatMap(\.expanded), in: service).flatMap { context in
                states(of: name, in: service).map { SentRequest(state: $0, context: context) }
            }
        }
        let byTable = contexts(of: classes(in: service), in: service)
            .map { SentRequest(state: SentRequest.recipient, context: $0) }
        // The milter asks as the policy client would.
        let byMilter =
            milterCounts(service)
            ? [SentRequest.recipient, SentRequest.endOfMessage].map { SentRequest(state: $0, context: "") } : []
        return own + (classByTable(service) == nil ? [] : byTable) + byMilter
    }

    /// The values of policy_context with which these restrictions ask Weir.
    private func contexts(of elements: [RestrictionList.Element], in service: PostfixSetup.Service) -> Set<String> {
        let usual = setup.value("smtpd_policy_service_policy_context", in: service)
        return Set(references(elements, in: service).map { $0.attributes["policy_context"] ?? usual })
    }

    /// The states in which smtpd evaluates a list.
    private func states(of name: String, in service: PostfixSetup.Service) -> [String] {
        switch name {
        case "smtpd_data_restrictions": ["DATA"]
        case "smtpd_end_of_data_restrictions": [SentRequest.endOfMessage]
        case let name where recipientLists(of: service).contains(name): [SentRequest.recipient]
        case "smtpd_client_restrictions": ["CONNECT"]
        case "smtpd_helo_restrictions": ["HELO", "EHLO"]
        default: ["MAIL"]
        }
    }

    // MARK: Restriction classes that a table returns

    /// A restriction class that asks Weir and that a table of the service may return.
    func classByTable(_ service: PostfixSetup.Service) -> String? {
        let lists = Self.earlyLists + Self.recipientLists + Self.settlingLists
        let hasTables = lists.contains { name in
            list(name, in: service).flatMap(\.expanded).contains {
                $0.name.hasPrefix("check_") && $0.name.hasSuffix("_access")
            }
        }
        guard hasTables else { return nil }
        // One that a list names is for that list, and proves nothing of the tables.
        let named = Set(entrances.flatMap { entrance in lists.flatMap { list($0, in: entrance).map(\.written.text) } })
        return classNames(in: service).first { name in
            !named.contains(name) && !references(elements(of: name, in: service), in: service).isEmpty
        }
    }

    private func classes(in service: PostfixSetup.Service) -> [RestrictionList.Element] {
        classNames(in: service).flatMap { elements(of: $0, in: service) }
    }

    private func elements(of name: String, in service: PostfixSetup.Service) -> [RestrictionList.Element] {
        RestrictionList(setup.value(name, in: service)).elements
    }

    // MARK: Limits that count a part

    /// Finds limits that count only a part of a service's mail, as Weir is not asked where it would learn the rest, or
    /// only with a policy_context that they do not want.
    mutating func examinePartlyCounted() {
        for service in entrances {
            if let limit = partlyCounted(in: service, for: \.isOfBytes, without: SentRequest.endOfMessage) {
                add(
                    .warning, "policy-size-unknown", service,
                    "Weir is not asked at the end of a message, so the limit \(limit.name) counts the size that a "
                        + "client declares, which may be none",
                    commands: fixCommands(asking: SentRequest.endOfMessage, about: limit, in: service))
            }
            if let limit = partlyCounted(in: service, for: \.isPerRecipient, without: SentRequest.recipient) {
                add(
                    .warning, "policy-recipients-unknown", service,
                    "Weir is not asked at RCPT, so the limit \(limit.name) counts only messages to one recipient: "
                        + "Postfix names no others later",
                    commands: fixCommands(asking: SentRequest.recipient, about: limit, in: service))
            }
        }
    }

    /// A limit that applies to the service, and could also apply in this state, but is not asked about then.
    private func partlyCounted(
        in service: PostfixSetup.Service, for isWanted: (Limit) -> Bool, without state: String
    ) -> Limit? {
        let requests = requests(of: service)
        return configuration.limits.first { limit in
            isWanted(limit) && applies(limit, to: service) && canApply(limit, in: service, context: nil, state: state)
                && !requests.contains {
                    $0.state == state && canApply(limit, in: service, context: $0.context, state: state)
                }
        }
    }

    func applies(_ limit: Limit, to service: PostfixSetup.Service) -> Bool {
        requests(of: service).contains { canApply(limit, in: service, context: $0.context, state: $0.state) }
    }
}

extension Limit {
    fileprivate var isOfBytes: Bool { count == .bytes }
}
