// SPDX-License-Identifier: Apache-2.0
package import Limits

/// The answers of `weir setup`, and the weir.yaml that follows from them.
package struct SetupAnswers: Equatable, Sendable {
    package enum Subject: String, CaseIterable, Sendable {
        /// The SASL login.
        case login
        /// The address of the client.
        case client
        /// The domain of the sender, for clients that have logged in.
        case domain
    }

    package enum ContentInterface: String, CaseIterable, Sendable {
        case milter, filter, none
    }

    package var subject = Subject.login
    package var rates = Self.usualRates
    package var contentInterface = ContentInterface.none
    /// nil: alerts are only in the log.
    package var alertAddress: String?
    /// The day until which the limit only logs, such as `2030-01-31`; nil if it refuses at once.
    package var shadowUntil: String?

    package init() {}

    package static let usualRates = ["100/1m", "1000/1h", "5000/1d"].compactMap { Rate($0) }

    /// The suggestions of a replay as rates that `ConfigurationReader` accepts without a warning. None is below a tenth
    /// of the usual rate, as a quiet log says little; and a rate that a longer window makes unreachable is left out.
    ///
    /// - Parameter suggested: for each of `usualRates`, the count that the replay suggests, if any.
    package static func rates(suggested: [UInt64?]) -> [Rate] {
        var least: UInt64 = 0
        let rates = zip(usualRates, suggested).map { usual, suggested in
            least = max(least, usual.count / 10, suggested ?? usual.count)
            return Rate(count: least, window: usual.window)
        }
        return rates.indices.filter { index in rates[(index + 1)...].allSatisfy { $0.count > rates[index].count } }
            .map { rates[$0] }
    }

    /// The commands that let the service send alerts by mail. weir.service keeps it from gaining privileges, which
    /// sendmail's postdrop needs.
    ///
    /// - Parameters:
    ///   - queue: Postfix's queue_directory.
    ///   - group: Postfix's setgid_group.
    package static func commandsForMail(queue: String, group: String) -> [String] {
        let folder = "/etc/systemd/system/weir.service.d"
        let lines = [
            "[Service]", "SupplementaryGroups=\(group)", "ReadWritePaths=\(queue)/maildrop \(queue)/public",
            "RestrictAddressFamilies=AF_NETLINK",
        ]
        return [
            "mkdir -p \(folder)",
            "printf '%s\\n' \(lines.map { "'\($0)'" }.joined(separator: " ")) > \(folder)/mail.conf",
            "systemctl daemon-reload",
        ]
    }

    /// The first fault or warning of the configuration; nil if it has none.
    package var problem: String? {
        switch ConfigurationReader.read(Array(yaml.utf8), file: "weir.yaml") {
        case .success(let outcome): outcome.warnings.first?.message
        case .failure(let faults): faults.all.first?.message
        }
    }

    /// The text of weir.yaml.
    package var yaml: String {
        """
        # Configuration of Weir, written by weir setup. Every key and its default: weir.yaml(5).
        # After a change: weir check-config && systemctl reload weir

        listen:
          # Postfix asks here about sending limits (check_policy_service).
          policy: ["inet:127.0.0.1:10040"]
        \(contentListener)
        # Answer while Weir itself is failing: dunno lets mail pass.
        on_failure: dunno

        limits:
        \(limit)
        alerts:
        \(alerts)
        """
    }

    private var contentListener: String {
        switch contentInterface {
        case .milter:
            """
              # Postfix shows messages here (smtpd_milters, non_smtpd_milters). The milter also applies the limits to
              # mail from sendmail(1). Tables for header and body checks are named in the section checks.
              milter: ["inet:127.0.0.1:10041"]

            """
        case .filter:
            """
              # Postfix sends queued messages to listen (content_filter), and takes them back at next_hop. Tables for
              # header and body checks are named in the section checks.
              filter: [{ listen: "inet:127.0.0.1:10025", next_hop: "inet:127.0.0.1:10026" }]

            """
        case .none: ""
        }
    }

    private var limit: String {
        let (name, comment, attributes) =
            switch subject {
            case .login:
                (
                    "per-user", "The recipients of each SASL login. Mail without a login is not counted.",
                    ["when: { sasl_username: present }", "key: sasl_username"]
                )
            case .client:
                (
                    "per-client", "The recipients of each client address, of other mail servers too.",
                    [
                        "# Programs of this machine are not counted. Add networks and mail servers that may send more.",
                        "when: { client_address: { not: { in: [\"127.0.0.0/8\", \"::1/128\"] } } }",
                        "key: client_address",
                    ]
                )
            case .domain:
                (
                    "per-domain", "The recipients of each sender domain, in mail of clients that have logged in.",
                    ["when: { sasl_username: present }", "key: sender_domain"]
                )
            }
        return """
              # \(comment)
              - name: \(name)
            \(attributes.map { "    \($0)" }.joined(separator: "\n"))
                count: recipients
                # The most recipients in any interval of each length.
                rates: [\(rates.map(\.description).joined(separator: ", "))]
            \(mode)
                # The answer to a request over the limit: the client tries again later. See access(5).
                over: "DEFER_IF_PERMIT 4.7.1 sending limit reached, try again later"

            """
    }

    private var mode: String {
        guard let shadowUntil else {
            return """
                    # enforce refuses what is over the limit; shadow would only log it.
                    mode: enforce
                """
        }
        return """
                # shadow only logs what the limit would refuse. On \(shadowUntil), read the log, adjust the rates and
                # write enforce.
                mode: shadow
            """
    }

    private var alerts: String {
        guard let alertAddress else {
            return """
                  # Mail addresses that get alerts. Without one, alerts are only in the log.
                  mail: []

                """
        }
        let escaped = alertAddress.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
        return """
              # Mail addresses that get alerts: a key near or over its limit, a blocked key, a problem with Weir.
              mail: ["\(escaped)"]

            """
    }
}
