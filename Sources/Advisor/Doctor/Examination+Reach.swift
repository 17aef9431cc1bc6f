// SPDX-License-Identifier: Apache-2.0
import Limits
import Settings

/// Which limits can apply to the requests of which service.
extension Examination {
    /// Attributes that are empty unless a client logs in, shows a certificate, or uses TLS.
    private static let loginAttributes = ["sasl_username", "sasl_method", "sasl_sender"]
    private static let certificateAttributes = [
        "ccert_subject", "ccert_issuer", "ccert_fingerprint", "ccert_pubkey_fingerprint",
    ]
    private static let encryptionAttributes = ["encryption_protocol", "encryption_cipher", "encryption_keysize"]

    private static let statesWithCount: Set<String> = ["DATA", SentRequest.endOfMessage]

    /// Whether a limit can apply to some request of a service.
    ///
    /// - Parameters:
    ///   - context: the policy_context that it sends; nil for any.
    ///   - state: the protocol_state; nil for any.
    func canApply(
        _ limit: Limit, in service: PostfixSetup.Service, context: String?, state: String? = nil
    ) -> Bool {
        // Before RCPT, only connections are charged.
        let isEarly = state.map { ["CONNECT", "HELO", "EHLO", "MAIL"].contains($0) } ?? false
        return !(isEarly && limit.count != .connections)
            && limit.canApply(toRequestsWith: known(of: service, context: context, state: state))
    }

    /// What is known of all requests of a service.
    ///
    /// - Parameters:
    ///   - context: nil for any policy_context.
    ///   - state: nil for any protocol_state.
    private func known(of service: PostfixSetup.Service, context: String?, state: String?) -> [Int: [UInt8]] {
        var empty = ["uid"]
        if !mayLogIn(service) { empty += Self.loginAttributes }
        if !isOn(["smtpd_tls_ask_ccert", "smtpd_tls_req_ccert"], service) { empty += Self.certificateAttributes }
        let level = setup.value("smtpd_tls_security_level", in: service)
        if ["", "none"].contains(level),
            !isOn(["smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_wrappermode"], service)
        {
            empty += Self.encryptionAttributes + Self.certificateAttributes
        }
        return known(empty: empty, context: context, state: state)
    }

    private func known(empty: [String], context: String?, state: String?) -> [Int: [UInt8]] {
        var known: [Int: [UInt8]] = [:]
        for (index, name) in configuration.attributeNames.names.enumerated() {
            if empty.contains(name) { known[index] = [] }
            if name == "policy_context", let context { known[index] = Array(context.utf8) }
            if name == "protocol_state", let state { known[index] = Array(state.utf8) }
            // Postfix counts recipients only when there will be no more.
            if name == "recipient_count", let state, !Self.statesWithCount.contains(state) { known[index] = [0x30] }
        }
        return known
    }

    private func isOn(_ names: [String], _ service: PostfixSetup.Service) -> Bool {
        names.contains { setup.isOn($0, in: service) }
    }

    /// A proxy may pass the login on with XCLIENT.
    private func mayLogIn(_ service: PostfixSetup.Service) -> Bool {
        isOn(["smtpd_sasl_auth_enable"], service)
            || !setup.value("smtpd_authorized_xclient_hosts", in: service).isEmpty
    }

    /// Limits that no request can meet. While nothing asks Weir, those that none could meet if all services asked.
    mutating func examineUnreachableLimits() {
        for limit in configuration.limits where !reaches(limit) && !others.contains(where: { $0.reaches(limit) }) {
            addUnreachable(limit)
        }
    }

    private func reaches(_ limit: Limit) -> Bool {
        entrances.contains { service in
            applies(limit, to: service) || isNeverAsked && canApply(limit, in: service, context: "")
        } || appliesToLocalMail(limit)
    }

    /// Whether the milter asks about mail of sendmail(1) that the limit counts. Such mail has no login, no TLS and no
    /// policy_context.
    private func appliesToLocalMail(_ limit: Limit) -> Bool {
        guard configuration.milter.limits, usesMilter || usesMilterForSendmail else { return false }
        let empty = Self.loginAttributes + Self.certificateAttributes + Self.encryptionAttributes
        return [SentRequest.recipient, SentRequest.endOfMessage].contains { state in
            limit.canApply(toRequestsWith: known(empty: empty, context: "", state: state))
        }
    }

    private func wantsLogin(_ limit: Limit) -> Bool {
        !attributes(of: limit).isDisjoint(with: Self.loginAttributes)
    }

    /// The attributes that its conditions and its key look at.
    private func attributes(of limit: Limit) -> Set<String> {
        let attributes = limit.conditions.map(\.part.attribute) + limit.key.parts.map(\.attribute)
        return Set(attributes.map { configuration.attributeNames.names[$0] })
    }

    private mutating func addUnreachable(_ limit: Limit) {
        let (wanted, candidates) = missing("policy_context", of: limit)
        var (state, others) = wanted == nil ? missing("protocol_state", of: limit) : (nil, [])
        let wantsCount = wanted == nil && state == nil && attributes(of: limit).contains("recipient_count")
        if wantsCount {
            others = entrances.filter { service in
                requests(of: service).contains {
                    canApply(limit, in: service, context: $0.context, state: SentRequest.endOfMessage)
                }
            }
            state = others.isEmpty ? nil : SentRequest.endOfMessage
        }
        let reason =
            if let wanted {
                "it wants policy_context=\(wanted), and no service that can meet its other conditions sends that"
            } else if wantsCount, state != nil {
                "recipient_count is 0 at RCPT, and no service that can meet its other conditions asks Weir later"
            } else if let state {
                "it wants protocol_state=\(state), and no service that can meet its other conditions asks Weir then"
            } else if wantsLogin(limit), !entrances.contains(where: mayLogIn) {
                "it wants a login, and no smtpd has smtpd_sasl_auth_enable = yes"
            } else {
                "no service that asks Weir can meet its conditions and its key"
            }
        let services = candidates.count == 1 ? candidates : candidates.filter { $0.name == wanted }
        let places = candidates.map(\.id).joined(separator: ", ")
        let hint =
            wanted == nil || !services.isEmpty
            ? "" : "; add it to check_policy_service of those that the limit is for, among \(places)"
        let list = "smtpd_recipient_restrictions"
        let changes =
            if let state {
                commands(for: others) { examination, service in
                    examination.requests(of: service).contains {
                        $0.state == state && examination.canApply(limit, in: service, context: $0.context, state: state)
                    } ? [] : examination.fixCommands(asking: state, about: limit, in: service)
                }
            } else {
                commands(for: services) { $0.fixCommands(list, in: $1, context: wanted) }
            }
        add(
            .fault, "policy-limit-out-of-reach", nil, "the limit \(limit.name) never applies: \(reason)\(hint)",
            commands: changes)
    }

    /// The commands that make a service ask about a limit in this state, with the policy_context that the limit wants.
    func fixCommands(asking state: String, about limit: Limit, in service: PostfixSetup.Service) -> [Change] {
        guard let list = Self.list(evaluatedAt: state) else { return [] }
        let contexts = requests(of: service).map(\.context).filter { canApply(limit, in: service, context: $0) }
        let needsNone = canApply(limit, in: service, context: "", state: state)
        return fixCommands(list, in: service, context: needsNone ? nil : contexts.first)
    }

    /// The list in which smtpd asks in this state.
    private static func list(evaluatedAt state: String) -> String? {
        [
            SentRequest.recipient: "smtpd_recipient_restrictions", "DATA": "smtpd_data_restrictions",
            SentRequest.endOfMessage: "smtpd_end_of_data_restrictions",
        ][state]
    }

    /// The value of an attribute without which the limit can't apply, and the services that could send it.
    private func missing(_ attribute: String, of limit: Limit) -> (String?, [PostfixSetup.Service]) {
        let names = configuration.attributeNames.names
        let isSent = entrances.contains { service in
            requests(of: service).contains { canApply(limit, in: service, context: $0.context) }
        }
        if attribute == "policy_context", isSent { return (nil, []) }
        for condition in limit.conditions where names[condition.part.attribute] == attribute {
            guard case .equals(let values) = condition.test, let first = values.first else { continue }
            let candidates = entrances.filter { service in
                let sent = requests(of: service)
                let contexts = attribute == "policy_context" ? [nil] : sent.map(\.context) as [String?]
                return (isNeverAsked || !sent.isEmpty)
                    && (contexts + (isNeverAsked ? [nil] : [])).contains { canApply(limit, in: service, context: $0) }
            }
            if !candidates.isEmpty { return (String(decoding: first, as: UTF8.self), candidates) }
        }
        return (nil, [])
    }
}
