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

    /// Whether a limit can apply to some request of a service.
    ///
    /// - Parameter context: the policy_context that it sends.
    func canApply(_ limit: Limit, in service: PostfixSetup.Service, context: String) -> Bool {
        limit.canApply(toRequestsWith: known(of: service, context: context))
    }

    /// What is known of all requests of a service.
    ///
    /// - Parameter context: nil for any policy_context.
    private func known(of service: PostfixSetup.Service, context: String?) -> [Int: [UInt8]] {
        var empty = ["uid"]
        if !mayLogIn(service) { empty += Self.loginAttributes }
        if !isOn(["smtpd_tls_ask_ccert", "smtpd_tls_req_ccert"], service) { empty += Self.certificateAttributes }
        let level = setup.value("smtpd_tls_security_level", in: service)
        if ["", "none"].contains(level),
            !isOn(["smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_wrappermode"], service)
        {
            empty += Self.encryptionAttributes + Self.certificateAttributes
        }
        var known: [Int: [UInt8]] = [:]
        for (index, name) in configuration.attributeNames.names.enumerated() {
            if empty.contains(name) { known[index] = [] }
            if name == "policy_context", let context { known[index] = Array(context.utf8) }
        }
        return known
    }

    private func isOn(_ names: [String], _ service: PostfixSetup.Service) -> Bool {
        names.contains { setup.value($0, in: service) == "yes" }
    }

    /// A proxy may pass the login on with XCLIENT.
    private func mayLogIn(_ service: PostfixSetup.Service) -> Bool {
        isOn(["smtpd_sasl_auth_enable"], service)
            || !setup.value("smtpd_authorized_xclient_hosts", in: service).isEmpty
    }

    /// Limits that no request can meet. While nothing asks Weir, those that none could meet if all services asked.
    mutating func examineUnreachableLimits() {
        let unreachable = configuration.limits.filter { limit in
            !entrances.contains { service in
                let sent = contexts(of: service).union(milterCounts(service) || isNeverAsked ? [""] : [])
                return sent.contains { canApply(limit, in: service, context: $0) }
            } && !(configuration.milter.limits && usesMilter && isAboutLocalMail(limit))
        }
        for limit in unreachable { addUnreachable(limit) }
    }

    /// The milter asks about mail of sendmail(1) with the user's ID.
    private func isAboutLocalMail(_ limit: Limit) -> Bool {
        let names = configuration.attributeNames.names
        let attributes = limit.conditions.map(\.part.attribute) + limit.key.parts.map(\.attribute)
        return attributes.contains { names[$0] == "uid" }
    }

    private mutating func addUnreachable(_ limit: Limit) {
        let (wanted, candidates) = missingContext(of: limit)
        let reason =
            if let wanted {
                "it wants policy_context=\(wanted), and no service that can meet its other conditions sends that"
            } else if !entrances.contains(where: mayLogIn) {
                "it wants a login, and no smtpd has smtpd_sasl_auth_enable = yes"
            } else {
                "no service that asks Weir can meet its conditions and its key"
            }
        let services = candidates.count == 1 ? candidates : candidates.filter { $0.name == wanted }
        let list = "smtpd_recipient_restrictions"
        add(
            .fault, "policy-limit-out-of-reach", nil, "the limit \(limit.name) never applies: \(reason)",
            commands: services.flatMap { fixCommands(list, in: $0, context: wanted) })
    }

    /// The context without which the limit can't apply, and the services that could send it.
    private func missingContext(of limit: Limit) -> (String?, [PostfixSetup.Service]) {
        let names = configuration.attributeNames.names
        for condition in limit.conditions where names[condition.part.attribute] == "policy_context" {
            guard case .equals(let values) = condition.test, let first = values.first else { continue }
            let context = String(decoding: first, as: UTF8.self)
            let candidates = entrances.filter { service in
                (isNeverAsked || !contexts(of: service).isEmpty)
                    && limit.canApply(toRequestsWith: known(of: service, context: nil))
            }
            if !candidates.isEmpty { return (context, candidates) }
        }
        return (nil, [])
    }
}
