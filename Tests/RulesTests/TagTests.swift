// SPDX-License-Identifier: Apache-2.0
import Rules
import Testing

/// `# tag: spam` directly above a rule.
@Suite struct TagTests {
    private func tags(_ text: String, _ type: TableType = .pcre) -> [String?] {
        let list = RuleList(tables: [table(text, type: type)])
        return (0..<list.count).map { list.tag(of: $0) }
    }

    private func warnings(_ text: String) -> [String] {
        table(text).warnings.map { "\($0.line ?? 0) \($0.message)" }
    }

    @Test(arguments: TableType.allCases)
    func tagOfTheNextRule(type: TableType) {
        let text = """
            # A comment
            # tag: spam
            /a/ REJECT
            /b/ REJECT
              #TAG:\tnews/letter-2\t
            /c/
                REJECT continued
            # tag: läufer
            !/d/ DUNNO
            if /e/
            # tag: inner
            /f/ WARN
            endif
            # tag: last
            /g/ WARN
            """
        #expect(
            tags(text, type) == ["spam", nil, "news/letter-2", "läufer", nil, "inner", nil, "last"])
        #expect(table(text, type: type).warnings == [])
    }

    /// Each table counts its own lines; rule numbers go on.
    @Test func tablesOfAList() {
        let list = RuleList(tables: [
            table("/a/ WARN\n# tag: one\n/b/ WARN"), table("# tag: two\n/c/ WARN"), table("/d/ WARN"),
        ])
        #expect((0..<4).map { list.tag(of: $0) } == [nil, "one", "two", nil])
    }

    @Test(arguments: [
        ("# tag:\n/a/ WARN", "1 tag \"\" is empty"),
        ("#tag: \n/a/ WARN", "1 tag \"\" is empty"),
        ("# tag: a b\n/a/ WARN", "1 tag \"a b\" has spaces, or characters that are not printable"),
        ("# tag: a\u{a0}b\n/a/ WARN", "1 tag \"a\u{a0}b\" has spaces, or characters that are not printable"),
        ("# tag: a\u{1}b\n/a/ WARN", "1 tag \"a?b\" has spaces, or characters that are not printable"),
        ("# tag: a\u{202e}b\n/a/ WARN", "1 tag \"a?b\" has spaces, or characters that are not printable"),
        (
            "# tag: \(String(repeating: "x", count: 65))\n/a/ WARN",
            "1 tag \"\(String(repeating: "x", count: 64))...\" is longer than 64 bytes"
        ),
    ])
    func badTag(text: String, warning: String) {
        #expect(warnings(text) == [warning])
        #expect(tags(text) == [nil])
    }

    @Test func longestTag() {
        let tag = String(repeating: "x", count: 64)
        #expect(tags("# tag: \(tag)\n/a/ WARN") == [tag])
    }

    @Test func bytesThatAreNotUTF8() {
        let content = Array("# tag: a".utf8) + [0xff] + Array("\n/a/ WARN\n".utf8)
        let table = Table(type: .pcre, path: "test", content: content)
        #expect(table.warnings.map(\.line) == [1])
        #expect(RuleList(tables: [table]).tag(of: 0) == nil)
    }

    /// The last one counts.
    @Test func twoInARow() {
        let text = "# tag: one\n# tag: two\n/a/ WARN"
        #expect(warnings(text) == ["1 tag \"one\" is not used: another tag follows"])
        #expect(tags(text) == ["two"])
    }

    @Test func tagsOfNoRule() {
        let text = """
            # tag: blank

            /a/ WARN
            # tag: comment
            # between
            /b/
            # tag: continuation
              WARN
            # tag: if
            if /c/
            # tag: endif
            endif
            # tag: end
            """
        let belongs = "belongs to no rule: it must stand directly above one"
        #expect(
            Set(warnings(text)) == [
                "1 tag \"blank\" \(belongs)", "4 tag \"comment\" \(belongs)", "7 tag \"continuation\" \(belongs)",
                "10 a tag above IF or ENDIF belongs to no rule", "12 a tag above IF or ENDIF belongs to no rule",
                "13 tag \"end\" \(belongs)",
            ])
        #expect(tags(text) == [nil, nil, nil, nil])
    }

    /// A rule that is skipped takes its tag with it.
    @Test func aSkippedRule() {
        #expect(tags("# tag: bad\n/(/ WARN\n/b/ WARN") == [nil])
    }
}
