// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Limits
internal import MailSyntax
internal import Patterns
internal import Wire

/// Every key of weir.yaml, one row each.
package enum ConfigurationKeys {
    /// Rows are read in this order. `limits` comes after the keys that it depends on.
    package static let root: [ConfigurationKey<Configuration>] = {
        let defaults = Configuration()
        return listen(in: defaults) + process(in: defaults) + ledger(in: defaults) + shared(in: defaults)
            + messages(in: defaults)
            + log(in: defaults) + alerts(in: defaults) + keyForms(in: defaults) + limits(in: defaults)
            + checks(in: defaults) + checkBounds(in: defaults) + postfixCheckLimits(in: defaults)
    }()

    private static func listen(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "listen.policy", \.listen.policy, .list(of: EndpointType.policy.type), in: defaults,
                "Addresses of the policy server, for Postfix's check_policy_service."),
            .init(
                "listen.policy_connections", \.listen.policyConnections, .number(10...1_000_000), in: defaults,
                "Maximum number of open policy connections; Weir closes further ones at once."),
            .init(
                "listen.admin", \.listen.admin, EndpointType.admin.type, in: defaults,
                "Address at which `weir limits` and other commands reach the service."),
            .init(
                "listen.filter", expected: "a list of filters", .isDefault("[]"),
                "Content filters: where each one receives mail from Postfix, and where it sends the mail on.",
                read: { node, key, reading, configuration in
                    configuration.listen.filter = FilterReader.listeners(node, key, &reading)
                }),
            .init(
                "listen.milter", \.listen.milter, .list(of: EndpointType.milter.type), in: defaults,
                "Addresses of the milter, for smtpd_milters and non_smtpd_milters of Postfix, or for Sendmail."),
        ]
    }

    private static func process(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "user", \.user, .account, in: defaults,
                "Account to which Weir changes if it is started as root; if weir does not exist or can't write "
                    + "where Weir writes, Weir stays root with the default, and warns."),
            .init(
                "sandbox", \.sandbox, .word, in: defaults,
                "Restrictions of the process: best_effort uses those that the kernel offers, required does not start "
                    + "without them, and none applies none."),
        ]
    }

    private static func ledger(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "ledger.store", \.ledger.store, .store, in: defaults,
                "Database file of the counts; the files of the journal are in the same directory."),
            .init(
                "ledger.durability", \.ledger.durability, .word, in: defaults,
                "What a count survives once Weir has answered: commit survives a crash of Weir, power also a crash "
                    + "of the "
                    + "machine, and relaxed can lose the last 100 ms."
            ),
            .init(
                "ledger.most_keys", \.ledger.mostKeys, .number(1_000...100_000_000), in: defaults,
                "Maximum number of keys in memory over all limits, a few hundred bytes each; to make room for a new "
                    + "key, "
                    + "Weir forgets the least used key of a small sample."
            ),
            .init(
                "on_failure", \.onFailure, .word, in: defaults,
                "Answer while Weir itself is failing: dunno lets mail pass, defer makes the client try again later."
            ),
            .init(
                "on_no_ledger", \.onNoLedger, .optional(.word), .isInherited(from: "on_failure", example: "defer"),
                "Answer as long as no ledger has been opened since the start, because it is still being read or can't "
                    + "be opened: dunno or defer, as for on_failure."
            ),
            .init(
                "give_back_dropped", \.givesBackDropped, .boolean, in: defaults,
                "Give back what a message was charged if it ends before DATA; use true only if Postfix asks at DATA or "
                    + "END-OF-MESSAGE as well as at RCPT."
            ),
        ]
    }

    /// `filter`, `milter` and `canonicalise`.
    private static func messages(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "filter.connections", \.filter.connections, .number(1...100_000), in: defaults,
                "Maximum number of clients of each filter listener; further clients get a 421 reply."),
            .init(
                "filter.spool", \.filter.spool, .path, in: defaults,
                "Directory for the content of messages in transit that does not fit into memory, in files without a "
                    + "name."
            ),
            .init(
                "filter.most_memory", \.filter.mostMemory, .number(1...1_000_000, of: "MiB"), in: defaults,
                "Memory for the content of all messages in transit, and for the archives that checks.attachment looks "
                    + "into; further content goes to the spool, and of further archives only the end is read."),
            .init(
                "filter.most_spool", \.filter.mostSpool, .number(1...1_000_000, of: "MiB"), in: defaults,
                "Disk space for the content of all messages in transit; a message that does not fit gets a 452 "
                    + "reply, and "
                    + "the client tries again later."),
            .init(
                "milter.connections", \.milter.connections, .number(1...1_000_000), in: defaults,
                "Maximum number of MTA connections over all milter listeners; Weir closes further ones at once."),
            .init(
                "milter.limits", \.milter.limits, .boolean, in: defaults,
                "Apply the limits to mail that arrives through the milter; a message that the policy server has "
                    + "charged is "
                    + "not charged again."
            ),
            .init(
                "milter.local_over", \.milter.localOver, .word, in: defaults,
                "What happens to a message from sendmail(1) that a limit refuses: hold moves it to the hold queue, "
                    + "defer "
                    + "makes Postfix try again later."
            ),
            .init(
                "canonicalise", \.canonicalise, .list(of: .word), in: defaults,
                "Repairs of addresses, as in milter.md: envelope is refuse and all repairs up to domain_case, for the "
                    + "milter's senders and recipients; refuse rejects what can't be repaired; headers is all repairs "
                    + "that begin with header_, for From, To, Cc, Reply-To and Sender in all ways in; signed_headers "
                    + "includes messages with a DKIM-Signature."
            ),
        ]
    }

    private static func log(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "log.to", \.log.destination, .logDestination, in: defaults,
                "Destination of the log; syslog uses the facility mail."),
            .init(
                "log.decisions", \.log.decisions, .boolean, in: defaults,
                "Log every decision, not only refusals and warnings."),
            .init(
                "log.summary_interval", \.log.summaryInterval, .duration(10_000...86_400_000, unit: 1000), in: defaults,
                "How often Weir logs the highest rate of each limit, as anvil(8) does."),
            .init(
                "log.capture", \.log.capture, .optional(.path), .isNothing(example: "/var/lib/weir/capture"),
                "File to which Weir appends all policy requests, for `weir replay`; it grows as long as this key is "
                    + "set."
            ),
        ]
    }

    private static func alerts(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "alerts.tiers", \.alerts.tiers, .list(of: .word), in: defaults,
                "Events that cause an alert: warn is a key near its limit, over is a refused key, block is a "
                    + "blocked key, "
                    + "and trouble is a problem with Weir, a next hop or a rule."
            ),
            .init(
                "alerts.webhook", \.alerts.webhook, .optional(.url),
                .isNothing(example: "\"https://alerts.example.org/weir\""),
                "URL to which alerts are posted as JSON."),
            .init(
                "alerts.command", \.alerts.command, .optional(.path), .isNothing(example: "/usr/local/bin/weir-alert"),
                "Program to run with alerts as JSON on its standard input."),
            .init(
                "alerts.mail", \.alerts.mail, .list(of: .mailAddress), in: defaults,
                "Mail addresses that get alerts."),
            .init(
                "alerts.sendmail", \.alerts.sendmail, .path, in: defaults,
                "The sendmail(1) program that sends alerts by mail."),
            .init(
                "alerts.interval", \.alerts.interval, .duration(1_000...86_400_000, unit: 1000), in: defaults,
                "The first alert is sent at once, and further alerts within this time are sent together."),
            .init(
                "alerts.repeat", \.alerts.repeatAfter, .duration(1_000...2_592_000_000, unit: 1000), in: defaults,
                "Time before an alert for the same key and tier, or for the same trouble, is sent again."),
        ]
    }

    private static func limits(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "restriction_classes", \.restrictionClasses, .list(of: .restrictionClass), in: defaults,
                "Names from smtpd_restriction_classes in main.cf that limits may use as actions."),
            .init(
                "limits", expected: "a list of limits", .isDefault("[]"),
                "What to count, by which key, and how much of it to allow.",
                read: { node, key, reading, configuration in
                    configuration.limits = LimitReader.limits(node, key, &reading, configuration)
                }),
        ]
    }

    private static func checks(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        checkTables(in: defaults, under: "checks.") + [
            .init(
                "checks.sets", expected: "a list of sets", .isDefault("[]"),
                "Sets of tables for some messages each, instead of the lists of tables above; a list as the value of "
                    + "checks is the same.",
                read: { node, key, reading, configuration in
                    configuration.checks.sets = CheckSetReader.sets(node, key, &reading, configuration)
                }
            ).asWholeList,
            .init(
                "checks.undisclosed_recipients", \.checks.undisclosedRecipients, .word, in: defaults,
                "Which To:, Cc:, Resent-To: and Resent-Cc: headers to remove: those with only an empty group called "
                    + "undisclosed-recipients (strip), with only empty groups of any name (any_empty_group), or "
                    + "none (keep)."),
            .init(
                "checks.undisclosed_unless_signed", \.checks.keepsSigned, .boolean, in: defaults,
                "Keep such a header if a DKIM-Signature covers it, which would no longer verify."),
        ]
    }

    private static func checkBounds(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "checks.fast_pass", \.checks.fastPass, .boolean, in: defaults,
                "Scan for all patterns at once before trying each rule; false gives the same results, but more slowly."
            ),
            .init(
                "checks.cache", \.checks.cacheDirectory, .path, in: defaults,
                "Directory for compiled tables, which make later starts faster; only the service's user may write "
                    + "there."),
            .init(
                "checks.match_limit", \.checks.matchLimits.steps, .number(1_000...1_000_000_000), in: defaults,
                "Maximum number of steps for one attempt to match a pattern; if it needs more, Weir logs this and "
                    + "treats "
                    + "the rule as no match."),
            .init(
                "checks.heap_limit", \.checks.matchLimits.heapKiB, .number(64...4_194_304, of: "KiB"), in: defaults,
                "Maximum memory for one attempt to match a pattern."),
            .init(
                "checks.message_budget", \.checks.messageBudget, .duration(1000...3_600_000, unit: 1), in: defaults,
                "Maximum time for the checks of one message; after it, Weir logs this and treats the remaining "
                    + "checks as no "
                    + "match."
            ),
        ]
    }

    private static func postfixCheckLimits(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "checks.header_size_limit", \.checks.scannerLimits.headerSize, .number(1...1_073_741_824, of: "bytes"),
                in: defaults,
                "Postfix's header_size_limit: how much of each header is checked."),
            .init(
                "checks.line_length_limit", \.checks.scannerLimits.lineLength, .number(80...1_048_576, of: "bytes"),
                in: defaults,
                "Postfix's line_length_limit: longer lines are checked in pieces."),
            .init(
                "checks.body_checks_size_limit", \.checks.scannerLimits.bodyChecksSize,
                .number(0...1_073_741_824, of: "bytes"), in: defaults,
                "Postfix's body_checks_size_limit: how much of each body part is checked; 0 means all of it."),
            .init(
                "checks.mime_boundary_length_limit", \.checks.scannerLimits.mimeBoundaryLength,
                .number(1...65_536, of: "bytes"), in: defaults,
                "Postfix's mime_boundary_length_limit: how much of a boundary string is compared."),
            .init(
                "checks.mime_nesting_limit", \.checks.scannerLimits.mimeNesting, .number(1...10_000), in: defaults,
                "Postfix's mime_nesting_limit: how deeply MIME parts may be nested."),
            .init(
                "checks.smtputf8_enable", \.checks.smtpUTF8, .boolean, in: defaults,
                "Postfix's smtputf8_enable: whether UTF-8 in the text of a REJECT stays; false makes it blanks."
            ),
            .init(
                "checks.from_lines", \.checks.scannerLimits.fromLines, .word, in: defaults,
                "Which mbox From lines at the start of a message become X-Mailbox-Line headers, in weir check and for "
                    + "clients that are no Postfix: all, as in Postfix before 3.7.21, 3.8.19, 3.9.13, 3.10.12 and "
                    + "3.11.5, or only the first."),
        ]
    }

    /// How values become keys: `keys`, and `keys` of a limit.
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
                "Number of leading bits of an IPv4 address that form its key."),
            row(
                "ipv6_prefix", \.keyForms.ipv6Prefix, .number(0...128),
                "Number of leading bits of an IPv6 address that form its key; one customer usually has a /64 or "
                    + "more."
            ),
            row(
                "recipient_delimiter", \.keyForms.recipientDelimiter, .delimiters,
                "Postfix's recipient_delimiter: with \"+\", user+tag counts as user; if empty, tags are part of the "
                    + "address."
            ),
            row(
                "default_domain", \.keyForms.defaultDomain, .domain,
                "Domain for SASL logins without one, as in smtpd_sasl_local_domain; if empty, such logins stay "
                    + "unchanged."
            ),
        ]
    }

    package static let limit: [ConfigurationKey<LimitDraft>] = {
        let defaults = LimitDraft()
        return subject(in: defaults) + response(in: defaults) + exceptions(in: defaults)
    }()

    /// What a limit counts.
    private static func subject(in defaults: LimitDraft) -> [ConfigurationKey<LimitDraft>] {
        let units = CountUnit.allCases.map { "\($0.rawValue) is \($0.summary)" }.joined(separator: "; ")
        return [
            .init(
                "name", \.name, .limitName, .isFault(example: "per-user"),
                "Name of the limit in logs and commands; its counts are stored under this name."),
            .init(
                "when", expected: "a map from attributes to tests", .isNothing(example: "{ sasl_username: present }"),
                "Conditions for the limit to apply; all of them must hold.",
                read: { node, key, reading, draft in
                    draft.when = (node, key)
                }),
            .init(
                "key", \.key, .list(of: .attribute), .isFault(example: "[sasl_username]"),
                "Attribute to count by, or several that form the key together; a request in which one of them is "
                    + "empty is "
                    + "not counted."),
            .init("count", \.count, .word, in: defaults, "Unit to count: \(units)."),
            .init(
                "rates", \.rates, .list(of: .rate), .isFault(example: "[100/1m, 1000/1h, 5000/1d]"),
                "Maximum amount in any interval of each window's length; a request must fit into all of the windows."),
        ]
    }

    /// What a limit does when it is reached.
    private static func response(in defaults: LimitDraft) -> [ConfigurationKey<LimitDraft>] {
        [
            .init(
                "over", \.over, .action, in: defaults,
                "Answer to a request over the limit; $name $key $count $limit $window $retry are replaced by their "
                    + "values."
            ),
            .init(
                "too_large", \.tooLarge, .action, in: defaults,
                "Answer to a single message that is larger than the whole limit, and so can never pass."),
            .init(
                "mode", \.mode, .word, in: defaults,
                "enforce refuses what is over the limit; shadow only logs what it would refuse."),
            .init(
                "warn_at", \.warnAt, .number(1...100), in: defaults,
                "Percentage of a rate at which Weir logs one warning that the key is near its limit."),
            .init(
                "count_refused", \.countRefused, .boolean, in: defaults,
                "Charge refused requests like accepted ones; a client that does not stop then stays refused."),
            .init(
                "shared", \.isShared, .boolean, in: defaults,
                "Whether all hosts hold the limit together, if shared.engine is set; false counts on this host alone."),
            .init(
                "block.after", \.blockAfter, .optional(.number(1...1_000_000)), .isNothing(example: "100"),
                "Number of refused requests within the longest window after which the key is blocked."),
            .init(
                "block.for", \.blockFor, .optional(.duration(1000...Window.allowed.upperBound, unit: 1)),
                .isNothing(example: "1h"),
                "How long a key stays blocked; meanwhile all its requests are refused."),
            .init(
                "block.over", \.blockOver, .action, in: defaults,
                "Answer to a blocked key, also to one that `weir limits block` has blocked."),
            .init(
                "keep_blocks", \.keepsBlocks, .boolean, in: defaults,
                "Keep blocks that the limit has set when a reload raises its rates or removes `block`; by default "
                    + "they end."),
        ]
    }

    private static func exceptions(in defaults: LimitDraft) -> [ConfigurationKey<LimitDraft>] {
        [
            .init(
                "exempt", \.exempt, .list(of: .table), in: defaults,
                "Tables of keys that are not limited; any result except DUNNO exempts the key."),
            .init(
                "overrides", \.overrides, .list(of: .table), in: defaults,
                "Tables of keys with other rates; the result is a list such as 500/1m,5000/1h."),
        ]
    }

    package static let filter: [ConfigurationKey<Configuration.FilterListener>] = {
        let defaults = Configuration.FilterListener.unset
        return [
            .init(
                "listen", \.listen, EndpointType.filter.type, .isFault(example: "inet:127.0.0.1:10025"),
                "Address of this filter, for Postfix's content_filter or smtpd_proxy_filter."),
            .init(
                "next_hop", \.nextHop, EndpointType.nextHop, .isFault(example: "inet:127.0.0.1:10026"),
                "Address of the smtpd that takes the filtered mail; with lmtp: in front, of an LMTP server."),
            .init(
                "protocol", \.variant, .word, in: defaults,
                "Protocol that Postfix speaks to this filter, as in the content_filter transport."),
            .init(
                "mode", \.mode, .word, in: defaults,
                "after_queue for content_filter, before_queue for smtpd_proxy_filter, which waits at most 100 s."
            ),
            .init(
                "networks", \.networks, .list(of: .network), .isNothing(example: "[127.0.0.0/8]"),
                "Networks of the clients that may connect; without them only this machine may, and `listen` must be a "
                    + "loopback address or a UNIX socket."
            ),
        ]
    }()

    /// The keys of a limit whose defaults come from `keys`.
    package static let limitKeyForms = keyForms(in: LimitDraft(), areInherited: true)
}

/// A configuration or limit with `keys`.
protocol HasKeyForms: Sendable {
    var keyForms: KeyForms { get set }
}

extension Configuration: HasKeyForms {}
