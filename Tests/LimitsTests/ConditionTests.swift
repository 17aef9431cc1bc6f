// SPDX-License-Identifier: Apache-2.0
import Limits
import Patterns
import Testing

@Suite struct ConditionTests {
    private func holds(
        _ name: String, _ test: Condition.Test, _ value: String, forms: KeyForms = KeyForms()
    ) throws -> Bool {
        var names = AttributeNames()
        let condition = Condition(part: KeyPart(name, in: &names), test: test, forms: forms)
        let attribute =
            ["sender_domain": "sender", "recipient_domain": "recipient", "sasl_domain": "sasl_username"][name] ?? name
        var space: [UInt8] = []
        return try withRequest([attribute: value], names: names) {
            try condition.holds($0, scratch: MatchScratch(limits: Condition.matchLimits), value: &space)
        }
    }

    private func equals(_ texts: String..., for name: String, forms: KeyForms = KeyForms()) -> Condition.Test {
        var names = AttributeNames()
        let part = KeyPart(name, in: &names)
        return .equals(texts.map { Condition.canonical($0, for: part, forms: forms) })
    }

    @Test(arguments: [
        ("sasl_username", "alice", true), ("sasl_username", "", false), ("sender_domain", "a@example.org", true),
        ("sender_domain", "postmaster", false), ("sender_domain", "", false), ("client_address", "unknown", true),
    ])
    func presentAndAbsent(name: String, value: String, isPresent: Bool) throws {
        #expect(try holds(name, .present, value) == isPresent)
        #expect(try holds(name, .absent, value) == !isPresent)
        #expect(try holds(name, .not(.present), value) == !isPresent)
    }

    @Test func equalsComparesCanonicalForms() throws {
        #expect(try holds("sender_domain", equals("Example.ORG.", for: "sender_domain"), "a@EXAMPLE.org"))
        #expect(try holds("sasl_username", equals("Alice", for: "sasl_username"), "ALICE"))
        #expect(try !holds("sender", equals("Alice@example.org", for: "sender"), "alice@example.org"))
        #expect(try holds("helo_name", equals("a.example", "b.example", for: "helo_name"), "B.example"))
        #expect(try !holds("helo_name", equals("a.example", for: "helo_name"), ""))
        #expect(try holds("protocol_state", equals("RCPT", for: "protocol_state"), "RCPT"))
        #expect(try !holds("protocol_state", equals("rcpt", for: "protocol_state"), "RCPT"))
    }

    @Test func equalsComparesWholeClientAddresses() throws {
        #expect(try holds("client_address", equals("2001:db8::1", for: "client_address"), "2001:db8:0::1"))
        #expect(try !holds("client_address", equals("2001:db8::1", for: "client_address"), "2001:db8::2"))
        var forms = KeyForms()
        forms.ipv4Prefix = 24
        #expect(
            try !holds(
                "client_address", equals("192.0.2.1", for: "client_address", forms: forms), "192.0.2.2", forms: forms))
    }

    @Test(arguments: [
        ("192.0.2.9", true), ("::ffff:192.0.2.9", true), ("2001:db8::1", true), ("198.51.100.1", false),
        ("unknown", false), ("", false),
    ])
    func networks(value: String, expected: Bool) throws {
        let test = Condition.Test.inNetworks([Network("192.0.2.0/24")!, Network("2001:db8::/32")!])
        #expect(try holds("client_address", test, value) == expected)
        #expect(try holds("client_address", .not(test), value) == !expected)
    }

    @Test(arguments: [
        ("helo_name", "^mail\\.", "mail.example.org", true), ("helo_name", "^mail\\.", "web.example.org", false),
        ("sender", "^a@", "a@example.org", true), ("sender_domain", "^example\\.org$", "a@Example.org", true),
        ("sender_domain", "@", "a@example.org", false), ("sender_domain", "^$", "postmaster", true),
        ("sasl_username", "^$", "", true),
    ])
    func patterns(name: String, pattern: String, value: String, expected: Bool) throws {
        let test = Condition.Test.matches(try Pattern(Array(pattern.utf8), options: []))
        #expect(try holds(name, test, value) == expected)
    }

    @Test(arguments: [
        ("sender", "a@example.org", true), ("sender", "b@example.org", false), ("sender", "c@sub.example.com", true),
        ("sender", "", false),
        ("sender_domain", "x@example.com", true),
    ])
    func tables(name: String, value: String, expected: Bool) throws {
        let first = LookupTable.text(Array("a@example.org OK\nb@example.org dunno\n".utf8)).table
        let second = LookupTable.text(Array("b@example.org OK\nexample.com OK\n".utf8)).table
        #expect(try holds(name, .inTables([first, second]), value) == expected)
    }

    /// Whether a pattern gave up is neither a match nor none, and `not` does not change that.
    @Test(arguments: [("sender", "((x+)+)+y"), ("sender_domain", "^(x+x+)+y"), ("helo_name", "^(x+x+)+y")])
    func patternsThatGiveUp(name: String, pattern: String) throws {
        let test = Condition.Test.matches(try Pattern(Array(pattern.utf8), options: []))
        let value = (name == "sender_domain" ? "a@" : "") + String(repeating: "x", count: 60) + "-y"
        #expect(throws: UndecidedCondition.self) { try holds(name, test, value) }
        #expect(throws: UndecidedCondition.self) { try holds(name, .not(test), value) }
    }

    /// The pattern of a limit gives up: the limit does not apply, whether or not the condition is negated, and says so.
    @Test(arguments: [true, false])
    func anUndecidedLimitDoesNotApply(isNegated: Bool) throws {
        let matches = Condition.Test.matches(try Pattern(Array("^(x+x+)+y".utf8), options: []))
        let harness = try LedgerHarness {
            [
                $0.limit(rates: ["1/1h"], when: [("helo_name", isNegated ? .not(matches) : matches)]),
                $0.limit("all", rates: ["100/1h"]),
            ]
        }
        let observer = UndecidedObserver()
        harness.ledger.observer = observer
        for number in 0..<3 {
            let odd = ["helo_name": String(repeating: "x", count: 60) + "-y"]
            #expect(try harness.ask(rcpt("m\(number)", to: "a@example.org", more: odd)) == nil)
        }
        #expect(observer.attributes == ["helo_name", "helo_name", "helo_name"])
        #expect(harness.ledger.limits.map(\.undecided) == [3, 0])
        #expect(harness.used("user", limit: "per-user") == [])
        #expect(harness.used("user", limit: "all") == [3])
    }
}
