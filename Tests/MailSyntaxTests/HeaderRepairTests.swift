// SPDX-License-Identifier: Apache-2.0
import MailSyntax
import Testing

@Suite struct HeaderRepairTests {
    /// The new value with the repairs of each address, or `-` if nothing changes.
    private func repair(_ value: String, _ chosen: AddressRepairs) -> String {
        let value = Array(value.utf8)
        let changes = HeaderRepairer(chosen).changes(in: value[...])
        var new = value
        for change in changes.reversed() { new.replaceSubrange(change.range, with: change.new) }
        let repairs = changes.map { "\($0.repairs)" }.joined(separator: "; ")
        return changes.isEmpty ? "-" : String(decoding: new, as: UTF8.self) + " | " + repairs
    }

    @Test(arguments: [
        // Nothing to repair.
        ("bob@example.org", "-"), ("Bob <bob@example.org>", "-"), ("", "-"), (" ", "-"), ("<>", "-"), ("bob", "-"),
        ("\"B, b\" <bob@example.org> (c, d)", "-"), ("Group: a@example.org, b@example.org;", "-"),
        ("undisclosed-recipients:;", "-"), ("=?utf-8?q?B=C3=B6b?= <bob@example.org>", "-"),
        ("\"a b\"@example.org", "-"), ("bob@[192.0.2.1]", "-"), ("Gr\u{fc}n <bob@example.org>", "-"),
        // Each repair, alone and with a phrase and comments.
        ("<@a,@b:bob@example.org>", "<bob@example.org> | source_route"),
        ("Bob <@a.example:bob@example.org> (c)", "Bob <bob@example.org> (c) | source_route"),
        ("Bob <<bob@example.org>>", "Bob <bob@example.org> | brackets"),
        ("bob @ example.org", "bob@example.org | blanks"),
        ("Bob < bob@example.org > (c)", "Bob <bob@example.org> (c) | blanks"),
        ("Bob <bob@\n\texample.org>", "Bob <bob@example.org> | blanks"),
        ("\"bob\"@example.org (c)", "bob@example.org (c) | quotes"),
        ("\"Bob\" <\"bob\"@example.org>", "\"Bob\" <bob@example.org> | quotes"),
        ("bob@example.org.", "bob@example.org | trailing_dot"),
        ("Bob <bob@Example.ORG>", "Bob <bob@example.org> | domain_case"),
        ("(x) Bob@EXAMPLE.org (Y)", "(x) Bob@example.org (Y) | domain_case"),
        ("<@a:\"bob\" @ Example.org.>", "<bob@example.org> | source_route, blanks, quotes, trailing_dot, domain_case"),
        // Lists, groups and folds: only what changes.
        (
            "a@example.org,\n\tB <b@Example.org> (D.),\n c@example.org.",
            "a@example.org,\n\tB <b@example.org> (D.),\n c@example.org | domain_case; trailing_dot"
        ),
        (
            "My Friends : a@EXAMPLE.org, \"x;y\" <b@EXAMPLE.com>; , c@example.net.",
            "My Friends : a@example.org, \"x;y\" <b@example.com>; , c@example.net "
                + "| domain_case; domain_case; trailing_dot"
        ),
        ("\"A <a@EXAMPLE.org>\" <b@EXAMPLE.org>", "\"A <a@EXAMPLE.org>\" <b@example.org> | domain_case"),
        ("(A <a@EXAMPLE.org>, \\) (b)) <b@EXAMPLE.org>", "(A <a@EXAMPLE.org>, \\) (b)) <b@example.org> | domain_case"),
        // Not clear enough.
        ("Bob bob@EXAMPLE.org", "-"), ("a@EXAMPLE.org b@EXAMPLE.org", "-"), ("<a@EXAMPLE.org> Bob", "-"),
        ("<a@EXAMPLE.org (c)>", "-"), ("a@b@EXAMPLE.org", "-"), ("@EXAMPLE.org", "-"), ("a@", "-"),
        ("bob(c)@EXAMPLE.org", "-"), ("Bob <a@EXAMPLE.org", "-"), ("a@EXAMPLE.org>", "-"), ("\"a@EXAMPLE.org", "-"),
        ("(a@EXAMPLE.org", "-"), ("a@EXAMPLE.org)", "-"), ("a@[EXAMPLE", "-"), ("a@EXAMPLE.org, b@EXAMPLE.org (", "-"),
        ("a\\", "-"),
        // A vertical tab is no blank for Postfix.
        ("a@x\u{b}.", "a@x\u{b} | trailing_dot"), ("a@x.\u{b}", "-"),
        // One that can't be repaired does not keep others from it.
        ("a@b@EXAMPLE.org, c@EXAMPLE.org", "a@b@EXAMPLE.org, c@example.org | domain_case"),
        // Only in the envelope.
        ("bob@localhost", "-"), ("bob%example.org", "-"), ("example.org!bob", "-"),
    ])
    func repair(value: String, expected: String) {
        #expect(repair(value, AddressRepairs(AddressRepair.allCases)) == expected)
    }

    @Test func onlyWhatIsChosen() {
        let dotted = "a@EXAMPLE.org., b@EXAMPLE.org"
        #expect(repair(dotted, .init([.trailingDot])) == "a@EXAMPLE.org, b@EXAMPLE.org | trailing_dot")
        #expect(repair("\"a\"@EXAMPLE.org", .init([.domainCase])) == "-")
        #expect(HeaderRepairer([]).isActive == false)
    }

    @Test func names() {
        for name in ["From", "to", "CC", "Reply-To", "sender"] { #expect(HeaderRepairer.repairs(Array(name.utf8))) }
        for name in ["", "Bcc", "Subject", "Resent-To", "X-To", "Senders"] {
            #expect(!HeaderRepairer.repairs(Array(name.utf8)))
        }
    }
}
