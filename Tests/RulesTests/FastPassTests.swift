// SPDX-License-Identifier: Apache-2.0
import Glibc
import MailSyntax
import Patterns
import Rules
import Testing

/// SplitMix64; a seed gives the same numbers each time.
struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = (state ^ (state >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

@Suite struct FastPassTests {
    private static let atoms = [
        "a", "b", "ab", "foo", "bar", ".", "[a-f]", "[^a]", "\\w", "\\d", "\\s", "\\b", "^", "$", "(a|b)",
        "(foo|ba)", "x{2,3}", "o{2}", "(?=f)", "(?!f)", "(?<=o)b", "(.)\\1", "\\Aa", "b\\z", "o\\Z", "a++",
        "(?i)B", "(?-i)A", "[[:alpha:]]", "\\.", "-", "\\x41", "[\\]a]", "(?>a+)b", "\\Qa.b\\E", ".{0,40}",
        "[^\\s]", "(?:ab){1,50}", "\\r", "[a-]", "\\S+", "(?m)^a", "#", " ", "\\n", "[\\n]", "[^\\r]", "[^\\n]",
        "[\\t-\\x0b]", "\\n ",
        // Long enough to be scanned for on their own.
        "foobarfoo", "Foobar", "(foobarab)", "(fob: foobar)", "(?:barfoobar){2}", "bar: foo",
    ]
    private static let posixAtoms = [
        "a", "b", "ab", "foo", ".", "[a-f]", "[^a]", "^", "$", "(a|b)", "x{2,3}", "[[:digit:]]", "\\.", "[]a]", "o+",
        "()", "foobarfoo", "bar: foo",
    ]

    private static func pattern(_ atoms: [String], _ random: inout Numbers) -> String {
        (0..<Int.random(in: 1...4, using: &random)).map { _ in
            atoms.randomElement(using: &random)! + (["", "", "", "*", "+", "?", "|"].randomElement(using: &random)!)
        }.joined()
    }

    private static func randomTable(_ type: TableType, _ random: inout Numbers) -> Table {
        let lines = (0..<Int.random(in: 1...12, using: &random)).map { number -> String in
            let pattern = pattern(type == .pcre ? atoms : posixAtoms, &random)
            let flags = ["", "", "", "i", "m", type == .pcre ? "x" : "", type == .pcre ? "s" : ""].randomElement(
                using: &random)!
            switch Int.random(in: 0..<10, using: &random) {
            case 0: return "if \(["", "!"].randomElement(using: &random)!)/\(pattern)/\(flags)"
            case 1: return "endif"
            case 2: return "!/\(pattern)/\(flags) not \(number)"
            default: return "/\(pattern)/\(flags) rule \(number)"
            }
        }
        return Table(type: type, path: "random", content: Array(lines.joined(separator: "\n").utf8))
    }

    private static func line(_ random: inout Numbers) -> String {
        let words = [
            "a", "b", "ab", "foo", "bar", "A", "xx", "xxx", "oo", "1", ".", "-", " ", "\t", "fob", "\r", "é", "q",
            "aaab", "foobar", "foo", "barfoobar", ": ",
        ]
        // Sometimes a long run of the same word, which a scan may skip in one step.
        let filler = ["", "", "x", "q ", "-"].randomElement(using: &random)!
        return String(repeating: filler, count: Int.random(in: 0...150, using: &random))
            + (0..<Int.random(in: 0...40, using: &random)).map { _ in words.randomElement(using: &random)! }.joined()
    }

    private static func foldedLines(_ random: inout Numbers) -> String {
        (0..<Int.random(in: 1...3, using: &random)).map { _ in line(&random) }.joined(separator: "\n ")
    }

    /// The same rule decides each body line with and without the fast pass.
    @Test(arguments: 0..<400)
    func bodyLinesGiveTheSameRule(seed: Int) {
        var random = Numbers(state: UInt64(seed))
        let list = RuleList(tables: [
            Self.randomTable(seed % 3 == 0 ? .regexp : .pcre, &random), Self.randomTable(.pcre, &random),
        ])
        let pass = FastPass.build(for: list, body: true)
        let matcher = Matcher()
        var lines = (0..<20).map { _ in Array(Self.line(&random).utf8) }
        if seed % 7 == 0 { lines[3] += [0, 0x61] }
        let text = Array(lines.map { $0 + [0x0d, 0x0a] }.joined())
        var (fast, slow): ([Int: String], [Int: String]) = ([:], [:])
        text.withUnsafeBytes { text in
            matcher.forEachCandidateLine(in: text, of: list, pass: pass) { start, candidates in
                let line = Self.key(text, start)
                if let match = matcher.firstMatch(line: line, in: list, pass: pass, candidates: candidates) {
                    fast[start] = String(decoding: match.text, as: UTF8.self)
                }
                return true
            }
            var start = 0
            while start < text.count {
                let line = Self.key(text, start)
                if let match = matcher.firstMatch(line, in: list) {
                    slow[start] = String(decoding: match.text, as: UTF8.self)
                }
                start = (text[start...].firstIndex(of: 0x0a) ?? text.count) + 1
            }
        }
        #expect(fast == slow)
    }

    /// The line at `start` without its end.
    private static func key(_ text: UnsafeRawBufferPointer, _ start: Int) -> UnsafeRawBufferPointer {
        var end = text[start...].firstIndex(of: 0x0a) ?? text.count
        while end > start, text[end - 1] == 0x0d { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: text[start..<end])
    }

    @Test(arguments: 0..<400)
    func headersComeOutTheSame(seed: Int) {
        var random = Numbers(state: UInt64(seed) + 1_000_000)
        let list = RuleList(tables: [Self.randomTable(seed % 3 == 0 ? .regexp : .pcre, &random)])
        let pass = FastPass.build(for: list, body: false)
        let matcher = Matcher()
        for _ in 0..<20 {
            let key = Array(Self.foldedLines(&random).utf8)
            let (fast, slow) = key.withUnsafeBytes {
                (matcher.firstMatch(key: $0, in: list, pass: pass), matcher.firstMatch($0, in: list))
            }
            #expect(fast?.rule == slow?.rule, "\(String(decoding: key, as: UTF8.self).debugDescription)")
            #expect(fast?.text == slow?.text)
        }
    }

    /// Patterns that may reach a limit. They then do not match, negated or not.
    @Test(arguments: 0..<200)
    func limitsComeOutTheSame(seed: Int) {
        var random = Numbers(state: UInt64(seed) + 3_000_000)
        let heavy =
            Self.atoms + [
                "(a+)+q", "(a|ab)*q", "(?=(a*)*q)", "a*a*a*q", "(?:a?){9}q", "(?:a|b|ab)+1", "\\w+\\w+q", "(?:ab?)*1",
                "^(a+)+1", "^a*b*q", "^foo|q",
            ]
        let lines = (0..<6).map { number in
            let pattern = Self.pattern(heavy, &random)
            return number % 3 == 0 ? "if !/\(pattern)/\n/./ inside \(number)\nendif" : "!/\(pattern)/ not \(number)"
        }
        let list = RuleList(tables: [table(lines.joined(separator: "\n"))])
        let pass = FastPass.build(for: list, body: false)
        for steps: UInt32 in [50, 1_000, 20_000] {
            let matcher = Matcher(limits: MatchLimits(steps: steps, heapKiB: 64))
            for _ in 0..<8 {
                let words = ["a", "a", "ab", "b", "foo", "x"]
                let key = (0..<Int.random(in: 0...60, using: &random)).flatMap { _ in
                    Array(words.randomElement(using: &random)!.utf8)
                }
                let (fast, slow) = key.withUnsafeBytes {
                    (matcher.firstMatch(key: $0, in: list, pass: pass), matcher.firstMatch($0, in: list))
                }
                #expect(fast?.rule == slow?.rule, "\(lines) \(steps) \(String(decoding: key, as: UTF8.self))")
            }
        }
    }

    /// The same rule decides each header, with the headers scanned as one block.
    @Test(arguments: 0..<400)
    func blocksOfHeadersComeOutTheSame(seed: Int) {
        var random = Numbers(state: UInt64(seed) + 2_000_000)
        let list = RuleList(tables: [Self.randomTable(seed % 3 == 0 ? .regexp : .pcre, &random)])
        let pass = FastPass.build(for: list, body: false)
        let matcher = Matcher()
        var message: [UInt8] = []
        for _ in 0..<20 {
            message += Array("X:\(Self.foldedLines(&random))\r\n".utf8)
        }
        var comparison = Comparison(list: list, pass: pass, matcher: matcher)
        var scanner = MessageScanner()
        message.withUnsafeBytes { scanner.update($0, &comparison) }
        scanner.finish(&comparison)
        #expect(comparison.headers == 20)
        #expect(comparison.fast == comparison.slow)
    }

    private struct Comparison: ScannerEvents {
        let list: RuleList
        let pass: FastPass
        let matcher: Matcher
        var headers = 0
        var fast: [String?] = []
        var slow: [String?] = []

        mutating func headers(_ block: HeaderBlock) {
            let candidates = matcher.candidates(in: block, pass: pass)
            for header in block.headers {
                headers += 1
                let text = block.text(of: header)
                let found = candidates.of(header).flatMap {
                    matcher.firstMatch(line: text, in: list, pass: pass, candidates: $0)
                }
                fast.append(found.map { String(decoding: $0.text, as: UTF8.self) })
                slow.append(matcher.firstMatch(text, in: list).map { String(decoding: $0.text, as: UTF8.self) })
            }
        }
        mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool) {}
        mutating func body(_ text: BodyText) {}
    }

    /// A rule that matches nothing in the mail is never run, whatever words it begins with. A rule that shares its
    /// keyword with many others is searched for as a whole.
    @Test func keywordsFindWhatPatternsFind() {
        let hosts = (0..<20).map { "/^Received: from .*host\($0)\\.example\\.net/ host \($0)" }
        let shared = (0..<20).map { "/^Subject:.* cheap watches [a-z]\($0)$/ shared \($0)" }
        let list = RuleList(tables: [table((hosts + shared).joined(separator: "\n"))])
        let pass = FastPass.build(for: list, body: false)
        #expect(pass.uncovered.isEmpty)
        let matcher = Matcher()
        for (key, action) in [
            ("Received: from a (HOST7.example.net [192.0.2.1])", "host 7"), ("Received: from host7.example.org", nil),
            ("X-Received: from host7.example.net", nil), ("Subject: best cheap watches a12", "shared 12"),
            ("Subject: cheap watches", nil), ("Subject: a\n cheap watches b3", "shared 3"),
        ] {
            let match = Array(key.utf8).withUnsafeBytes { matcher.firstMatch(key: $0, in: list, pass: pass) }
            #expect(match.map { String(decoding: $0.text, as: UTF8.self) } == action, "\(key)")
        }
    }

    /// Vectorscan 5.4.9 misses these in the last bytes of its input.
    @Test(arguments: ["/^To:|foo/ x", "/(foo|a.c)d|foo/ x", "/[e-g]oo/ x", "/^To|oo/ x"])
    func patternsAtTheEnd(content: String) {
        let list = RuleList(tables: [table(content)])
        for body in [true, false] {
            let pass = FastPass.build(for: list, body: body)
            let matcher = Matcher()
            for length in 3..<200 {
                let key = [UInt8](repeating: UInt8(ascii: "q"), count: length - 3) + Array("foo".utf8)
                let match = key.withUnsafeBytes { matcher.firstMatch(key: $0, in: list, pass: pass) }
                #expect(match != nil, "\(length) bytes")
            }
        }
    }

    /// Vectorscan 5.4.9 with AVX-512 misses these after the first 64 bytes.
    @Test(arguments: ["/b.+c/ x", "/-\\b/ x", "/[^x]c/ x", "/foo|.c/ x", "/b[a-z]+c/ x"])
    func patternsWithoutLiteral(content: String) {
        let list = RuleList(tables: [table(content)])
        for body in [true, false] {
            let pass = FastPass.build(for: list, body: body)
            let matcher = Matcher()
            for length in 0..<200 {
                let key = [UInt8](repeating: UInt8(ascii: "x"), count: length) + Array("-bac".utf8)
                let match = key.withUnsafeBytes { matcher.firstMatch(key: $0, in: list, pass: pass) }
                #expect(match != nil, "\(length) bytes")
            }
        }
    }

    @Test func everyLineMatchesEveryRule() {
        let rules = (0..<300).map { "/a|b{\($0)}c/ rule \($0)" }.joined(separator: "\n")
        let list = RuleList(tables: [table(rules)])
        let pass = FastPass.build(for: list, body: true)
        let matcher = Matcher()
        let text = Array(repeatElement("xa\n", count: 100).joined().utf8)
        var found = 0
        text.withUnsafeBytes { text in
            matcher.forEachCandidateLine(in: text, of: list, pass: pass) { start, candidates in
                let line = Self.key(text, start)
                found += matcher.firstMatch(line: line, in: list, pass: pass, candidates: candidates) == nil ? 0 : 1
                return true
            }
        }
        #expect(found == 100)
    }

    @Test func cacheIsUsedOnlyIfOthersCannotWriteToIt() throws {
        var template = Array("/tmp/weir-cache-XXXXXX".utf8CString)
        let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { system("rm -rf '\(directory)'") }
        let list = RuleList(tables: [table("/foo/ x\n/a{1,5}b/ y")])
        let cache = FastPassCache(directory: directory + "/fast")
        let files = { Set(try! listing(directory + "/fast")) }
        _ = FastPass.build(for: list, body: true, cache: cache)
        let written = files()
        #expect(written.count == 1)
        // A damaged file is rebuilt: afterwards it is complete.
        let path = directory + "/fast/" + written.first!
        let size = fileSize(path)
        truncate(path, off_t(size / 2))
        _ = FastPass.build(for: list, body: true, cache: cache)
        #expect(fileSize(path) == size)
        // A directory that others can write to is neither read nor written.
        chmod(directory + "/fast", 0o777)
        unlink(path)
        _ = FastPass.build(for: list, body: true, cache: cache)
        #expect(files().isEmpty)
    }

    /// Each edit of a table leaves a file, and so does a crash.
    @Test func formerTablesLeaveFewFiles() throws {
        var template = Array("/tmp/weir-cache-XXXXXX".utf8CString)
        let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { system("rm -rf '\(directory)'") }
        let cache = FastPassCache(directory: directory)
        func pass(_ word: String) -> FastPass {
            FastPass.build(for: RuleList(tables: [table("/\(word)/ x")]), body: true, cache: cache)
        }
        let oldest = pass("oldest")
        let inUse = try listing(directory)
        #expect(inUse.count == 1)
        let ofCrash = "rules-0123456789abcdef.1"
        for name in [inUse[0], ofCrash] {
            let path = "\(directory)/\(name)"
            close(open(path, O_WRONLY | O_CREAT, 0o600))
            var times = [timeval(tv_sec: 1, tv_usec: 0), timeval(tv_sec: 1, tv_usec: 0)]
            #expect(utimes(path, &times) == 0)
        }
        for number in 1...40 {
            let newest = pass("word\(number)")
            cache.prune(keeping: [oldest, newest])
            #expect(try listing(directory).count <= 18)
        }
        let left = try listing(directory)
        #expect(left.count == 18)
        #expect(left.contains(inUse[0]) && !left.contains(ofCrash))
        // It is loaded again, as after a restart.
        cache.prune(keeping: [pass("oldest")])
        #expect(try listing(directory).contains(inUse[0]))
    }
}

private func fileSize(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_size) : -1
}

private func listing(_ path: String) throws -> [String] {
    let directory = try #require(opendir(path))
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) {
            String(cString: $0.bindMemory(to: CChar.self).baseAddress!)
        }
        if !name.hasPrefix(".") { names.append(name) }
    }
    return names
}
