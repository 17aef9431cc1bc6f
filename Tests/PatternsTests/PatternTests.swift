// SPDX-License-Identifier: Apache-2.0
import Patterns
import Testing

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct PatternTests {
    let scratch = MatchScratch()

    private static let optionCases: [(String, PatternOptions, String, MatchResult)] = [
        ("abc", .caseless, "xABCx", .match),
        ("abc", [], "xABCx", .noMatch),
        ("a.c", .dotAll, "a\nc", .match),
        ("a.c", [], "a\nc", .noMatch),
        ("^b", .multiline, "a\nb", .match),
        ("^b", [], "a\nb", .noMatch),
        ("a $ # end", .extended, "a", .match),
        ("b", .anchored, "ab", .noMatch),
        ("a$", .dollarEndOnly, "a\n", .noMatch),
        ("a$", [], "a\n", .match),
        ("", [], "", .match),
    ]

    @Test(arguments: optionCases)
    func options(
        source: String, options: PatternOptions, subject: String, expected: MatchResult
    )
        throws
    {
        let pattern = try Pattern(bytes(source), options: options)
        #expect(pattern.matches(bytes(subject), using: scratch) == expected)
    }

    /// PCRE2 counts steps anew at each position, so a long text could take any number of them.
    @Test func stepsOfAllPositionsAreBounded() throws {
        let pattern = try Pattern(bytes("x.*[yz]"), options: [])
        let bounded = MatchScratch(limits: MatchLimits(steps: 10_000, stepsOfAll: 250_000))
        let (long, short) = ([UInt8](repeating: UInt8(ascii: "x"), count: 2_000), bytes("xxx"))
        #expect(pattern.matches(long, using: scratch) == .noMatch)
        guard case .failed(let code) = pattern.matches(long, using: bounded) else { return #expect(Bool(false)) }
        #expect(isLimit(code))
        #expect(pattern.matches(short, using: bounded) == .noMatch)
        #expect(pattern.matches(bytes("xy"), using: bounded) == .match)
    }

    /// A pattern that can match at the start only has all steps there.
    @Test func anchoredPatternsDoNotShareTheirSteps() throws {
        let bounded = MatchScratch(limits: MatchLimits(steps: 10_000, stepsOfAll: 10_000))
        let text = bytes(String(repeating: "x", count: 1_000) + "y")
        let (anchored, other) = (try Pattern(bytes("^(x)*y"), options: []), try Pattern(bytes("(x)*y"), options: []))
        #expect(anchored.matches(text, using: bounded) == .match)
        guard case .failed(let code) = other.matches(text, using: bounded) else { return #expect(Bool(false)) }
        #expect(isLimit(code))
    }

    @Test func anyByteIsMatched() throws {
        let pattern = try Pattern(bytes("^\\x00\\xff.$"), options: .dotAll)
        #expect(pattern.matches([0, 0xff, 0x80], using: scratch) == .match)
    }

    @Test func emptyBufferWithoutAddress() throws {
        let pattern = try Pattern(bytes("^$"), options: [])
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(pattern.matches(empty, using: scratch) == .match)
    }

    @Test func capturesOfTheLastMatch() throws {
        let pattern = try Pattern(bytes("(a)(x)?(b)"), options: .ungreedy)
        #expect(pattern.captureCount == 3)
        #expect(pattern.matches(bytes("-ab"), using: scratch) == .match)
        #expect(scratch.capture(0) == 1..<3)
        #expect(scratch.capture(1) == 1..<2)
        #expect(scratch.capture(2) == nil)
        #expect(scratch.capture(3) == 2..<3)
        #expect(scratch.capture(4) == nil)
        #expect(scratch.capture(-1) == nil)
        #expect(scratch.capture(1 << 40) == nil)
    }

    @Test func manyGroups() throws {
        let pattern = try Pattern(bytes(String(repeating: "(a)", count: 500)), options: [])
        #expect(pattern.matches(bytes(String(repeating: "a", count: 500)), using: scratch) == .match)
        #expect(scratch.capture(500) == 499..<500)
    }

    @Test(arguments: [
        ("a(b", "missing closing parenthesis", 3),
        ("a[b", "missing terminating ] for character class", 3),
        ("a**(", "quantifier does not follow a repeatable item", 2),
    ])
    func faults(source: String, message: String, offset: Int) {
        let error = #expect(throws: PatternError.self) {
            try Pattern(bytes(source), options: [])
        }
        #expect(error?.message == message)
        #expect(error?.offset == offset)
    }

    @Test func backtrackingEndsAtTheLimit() throws {
        let scratch = MatchScratch(limits: MatchLimits(steps: 1_000))
        let pattern = try Pattern(bytes("^(a+)+$"), options: [])
        let subject = bytes(String(repeating: "a", count: 64) + "b")
        guard case .failed(let code) = pattern.matches(subject, using: scratch) else {
            Issue.record("the limit was not reached")
            return
        }
        #expect(errorMessage(code) == "match limit exceeded")
        #expect(pattern.matches(bytes("aaa"), using: scratch) == .match)
    }

    /// The defaults of the library (pcre2_config(3)), which Postfix uses, too.
    @Test func theLibrarysOwnLimits() {
        #expect(MatchLimits.library == MatchLimits(steps: 10_000_000, heapKiB: 20_000_000))
    }

    @Test(arguments: [(#"\b([^\s]|)a*8"#, " 8"), (#"(q\b|)z*?\Kq"#, "q "), ("(?>a+?)b", "aab")])
    func matchesThatTheJITMisses(source: String, subject: String) throws {
        let pattern = try Pattern(bytes(source), options: [.caseless, .dotAll])
        #expect(pattern.matches(bytes(subject), using: scratch) == .match)
    }

    @Test func manyGroupsNeedNoStack() throws {
        let pattern = try Pattern(bytes("^(?:(a)|b)*$"), options: [])
        let subject = [UInt8](repeating: UInt8(ascii: "a"), count: 60_000)
        #expect(pattern.matches(subject, using: scratch) == .match)
    }

    @Test func aUTFPatternFailsOnInvalidUTF8() throws {
        let pattern = try Pattern(bytes("(*UTF)a"), options: [])
        guard case .failed(let code) = pattern.matches([0xff, 0x61], using: scratch) else {
            Issue.record("invalid UTF-8 was accepted")
            return
        }
        #expect(errorMessage(code).hasPrefix("UTF-8 error"))
    }
}
