// SPDX-License-Identifier: Apache-2.0
import Report
import Testing

@Suite struct ShellWordTests {
    @Test(arguments: [
        ("alice", "alice"), ("user+tag@example.org", "user+tag@example.org"), ("", "''"), ("a b", "'a b'"),
        ("it's", "'it'\\''s'"), ("$(x)`y`;&|<>*?!", "'$(x)`y`;&|<>*?!'"), ("\u{e9}", "'\u{e9}'"),
        ("a\nb'\\", "$'a\\x0ab\\x27\\x5c'"), ("\u{1b}[0m", "$'\\x1b[0m'"),
        // The next character must not become part of the escape.
        ("\u{202e}f", "$'\\xe2\\x80\\xaef'"), ("-x", "-x"),
    ])
    func isOneWord(text: String, word: String) {
        #expect(ShellWord.quoted(text) == word)
    }

    @Test func isNoOption() {
        #expect(ShellWord.argument("-x") == "-- -x")
        #expect(ShellWord.argument("x-") == "x-")
    }
}
