// SPDX-License-Identifier: Apache-2.0
import Limits
import Patterns
import Testing

@Suite struct ConditionTests {
    private func holds(_ name: String, _ test: Condition.Test, _ value: String, forms: KeyForms = KeyForms()) -> Bool {
        var names = AttributeNames()
        let condition = Condition(part: KeyPart(name, in: &names), test: test, forms: forms)
        let attribute =
            ["sender_domain": "sender", "recipient_domain": "recipient", "sasl_domain": "sasl_username"][name] ?? name
        var space: [UInt8] = []
        return withRequest([attribute: value], names: names) {
            condition.holds($0, scratch: MatchScratch(), value: &space)
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
    func presentAndAbsent(name: String, value: String, isPresent: Bool) {
        #expect(holds(name, .present, value) == isPresent)
        #expect(holds(name, .absent, value) == !isPresent)
        #expect(holds(name, .not(.present), value) == !isPresent)
    }

    @Test func equalsComparesCanonicalForms() {
        #expect(holds("sender_domain", equals("Example.ORG.", for: "sender_domain"), "a@EXAMPLE.org"))
        #expect(holds("sasl_username", equals("Alice", for: "sasl_username"), "ALICE"))
        #expect(!holds("sender", equals("Alice@example.org", for: "sender"), "alice@example.org"))
        #expect(holds("helo_name", equals("a.example", "b.example", for: "helo_name"), "B.example"))
        #expect(!holds("helo_name", equals("a.example", for: "helo_name"), ""))
        #expect(holds("protocol_state", equals("RCPT", for: "protocol_state"), "RCPT"))
        #expect(!holds("protocol_state", equals("rcpt", for: "protocol_state"), "RCPT"))
    }

    @Test func equalsComparesWholeClientAddresses() {
        #expect(holds("client_address", equals("2001:db8::1", for: "client_address"), "2001:db8:0::1"))
        #expect(!holds("client_address", equals("2001:db8::1", for: "client_address"), "2001:db8::2"))
        var forms = KeyForms()
        forms.ipv4Prefix = 24
        #expect(
            !holds(
                "client_address", equals("192.0.2.1", for: "client_address", forms: forms), "192.0.2.2", forms: forms))
    }

    @Test(arguments: [
        ("192.0.2.9", true), ("::ffff:192.0.2.9", true), ("2001:db8::1", true), ("198.51.100.1", false),
        ("unknown", false), ("", false),
    ])
    func networks(value: String, expected: Bool) {
        let test = Condition.Test.inNetworks([Network("192.0.2.0/24")!, Network("2001:db8::/32")!])
        #expect(holds("client_address", test, value) == expected)
        #expect(holds("client_address", .not(test), value) == !expected)
    }

    @Test(arguments: [
        ("helo_name", "^mail\\.", "mail.example.org", true), ("helo_name", "^mail\\.", "web.example.org", false),
        ("sender", "^a@", "a@example.org", true), ("sender_domain", "^example\\.org$", "a@Example.org", true),
        ("sender_domain", "@", "a@example.org", false), ("sender_domain", "^$", "postmaster", true),
        ("sasl_username", "^$", "", true),
    ])
    func patterns(name: String, pattern: String, value: String, expected: Bool) throws {
        let test = Condition.Test.matches(try Pattern(Array(pattern.utf8), options: []))
        #expect(holds(name, test, value) == expected)
    }

    @Test(arguments: [
        ("sender", "a@example.org", true), ("sender", "b@example.org", false), ("sender", "c@sub.example.com", true),
        ("sender", "", false),
        ("sender_domain", "x@example.com", true),
    ])
    func tables(name: String, value: String, expected: Bool) {
        let first = LookupTable.text(Array("a@example.org OK\nb@example.org dunno\n".utf8)).table
        let second = LookupTable.text(Array("b@example.org OK\nexample.com OK\n".utf8)).table
        #expect(holds(name, .inTables([first, second]), value) == expected)
    }
}
