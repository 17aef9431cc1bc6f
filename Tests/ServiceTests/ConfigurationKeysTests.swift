// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Limits
import Rules
import Settings
import Sharing
import Testing
import Wire

/// Files of the repository, found relative to this file.
enum Repository {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    /// Expects that a file contains the generated text. With WEIR_WRITE_GENERATED=1 in the environment, writes it.
    static func expect(_ path: String, toBe generated: String) throws {
        if ProcessInfo.processInfo.environment["WEIR_WRITE_GENERATED"] == "1" {
            try Data(generated.utf8).write(to: root.appending(path: path))
        }
        #expect(try text(path) == generated, "\(path) is out of date: run the tests with WEIR_WRITE_GENERATED=1")
    }
}

func read(_ yaml: String) -> Result<ConfigurationReader.Outcome, ConfigurationFaults> {
    ConfigurationReader.read(Array(yaml.utf8), file: "weir.yaml")
}

@Suite(.serialized) struct ConfigurationKeysTests {
    @Test func sampleMatchesTheRows() throws {
        try Repository.expect("conf/weir.yaml", toBe: ConfigurationText.sample)
    }

    @Test func sampleHasTheDefaults() throws {
        let outcome = try read(try Repository.text("conf/weir.yaml")).get()
        #expect(leaves(of: outcome.configuration) == leaves(of: Configuration()))
        #expect(outcome.warnings.map(\.message) == ["no limits: Weir answers every request with DUNNO"])
    }

    /// Uncomments the example in the sample, as an operator would.
    @Test func exampleOfALimitHasTheDefaults() throws {
        let sample = try Repository.text("conf/weir.yaml")
        let start = try #require(sample.range(of: "\nlimits:\n"))
        let example = sample[start.upperBound...].split(separator: "\n").prefix { $0.hasPrefix("#") }
            .map { $0.dropFirst() }.joined(separator: "\n")
        let outcome = try read(sample[..<start.upperBound] + example).get()
        let minimal = try read(
            """
            limits:
              - { name: per-user, key: sasl_username, rates: [100/1m, 1000/1h, 5000/1d],
                  when: { sasl_username: present },
                  block: { after: 100, for: 1h } }
            """
        ).get()
        #expect(outcome.warnings == [])
        #expect(leaves(of: outcome.configuration) == leaves(of: minimal.configuration))
    }

    @Test(arguments: [
        ("docs/configuration.md", "", ConfigurationText.manual),
        ("docs/limits.md", "units ", ConfigurationText.units),
        ("docs/limits.md", "charges ", ConfigurationText.charges),
    ])
    func manualMatchesTheRows(path: String, part: String, generated: String) throws {
        let text = try Repository.text(path)
        let from = try #require(text.range(of: "<!-- generated: \(part)begin -->\n")).upperBound
        let to = try #require(text.range(of: "<!-- generated: \(part)end -->\n")).lowerBound
        try Repository.expect(path, toBe: text[..<from] + generated + text[to...])
    }

    @Test(
        arguments: ConditionReader.Word.allCases.map { "`\($0.rawValue)`" } + ["`present`", "`absent`"]
            + PolicyAttributes.derived.map { "`\($0)`" })
    func manualSpeaksOf(word: String) throws {
        #expect(try Repository.text("docs/configuration.md").contains(word))
    }

    @Test func everyKeyHasOneSentence() {
        let summaries =
            ConfigurationKeys.root.map(\.summary) + ConfigurationKeys.limit.map(\.summary)
            + ConfigurationKeys.limitKeyForms.map(\.summary) + ConfigurationKeys.filter.map(\.summary)
            + ConfigurationKeys.checkSet.map(\.summary) + EndpointType.policy.socketKeys.map(\.summary)
        for summary in summaries {
            #expect(
                summary.count(where: { $0 == "." }) >= 1 && summary.hasSuffix(".") && !summary.contains(". "),
                "\(summary)")
        }
    }

    /// A configuration in which every setting differs from its default.
    private var everySetting: String {
        """
        listen: { policy: "inet:127.0.0.2:10", policy_connections: 11, admin: "inet:127.0.0.1:12",
                  filter: [{ listen: "inet:192.0.2.1:13", next_hop: "inet:127.0.0.1:14", networks: 192.0.2.0/24 }],
                  milter: "inet:127.0.0.1:18" }
        user: daemon
        sandbox: required
        milter: { connections: 19, limits: false, local_over: defer }
        canonicalise: [envelope, headers, signed_headers]
        filter: { connections: 15, spool: /spool, most_memory: 16, most_spool: 17 }
        ledger: { store: "sqlite:/ledger", durability: power, most_keys: 1013 }
        shared: { engine: "redis-sentinel://127.0.0.1:22,[2001:db8::1]/all?db=3&port=25", name: b, hosts: [a, b],
                  user: weir, password_file: \(fixture("exempt")), sentinel_password_file: \(fixture("exempt")),
                  share: 23, timeout: 24, on_cut_off: open }
        on_failure: defer
        on_no_ledger: defer
        give_back_dropped: true
        log: { to: syslog, decisions: true, summary_interval: 14m, capture: /capture }
        alerts: { tiers: [over], webhook: "https://example.org/x", command: /bin/sh, mail: [root], sendmail: /bin/true,
                  interval: 20s, repeat: 21s }
        keys: { ipv4_prefix: 15, ipv6_prefix: 16, recipient_delimiter: "+-", default_domain: Example.ORG }
        restriction_classes: [greylist]
        limits: []
        checks:
          header: "pcre:\(fixture("header_checks"))"
          mime_header: []
          nested_header: []
          decoded_header: "pcre:\(fixture("header_checks"))"
          decoded_body: "pcre:\(fixture("header_checks"))"
          attachment: "pcre:\(fixture("header_checks"))"
          body: ["regexp:\(fixture("header_checks"))"]
          undisclosed_recipients: keep
          undisclosed_unless_signed: true
          fast_pass: false
          cache: /cache
          match_limit: 1017
          heap_limit: 1018
          message_budget: 19s
          header_size_limit: 1020
          line_length_limit: 1021
          body_checks_size_limit: 1022
          mime_boundary_length_limit: 1023
          mime_nesting_limit: 1024
          smtputf8_enable: false
          from_lines: first
        """
    }

    /// Finds a key that sets the wrong setting, and a setting without a key.
    @Test func everySettingHasAKey() throws {
        let outcome = try read(everySetting).get()
        let (defaults, changed) = (leaves(of: Configuration()), leaves(of: outcome.configuration))
        let untouched = defaults.filter { changed[$0.key] == $0.value }.keys.sorted()
        // Derived from `checks.match_limit`, or fixed.
        #expect(
            untouched
                == [
                    "attributeNames", "checks.attributeNames", "checks.matchLimits.leastSteps",
                    "checks.matchLimits.stepsOfAll", "checks.sets", "limits",
                ])
        #expect(changed["listen.policy"] == #"[inet:127.0.0.2:10]"#)
        #expect(changed["listen.policyConnections"] == "11")
        #expect(changed["listen.admin"] == "inet:127.0.0.1:12")
        let filter = outcome.configuration.listen.filter[0]
        #expect(filter.listen == .inet(host: "192.0.2.1", port: 13))
        #expect(filter.nextHop == .init(.inet(host: "127.0.0.1", port: 14)))
        #expect(filter.networks == [Network("192.0.2.0/24")!])
        #expect(changed["listen.milter"] == "[inet:127.0.0.1:18]")
        #expect(changed["milter.connections"] == "19")
        #expect(changed["filter.connections"] == "15")
        #expect(changed["filter.spool"] == "/spool")
        #expect(changed["filter.mostMemory"] == "16")
        #expect(changed["filter.mostSpool"] == "17")
        #expect(changed["ledger.store"] == #"sqlite(path: "/ledger")"#)
        #expect(changed["ledger.mostKeys"] == "1013")
        let sentinels = [("127.0.0.1", 22), ("2001:db8::1", 26_379)].map { EngineAddress.Server(host: $0, port: $1) }
        let engine = EngineAddress(.sentinel(sentinels, name: "all", port: 25), database: 3)
        #expect(outcome.configuration.shared.engine == engine)
        #expect(EngineAddress("\(engine)") == engine)
        #expect(EngineAddress("redis://[::1]") == EngineAddress(.inet(.init(host: "::1", port: 6379))))
        #expect(outcome.configuration.shared.name == "b")
        #expect(outcome.configuration.shared.user == "weir")
        #expect(changed["shared.share"] == "23")
        #expect(changed["shared.timeout"] == "24")
        #expect(changed["log.summaryInterval"] == "840")
        #expect(outcome.configuration.alerts.webhook == "https://example.org/x")
        #expect(outcome.configuration.alerts.command == "/bin/sh")
        #expect(changed["alerts.sendmail"] == "/bin/true")
        #expect(changed["alerts.interval"] == "20")
        #expect(changed["alerts.repeatAfter"] == "21")
    }

    @Test func everyKeyFormAndCheckHasAKey() throws {
        let outcome = try read(everySetting).get()
        let changed = leaves(of: outcome.configuration)
        #expect(changed["keyForms.ipv4Prefix"] == "15")
        #expect(changed["keyForms.ipv6Prefix"] == "16")
        #expect(outcome.configuration.keyForms.recipientDelimiter == Array("+-".utf8))
        #expect(outcome.configuration.keyForms.defaultDomain == Array("example.org".utf8))
        #expect(changed["checks.tables.mimeHeader"] == "Optional([])")
        #expect(changed["checks.matchLimits.steps"] == "1017")
        #expect(changed["checks.matchLimits.heapKiB"] == "1018")
        #expect(changed["checks.messageBudget"] == "19000")
        #expect(changed["checks.scannerLimits.headerSize"] == "1020")
        #expect(changed["checks.scannerLimits.lineLength"] == "1021")
        #expect(changed["checks.scannerLimits.bodyChecksSize"] == "1022")
        #expect(changed["checks.scannerLimits.mimeBoundaryLength"] == "1023")
        #expect(changed["checks.scannerLimits.mimeNesting"] == "1024")
        #expect(changed["checks.scannerLimits.fromLines"] == "first")
        #expect(outcome.rules.sets[0].header.count == 1)
    }

    @Test func everySettingOfALimitHasAKey() throws {
        let minimal = "{ name: a, key: sasl_username, rates: 1/1h }"
        let full = """
            { name: b, key: [client_address, sasl_domain], count: messages, rates: [2/1m, 3/1h],
              over: "451 x", too_large: "550 y", mode: shadow, warn_at: 51, count_refused: true,
              block: { after: 4, for: 5m, over: 552 z }, keep_blocks: true, shared: false,
              when: { sender: present },
              keys: { ipv4_prefix: 24 }, exempt: "texthash:\(fixture("exempt"))",
              overrides: "texthash:\(fixture("overrides"))" }
            """
        let shared = "shared: { engine: 'unix:/run/engine?db=2', name: a, hosts: [a] }"
        let outcome = try read("\(shared)\nlimits:\n- \(minimal)\n- \(full)\n").get()
        let limits = outcome.configuration.limits
        let (first, second) = (leaves(of: limits[0]), leaves(of: limits[1]))
        let same = first.filter { second[$0.key] == $0.value }.keys.sorted()
        #expect(same == ["key.forms.defaultDomain", "key.forms.ipv6Prefix", "key.forms.recipientDelimiter"])
        #expect(limits[1].block == Limit.Block(after: 4, milliseconds: 300_000))
        #expect(limits[1].rates == [Rate("2/1m")!, Rate("3/1h")!])
        #expect(limits[1].over.text == "451 x")
        #expect(limits[1].tooLarge.text == "550 y")
        #expect(limits[1].warnAt == 51)
    }

    @Test func everySettingOfASetHasAKey() throws {
        let table = "pcre:\(fixture("header_checks"))"
        let full = """
            { name: b, when: { recipient_domain: example.org, dkim: absent }, recipients: all, header: "\(table)",
              mime_header: [], nested_header: "\(table)", decoded_header: "\(table)", decoded_body: "\(table)",
              attachment: "\(table)", body: "\(table)" }
            """
        for yaml in ["checks:\n- { name: a }\n- \(full)", "checks: { sets: [{ name: a }, \(full)] }"] {
            let outcome = try read("limits: []\n" + yaml).get()
            let sets = outcome.configuration.checks.sets
            let (first, second) = (leaves(of: sets[0]), leaves(of: sets[1]))
            #expect(first.filter { second[$0.key] == $0.value }.keys.sorted() == [])
            #expect(sets[1].recipients == .all)
            #expect(sets[1].isSigned == false)
            #expect(sets[1].tables.nestedHeader == [table])
            #expect(outcome.rules.sets.map(\.name) == ["a", "b"])
            #expect(outcome.warnings.map(\.message).contains("the set has no tables, and so no effect"))
        }
    }

    @Test func settingsOfAFilter() throws {
        let filter = try read(
            "listen: { filter: [{ listen: 'inet:127.0.0.1:1', next_hop: 'inet:127.0.0.1:2', protocol: lmtp }, "
                + "{ listen: 'unix:/run/a', next_hop: 'unix:/run/b', mode: before_queue }] }"
        ).get().configuration.listen.filter
        #expect(filter.map(\.variant) == [.lmtp, .smtp])
        #expect(filter.map(\.mode) == [.afterQueue, .beforeQueue])
        #expect(filter.map(\.networks) == [[], []])
    }

    @Test(arguments: [
        ("unix:/run/hop", "unix:/run/hop", false), ("lmtp:unix:/run/lmtp", "lmtp:unix:/run/lmtp", true),
        ("lmtp:127.0.0.1:24", "lmtp:inet:127.0.0.1:24", true), ("lmtp:inet:[::1]:24", "lmtp:inet:[::1]:24", true),
    ])
    func nextHop(_ text: String, _ written: String, isLMTP: Bool) throws {
        let yaml = "listen: { filter: [{ listen: 'inet:127.0.0.1:1', next_hop: '\(text)' }] }"
        let hop = try #require(try read(yaml).get().configuration.listen.filter.first).nextHop
        #expect("\(hop)" == written)
        #expect((hop.variant == .lmtp) == isLMTP)
    }

    /// Rejects open relays and loops.
    @Test(arguments: [
        ("listen: 'inet:0.0.0.0:1', next_hop: 'inet:127.0.0.1:2'", "an open relay"),
        ("listen: 'inet:[::]:1', next_hop: 'inet:127.0.0.1:2', networks: []", "an open relay"),
        ("listen: 'inet:127.0.0.1:1', next_hop: 'inet:127.0.0.1:1'", "a mail loop"),
        ("listen: 'inet:127.0.0.1:1', next_hop: 'lmtp:127.0.0.1:1', protocol: lmtp", "a mail loop"),
        ("listen: 'inet:127.0.0.1:1', next_hop: 'lmtp:unix:lmtp'", "'lmtp' is not an absolute path"),
        ("listen: 'inet:127.0.0.1:1', next_hop: 'lmtp:127.0.0.1'", "'inet:127.0.0.1' has no port"),
        ("listen: 'inet:127.0.0.1:1', next_hop: 'lmtp:lmtp:127.0.0.1:24'", "is not an address; expected localhost"),
        ("listen: 'inet:127.0.0.1:1'", "'next_hop' is missing"),
        ("listen: 'inet:127.0.0.1:10040', next_hop: 'inet:127.0.0.1:1'", "is used by another listener"),
        (
            "listen: 'inet:127.0.0.1:1', next_hop: 'inet:127.0.0.1:2', networks: 192.0.2.1/24",
            "did you mean 192.0.2.0/24?"
        ),
        (
            "listen: 'unix:/run/a', next_hop: 'inet:127.0.0.1:2', networks: 192.0.2.0/24",
            "use 'mode' and 'group'"
        ),
        (
            "listen: 'inet:127.0.0.1:1', next_hop: 'inet:127.0.0.1:2', protocol: lmtp, mode: before_queue",
            "speaks only SMTP"
        ),
    ])
    func badFilter(_ filter: String, _ fault: String) {
        let text = "listen: { policy: 'inet:127.0.0.1:10040', filter: [{ \(filter) }] }"
        guard case .failure(let faults) = read(text) else {
            Issue.record("taken: \(text)")
            return
        }
        #expect(faults.all.count == 1 && faults.description.contains(fault), "\(faults)")
    }

    private func fixture(_ name: String) -> String {
        Repository.root.appending(path: "Tests/Fixtures/config/\(name)").path
    }

    /// The values of a struct and its nested structs, by path.
    private func leaves(of value: Any, at path: String = "") -> [String: String] {
        let mirror = Mirror(reflecting: value)
        guard mirror.displayStyle == .struct, !mirror.children.isEmpty, !(value is AttributeNames) else {
            return [path: String(describing: value)]
        }
        return mirror.children.reduce(into: [:]) { result, child in
            let name = path.isEmpty ? child.label! : "\(path).\(child.label!)"
            result.merge(leaves(of: child.value, at: name)) { first, _ in first }
        }
    }
}
