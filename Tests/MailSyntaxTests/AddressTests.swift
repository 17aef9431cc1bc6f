// SPDX-License-Identifier: Apache-2.0
import MailSyntax
import Testing

@Suite struct AddressTests {
    private func canonical(_ text: String, delimiters: String = "") -> String {
        let address = Array(text.utf8).withUnsafeBytes { CanonicalAddress($0, delimiters: Array(delimiters.utf8)) }
        let local = String(decoding: address.localPart, as: UTF8.self)
        return address.domain.isEmpty ? local : "\(local)@\(String(decoding: address.domain, as: UTF8.self))"
    }

    @Test(arguments: [
        ("user@example.org", "user@example.org"),
        ("User@Example.ORG", "User@example.org"),
        ("user@example.org.", "user@example.org"),
        ("<user@example.org>", "user@example.org"),
        ("@a.example,@b.example:user@example.org", "user@example.org"),
        ("<@a.example:user@example.org>", "user@example.org"),
        ("@a.example:@b.example:user@example.org", "user@example.org"),
        ("a b@Example.org", "a b@example.org"),
        ("\"user\"@example.org", "\"user\"@example.org"),
        ("<\"user\"@Example.org>", "user@example.org"),
        ("<Name <user@example.org>>", "user@example.org"),
        ("postmaster", "postmaster"),
        ("user@[192.0.2.1]", "user@[192.0.2.1]"),
        ("user@[IPv6:2001:db8::1]", "user@[ipv6:2001:db8::1]"),
        ("a@b@example.org", "a@b@example.org"),
        ("@example.org", "@example.org"),
        ("user@", "user"),
        ("user@Example.org@", "user@example.org"), ("user@Example.org@\u{34f}", "user@example.org"),
        ("user@\u{34f}", "user"), ("user@@", "user"),
        ("@@", ""),
        ("user@.", "user@."),
        ("<>", ""),
        ("<", "<"),
        ("", ""),
    ])
    func canonicalForm(text: String, expected: String) {
        #expect(canonical(text) == expected)
    }

    /// A stranger can send 64 KiB. Folding costs at most the square of a label's length for each label of 1 KiB.
    @Test func longNamesStayAsTheyAreButForASCII() {
        let longest = "\u{dc}." + String(repeating: "a.", count: 510) + "A"
        #expect(longest.utf8.count == InternationalText.longest)
        let folded = String(decoding: CanonicalAddress.folded(Array(longest.utf8)), as: UTF8.self)
        #expect(folded == "xn--tda." + String(repeating: "a.", count: 510) + "a")
        let tooLong = String(decoding: CanonicalAddress.folded(Array((longest + "A").utf8)), as: UTF8.self)
        #expect(tooLong == "\u{dc}." + String(repeating: "a.", count: 510) + "aa")
        let login = Array(String(repeating: "\u{dc}", count: 513).utf8)
        #expect(InternationalText.folded(login) == login)
        #expect(InternationalText.composed(login) == login)
        // The longest label, in the order that takes longest.
        #expect(Punycode((0..<63).map { 0x4e00 + 97 * (62 - $0) }).steps == 63 + 63 * 2 * 63)
    }

    /// Postfix's split_addr.c.
    @Test(arguments: [
        ("user+tag@example.org", "+", "user@example.org"),
        ("user+a+b@example.org", "+", "user@example.org"),
        ("user-a+b@example.org", "+-", "user@example.org"),
        ("user+tag@example.org", "-", "user+tag@example.org"),
        ("<\"user+tag\"@example.org>", "+", "user@example.org"),
        ("+tag@example.org", "+", "+tag@example.org"),
        ("+a+b@example.org", "+", "+a+b@example.org"),
        ("user+@example.org", "+", "user@example.org"),
        ("Mailer-Daemon@example.org", "-", "Mailer-Daemon@example.org"),
        ("double-bounce@example.org", "-", "double-bounce@example.org"),
        ("owner-list@example.org", "-", "owner-list@example.org"),
        ("Owner-list+x@example.org", "+-", "Owner-list+x@example.org"),
        ("list-request@example.org", "-", "list-request@example.org"),
        ("-request@example.org", "-", "-request@example.org"),
        ("owner-list+x@example.org", "+", "owner-list@example.org"),
        ("user@sub+domain.example", "+", "user@sub+domain.example"),
    ])
    func addressExtension(text: String, delimiters: String, expected: String) {
        #expect(canonical(text, delimiters: delimiters) == expected)
    }

    @Test(arguments: [
        ("Example.ORG", "example.org"), ("example.org.", "example.org"), (".", "."), ("", ""), ("a..", "a"),
        ("\u{c4}.example", "xn--4ca.example"), ("\u{c4}@\u{c4}.example", "\u{e4}@\u{e4}.example"),
        ("\u{c4}\u{2028}b.example", "\u{e4}\u{2028}b.example"),
    ])
    func foldedDomain(text: String, expected: String) {
        #expect(CanonicalAddress.folded(Array(text.utf8)) == Array(expected.utf8))
    }
}
