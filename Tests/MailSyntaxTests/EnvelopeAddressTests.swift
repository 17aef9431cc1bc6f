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
