// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// The attributes of policy requests that Postfix or the milter sends, and those that Weir derives.
package enum PolicyAttributes {
    /// SMTPD_POLICY_README, Postfix 2.1 to 3.12.
    static let ofPostfix = [
        "request", "protocol_state", "protocol_name", "helo_name", "queue_id", "sender", "recipient", "client_address",
        "client_name", "reverse_client_name", "instance", "sasl_method", "sasl_username", "sasl_sender", "size",
        "ccert_subject", "ccert_issuer", "ccert_fingerprint", "encryption_protocol", "encryption_cipher",
        "encryption_keysize", "etrn_domain", "recipient_count", "stress", "ccert_pubkey_fingerprint", "client_port",
        "policy_context", "server_address", "server_port", "compatibility_level", "mail_version", "tls_sni",
    ]

    /// The domain parts of `sender`, `recipient` and `sasl_username`.
    package static let derived = ["sender_domain", "recipient_domain", "sasl_domain"]

    /// An additional attribute of the milter's requests: the user ID of the process that ran sendmail(1).
    package static let ofMilter = ["uid"]

    /// What may be known of a message before its content, for conditions of sets of checks.
    package static let ofMessages = [
        "client_address", "client_name", "reverse_client_name", "helo_name", "sender", "sender_domain", "recipient",
        "recipient_domain", "sasl_username", "sasl_domain", "sasl_method", "sasl_sender",
    ]

    /// The attributes of `ofMessages` that XFORWARD does not have.
    static let onlyOfMilter = ["reverse_client_name", "sasl_username", "sasl_domain", "sasl_method", "sasl_sender"]

    static let all = ofPostfix + derived + ofMilter

    /// `protocol_state`
    static let states = ["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN"]

    static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { $0.isAlphanumeric || $0 == UInt8(ascii: "_") }
    }

    static func unknown(_ name: String) -> String {
        "Postfix 3.12 does not send attribute \(Spelling.quoted(name))"
            + (nearest(to: name).map { "; did you mean '\($0)'?" } ?? "")
    }

    /// The attribute whose name is spelt nearly like `text`, or the only one whose name begins or ends with it.
    static func nearest(to text: String) -> String? {
        let name = String(text.lowercased().map { "-. ".contains($0) ? "_" : $0 })
        if let similar = Spelling.nearest(to: name, among: all) { return similar }
        guard name.count >= 4 else { return nil }
        let longer = all.filter { $0.hasPrefix(name) || $0.hasSuffix(name) }
        return longer.count == 1 ? longer[0] : nil
    }
}
