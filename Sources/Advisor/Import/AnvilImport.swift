// SPDX-License-Identifier: Apache-2.0
import Limits

extension ImportedLimits {
    /// Converts the rate limits of anvil(8) in a main.cf: each counts per client and `anvil_rate_time_unit`.
    package init(anvil text: String) {
        let main = AnvilParameters(text)
        let unit = Self.window(main.value("anvil_rate_time_unit"))
        if unit == nil { leaveOut("anvil_rate_time_unit", of: main, "is not a window that Weir supports") }
        let prefixes = prefixLengths(of: main)
        let networks = exemptNetworks(of: main)
        for (name, count) in Self.anvilRates where main.isSet(name) {
            if let fault = main.fault(in: name) {
                leaveOut(name, of: main, "Postfix can't expand this: \(fault)")
                continue
            }
            guard let number = UInt64(main.value(name)) else {
                leaveOut(name, of: main, "is not a number")
                continue
            }
            guard number > 0, let unit, let prefixes else { continue }
            let limit = Self.limit("\(number)/\(unit)", count, line: main.line(of: name), prefixes, exempt: networks)
            if let fault = Self.fault(of: limit) {
                leaveOut(name, of: main, "the limit would not be valid: \(fault)")
            } else {
                append(limit)
                notes.append(.init(line: limit.line, text: "limit \(limit.name): \(Self.difference(count))"))
            }
        }
        for (name, reason) in Self.anvilOthers where main.isSet(name) && main.value(name) != "0" {
            leaveOut(name, of: main, reason)
        }
        if limits.isEmpty, leftOut.isEmpty {
            notes.append(.init(line: 0, text: "sets no smtpd_client_*_rate_limit, so there is nothing to convert"))
        }
    }

    private mutating func leaveOut(_ name: String, of main: AnvilParameters, _ reason: String) {
        leftOut.append(.init(line: main.line(of: name), text: "\(name) = \(main.value(name)): \(reason)"))
    }

    /// The keys of a limit for the lengths of the prefixes that count as one client; nil if one is not valid.
    private mutating func prefixLengths(of main: AnvilParameters) -> String? {
        var keys: [String] = []
        for (family, most) in [("ipv4", 32), ("ipv6", 128)] {
            let name = "smtpd_client_\(family)_prefix_length"
            if let length = Int(main.value(name)), 0...most ~= length {
                keys.append("\(family)_prefix: \(length)")
            } else {
                leaveOut(name, of: main, "is not a number from 0 to \(most)")
            }
        }
        return keys.count == 2 ? "keys: { \(keys.joined(separator: ", ")) }" : nil
    }

    /// The networks of smtpd_client_event_limit_exceptions. Postfix takes the first pattern that matches a client; a
    /// pattern after `!` excludes clients from those that follow.
    private mutating func exemptNetworks(of main: AnvilParameters) -> [Network] {
        let name = "smtpd_client_event_limit_exceptions"
        // By default, this is the value of one of these.
        let names = [name, "smtpd_client_connection_limit_exceptions", "mynetworks"]
        let line = names.lazy.map(main.line).first { $0 > 0 } ?? 0
        let patterns = RestrictionList.words(main.value(name))
        var networks: [Network] = []
        var excluded: [Network] = []
        for pattern in patterns {
            let text = pattern.drop { $0 == "!" }
            let isExcluded = (pattern.count - text.count) % 2 == 1
            guard let network = Network(String(text)) else {
                let consequence = isExcluded ? "may be exempt" : "will be limited"
                let masked = Network.masked(String(text)).map { " (did you mean \($0)?)" } ?? ""
                leftOut.append(
                    .init(
                        line: line,
                        text: "\(name) includes \(pattern), which is not a network\(masked): "
                            + "these clients \(consequence)"))
                continue
            }
            if isExcluded {
                excluded.append(network)
            } else {
                for part in excluded.reduce([network], { rest, one in rest.flatMap { $0.subtracting(one) } })
                where !networks.contains(part) {
                    networks.append(part)
                }
            }
        }
        if main.usesUnset("mynetworks", in: name) {
            notes.append(
                .init(
                    line: 0,
                    text: "mynetworks is not set here: exempt your own networks in the limits' when, as anvil does"))
        }
        return networks
    }

    private static func limit(
        _ rate: String, _ count: CountUnit, line: Int, _ prefixes: String, exempt networks: [Network]
    ) -> Limit {
        let test = "{ not: { in: [\(networks.map { quoted($0.description) }.joined(separator: ", "))] } }"
        return Limit(
            name: "per-client-\(count.rawValue)", line: line,
            when: networks.isEmpty ? [] : [("client_address", test)],
            key: "client_address", count: count, rate: rate,
            over: "450 4.7.1 too much from your address, try again later",
            others: [prefixes])
    }

    private static let anvilRates: [(name: String, count: CountUnit)] = [
        ("smtpd_client_recipient_rate_limit", .recipients), ("smtpd_client_message_rate_limit", .messages),
        ("smtpd_client_connection_rate_limit", .connections),
    ]

    /// What anvil counts differently.
    private static func difference(_ unit: CountUnit) -> String {
        switch unit {
        case .connections:
            "anvil counts all connections, Weir those that reach the list in which Postfix asks it, usually at RCPT"
        case .recipients: "anvil also counts recipients that smtpd rejects before it asks Weir"
        default: "anvil also counts messages of which smtpd rejects all recipients"
        }
    }

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
        Network(text) != nil
    }
}

/// The parameters of a main.cf that anvil(8) uses.
private struct AnvilParameters {
    private let setup: PostfixSetup
    private let lines: [Substring]

    init(_ text: String) {
        setup = PostfixSetup(defaults: Self.defaults, settings: text, master: "", complaints: [])
        lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.endsLine)
    }

    func value(_ name: String) -> String { setup.value(name) }

    /// Why Postfix can't expand a parameter's value; nil if it can.
    func fault(in name: String) -> ParameterExpansion.Fault? {
        do {
            _ = try setup.expand(setup.raw(name))
            return nil
        } catch { return error }
    }

    func isSet(_ name: String) -> Bool { setup.set.contains(name) }

    /// Whether a parameter's value depends on another one that is not set.
    func usesUnset(_ other: String, in name: String) -> Bool {
        guard !isSet(other) else { return false }
        var marked = setup
        marked.apply(.parameter(other, value: "\u{1}"))
        return marked.value(name).contains("\u{1}")
    }

    /// The line that sets a parameter, the last one if there are several; 0 if there is none.
    func line(of name: String) -> Int {
        (lines.lastIndex { $0.prefix { $0 != "=" }.trimmed == name } ?? -1) + 1
    }

    /// The defaults of Postfix 3.7. The prefix lengths are parameters since 3.8; these are the fixed values of older
    /// versions.
    private static let defaults = """
        anvil_rate_time_unit = 60s
        compatibility_level = 0
        smtpd_client_event_limit_exceptions = ${smtpd_client_connection_limit_exceptions:$mynetworks}
        smtpd_client_ipv4_prefix_length = 32
        smtpd_client_ipv6_prefix_length = 128
        """
}
