// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct KeyTests {
    /// The key of a request, or nil if the limit does not apply.
    private func key(_ parts: [String], of values: [String: String], forms: KeyForms = KeyForms()) -> String? {
        var names = AttributeNames()
        let definition = KeyDefinition(parts: parts.map { KeyPart($0, in: &names) }, forms: forms)
        var key: [UInt8] = []
        return withRequest(values, names: names) { request in
            definition.build(request, into: &key) ? String(decoding: key, as: UTF8.self) : nil
        }
    }

    @Test(arguments: [
        ("sender", "user@example.org", "user@example.org"),
        ("sender", "User@EXAMPLE.org.", "User@example.org"),
        ("sender", "@relay.example:user@example.org", "user@example.org"),
        ("sender", "a b@example.org", "a b@example.org"),
        ("sender", "<\"a b\"@Example.org>", "a b@example.org"),
        ("sender", "postmaster", "postmaster"),
        ("sender", "", nil),
        ("sender", "<>", nil),
        ("recipient", "b@Example.com", "b@example.com"),
        ("sender_domain", "user@Sub.Example.ORG", "sub.example.org"),
        ("sender_domain", "user@sub.example.org", "sub.example.org"),
        ("sender_domain", "@relay.example:user@example.org", "example.org"),
        ("sender_domain", "user@example.org.", "example.org"),
        ("sender_domain", "user@", nil),
        ("sender_domain", "postmaster", nil),
        ("sender_domain", "", nil),
        ("recipient_domain", "b@example.com.", "example.com"),
        ("sasl_username", "Alice", "alice"),
        ("sasl_username", "Alice@Example.org", "alice@example.org"),
        ("sasl_username", "", nil),
        ("sasl_domain", "alice@example.org", "example.org"),
        ("sasl_domain", "alice", nil),
        ("client_address", "192.0.2.1", "192.0.2.1"),
        ("client_address", "::ffff:192.0.2.1", "192.0.2.1"),
        ("client_address", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("client_address", "unknown", nil),
        ("client_name", "unknown", nil),
        ("client_name", "Mail.Example.ORG.", "mail.example.org"),
        ("client_name", "mail-1.example.org", "mail-1.example.org"),
        ("helo_name", "unknown", "unknown"),
        ("helo_name", "[192.0.2.1]", "[192.0.2.1]"),
        ("helo_name", ".", "."),
        ("client_address", "", nil),
        ("client_name", "Mail.Example.ORG", "mail.example.org"),
        ("helo_name", "HELO.example.", "helo.example"),
        ("policy_context", "Submission", "Submission"),
        ("an_attribute_to_come", "x y|z", "x y|z"),
    ])
    func canonicalForm(name: String, value: String, expected: String?) {
        let attribute =
            ["sender_domain": "sender", "recipient_domain": "recipient", "sasl_domain": "sasl_username"][name] ?? name
        #expect(key([name], of: [attribute: value]) == expected)
    }

    /// Beyond ASCII, one sender has one key: domains in A-labels, logins without distinction of case.
    @Test(arguments: [
        ("sender", "bob@BÜCHER.example", "bob@xn--bcher-kva.example"),
        ("sender", "bob@bu\u{308}cher.example.", "bob@xn--bcher-kva.example"),
        ("sender", "bob@xn--BCHER-kva.example", "bob@xn--bcher-kva.example"),
        ("sender", "bob@bücher\u{3002}example", "bob@xn--bcher-kva.example"),
        ("sender", "bob@b\u{ad}ücher.example", "bob@xn--bcher-kva.example"),
        ("sender", "bob@ｅxample.org", "bob@example.org"),
        ("sender", "Ju\u{308}rgen@example.org", "Jürgen@example.org"),
        ("sender", "JÜRGEN@example.org", "JÜRGEN@example.org"),
        ("recipient_domain", "x@ПРЕЗИДЕНТ.рф", "xn--d1abbgf6aiiy.xn--p1ai"),
        ("sasl_username", "JU\u{308}RGEN", "jürgen"),
        ("sasl_username", "jürgen@FAẞ.example", "jürgen@xn--fa-hia.example"),
        ("helo_name", "MÜNCHEN-Ost.example", "xn--mnchen-ost-9db.example"),
        ("helo_name", "例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("helo_name", String(repeating: "ü", count: 64), String(repeating: "ü", count: 64)),
        ("policy_context", "Ü", "Ü"),
    ])
    func international(name: String, value: String, expected: String) {
        let attribute = name == "recipient_domain" ? "recipient" : name
        #expect(key([name], of: [attribute: value]) == expected)
        // Canonical forms stay as they are.
        if name != "recipient_domain" { #expect(key([name], of: [attribute: expected]) == expected) }
    }

    @Test(arguments: [
        ("client_address", "192.0.2.77", "192.0.2.0/24"), ("client_address", "2001:db8:1:2:3::1", "2001:db8:1::/48"),
        ("sender", "user+tag@example.org", "user@example.org"), ("sender", "User+Tag@Example.org", "User@example.org"),
        ("sasl_username", "Alice", "alice@example.net"),
        ("sasl_username", "Alice+tag@Example.org", "alice@example.org"),
        ("sasl_domain", "alice", "example.net"), ("sender", "postmaster", "postmaster"),
    ])
    func forms(name: String, value: String, expected: String) {
        var forms = KeyForms()
        (forms.ipv4Prefix, forms.ipv6Prefix) = (24, 48)
        forms.recipientDelimiter = Array("+".utf8)
        forms.defaultDomain = Array("example.net".utf8)
        #expect(key([name], of: [name == "sasl_domain" ? "sasl_username" : name: value], forms: forms) == expected)
    }

    /// A key as an administrator writes it is understood as the key that requests have.
    @Test(
        arguments: [
            (["sasl_username"], "Bob", "bob"), (["sasl_username"], "", nil),
            (["sender"], "Alice@Example.ORG", "Alice@example.org"),
            (["sender"], "<alice@example.org>", "alice@example.org"), (["sender"], "<>", nil),
            (["sender_domain"], "Example.ORG.", "example.org"),
            (["sender_domain"], "@example.org", "example.org"), (["sender_domain"], "alice@example.org", nil),
            (["client_address"], "2001:db8::5", "2001:db8::/64"),
            (["client_address"], "2001:DB8::/64", "2001:db8::/64"),
            (["client_address"], "2001:db8::/48", nil), (["client_address"], "192.0.2.7", "192.0.2.7"),
            (["client_address"], "192.0.2.7/32", "192.0.2.7"),
            (["client_address"], "192.0.2.077", nil), (["client_address"], "bob", nil),
            (["client_name"], "unknown", nil),
            (["sasl_username", "client_address"], "Bob|2001:db8::5", "bob|2001:db8::/64"),
            (["sasl_username", "client_address"], "Bob", nil),
            (["sasl_username", "client_address"], "Bob|", nil),
            (["policy_context", "helo_name"], "a\\|b|C.example", "a\\|b|c.example"),
            (["policy_context"], "a|b", "a|b"),
        ] as [([String], String, String?)])
    func meant(parts: [String], text: String, expected: String?) {
        var names = AttributeNames()
        let definition = KeyDefinition(parts: parts.map { KeyPart($0, in: &names) }, forms: KeyForms())
        let key = definition.canonical(Array(text.utf8))
        #expect(key.map { String(decoding: $0, as: UTF8.self) } == expected)
        if let key { #expect(definition.canonical(key) == key) }
    }

    @Test func partsAreKeptApart() {
        let parts = ["policy_context", "helo_name"]
        #expect(key(parts, of: ["policy_context": "a", "helo_name": "b"]) == "a|b")
        #expect(key(parts, of: ["policy_context": "a|b", "helo_name": "c"]) == "a\\|b|c")
        #expect(key(parts, of: ["policy_context": "a", "helo_name": "b|c"]) == "a|b\\|c")
        #expect(key(parts, of: ["policy_context": "a\\", "helo_name": "b"]) == "a\\\\|b")
        #expect(key(parts, of: ["policy_context": "a"]) == nil)
        #expect(key(parts, of: ["helo_name": "b"]) == nil)
    }

    @Test func longKeysAreBoundedAndStayDistinct() throws {
        let start = String(repeating: "a", count: KeyDefinition.longest)
        #expect(key(["policy_context"], of: ["policy_context": start]) == start)
        let one = try #require(key(["policy_context"], of: ["policy_context": start + "1"]))
        let other = try #require(key(["policy_context"], of: ["policy_context": start + "2"]))
        #expect(one.utf8.count == KeyDefinition.longest)
        #expect(one != other)
        #expect(key(["policy_context"], of: ["policy_context": start + "1"]) == one)
    }

    @Test func signatureChangesWithTheMeaningOfCounts() {
        var names = AttributeNames()
        let parts = ["sasl_username", "client_address"].map { KeyPart($0, in: &names) }
        var forms = Array(repeating: KeyForms(), count: 5)
        forms[1].ipv4Prefix = 24
        forms[2].ipv6Prefix = 48
        forms[3].recipientDelimiter = Array("+".utf8)
        forms[4].defaultDomain = Array("example.org".utf8)
        let signatures =
            [
                KeyDefinition(parts: parts.reversed(), forms: KeyForms()),
                KeyDefinition(parts: [parts[0]], forms: KeyForms()),
            ].map(\.signature) + forms.map { KeyDefinition(parts: parts, forms: $0).signature }
        #expect(Set(signatures).count == signatures.count)
        // Settings that affect none of the parts don't change it.
        let helo = [KeyPart("helo_name", in: &names)]
        #expect(Set(forms.map { KeyDefinition(parts: helo, forms: $0).signature }).count == 1)
    }

    /// A part of any length that a client chooses does not push the other parts out of the key.
    @Test(arguments: [
        String(repeating: "x", count: 500), String(repeating: "|", count: 500),
        String(repeating: "x", count: 120) + "|||||||||",
    ])
    func aLongPartKeepsTheOthers(helo: String) throws {
        let built = try #require(
            self.key(["helo_name", "client_address"], of: ["helo_name": helo, "client_address": "192.0.2.1"]))
        #expect(built.hasSuffix("|192.0.2.1"))
        #expect(built.utf8.count <= KeyDefinition.longest)
    }

    @Test(arguments: [
        (["recipient"], true), (["sender", "recipient_domain"], true), (["sender", "recipient_count"], false),
    ])
    func perRecipient(parts: [String], expected: Bool) {
        var names = AttributeNames()
        #expect(
            KeyDefinition(parts: parts.map { KeyPart($0, in: &names) }, forms: KeyForms()).isPerRecipient == expected)
    }
}
