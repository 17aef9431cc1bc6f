// SPDX-License-Identifier: Apache-2.0
import Patterns
import Rules
import Testing

func table(_ text: String, type: TableType = .pcre) -> Table {
    Table(type: type, path: "test", content: Array(text.utf8))
}

func lookUp(_ key: String, in tables: Table...) -> String? {
    let list = RuleList(tables: tables)
    let match = Array(key.utf8).withUnsafeBytes { Matcher().firstMatch($0, in: list) }
    return match.map { String(decoding: $0.text, as: UTF8.self) }
}

@Suite struct LookupTests {
    /// glibc would need gigabytes of memory for these.
    @Test(arguments: [
        "a" + String(repeating: "{2,}", count: 60), "(((a{1,255}){1,255}){1,255}){1,255}",
        "a{4000000000000000000,}", "a{9223372036854775807,}", "a{1,9223372036854775807}",
        "x(a" + String(repeating: "+", count: 80) + ")",
        "[[:alpha:]]{2}" + String(repeating: "{9}", count: 9), "((a|b*{100})?{100}c){100}",
    ])
    func repeatsThatMultiplyAreRefused(pattern: String) {
        let warnings = table("/\(pattern)/ x\n/foo/ y", type: .regexp).warnings.map(\.description)
        #expect(warnings.count == 1 && warnings.first?.contains("expand") == true, "\(warnings)")
    }

    /// glibc's recursion over these goes deeper than a thread's stack.
    @Test(arguments: [
        (String(repeating: "(", count: 20_000) + "a" + String(repeating: ")", count: 20_000), "deep"),
        (String(repeating: "a|", count: 200_000) + "b", "alternatives"), ("(a*){30000}", "repeats"),
        (String(repeating: "^", count: 20_000), "more than"),
        ("(" + String(repeating: "()", count: 6_000) + ")", "groups"),
    ])
    func patternsBeyondTheStackAreRefused(pattern: String, words: String) {
        let warnings = table("/\(pattern)/ x\n/foo/ y", type: .regexp).warnings.map(\.description)
        #expect(warnings.count == 1 && warnings.first?.contains(words) == true, "\(warnings)")
    }

    /// glibc recurses without end over the first ones: a repeat around a reference to a group that may be empty.
    @Test(arguments: [
        ("(|)(\\1{2})*", false), ("($|)?(\\1{2}b*)+", false), ("a*a{1,3}($)(b*\\1?\\1)+", false),
        ("(.*){1,3}(\\1{2}b{0,2})*\\1{2,}", false), ("(b?((b){0,2})+^)\\2(b|\\1{2,}|){2,}\\2?", false),
        ("((x*)y\\2)+", false), ("((a|\\2*)b)*", false), ("(a)((\\1)*)\\2+", false),
        ("(.)\\1{6,}", true), ("<(.*)@(.*)>.*\\1", true), ("(a*)(b\\1|c)", true), ("(x(a+)y\\2)*", true),
        ("[(]*\\(*(a)\\1*", true), ("()()()()()()()()()(a*)\\10*", true),
    ])
    func repeatedReferencesToEmptyGroupsAreRefused(pattern: String, isSafe: Bool) {
        let warnings = table("/\(pattern)/ x\n/foo/ y", type: .regexp).warnings.map(\.description)
        #expect(warnings.allSatisfy { $0.contains("repeated back-reference") }, "\(warnings)")
        #expect(warnings.count == (isSafe ? 0 : 1), "\(warnings)")
    }

    /// glibc takes hundreds of megabytes, or minutes, for these.
    @Test(arguments: [
        ("^", 1_000), ("^", 100), ("\\b", 40), ("(^)*", 20), ("(^|)", 80), ("(\\ba?\\b)", 30), ("($)?", 80),
        ("(x|(^|\\b){3}a*)*", 30), ("a?", 10_000), ("a*", 5_000),
    ])
    func operatorsWithoutBytesBetweenThemAreRefused(item: String, count: Int) {
        let pattern = String(repeating: item, count: count)
        let warnings = table("/\(pattern)/ x\n/foo/ y", type: .regexp).warnings.map(\.description)
        #expect(warnings.count == 1 && warnings.first?.contains("follow each other") == true, "\(warnings)")
    }

    @Test func assertionsWithoutEndAreRefused() {
        let words = (0..<300).map { "\\bword\($0)\\b" }.joined(separator: "|")
        let warnings = table("/(\(words))+/ x", type: .regexp).warnings.map(\.description)
        #expect(warnings.count == 1 && warnings.first?.contains("more than 2000 assertions") == true, "\(warnings)")
    }

    @Test(arguments: [
        ((0..<300).map { "^word\($0)$" }.joined(separator: "|"), "word299"),
        (String(repeating: "(\\b[a-z]+\\b ?)", count: 20), (0..<20).map { _ in "word" }.joined(separator: " ")),
        ("(^|[^a-z])(\\b(ab|cd)\\b[ ,]?)+(;|$)", "ab,cd"), ("^(a?b?c?){20}$", "abcabc"),
    ])
    func usualAssertionsAreTaken(pattern: String, key: String) {
        #expect(
            lookUp(key, in: table("/\(pattern)/ found", type: .regexp)) == "found",
            "\(table("/\(pattern)/ found", type: .regexp).warnings)")
    }

    @Test(arguments: [
        (String(repeating: "(", count: 900) + "a" + String(repeating: ")", count: 900), "a"),
        ((0..<2_000).map { "word\($0)\\.example" }.joined(separator: "|"), "word1999.example"),
        ("^(a{1,100}){1,100}$", "aaa"), ("\\{2,}[]{9}]{3}", "{2,}9]{"), ("(a+)+(b*)*c?{2}", "a"),
        ("[^]{99999}]\\+x", "y+x"),
    ])
    func harmlessRepeatsAreAccepted(pattern: String, key: String) {
        #expect(
            lookUp(key, in: table("/\(pattern)/ found", type: .regexp)) == "found",
            "\(table("/\(pattern)/ found", type: .regexp).warnings)")
    }

    @Test func firstRuleWinsAndThenFirstTable() {
        #expect(lookUp("ab", in: table("/b/ one\n/a/ two")) == "one")
        #expect(lookUp("a", in: table("/b/ one\nif /q/"), table("/a/ two")) == "two")
    }

    @Test(
        arguments: [
            ("/A/ caseless", "a", "caseless"),
            ("/A/i exact", "a", nil),
            ("/a.b/ dot", "a\nb", "dot"),
            ("!/a/ without", "b", "without"),
            ("!!/a/ twice", "a", "twice"),
            ("/(a)(x)?/ <$1><$2>$$", "a", "<a><>$"),
            ("/(a)(b)/ $0000000000000000000000002\n/./ no", "ab", "b"),
            ("/(a)/ $99999999999999999999\n/(a)/ $2147483648\n/./ none", "a", "none"),
            ("/x/ one\n  two\n# no\n\n three", "x", "one  two three"),
            ("if /a/\nif /b/\n/./ both\nendif\n/./ a only\nendif\n/./ none", "ac", "a only"),
            ("if /a/\n/a/ yes\nendif\n/./ no", "b", "no"),
            ("if /q/\n/./ never\n", "a", nil),
            ("if /(/\n/./ anyway\nendif\n", "a", "anyway"),
            ("/a/", "a", ""),
        ] as [(String, String, String?)])
    func pcre(content: String, key: String, expected: String?) {
        #expect(lookUp(key, in: table(content)) == expected)
    }

    @Test(
        arguments: [
            ("/(foo|foobar)/ $1", "foobar", "foobar"),
            ("/^a/!/b/ lonely", "ab", nil),
            ("/^a/!/b/ lonely", "ac", "lonely"),
            ("/^(a)/!/b/ $1", "ac", "a"),
            ("/a\\|b/x basic", "b", "basic"),
            // glibc reports an end before the start for the first group.
            ("/(a*)*\\1/ [$1]", "aaabaaa", "[]"),
            ("/^((a|)+)b\\1$/ [$1]", "aba", "[]"),
            ("/((a|){3,})(b)\\1/ [$1]", "aaabaaa", "[]"),
        ] as [(String, String, String?)])
    func regexp(content: String, key: String, expected: String?) {
        #expect(lookUp(key, in: table(content, type: .regexp)) == expected)
    }

    @Test func keyEndsAtNUL() {
        #expect(lookUp("foo\0bar", in: table("/bar/ seen\n/foo$/ cut")) == "cut")
    }

    @Test func faultsAreBounded() {
        let warnings = table(String(repeating: "x\n", count: 5_000) + "/foo/ y").warnings
        #expect(warnings.count == 1_001)
        #expect(warnings.last?.description == "pcre map test: and 4000 more")
    }

    @Test func faultsNameTheLine() {
        let warnings = table("# x\n/a(/ X\n\n/b/z Y\nendif\nif /c/\n/d/").warnings
        #expect(
            warnings.map(\.description) == [
                "pcre map test, line 2: error in regex at offset 2: missing closing parenthesis",
                "pcre map test, line 4: unknown regexp option \"z\": skipping this rule",
                "pcre map test, line 5: ignoring ENDIF without matching IF",
                "pcre map test, line 7: no replacement text: using empty string",
                "pcre map test, line 6: IF has no matching ENDIF",
            ])
    }

    @Test(arguments: [
        ("pcre:/nonexistent", "open /nonexistent: No such file or directory"),
        ("pcre:/", "open /: not a regular file"),
        ("pcre:/dev/zero", "open /dev/zero: not a regular file"),
        ("hash:/x", "unsupported dictionary type: hash"),
        ("nothing", "unsupported dictionary type: nothing"),
        ("pcre:{{/a/ b}}", "open {{/a/ b}}: rules inside the name are not supported, put them in a file"),
    ])
    func unusable(name: String, message: String) {
        let fault = #expect(throws: TableFault.self) { try Table(named: name) }
        #expect(fault?.description == message)
        #expect(fault?.severity == .fault)
    }

    @Test func limitIsNoMatchNegatedOrNot() {
        let list = RuleList(tables: [
            table("/^(a+)+$/ slow\n!/^(a+)+$/ not slow\n/a/ next")
        ])
        let matcher = Matcher(limits: .init(steps: 1_000))
        let key = [UInt8](repeating: UInt8(ascii: "a"), count: 64) + [UInt8(ascii: "b")]
        let match = key.withUnsafeBytes { matcher.firstMatch($0, in: list) }
        #expect(match.map { list.location(of: $0.rule).line } == 3)
        #expect(matcher.givenUp.map(\.rule) == [0, 1])
        #expect(list.counters[0].limitsReached == 1)
        #expect(list.counters[2].hits == 1)
    }
}
