// SPDX-License-Identifier: Apache-2.0
import MailSyntax
import Testing

/// `test_addresses.py` compares the same with Postfix, for thousands of arguments.
@Suite struct EnvelopeAddressTests {
    @Test(arguments: [
        ("<user@example.org>", "user@example.org"), ("user@example.org", "user@example.org"),
        ("<>", ""), ("", ""), ("<", "<"), ("< >", ""), ("<()>", ""),
        // Quotes and escapes
        ("<\"user\"@example.org>", "user@example.org"), ("<us\\er@example.org>", "user@example.org"),
        ("<\"a b\"@example.org>", "a b@example.org"), ("<\"a\\\"b\"@example.org>", "a\"b@example.org"),
        ("<\"a@b\"@example.org>", "a@b@example.org"), ("<a\\@b@example.org>", "a@b@example.org"),
        ("<\"a\tb\"@example.org>", "a b@example.org"), ("<\"a", "<a"), ("<\"a>", "a"), ("<a\\>", "a"),
        ("<\"\"@example.org>", "@example.org"),
        // Blanks, phrases and comments
        ("<user @ example.org>", "user@example.org"), ("<user@example.org (1)>", "user@example.org"),
        ("<user(a(b)\\))@example.org>", "user@example.org"), ("<\"N\" <user@example.org>>", "user@example.org"),
        ("Some Name <user@example.org>", "user@example.org"), ("<user@example.org> (1)", "user@example.org"),
        ("<user@example.org(>", "user@example.org"),
        // Brackets
        ("<<user@example.org>>", "user@example.org"), ("<<<user@example.org>>>", "user@example.org>"),
        ("<user@example.org", "<user@example.org"), ("user@example.org>", "user@example.org"),
        // Source routes
        ("<@a,@b:user@example.org>", "user@example.org"), ("<@a:@b:user@example.org>", "@b:user@example.org"),
        ("@a:user@example.org", "user@example.org"),
        // Domain literals
        ("<user@[192.0.2.1]>", "user@[192.0.2.1]"), ("<user@[192.0.2.1>", "user@[192.0.2.1]"),
        ("<user@[a\\]b]>", "user@[a]b]"),
        // Groups and lists
        ("<undisclosed-recipients:;>", ""), ("<Group: user@example.org;>", "user@example.org"),
        ("<a@example.org, b@example.org>", "b@example.org"), ("<a b@example.org>", "b@example.org"),
        ("<a:b@example.org>", "a:b@example.org"),
        // Operators
        ("<a%b@example.org>", "a%b@example.org"), ("<a!b>", "a!b"), ("<a|b@example.org>", "a|b@example.org"),
        ("<user@example.org.>", "user@example.org."), ("<@>", "@"), ("<user@>", "user@"),
        ("<gr\u{fc}n@example.org>", "gr\u{fc}n@example.org"),
    ])
    func internalForm(argument: String, expected: String) {
        #expect(String(decoding: EnvelopeAddress.internalForm(of: Array(argument.utf8)), as: UTF8.self) == expected)
    }

    /// The macro {mail_addr} and the argument of MAIL; what the policy server gets.
    @Test(arguments: [
        // Probes
        ("probe@mx.example.org", "<probe4LZ2@mx.example.org>", "probe@mx.example.org"),
        ("probe@mx.example.org", "<\"Probe4lz2\"@MX.example.org>", "Probe@MX.example.org"),
        ("\"a b\"@mx.example.org", "<\"a b4LZ2\"@mx.example.org>", "a b@mx.example.org"),
        ("probe", "<probe1>", "probe"),
        // Case
        ("probe@mx.example.org", "<PROBE@MX.example.org>", "PROBE@MX.example.org"),
        // What else resolving changes
        ("user@example.org", "<user@example.org.>", "user@example.org."),
        ("user@c.example", "<user%c.example@mx.example.org>", "user%c.example@mx.example.org"),
        ("user@mx.example.org", "<user>", "user"), ("user@mx.example.org", "<users>", "users"),
        ("user@example.org", "<user+1@example.org>", "user+1@example.org"),
        ("user@example.org", "<user1@example.com>", "user1@example.com"),
        // No macro, and the null reverse-path
        ("", "<user1@example.org>", "user1@example.org"), ("", "<>", ""),
    ])
    func sender(resolved: String, argument: String, expected: String) {
        let sender = EnvelopeAddress.sender(of: Array(argument.utf8), resolved: Array(resolved.utf8))
        #expect(String(decoding: sender, as: UTF8.self) == expected)
    }

    @Test(arguments: [
        ("", "<>"), ("user@example.org", "<user@example.org>"), ("a b@example.org", "<\"a b\"@example.org>"),
        ("a..b@example.org", "<\"a..b\"@example.org>"), (".a@example.org", "<\".a\"@example.org>"),
        ("a.@example.org", "<\"a.\"@example.org>"), ("@example.org", "<\"\"@example.org>"),
        ("a@b@example.org", "<\"a@b\"@example.org>"), ("a\"\\b@example.org", "<\"a\\\"\\\\b\"@example.org>"),
        ("@b:a b@example.org", "<@b:\"a b\"@example.org>"), ("user@[192.0.2.1]", "<user@[192.0.2.1]>"),
        ("gr\u{fc}n@example.org", "<gr\u{fc}n@example.org>"), ("a%b!c@example.org", "<a%b!c@example.org>"),
    ])
    func argument(internalForm: String, expected: String) {
        #expect(String(decoding: EnvelopeAddress.argument(Array(internalForm.utf8)), as: UTF8.self) == expected)
    }
}
