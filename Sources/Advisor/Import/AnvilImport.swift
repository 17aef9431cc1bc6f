// SPDX-License-Identifier: Apache-2.0
import Limits

extension ImportedLimits {
    /// Converts the rate limits of anvil(8) in a main.cf: each counts per client and `anvil_rate_time_unit`.
    package init(anvil text: String) {
        let main = AnvilParameters(text)
        let unit = Self.window(main.value("anvil_rate_time_unit"))
        if unit == nil { leaveOut("anvil_rate_time_unit", of: main, "is not a window that Weir supports") }
        let networks = exemptNetworks(of: main)
        for (name, count) in Self.anvilRates where main.isSet(name) {
            guard let number = UInt64(main.value(name)) else {
                leaveOut(name, of: main, "is not a number")
                continue
            }
            guard number > 0, let unit else { continue }
            limits.append(Self.limit("\(number)/\(unit)", count, of: main, line: main.line(of: name), exempt: networks))
        }
        for (name, reason) in Self.anvilOthers where main.isSet(name) && main.value(name) != "0" {
            leaveOut(name, of: main, reason)
        }
    }

    private mutating func leaveOut(_ name: String, of main: AnvilParameters, _ reason: String) {
        leftOut.append(.init(line: main.line(of: name), text: "\(name) = \(main.value(name)): \(reason)"))
    }

    private mutating func exemptNetworks(of main: AnvilParameters) -> [String] {
        let name = "smtpd_client_event_limit_exceptions"
        let exceptions = RestrictionList.words(main.value(name)[...], separators: ", \t")
        for exception in exceptions where !Self.isNetwork(exception) {
            leftOut.append(
                .init(
                    line: main.line(of: name),
                    text: "\(name) includes \(exception), which is not a network: these clients will be limited"))
        }
        if exceptions.isEmpty, !main.isSet(name) {
            notes.append(
                .init(
                    line: 0,
                    text: "mynetworks is not set here: exempt your own networks in the limits' when, as anvil does"))
        }
        return exceptions.filter(Self.isNetwork)
    }

    private static func limit(
        _ rate: String, _ count: CountUnit, of main: AnvilParameters, line: Int, exempt networks: [String]
    ) -> Limit {
        let test = "{ not: { in: [\(networks.map(quoted).joined(separator: ", "))] } }"
        let prefixes = ["ipv4", "ipv6"].map { "\($0)_prefix: \(main.value("smtpd_client_\($0)_prefix_length"))" }
        return Limit(
            name: "per-client-\(count.rawValue)", line: line,
            when: networks.isEmpty ? [] : [("client_address", test)],
            key: "client_address", count: count, rate: rate,
            over: "450 4.7.1 too much from your address, try again later",
            others: ["keys: { \(prefixes.joined(separator: ", ")) }"])
    }

    private static let anvilRates: [(name: String, count: CountUnit)] = [
        ("smtpd_client_recipient_rate_limit", .recipients), ("smtpd_client_message_rate_limit", .messages),
        ("smtpd_client_connection_rate_limit", .connections),
    ]

    private static let anvilOthers = [
        ("smtpd_client_connection_count_limit", "Weir does not count concurrent connections; keep it in anvil"),
        (
            "smtpd_client_new_tls_session_rate_limit",
            "Postfix sends no policy request for TLS sessions; keep it in anvil"
        ),
        ("smtpd_client_auth_rate_limit", "Postfix sends no policy request for AUTH commands; keep it in anvil"),
    ]

    /// The window for `60s`, `1h`, or seconds without a unit; nil if Weir doesn't support it.
    static func window(_ text: String) -> String? {
        let withUnit = text.allSatisfy(\.isNumber) ? text + "s" : text
        guard let milliseconds = Rate.duration(withUnit), Window.allowed.contains(milliseconds) else { return nil }
        return Rate.text(ofDuration: milliseconds)
    }

    static func isNetwork(_ text: String) -> Bool {
        Network(text.replacing("[", with: "").replacing("]", with: "")) != nil
    }
}

/// The parameters of a main.cf that anvil(8) uses.
private struct AnvilParameters {
    private let setup: PostfixSetup
    private let lines: [Substring]

    init(_ text: String) {
        setup = PostfixSetup(defaults: Self.defaults, settings: text, master: "", complaints: [])
        lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    }

    func value(_ name: String) -> String { setup.value(name) }

    func isSet(_ name: String) -> Bool { setup.set.contains(name) }

    /// The line that sets a parameter; 0 if there is none.
    func line(of name: String) -> Int {
        (lines.firstIndex { $0.prefix { $0 != "=" }.trimmed == name } ?? -1) + 1
    }

    /// Of Postfix 3.7. The prefix lengths are parameters since 3.8; these are the fixed values of older versions.
    private static let defaults = """
        anvil_rate_time_unit = 60s
        smtpd_client_event_limit_exceptions = ${smtpd_client_connection_limit_exceptions:$mynetworks}
        smtpd_client_ipv4_prefix_length = 32
        smtpd_client_ipv6_prefix_length = 128
        """
}
