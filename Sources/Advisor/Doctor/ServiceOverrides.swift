// SPDX-License-Identifier: Apache-2.0
import Wire

/// A parameter that a service of conf/postfix/master.cf overrides, because main.cf sets it for other mail.
///
/// Tests/EndToEnd/test_inherited_parameters.py compares these lists with conf/postfix/master.cf.
struct ServiceOverride {
    /// What the value for other mail can do to mail on its way to the filter and back.
    enum Effect: CaseIterable {
        case stops, bypasses, changes, delays

        /// Completes "main.cf sets ... for other mail; here that".
        var text: String {
            switch self {
            case .stops: "makes mail wait or bounce"
            case .bypasses: "lets mail pass unfiltered"
            case .changes: "changes mail, or checks it once more"
            case .delays: "delays mail"
            }
        }

        var severity: Finding.Severity {
            switch self {
            case .stops, .bypasses: .fault
            case .changes, .delays: .warning
            }
        }
    }

    /// Values of main.cf that do no harm, apart from Postfix's default and the value of the override.
    enum Harmless {
        case none
        case values(Set<String>)
        /// Numbers, or times in seconds.
        case atLeast(Int)
        case atMost(Int)
        /// Tables that are searched with the address of the filter, which is not in them, unlike in a pattern.
        case indexedTables
        /// At least one word is an address of this machine's loopback interface, or all of its addresses.
        case loopback
        /// The list permits Weir first, or has nothing but these words.
        case permitsFirst(or: Set<String>)
        /// Lists with this word.
        case containing(String)
        /// EHLO keywords, except those that mail to the filter needs.
        case otherKeywords
        /// A limit that does not apply to the clients in smtpd_client_event_limit_exceptions.
        case exceptedClient
    }

    let name: String
    let value: String
    /// Nil where the value of main.cf has no effect on mail, or where another finding is about it.
    let effect: Effect?
    let harmless: Harmless
    /// Newer versions of Postfix warn about any use, so only a main.cf that sets the parameter needs the override.
    let isDeprecated: Bool

    init(
        _ name: String, _ value: String = "", _ effect: Effect? = nil, harmless: Harmless = .none,
        isDeprecated: Bool = false
    ) {
        self.name = name
        self.value = value
        self.effect = effect
        self.harmless = harmless
        self.isDeprecated = isDeprecated
    }
}

extension ServiceOverride {
    /// The smtp(8) service that takes mail to the filter.
    static let transport: [ServiceOverride] = [
        .init("syslog_name", "postfix/weir"),
        .init("smtp_send_xforward_command", "yes"),
        .init("smtp_always_send_ehlo", "yes", .stops),
        .init("smtp_never_send_ehlo", "no", .stops),
        .init("smtp_discard_ehlo_keywords", "", .stops, harmless: .otherKeywords),
        .init("smtp_discard_ehlo_keyword_address_maps", "", .stops, harmless: .indexedTables),
        .init("smtp_pix_workaround_maps", "", .stops, harmless: .indexedTables),
        .init("disable_mime_output_conversion", "yes"),
        .init("smtp_line_length_limit", "0", .changes, harmless: .atLeast(998)),
        .init("smtp_quote_rfc821_envelope", "yes", .changes),
        .init("smtp_generic_maps", "", .changes),
        .init("smtp_header_checks", "", .changes),
        .init("smtp_mime_header_checks", "", .changes),
        .init("smtp_nested_header_checks", "", .changes),
        .init("smtp_body_checks", "", .changes),
        .init("smtp_tls_security_level", "none", .stops, harmless: .values(["", "may", "dane"])),
        .init("smtp_tls_policy_maps", "", .stops, harmless: .indexedTables),
        .init("smtp_tls_per_site", "", .stops, harmless: .indexedTables, isDeprecated: true),
        .init("smtp_tls_wrappermode", "no", .stops),
        .init("smtp_sasl_auth_enable", "no"),
        .init("smtp_bind_address", "", .stops, harmless: .loopback),
        .init("smtp_bind_address6", "", .stops, harmless: .loopback),
        .init("inet_interfaces", "loopback-only", .stops, harmless: .loopback),
        .init("smtp_reply_filter", "", .stops),
        .init("smtp_delivery_status_filter", "", .stops),
        .init("smtp_skip_5xx_greeting", "yes", .stops),
        .init("smtp_fallback_relay", "", .bypasses),
        .init("smtp_data_done_timeout", "1800s", .changes, harmless: .atLeast(60)),
        .init("smtp_requiretls_policy", "opportunistic", .stops),
    ]

    /// The smtpd(8) service that takes mail back.
    static let reinjection: [ServiceOverride] = [
        .init("syslog_name", "postfix/reinject"),
        .init("content_filter"),
        .init("smtpd_proxy_filter"),
        .init("cleanup_service_name", Examination.verdictCleanup),
        .init("receive_override_options", "no_unknown_recipient_checks,no_milters"),
        .init("mynetworks", "127.0.0.0/8", .stops, harmless: .loopback),
        .init("smtpd_authorized_xforward_hosts", "127.0.0.0/8"),
        .init("smtpd_upstream_proxy_protocol", "", .stops),
        .init("smtpd_tls_security_level", "none", .stops, harmless: .values(["", "may"])),
        .init("smtpd_tls_wrappermode", "no", .stops),
        .init("smtpd_sasl_auth_enable", "no"),
        .init("local_header_rewrite_clients"),
        .init("smtpd_client_restrictions", "", .stops, harmless: .permitsFirst(or: [])),
        .init("smtpd_helo_restrictions", "", .stops, harmless: .permitsFirst(or: [])),
        .init("smtpd_sender_restrictions", "", .stops, harmless: .permitsFirst(or: [])),
        .init("smtpd_relay_restrictions", "permit_mynetworks,reject", .stops, harmless: .permitsFirst(or: [])),
        .init("smtpd_recipient_restrictions", "permit_mynetworks,reject", .stops, harmless: .permitsFirst(or: [])),
        .init(
            "smtpd_data_restrictions", "", .stops,
            harmless: .permitsFirst(or: ["reject_unauth_pipelining", "reject_multi_recipient_bounce"])),
        .init("smtpd_end_of_data_restrictions", "", .stops, harmless: .permitsFirst(or: [])),
        .init("smtpd_reject_unlisted_sender", "no", .stops),
        .init("strict_rfc821_envelopes", "no"),
        .init("smtpd_command_filter", "", .changes),
        .init("smtpd_discard_ehlo_keywords", "", .stops, harmless: .otherKeywords),
        .init("smtpd_discard_ehlo_keyword_address_maps", "", .stops, harmless: .indexedTables),
        .init("smtpd_reject_footer"),
        .init("smtpd_reject_footer_maps"),
        .init("smtpd_reject_filter_maps"),
        .init("smtpd_client_connection_count_limit", "0", .delays, harmless: .exceptedClient),
        .init("smtpd_client_connection_rate_limit", "0", .delays, harmless: .exceptedClient),
        .init("smtpd_client_message_rate_limit", "0", .delays, harmless: .exceptedClient),
        .init("smtpd_client_recipient_rate_limit", "0", .delays, harmless: .exceptedClient),
        .init("smtpd_recipient_limit", "100000", .delays, harmless: .atLeast(1000)),
        .init("smtpd_timeout", "3600s", .delays, harmless: .atLeast(300)),
        .init("smtpd_error_sleep_time", "0", .delays, harmless: .atMost(1)),
        .init("smtpd_soft_error_limit", "1001", .delays, harmless: .atLeast(10)),
        .init("smtpd_hard_error_limit", "1000", .delays, harmless: .atLeast(20)),
        .init("smtpd_junk_command_limit", "1000", .delays, harmless: .atLeast(100)),
        .init("message_size_limit", "0", .stops),
    ]

    /// The same for a service with this address: Weir is a client from the same loopback network.
    static func reinjection(for nextHop: Endpoint) -> [ServiceOverride] {
        guard case .inet(let host, _) = nextHop, host.contains(":") else { return reinjection }
        return reinjection.map {
            guard $0.value == "127.0.0.0/8" else { return $0 }
            return .init($0.name, "[::1]/128", $0.effect, harmless: $0.harmless)
        }
    }

    /// The cleanup(8) service that carries out HOLD and FILTER.
    static let verdictCleanup: [ServiceOverride] = [
        .init("header_checks", "pcre:/etc/weir/postfix/weir_verdict.pcre"),
        .init("mime_header_checks", "", .changes),
        .init("nested_header_checks", "", .changes),
        .init("body_checks", "", .changes),
        .init("message_drop_headers", "bcc,content-length,resent-bcc,return-path,x-weir-verdict"),
        .init("undisclosed_recipients_header", "", .changes),
        .init("hopcount_limit", "100", .stops, harmless: .atLeast(50)),
        .init("message_size_limit", "0", .stops),
        .init("in_flow_delay", "0", .delays, harmless: .atMost(1)),
    ]

    /// The pipe(8) service that runs `weir filter`.
    static let command: [ServiceOverride] = [
        .init("pipe_delivery_status_filter", "", .stops),
        .init("command_time_limit", "1000s", .stops, harmless: .atLeast(1000)),
        .init("export_environment", "MAIL_CONFIG,TZ,LANG", .stops, harmless: .containing("MAIL_CONFIG")),
    ]

    /// What main.cf says for the transport to the filter, because qmgr(8) reads it: `weir_` and the name.
    static let queue: [ServiceOverride] = [
        .init("destination_recipient_limit", "1000", .changes, harmless: .atLeast(50)),
        .init("destination_concurrency_limit", "20", .delays, harmless: .atLeast(20)),
        .init("destination_rate_delay", "0s", .delays),
        .init("transport_rate_delay", "0s", .delays),
    ]

    /// The parameter in a program that is a variant of smtp(8).
    func named(for program: String) -> String {
        guard program == "lmtp", name.hasPrefix("smtp_") else { return name }
        return "lmtp_\(name.dropFirst(5).replacing("ehlo", with: "lhlo"))"
    }
}
