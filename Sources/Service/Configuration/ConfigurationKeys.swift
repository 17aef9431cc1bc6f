// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Limits
internal import MailSyntax
internal import Patterns
internal import Wire

/// Every key of weir.yaml, one row each.
package enum ConfigurationKeys {
    /// In the order in which they are read, too: limits need what stands before them.
    package static let root: [ConfigurationKey<Configuration>] = {
        let defaults = Configuration()
        return [
            .init(
                "listen.policy", \.listen.policy, .list(of: EndpointType.policy.type), in: defaults,
                "Where Postfix's check_policy_service reaches the policy server."),
            .init(
                "listen.policy_connections", \.listen.policyConnections, .number(10...1_000_000), in: defaults,
                "Policy connections open at once; further ones are closed as they come."),
            .init(
                "listen.admin", \.listen.admin, EndpointType.admin.type, in: defaults,
                "Where `weir limits` and other commands reach the service."),
            .init(
                "listen.filter", expected: "a list of filters", .isDefault("[]"),
                "Where Postfix hands mail to the content filter, and where that hands it on.",
                read: { node, key, reading, configuration in
                    configuration.listen.filter = FilterReader.listeners(node, key, &reading)
                }),
            .init(
                "listen.milter", \.listen.milter, .list(of: EndpointType.milter.type), in: defaults,
                "Where Postfix's smtpd_milters and non_smtpd_milters, or Sendmail, reach the milter."),
            .init(
                "ledger.store", \.ledger.path, .store, in: defaults,
                "Where counts are kept; the journal's files stand beside it."),
            .init(
                "ledger.durability", \.ledger.durability, .word, in: defaults,
                "What an answered count survives: commit a crash of Weir, power a crash of the machine too, relaxed may lose the last 100 ms."
            ),
            .init(
                "ledger.most_keys", \.ledger.mostKeys, .number(1_000...100_000_000), in: defaults,
                "Keys in memory over all limits, a few hundred bytes each; beyond, the least used of a few is forgotten."
            ),
            .init(
                "on_failure", \.onFailure, .word, in: defaults,
                "What a request is answered while Weir itself is in trouble: dunno lets mail pass, defer makes it wait."
            ),
            .init(
                "give_back_dropped", \.givesBackDropped, .boolean, in: defaults,
                "Give back what a message was charged that ended before DATA; true only where DATA or END-OF-MESSAGE is hooked up as well as RCPT."
            ),
            .init(
                "filter.connections", \.filter.connections, .number(1...100_000), in: defaults,
                "Clients of each filter listener at once; further ones are told to come later."),
            .init(
                "filter.spool", \.filter.spool, .path, in: defaults,
                "The directory of messages under way that are too large for memory; they have no names there."),
            .init(
                "filter.most_memory", \.filter.mostMemory, .number(1...1_000_000, of: "MiB"), in: defaults,
                "Memory for the content of all messages under way; what does not fit goes to the spool."),
            .init(
                "filter.most_spool", \.filter.mostSpool, .number(1...1_000_000, of: "MiB"), in: defaults,
                "Disk for the content of all messages under way; what does not fit is answered 452 and comes again."),
            .init(
                "milter.connections", \.milter.connections, .number(1...1_000_000), in: defaults,
                "Connections of MTAs at once, over all milter listeners; further ones are closed as they come."),
            .init(
                "milter.limits", \.milter.limits, .boolean, in: defaults,
                "Charge messages that come by the milter to the limits; one that the policy server has charged is not charged again."
            ),
            .init(
                "milter.local_over", \.milter.localOver, .word, in: defaults,
                "What becomes of a message from sendmail(1) that a limit refuses: hold puts it into the hold queue, defer makes it wait."
            ),
            .init(
                "canonicalise", \.canonicalise, .word, in: defaults,
                "envelope: the milter mends senders and recipients with source routes, needless quotes, upper-case domains or dots at their end."
            ),
            .init(
                "log.to", \.log.destination, .logDestination, in: defaults,
                "Where log lines go; syslog takes facility mail."),
            .init(
                "log.decisions", \.log.decisions, .boolean, in: defaults,
                "Log a line for every decision, not only for refusals and warnings."),
            .init(
                "log.summary_interval", \.log.summaryInterval, .duration(10_000...86_400_000, unit: 1000), in: defaults,
                "How often the highest rate of each limit is logged, as anvil(8) does."),
            .init(
                "log.capture", \.log.capture, .optional(.path), .isNothing(example: "/var/lib/weir/capture"),
                "A file to which all requests of policy clients are appended, for weir replay; it grows for as long as this is set."
            ),
            .init(
                "alerts.tiers", \.alerts.tiers, .list(of: .word), in: defaults,
                "What is told at once: warn is a key near a limit, over one that is refused, block one that is blocked, trouble what is wrong with Weir, a next hop or a rule."
            ),
            .init(
                "alerts.webhook", \.alerts.webhook, .optional(.url),
                .isNothing(example: "\"https://alerts.example.org/weir\""),
                "Where alerts are posted as JSON."),
            .init(
                "alerts.command", \.alerts.command, .optional(.path), .isNothing(example: "/usr/local/bin/weir-alert"),
                "A program that is run with alerts as JSON on its standard input."),
            .init(
                "alerts.mail", \.alerts.mail, .list(of: .mailAddress), in: defaults,
                "Who gets alerts by mail."),
            .init(
                "alerts.sendmail", \.alerts.sendmail, .path, in: defaults,
                "The sendmail(1) that mails them."),
            .init(
                "alerts.interval", \.alerts.interval, .duration(1_000...86_400_000, unit: 1000), in: defaults,
                "The first alert goes out at once; those within this time after it go together."),
            .init(
                "alerts.repeat", \.alerts.repeatAfter, .duration(1_000...2_592_000_000, unit: 1000), in: defaults,
                "When the same key at the same tier, or the same trouble, is told again."),
        ] + keyForms(in: defaults) + [
            .init(
                "restriction_classes", \.restrictionClasses, .list(of: .restrictionClass), in: defaults,
                "Names of main.cf's smtpd_restriction_classes, which a limit may use as its action."),
            .init(
                "limits", expected: "a list of limits", .isDefault("[]"),
                "What is counted by what, and how much of it is let through.",
                read: { node, key, reading, configuration in
                    configuration.limits = LimitReader.limits(node, key, &reading, configuration)
                }),
        ] + checks(in: defaults)
    }()

    private static func checks(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "checks.header", \.checks.header, .list(of: .checks), in: defaults,
                "Postfix's header_checks, for the headers of the message itself."),
            .init(
                "checks.mime_header", \.checks.mimeHeader, .optional(.list(of: .checks)),
                .isInherited(from: "checks.header", example: "[]"),
                "Postfix's mime_header_checks, for headers that speak of MIME; an empty list stands for none."),
            .init(
                "checks.nested_header", \.checks.nestedHeader, .optional(.list(of: .checks)),
                .isInherited(from: "checks.header", example: "[]"),
                "Postfix's nested_header_checks, for the headers of attached messages; an empty list stands for none."),
            .init(
                "checks.body", \.checks.body, .list(of: .checks), in: defaults,
                "Postfix's body_checks, for the lines of the body."),
            .init(
                "checks.undisclosed_recipients", \.checks.undisclosedRecipients, .word, in: defaults,
                "Whether a To: or Cc: with nothing but an empty group (undisclosed-recipients:;) is taken out."),
            .init(
                "checks.fast_pass", \.checks.fastPass, .boolean, in: defaults,
                "Look for all patterns at once before each rule is asked; without it the result is the same, and comes later."
            ),
            .init(
                "checks.cache", \.checks.cacheDirectory, .path, in: defaults,
                "Where compiled tables are kept from one start to the next; only the service's user may write there."),
            .init(
                "checks.match_limit", \.checks.matchLimits.steps, .number(1_000...1_000_000_000), in: defaults,
                "Steps that one try of one pattern may take; a rule that needs more counts as no match, and is logged."),
            .init(
                "checks.heap_limit", \.checks.matchLimits.heapKiB, .number(64...4_194_304, of: "KiB"), in: defaults,
                "Memory that one try of one pattern may take."),
            .init(
                "checks.message_budget", \.checks.messageBudget, .duration(1000...3_600_000, unit: 1), in: defaults,
                "Time that the checks of one message may take; what is left of them then counts as no match, and is logged."
            ),
            .init(
                "checks.header_size_limit", \.checks.scannerLimits.headerSize, .number(1...1_073_741_824, of: "bytes"),
                in: defaults,
                "Postfix's header_size_limit: how much of one header is looked at."),
            .init(
                "checks.line_length_limit", \.checks.scannerLimits.lineLength, .number(80...1_048_576, of: "bytes"),
                in: defaults,
                "Postfix's line_length_limit: longer lines are looked at piece by piece."),
            .init(
                "checks.body_checks_size_limit", \.checks.scannerLimits.bodyChecksSize,
                .number(0...1_073_741_824, of: "bytes"), in: defaults,
                "Postfix's body_checks_size_limit: how much of each body part is looked at; 0 is all of it."),
            .init(
                "checks.mime_boundary_length_limit", \.checks.scannerLimits.mimeBoundaryLength,
                .number(1...65_536, of: "bytes"), in: defaults,
                "Postfix's mime_boundary_length_limit: how much of a boundary is compared."),
            .init(
                "checks.mime_nesting_limit", \.checks.scannerLimits.mimeNesting, .number(1...10_000), in: defaults,
                "Postfix's mime_nesting_limit: how deep parts may stand in each other."),
        ]
    }

    /// How values are made one key: for all limits, or for one.
    private static func keyForms<Root: HasKeyForms>(
        in defaults: Root, areInherited: Bool = false
    ) -> [ConfigurationKey<Root>] {
        func row<Value>(
            _ name: String, _ target: any WritableKeyPath<Root, Value> & Sendable, _ type: ValueType<Value>,
            _ summary: String
        ) -> ConfigurationKey<Root> {
            let path = "keys.\(name)"
            let text = type.write(defaults[keyPath: target])!
            return .init(
                path, target, type, areInherited ? .isInherited(from: path, example: text) : .isDefault(text), summary)
        }
        return [
            row(
                "ipv4_prefix", \.keyForms.ipv4Prefix, .number(0...32),
                "Bits of a client's IPv4 address that make its key."),
            row(
                "ipv6_prefix", \.keyForms.ipv6Prefix, .number(0...128),
                "Bits of a client's IPv6 address that make its key; one customer usually has a /64 or more."),
            row(
                "recipient_delimiter", \.keyForms.recipientDelimiter, .delimiters,
                "Postfix's recipient_delimiter: with \"+\", user+tag counts as user; empty, tags are part of the address."
            ),
            row(
                "default_domain", \.keyForms.defaultDomain, .domain,
                "The domain of a SASL login that has none (smtpd_sasl_local_domain); empty, such logins stay as they are."
            ),
        ]
    }

    package static let limit: [ConfigurationKey<LimitDraft>] = {
        let defaults = LimitDraft()
        return [
            .init(
                "name", \.name, .limitName, .isFault(example: "per-user"),
                "What the limit is called in logs and commands; its counts belong to this name."),
            .init(
                "when", expected: "a map from attributes to tests", .isNothing(example: "{ sasl_username: present }"),
                "What a request must be for the limit to apply; all of it must hold.",
                read: { node, key, reading, draft in
                    draft.when = (node, key)
                }),
            .init(
                "key", \.key, .list(of: .attribute), .isFault(example: "[sasl_username]"),
                "The attribute that is counted by, or several together; a request that has none of it is not counted."),
            .init(
                "count", \.count, .word, in: defaults,
                "What is counted."),
            .init(
                "rates", \.rates, .list(of: .rate), .isFault(example: "[100/1m, 1000/1h, 5000/1d]"),
                "How much is let through in any interval of each window's length; a request must fit into all of them."),
            .init(
                "over", \.over, .action, in: defaults,
                "The answer to what does not fit, any action of access(5); $name $key $count $limit $window $retry are filled in."
            ),
            .init(
                "too_large", \.tooLarge, .action, in: defaults,
                "The answer to one message that is larger than the whole limit, and so could never pass."),
            .init(
                "mode", \.mode, .word, in: defaults,
                "enforce, or shadow: count, and only log what would have been refused."),
            .init(
                "warn_at", \.warnAt, .number(1...100), in: defaults,
                "Percent of a rate at which a key is logged once as near its limit."),
            .init(
                "count_refused", \.countRefused, .boolean, in: defaults,
                "Charge refused tries like accepted ones, so that who does not stop stays refused."),
            .init(
                "block.after", \.blockAfter, .optional(.number(1...1_000_000)), .isNothing(example: "100"),
                "Refused tries within the longest window after which everything of the key is refused for block.for."),
            .init(
                "block.for", \.blockFor, .optional(.duration(1000...Window.allowed.upperBound, unit: 1)),
                .isNothing(example: "1h"),
                "How long a key stays blocked."),
            .init(
                "exempt", \.exempt, .list(of: .table), in: defaults,
                "Tables of keys that are not limited; any result but DUNNO exempts."),
            .init(
                "overrides", \.overrides, .list(of: .table), in: defaults,
                "Tables whose result is the rates of a key in place of those above, such as 500/1m,5000/1h."),
        ]
    }()

    package static let filter: [ConfigurationKey<Configuration.FilterListener>] = {
        let defaults = Configuration.FilterListener.unset
        return [
            .init(
                "listen", \.listen, EndpointType.filter.type, .isFault(example: "inet:127.0.0.1:10025"),
                "Where Postfix's content_filter, or its smtpd_proxy_filter, reaches this filter."),
            .init(
                "next_hop", \.nextHop, EndpointType.filter.type, .isFault(example: "inet:127.0.0.1:10026"),
                "Where mail goes on to: the smtpd for what was filtered."),
            .init(
                "protocol", \.variant, .word, in: defaults,
                "What Postfix speaks to this filter, as the transport in content_filter says; to the next hop it is smtp always."
            ),
            .init(
                "mode", \.mode, .word, in: defaults,
                "Whether mail comes by content_filter (after_queue) or by smtpd_proxy_filter (before_queue, which waits 100 s at most)."
            ),
            .init(
                "networks", \.networks, .list(of: .network), .isNothing(example: "[127.0.0.0/8]"),
                "The only clients that are let in; left out, those of this machine, and `listen` has to be an address of its own."
            ),
        ]
    }()

    /// The keys of a limit that hold for all limits where they are left out.
    package static let limitKeyForms = keyForms(in: LimitDraft(), areInherited: true)
}

/// What holds `keys.*`.
protocol HasKeyForms: Sendable {
    var keyForms: KeyForms { get set }
}

extension Configuration: HasKeyForms {}
