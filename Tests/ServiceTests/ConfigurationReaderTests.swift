// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Settings
import Testing
import Wire

@Suite struct ConfigurationReaderTests {
    private static let fixtures = Repository.root.appending(path: "Tests/Fixtures/config")

    private static var names: [String] {
        get throws {
            try FileManager.default.contentsOfDirectory(atPath: fixtures.path).filter { $0.hasSuffix(".yaml") }.sorted()
        }
    }

    /// What `weir check-config` prints for each fixture; `@FIXTURES@` stands for their folder.
    @Test(arguments: try names)
    func diagnostics(name: String) throws {
        var bytes = Array(try Data(contentsOf: Self.fixtures.appending(path: name)))
        if let text = String(validating: bytes, as: UTF8.self) {
            bytes = Array(text.replacing("@FIXTURES@", with: Self.fixtures.path).utf8)
        }
        let report = ConfigurationReport(ConfigurationReader.read(bytes, file: name), path: name)
        let output = report.diagnostics(inColour: false) + (report.summary.map { $0 + "\n" } ?? "")
        try Repository.expect(
            "Tests/Fixtures/config/\(name.replacing(".yaml", with: ".expected"))",
            toBe: output.replacing(Self.fixtures.path, with: "@FIXTURES@"))
    }

    @Test func thereAreFixtures() throws {
        #expect(try Self.names.count >= 30)
    }

    /// Neither nesting nor aliases may make a small file expensive to read.
    @Test(arguments: [
        String(repeating: "[", count: 200_000), String(repeating: "- ", count: 200_000),
        String(repeating: "{a: ", count: 100_000),
        String(repeating: "? ", count: 100_000),
        "limits: " + String(repeating: "[", count: 500) + String(repeating: "]", count: 500),
        "a: &a [x, x, x, x]\n"
            + (0..<40).map { "k\($0): &k\($0) [*\($0 == 0 ? "a" : "k\($0 - 1)"), *\($0 == 0 ? "a" : "k\($0 - 1)")]\n" }
            .joined()
            + "[*k39]: 1\n",
        (0..<300).map { "k: \($0)\n" }.joined(), String(repeating: "\"\": 1\n", count: 300),
    ])
    func isBounded(yaml: String) throws {
        #expect(throws: ConfigurationFaults.self) { try read(yaml).get() }
    }

    /// All addresses include each of their family, in any order.
    @Test(arguments: [
        ("inet:0.0.0.0:1", "inet:127.0.0.1:1", true), ("inet:127.0.0.1:1", "inet:0.0.0.0:1", true),
        ("inet:0.0.0.0:1", "inet:localhost:1", true), ("inet:[::]:1", "inet:[::1]:1", true),
        ("inet:0.0.0.0:1", "inet:127.0.0.1:2", false), ("inet:0.0.0.0:1", "inet:[::1]:1", false),
    ])
    func listenersThatIncludeOthers(policy: String, milter: String, isFault: Bool) {
        let result = read("listen: { policy: \"\(policy)\", milter: \"\(milter)\" }")
        guard case .failure(let faults) = result else {
            #expect(!isFault)
            return
        }
        #expect(
            faults.all.map(\.text) == [
                "listen.milter[0]: '\(milter)' can't be used beside another listener, '\(policy)'"
            ])
        #expect(isFault)
    }

    /// What a start would miss on this machine, for `weir check-config` only.
    @Test func whatTheMachineLacks() throws {
        let folder = try TemporaryDirectory()
        let (missing, file) = ("\(folder.path)/missing", "\(folder.path)/file")
        #expect(FileManager.default.createFile(atPath: file, contents: nil))
        let text = """
            user: no-such-user
            listen:
              policy: ["inet:127.0.0.1:10040", { unix: "\(folder.path)/policy", group: no-such-group }]
              milter: "unix:/run/no-such-directory/milter"
              admin: "unix:\(missing)/admin"
            ledger: { store: "sqlite:\(missing)/ledger.sqlite" }
            log: { to: "file:\(folder.path)", capture: "\(file)/capture" }
            """
        func warnings(_ examinesMachine: Bool) throws -> [String] {
            try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml", examinesMachine: examinesMachine).get()
                .warnings.map(\.description).filter { !$0.contains("no limits") }
        }
        let make = "does not exist; make this directory for the user of the service"
        #expect(
            try warnings(true) == [
                "weir.yaml:1:7: user: the account 'no-such-user' does not exist: as root, Weir does not start",
                "weir.yaml:3:36: listen.policy: the group 'no-such-group' does not exist: Weir does not start",
                "weir.yaml:5:10: listen.admin: \(missing) \(make)",
                "weir.yaml:6:18: ledger.store: \(missing) \(make)",
                "weir.yaml:7:12: log.to: \(folder.path) is a directory; expected the path of a file",
                "weir.yaml:7:\(30 + folder.path.utf8.count): log.capture: \(file) is not a directory",
            ])
        #expect(try warnings(false) == [])
    }

    @Test func aSummaryWithoutAPolicyServer() throws {
        let summary = try read("listen: { policy: [], milter: \"inet:127.0.0.1:1\" }").get().configuration.summary
        #expect(summary.hasPrefix("0 limits, milter on inet:127.0.0.1:1, ledger "), "\(summary)")
    }

    /// A truncated file gives a fault or a configuration, and never a crash.
    @Test func everyPrefixOfAFileIsRead() throws {
        let text = Array(try Repository.text("Tests/Fixtures/config/29-good.yaml").utf8)
        for length in text.indices {
            _ = ConfigurationReader.read(Array(text[..<length]), file: "weir.yaml")
        }
    }

    @Test(arguments: [
        ("missing.yaml", "does not exist; weir setup writes one"), ("", "can't be read: Is a directory"),
        ("pipe", "can't be read: not a regular file"), ("large.yaml", "can't be read: larger than 1 MiB"),
    ])
    func unreadableFiles(name: String, reason: String) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        mkfifo(folder.appending(path: "pipe").path, 0o600)
        try Data(repeating: UInt8(ascii: "#"), count: 2 << 20).write(to: folder.appending(path: "large.yaml"))
        let path = folder.appending(path: name).path
        let faults = #expect(throws: ConfigurationFaults.self) { try ConfigurationReader.read(path: path).get() }
        #expect(faults?.all.map(\.description) == ["\(path): \(reason)"])
    }

    @Test(arguments: [
        ("inet:127.0.0.1:10040", "inet:127.0.0.1:10040"), ("\"inet:[::1]:1\"", "inet:[::1]:1"),
        ("inet:localhost:65535", "inet:localhost:65535"),
        ("unix:/run/weir/policy", "unix:/run/weir/policy"),
        ("{ unix: /run/weir/policy, mode: 660 }", "unix:/run/weir/policy"),
    ])
    func endpoints(yaml: String, expected: String) throws {
        let outcome = try read("listen: { policy: \(yaml) }").get()
        #expect(outcome.configuration.listen.policy.map(\.description) == [expected])
    }

    @Test(arguments: [
        "http://alerts.example.org", "https://alerts.example.org:8443/weir?a=[1]#x", "http://[2001:db8::1]/weir",
        "https://[::1]:443", "https://[::ffff:192.0.2.1]", "https://user:se@cret@alerts.example.org/",
        "http://192.0.2.1:65535", "http://a_b.example.org./",
    ])
    func webhooks(url: String) throws {
        #expect(try read("alerts: { webhook: \"\(url)\" }").get().configuration.alerts.webhook == url)
    }

    @Test(arguments: [
        "", "http://", "https:///weir", "ftp://example.org", "example.org", "http://[", "http://[::1", "http://[]",
        "http://[x]/", "http://[192.0.2.1]/", "http://[IPv6:::1]/", "http://[::1]x", "http://[::1]:", "http://::1/",
        "http://[::1]/ x", "http://[::1]/\\x07", "http://example.org/\\x7f", "http://exa mple.org",
        "http://example.org:0", "http://example.org:65536", "http://example.org:x", "http://example.org:+1",
        "http://.example.org", "http://a..b", "http://user@", "http://:80/",
    ])
    func webhooksThatAreNotURLs(url: String) {
        let faults = #expect(throws: ConfigurationFaults.self) { try read("alerts: { webhook: \"\(url)\" }").get() }
        #expect(faults?.all.map(\.key) == ["alerts.webhook"])
        #expect(faults?.description.contains("is not a URL") == true, "\(faults?.description ?? "")")
    }

    @Test(arguments: ["https://example.org/hook/s3cret x", "htps://example.org/s3cret", "[https://example.org/s3cret]"])
    func noMessageShowsTheSecretOfAWebhook(url: String) {
        let yaml = url.hasPrefix("[") ? url : "\"\(url)\""
        let faults = #expect(throws: ConfigurationFaults.self) { try read("alerts: { webhook: \(yaml) }").get() }
        #expect(faults?.all.map(\.key) == ["alerts.webhook"])
        #expect(faults?.description.contains("s3cret") == false)
    }

    @Test func socketsHaveModesAndGroups() throws {
        let outcome = try read(
            """
            listen:
              policy: ["unix:/a", { unix: /b, mode: "0640" }, { unix: /c, group: postfix }]
              admin: unix:/d
            """
        ).get()
        #expect(
            outcome.configuration.listen.policy == [
                .unix(path: "/a", mode: 0o666, group: nil), .unix(path: "/b", mode: 0o640, group: nil),
                .unix(path: "/c", mode: 0o666, group: "postfix"),
            ])
        #expect(outcome.configuration.listen.admin == .unix(path: "/d", mode: 0o660, group: nil))
    }

    /// Keys for all limits apply to each limit that does not set its own, wherever they are in the file.
    @Test func limitsInheritKeyForms() throws {
        let outcome = try read(
            """
            limits:
              - { name: a, key: client_address, rates: 1/1m }
              - { name: b, key: client_address, rates: 1/1m, keys: { ipv4_prefix: 16 } }
            keys: { ipv4_prefix: 24, ipv6_prefix: 56 }
            """
        ).get()
        #expect(outcome.configuration.limits.map(\.key.forms.ipv4Prefix) == [24, 16])
        #expect(outcome.configuration.limits.map(\.key.forms.ipv6Prefix) == [56, 56])
    }

    /// The indexes in compiled conditions and keys refer to the attribute names of the same configuration.
    @Test func attributesAreIndexed() throws {
        let outcome = try read(
            "limits: [{ name: a, key: [tls_sni, sasl_domain], rates: 1/1m, when: { stress: present } }]"
        ).get()
        let limit = outcome.configuration.limits[0]
        let names = outcome.configuration.attributeNames.names
        #expect(limit.key.parts.map { names[$0.attribute] } == ["tls_sni", "sasl_username"])
        #expect(limit.conditions.map { names[$0.part.attribute] } == ["stress"])
    }

    @Test func faultsKeepTheirWarnings() throws {
        let faults = #expect(throws: ConfigurationFaults.self) {
            try read("limits: [{ name: a, key: sender, rates: 1/1x }]").get()
        }
        #expect(faults?.all.map(\.key) == ["limits[0].rates"])
        #expect(faults?.warnings.map(\.key) == ["limits[0].key"])
    }
}

@Suite struct ConfigurationReportTests {
    private func report(_ yaml: String) -> ConfigurationReport {
        ConfigurationReport(read(yaml), path: "weir.yaml")
    }

    @Test func json() throws {
        let bad = try #require(
            try JSONSerialization.jsonObject(with: Data(try report("on_failure: perhaps").json().utf8))
                as? [String: Any])
        #expect(bad["valid"] as? Bool == false)
        let fault = try #require((bad["faults"] as? [[String: Any]])?.first)
        #expect(fault["line"] as? Int == 1)
        #expect(fault["column"] as? Int == 13)
        #expect(fault["key"] as? String == "on_failure")
        let good = try #require(
            try JSONSerialization.jsonObject(
                with: Data(try report("limits: [{ name: a, key: sasl_username, rates: 1/1m }]").json().utf8))
                as? [String: Any])
        #expect(good["valid"] as? Bool == true)
        #expect(good["limits"] as? [String] == ["a"])
        #expect(good["policy"] as? [String] == ["inet:127.0.0.1:10040"])
    }

    @Test func colour() {
        let report = report("on_failure: perhaps")
        #expect(report.diagnostics(inColour: true).hasPrefix("\u{1b}[1;31mweir.yaml:1:13\u{1b}[0m: on_failure: "))
        #expect(!report.diagnostics(inColour: false).contains("\u{1b}"))
    }
}
