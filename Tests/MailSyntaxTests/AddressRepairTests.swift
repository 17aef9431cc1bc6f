// SPDX-License-Identifier: Apache-2.0
import MailSyntax
import Testing

@Suite struct AddressRepairTests {
    /// The new argument with the repairs, `-` without a repair, `!` and the reason for a hopeless one.
    private func repair(_ argument: String, _ chosen: [AddressRepair]) -> String {
        var repairer = AddressRepairer(AddressRepairs(chosen))
        repairer.hostName = Array("mx.example.org".utf8)
        repairer.hostAddress = Array("192.0.2.25".utf8)
        switch repairer.repair(Array(argument.utf8)) {
        case .unchanged: return "-"
        case .hopeless(let reason): return "! \(reason)"
        case .repaired(let new, let repairs):
            return "\(String(decoding: new, as: UTF8.self)) \(repairs)"
        }
    }

    @Test(arguments: [
        ("<user@example.org>", "-"), ("<>", "-"), ("< >", "-"), ("<user>", "-"), ("<\"a b\"@example.org>", "-"),
        ("<a..b@example.org>", "-"), ("<gr\u{fc}n@example.org>", "-"), ("<a:b@example.org>", "-"),
        ("user@example.org", "<user@example.org> brackets"),
        ("<<user@example.org>>", "<user@example.org> brackets"),
        ("<<<user@example.org>>>", "<user@example.org> brackets"),
        ("<@a,@b:user@example.org>", "<user@example.org> source_route"),
        ("<Some Name <user@example.org>>", "<user@example.org> phrase"),
        ("<\"N\" <user@example.org>>", "<user@example.org> phrase"),
        ("<user@example.org (1)>", "<user@example.org> comment"),
        ("<user @ example.org>", "<user@example.org> blanks"),
        ("<Group: user@example.org;>", "<user@example.org> group"),
        ("<\"user\"@example.org>", "<user@example.org> quotes"),
        ("<us\\er@example.org>", "<user@example.org> quotes"),
        ("<user@example.org.>", "<user@example.org> trailing_dot"),
        ("<User@Example.ORG>", "<User@example.org> domain_case"),
        ("<user@localhost>", "<user@mx.example.org> local_domain"),
        ("<user@[192.0.2.25]>", "<user@mx.example.org> local_domain"), ("<user@[192.0.2.1]>", "-"),
        ("<user%example.com>", "<user@example.com> percent_route"),
        ("<user%example.com@mx.example.org>", "<user@example.com> percent_route"),
        ("<user%example.com@example.org>", "-"), ("<\"user%example.com\">", "<user%example.com> quotes"),
        ("<example.com!user>", "<user@example.com> bang_route"),
        ("<a.example!b!user>", "<b!user@a.example> bang_route"),
        ("<@a:\"user\" @ Example.org.>", "<user@example.org> source_route, blanks, quotes, trailing_dot, domain_case"),
        ("<user@\"exam ple\".org>", "-"), ("user@[19@[127.0.@localhost0.1]", "-"),
    ])
    func repair(argument: String, expected: String) {
        #expect(repair(argument, AddressRepair.allCases) == expected)
    }

    @Test(arguments: [
        ("<user@>", "! no domain after the @"), ("<@example.org>", "! nothing before the @"),
        ("<a@b@example.org>", "! more than one @"), ("<a@example.org, b@example.org>", "! more than one address"),
        ("<a b@example.org>", "! more than one address"), ("<undisclosed-recipients:;>", "! no address"),
        ("<user@example.org", "! unbalanced brackets, quotes or parentheses"),
        ("<\"user@example.org>", "! unbalanced brackets, quotes or parentheses"),
        ("<user(@example.org>", "! unbalanced brackets, quotes or parentheses"),
        ("<user)@example.org>", "! unbalanced brackets, quotes or parentheses"),
    ])
    func hopeless(argument: String, expected: String) {
        #expect(repair(argument, []) == expected)
    }

    @Test func onlyWhatIsChosen() {
        #expect(repair("<User@Example.ORG.>", [.domainCase]) == "<User@example.org.> domain_case")
        #expect(repair("<\"user\"@Example.ORG>", [.domainCase]) == "-")
        #expect(repair("<user@localhost>", [.domainCase]) == "-")
        #expect(repair("<user%example.com>", [.bangRoute]) == "-")
    }
}
