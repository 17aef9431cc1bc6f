// SPDX-License-Identifier: Apache-2.0
import Rules
import Testing

@Suite struct TableLintTests {
    @Test func doubtsNameTheirLine() {
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
                "2 never reached: pcre:test:1 decides first",
                "3 catastrophic backtracking: 100000 steps on 42 bytes",
                "4 bad REDIRECT target \"nobody\" -- need user@domain",
                "5 no action: matching mail is deferred",
                "6 unknown command: FROBNICATE",
                "7 can't take the fast pass: the pattern is tried on every key",
            ])
    }
}
