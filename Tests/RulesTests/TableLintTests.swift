// SPDX-License-Identifier: Apache-2.0
import Rules
import Testing

@Suite struct TableLintTests {
    @Test func findingsNameTheirLine() {
        let list = RuleList(tables: [
            table(
                """
                /spam/ REJECT
                /spam/ DUNNO
                /^aa(a+)+$/ WARN slow
                /eggs/ REDIRECT nobody
                /ham/
                /bacon/ FROBNICATE
                /(a)(?1)/ DUNNO
                if /tea/
                /spam/ DUNNO
                endif
                """)
        ])
        #expect(
            list.lint(isBody: true).map { "\($0.line ?? 0) \($0.message)" } == [
                "2 never reached: pcre:test:1 matches first",
                "3 catastrophic backtracking: more than 100000 steps on 136 bytes",
                "4 bad REDIRECT target \"nobody\" -- need user@domain",
                "5 no action: matching mail is deferred",
                "6 unknown command: FROBNICATE",
                "7 the fast pass can't include this pattern: it is tried on every body line",
                "9 never reached: pcre:test:1 matches first",
            ])
    }

    @Test func textAfterNULIsIgnored() {
        let table = table("/a/ REJECT b\0 hidden\n/c/ WARN\n\0/d/ REJECT")
        let warning = "text after null byte may be ignored"
        #expect(table.warnings.map { "\($0.line ?? 0) \($0.message)" } == ["1 \(warning)", "3 \(warning)"])
    }

    /// Rules for the Received: header that the MTA adds. A milter does not see that header.
    @Test(arguments: [
        ("/^Received:.*with ESMTPSA/ IGNORE", true), ("/^\\s*Received:/ REPLACE X: y", true),
        ("/^received: from/ IGNORE", true),
        ("/^(Received|X-Mailer):/ IGNORE", true), ("/^(X-Mailer|Received):/ IGNORE", true),
        ("/Received: from .*localhost/ IGNORE", true), ("/^X-A:|^Received:/ IGNORE", true),
        ("/^X-A: (a|Received: b)/ IGNORE", false), ("/x Received: b/ IGNORE", false),
        ("/^[Rr]eceived:/ IGNORE", true), ("/^Received\\s*:/ REJECT", true),
        ("if /^Received:/\n/./ IGNORE\nendif", true),
        ("/^Received-SPF:/ IGNORE", false), ("/^X-Received:/ IGNORE", false), ("/Received/ IGNORE", false),
        ("if !/^Received:/\n/a/ IGNORE\nendif", false), ("!/^Received:/ WARN", false), ("/^Received/ IGNORE", true),
    ])
    func rulesOnReceived(rules: String, isNamed: Bool) {
        #expect(RuleList(tables: [table(rules)]).rulesOnReceived.map(\.rule) == (isNamed ? [0] : []))
    }

    @Test(
        arguments: [
            ("/^Bcc:/ IGNORE", "Bcc"), ("/^(To|Cc|Bcc): .*spam/ REJECT", "Bcc"),
            ("/Return-Path: <x>/ REJECT", "Return-Path"), ("/^[Cc]ontent-[Ll]ength:/ IGNORE", "Content-Length"),
            ("if /^(?:(Resent-)?To|Resent-Bcc):/\n/x/ OK\nendif", "Resent-Bcc"),
            ("/^X-Bcc:/ IGNORE", nil), ("/^Subject: Bcc:/ IGNORE", nil), ("!/^Bcc:/ WARN", nil),
            ("/^Bccx?:/ IGNORE", nil),
            ("/^To: .*[|]Bcc:/ WARN", nil), ("/^((((((((((Bcc))))))))))/ WARN", nil),
        ] as [(String, String?)])
    func rulesOnDroppedHeaders(rules: String, name: String?) {
        let found = RuleList(tables: [table(rules)]).rulesOnDroppedHeaders
        #expect(found.map(\.name) == [name].compactMap(\.self))
    }

    @Test(arguments: [
        ("(x+x+)+y", true), ("([\\w.-]+)+@", true), ("(=+)*$", true), ("(?:q|q)*z", true),
        ("^Subject: (?:foo|bar)+ x$", false),
        ("[\\w.-]+@[\\w.-]+", false), ("^(?:[a-z]+ )+spam", false),
    ])
    func catastrophicPatterns(pattern: String, isNamed: Bool) {
        let faults = RuleList(tables: [table("/\(pattern)/ REJECT")]).lint(isBody: true)
        #expect(faults.contains { $0.message.hasPrefix("catastrophic") } == isNamed, "\(faults)")
    }

    /// `i` turns off what is on by default.
    @Test func flagForCase() {
        let list = RuleList(tables: [
            table(
                "/^Subject: spam/ DUNNO\n/^[0-9]\\d+$/i WARN\n/^From: a/i WARN\n/(?i)b/i WARN\n"
                    + "if /c/i\n/d/ii WARN\nendif\n"
            )
        ])
        #expect(
            list.lint(isBody: false).filter { $0.message.contains("flag i") }.map { "\($0.line ?? 0) \($0.message)" }
                == [
                    "3 the flag i makes this pattern case-sensitive; without it, case is ignored; "
                        + "the same holds for 1 more of this table"
                ])
    }

    /// POSIX knows few of Perl's escapes, and none in brackets.
    @Test(
        arguments: [
            ("^Subject: \\d{5}", "\\d is the letter d in a regexp: table; only pcre: knows it"),
            ("[\\w.-]+@", "\\w in brackets is a backslash or the letter w in a regexp: table; only pcre: knows it"),
            ("[^]\\s]", "\\s in brackets is a backslash or the letter s in a regexp: table; only pcre: knows it"),
            ("\\\\d", nil), ("\\w+\\s*\\bfoo\\B\\.", nil), ("[[:digit:]]\\.[]a\\]b", nil), ("[[:digit:]x\\.]b", nil),
        ] as [(String, String?)])
    func escapesOfPerl(pattern: String, message: String?) {
        for (type, expected) in [(TableType.regexp, message), (.pcre, nil)] {
            let faults = RuleList(tables: [table("/\(pattern)/ WARN", type: type)]).lint(isBody: false)
            #expect(faults.map(\.message).filter { $0.contains("only pcre:") } == [expected].compactMap(\.self))
        }
    }

    /// Codes that Postfix would not use as written.
    @Test(
        arguments: [
            ("REJECT 450 4.7.1 x", "450 is not a status code for REJECT: the reply is \"550 5.7.1 450 4.7.1 x\""),
            ("REJECT 2.1.1 x", "2.1.1 is not a status code for REJECT: the reply is \"451 4.1.1 x\""),
            ("REJECT 5.7 x", "5.7 is not a status code for REJECT: the reply is \"550 5.7.1 5.7 x\""),
            ("REJECT 4.7.1 later", nil), ("REJECT 5.7.1", nil), ("REJECT 3 strikes", nil), ("REJECT 1000 copies", nil),
            ("REJECT", nil),
        ] as [(String, String?)])
    func codesOfRefusals(action: String, message: String?) {
        let faults = RuleList(tables: [table("/a/ \(action)")]).lint(isBody: false)
        #expect(faults.map(\.message) == [message].compactMap(\.self))
    }

    @Test func byteOrderMarkIsReported() {
        let faults = RuleList(tables: [table("\u{feff}# rules\n/spam/ REJECT")]).lint(isBody: true)
        #expect(
            faults.map { "\($0)" } == [
                "pcre map test, line 1: the file begins with a UTF-8 byte order mark, "
                    + "so the first line is not read as it looks"
            ])
    }

    /// The line that shadows the last one; nil in tables that only look as if one did.
    @Test(arguments: [
        ("/viagra/ REJECT\n/buy viagra now/ REJECT", 1),
        ("/viagra/ REJECT\n/buy (cheap )?VIAGRA.*now/ REJECT", 1),
        ("/viagra/ REJECT\n/(viagra)/ REJECT", 1),
        ("/^Received:/ IGNORE\n/^Received: from mail\\.example/ REJECT", 1),
        ("/^X-A\\./ IGNORE\n/^X-A\\.b[0-9]/ REJECT", 1),
        ("/./ DUNNO\n/^/ WARN\n/[0-9]/ REJECT", 2),
        ("// DUNNO\n!/a/ REJECT", nil),
        ("// DUNNO\nif /b/\n/a/ REJECT\nendif", 1),
        ("/abc/A WARN\n/^abcd/ REJECT", 1),
        ("/Free/i WARN\n/Free/i REJECT", 1),
        ("/Free/i WARN\n/a Free b/i REJECT", 1),
        // The last rule can match without the earlier one.
        ("/viagra/ REJECT\n/buy (viagra)? now/ REJECT", nil),
        ("/viagra/ REJECT\n/viagr.a/ REJECT", nil),
        ("/viagra/ REJECT\n/viagra*/ REJECT", nil),
        ("/viagra/ REJECT\n/buy|viagra/ REJECT", nil),
        ("/viagra/ REJECT\n/viagra|buy/ REJECT", nil),
        ("/^viagra/ REJECT\n/viagra now/ REJECT", nil),
        ("/abc/A WARN\n/abcd/ REJECT", nil),
        ("/viagra$/ REJECT\n/viagra now/ REJECT", nil),
        ("/viagra(?! ok)/ REJECT\n/viagra ok/ REJECT", nil),
        ("/^+viagra/ REJECT\n/a viagra/ REJECT", nil),
        ("/\\bviagra/ REJECT\n/xviagra/ REJECT", nil),
        ("/Free/i WARN\n/free stuff/ REJECT", nil),
        ("/Free/i WARN\n/FREE stuff/i REJECT", nil),
        ("!/viagra/ REJECT\n/viagra now/ REJECT", nil),
        ("if /x/\n/viagra/ REJECT\nendif\n/viagra now/ REJECT", nil),
        ("/^b/m WARN\n/^bc/ REJECT", nil),
    ]) func shadows(content: String, decider: Int?) {
        let faults = RuleList(tables: [table(content)]).lint(isBody: false).filter {
            $0.message.hasPrefix("never reached")
        }
        #expect(faults.map(\.message) == (decider.map { ["never reached: pcre:test:\($0) matches first"] } ?? []))
    }

    /// A rule that is reported as shadowed never decides, whatever the key.
    @Test func shadowedRulesNeverDecide() {
        var random = Numbers(state: 20)
        var shadowed = 0
        for _ in 0..<3_000 {
            let patterns = (0..<4).map { _ in Self.pattern(&random) }
            let list = RuleList(tables: [table(patterns.map { "\($0) WARN\n" }.joined())])
            let lines = Set(list.lint(isBody: true).filter { $0.message.hasPrefix("never reached") }.compactMap(\.line))
            shadowed += lines.count
            for _ in 0..<20 {
                let key = (0..<Int.random(in: 0...6, using: &random)).map { _ in
                    UInt8(ascii: ["a", "b", "A"].randomElement(using: &random)!)
                }
                let match = key.withUnsafeBytes { Matcher().firstMatch($0, in: list) }
                if let match { #expect(!lines.contains(list.location(of: match.rule).line), "\(patterns) \(key)") }
            }
        }
        #expect(shadowed > 200)
    }

    private static func pattern(_ random: inout Numbers) -> String {
        let pieces = ["a", "b", "A", "^", "$", "a", "b", ".", "(a)", "a?", "|", "(?!b)", "\\b", "a*", "b+", "^?", "^+"]
        let body = (0..<Int.random(in: 1...4, using: &random)).map { _ in pieces.randomElement(using: &random)! }
            .joined()
        return "/\(body)/\(["", "i", "m", "A"].randomElement(using: &random)!)"
    }
}
