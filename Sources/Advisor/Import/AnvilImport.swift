// SPDX-License-Identifier: Apache-2.0
import Limits

extension ImportedLimits {
    /// Turns main.cf's settings for anvil(8) into limits: so many per client and `anvil_rate_time_unit`.
    package init(anvil text: String) {
        let setup = PostfixSetup(defaults: Self.anvilDefaults, settings: text, master: "", complaints: [])
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        func line(of name: String) -> Int {
            (lines.firstIndex { $0.prefix { $0 != "=" }.trimmed == name } ?? -1) + 1
        }
        let unit = Self.window(setup.value("anvil_rate_time_unit"))
        if unit == nil {
            leftOut.append(
                .init(
                    line: line(of: "anvil_rate_time_unit"),
                    text: "anvil_rate_time_unit = \(setup.value("anvil_rate_time_unit")) is no time"))
        }
        var exemptNetworks: [String] = []
        let exceptions = RestrictionList.words(
            setup.value("smtpd_client_event_limit_exceptions")[...], separators: ", \t")
        for exception in exceptions {
            if Self.isNetwork(exception) {
                exemptNetworks.append(exception)
            } else {
                leftOut.append(
                    .init(
                        line: line(of: "smtpd_client_event_limit_exceptions"),
                        text:
                            "smtpd_client_event_limit_exceptions has \(exception), which is no network: such clients are limited"
                    ))
            }
        }
        if exceptions.isEmpty, !setup.set.contains("smtpd_client_event_limit_exceptions") {
            notes.append(
                .init(
                    line: 0,
                    text:
                        "mynetworks is not set in this file: add your own networks to the limits' when, as anvil exempts them"
                ))
        }
        for (name, count) in Self.anvilRates where setup.set.contains(name) {
            let value = setup.value(name)
            guard let number = UInt64(value) else {
                leftOut.append(.init(line: line(of: name), text: "\(name) = \(value) is no number"))
                continue
            }
            guard number > 0, let unit else { continue }
            limits.append(
                Limit(
                    name: "per-client-\(count.rawValue)", line: line(of: name),
                    when: exemptNetworks.isEmpty
                        ? []
                        : [
                            (
                                "client_address",
                                "{ not: { in: [\(exemptNetworks.map(Self.quoted).joined(separator: ", "))] } }"
                            )
                        ],
                    key: "client_address", count: count, rate: "\(number)/\(unit)",
                    over: "450 4.7.1 too much from your address, try again later",
                    others: [
                        "keys: { ipv4_prefix: \(setup.value("smtpd_client_ipv4_prefix_length")), ipv6_prefix: \(setup.value("smtpd_client_ipv6_prefix_length")) }"
                    ]))
        }
        for (name, reason) in Self.anvilOthers where setup.set.contains(name) && setup.value(name) != "0" {
            leftOut.append(.init(line: line(of: name), text: "\(name) = \(setup.value(name)): \(reason)"))
        }
    }

    /// Of Postfix 3.7; the prefixes came with 3.8 and are what earlier ones do.
    private static let anvilDefaults = """
        anvil_rate_time_unit = 60s
        smtpd_client_event_limit_exceptions = ${smtpd_client_connection_limit_exceptions:$mynetworks}
        smtpd_client_ipv4_prefix_length = 32
        smtpd_client_ipv6_prefix_length = 128
        """

    private static let anvilRates: [(name: String, count: CountUnit)] = [
        ("smtpd_client_recipient_rate_limit", .recipients), ("smtpd_client_message_rate_limit", .messages),
        ("smtpd_client_connection_rate_limit", .connections),
    ]

    private static let anvilOthers = [
        (
            "smtpd_client_connection_count_limit",
            "counts connections at the same time, which Weir does not; leave it to anvil"
        ),
        ("smtpd_client_new_tls_session_rate_limit", "no policy request comes for TLS sessions; leave it to anvil"),
        ("smtpd_client_auth_rate_limit", "no policy request comes for AUTH commands; leave it to anvil"),
    ]

    /// `60s`, `1h`, or seconds without a unit.
    static func window(_ text: String) -> String? {
        let withUnit = text.allSatisfy(\.isNumber) ? text + "s" : text
        guard let milliseconds = Rate.duration(withUnit), Window.allowed.contains(milliseconds) else { return nil }
        return Rate.text(ofDuration: milliseconds)
    }

    static func isNetwork(_ text: String) -> Bool {
        Network(text.replacing("[", with: "").replacing("]", with: "")) != nil
    }
}
