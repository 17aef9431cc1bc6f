// SPDX-License-Identifier: Apache-2.0
import Patterns
import Rules
import Testing

/// Rules for decoded text: characters instead of bytes, with Unicode's letters and case.
@Suite struct TextPassTests {
    private static let atoms = [
        "a", "s", "K", "ab", "ä", "Ж", "ж", "σ", "日", "ß", "ſ", "ﬀ", ".", "..", "[a-f]", "[^a]", "[ä]", "[^ä]", "[s]",
        "[^s]", "[k-t]", "[ж-я]", "[日本]", "\\w", "\\W", "[\\w]", "[^\\w]", "[\\W]", "[^\\W]", "\\d", "\\D", "[^\\D]",
        "\\s", "\\S", "[^\\S]", "\\b", "\\B", "^", "$", "(a|ä)", "ä{2,3}", "(?=ж)", "(?<=日)本", "(.)\\1", "(?i)Ж",
        "(?-i)S", "[[:alpha:]]", "[^[:alpha:]]", "[[:punct:]]", "\\x{e4}", "\\xe4", "[\\xe4]", "\\Qä.b\\E", "\\Qs.b\\E",
        ".{3}", "\\p{Cyrillic}", "€", "é", "ssssss", "casino", "казино", "Straße", "ΣΑΣ", "i", "İ", "ı", "١", "\u{a0}",
        "[a-]", "[-ä]", "[ä-]", "#", " ",
    ]
    private static let words = [
        "a", "s", "S", "ſ", "k", "K", "ab", "ä", "Ä", "Ж", "ж", "σ", "ς", "Σ", "日", "本", "ß", "ẞ", "ﬀ", "é", "É", "€",
        "casino", "CAſINO", "казино", "КАЗИНО", "ᲀ", "в", "В", "Straße", "STRASSE", "ssssss", "i", "I", "İ", "ı", "١",
        "1", ".", "-", " ", "\u{1f600}", "\u{fffd}", "q", "{", "ǅ", "ǆ", "Ω", "ω", "µ", "μ",
    ]

    private static func table(_ type: TableType, _ random: inout Numbers) -> Table {
        let lines = (0..<Int.random(in: 1...12, using: &random)).map { number -> String in
            let pattern = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                atoms.randomElement(using: &random)! + ["", "", "", "*", "+", "?", "|"].randomElement(using: &random)!
            }.joined()
            let flags = ["", "", "", "i", "m", type == .pcre ? "x" : ""].randomElement(using: &random)!
            return ["/", "/", "/", "!/"].randomElement(using: &random)! + "\(pattern)/\(flags) rule \(number)"
        }
        let content = Array(lines.joined(separator: "\n").utf8)
        return Table(type: type, path: "random", content: content, isForText: true)
    }

    @Test(arguments: 0..<1_000)
    func textGivesTheSameRule(seed: Int) {
        var random = Numbers(state: UInt64(seed) + 5_000_000)
        let list = RuleList(tables: [Self.table(seed % 5 == 0 ? .regexp : .pcre, &random)])
        let pass = FastPass.build(for: list, body: false)
        let matcher = Matcher()
        for _ in 0..<20 {
            let text = (0..<Int.random(in: 0...20, using: &random)).map { _ in
                Self.words.randomElement(using: &random)!
            }.joined()
            let (fast, slow) = Array(text.utf8).withUnsafeBytes {
                (matcher.firstMatch(key: $0, in: list, pass: pass), matcher.firstMatch($0, in: list))
            }
            #expect(fast?.rule == slow?.rule, "\(text)")
            #expect(fast?.text == slow?.text)
        }
    }

    @Test(arguments: [
        ("^.$", "ä", true), ("привет", "ПРИВЕТ", true), ("^\\w+$", "größe", true), ("\\bжук\\b", "большой жук", true),
        ("s", "ſ", true), ("^[[:upper:]]", "Ä", true), ("Ä", "a\u{308}", false),
    ])
    func patternsAreAboutCharacters(_ pattern: String, _ text: String, _ matches: Bool) {
        let table = Table(type: .pcre, path: "test", content: Array("/\(pattern)/ x".utf8), isForText: true)
        let list = RuleList(tables: [table])
        let pass = FastPass.build(for: list, body: false)
        let match = Array(text.utf8).withUnsafeBytes { Matcher().firstMatch(key: $0, in: list, pass: pass) }
        #expect((match != nil) == matches)
    }

    /// Most rules of real tables must be in the fast pass.
    @Test(arguments: ["^Subject:.*viagra", "казино", "\\d{3}[a-z]+s", "[äöü]x", "^From:.*日本", "\\bcash\\b"])
    func theFastPassHasTextPatterns(_ pattern: String) {
        let table = Table(type: .pcre, path: "test", content: Array("/\(pattern)/ x".utf8), isForText: true)
        #expect(FastPass.build(for: RuleList(tables: [table]), body: false).uncovered.isEmpty)
    }

    @Test func aPatternThatIsNotUTF8IsAFault() {
        let table = Table(type: .pcre, path: "test", content: [0x2f, 0xe4, 0x2f, 0x20, 0x78], isForText: true)
        #expect(table.warnings.map(\.line) == [1])
    }
}
