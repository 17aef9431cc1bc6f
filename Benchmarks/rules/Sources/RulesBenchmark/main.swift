// SPDX-License-Identifier: Apache-2.0
// The rules benchmark: ratios between Weir and bare engines, or Postfix's method, measured in one run on one core.
// Usage: RulesBenchmark DIRECTORY [once|decoded]. corpus.py fills the directory; with `once`, scanner and filter each
// process each small message once, for callgrind to count instructions. With `decoded`, only the ratios of decoded
// views are measured.
import CAllocationCount
import CPCRE2
import CVectorscan
import Filter
import Glibc
import MailSyntax
import Rules

let folder = CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "."
let repetitions = 5

// MARK: - Measuring

func monotonicSeconds() -> Double { Double(monotonicNanoseconds()) / 1e9 }

func processorSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// The median processor seconds of one pass of each of `bodies`. They run in turn, so that other load on the machine
/// affects all.
func medians(_ bodies: [() -> Void], seconds: Double = 0.25) -> [Double] {
    var times = [[Double]](repeating: [], count: bodies.count)
    for _ in 0..<repetitions {
        for (index, body) in bodies.enumerated() {
            var passes = 0
            let start = processorSeconds()
            var elapsed = 0.0
            repeat {
                body()
                passes += 1
                elapsed = processorSeconds() - start
            } while elapsed < seconds
            times[index].append(elapsed / Double(passes))
        }
    }
    return times.map { $0.sorted()[repetitions / 2] }
}

func report(_ name: String, _ value: Double, bound: Double, atLeast: Bool = true, unit: String = "") {
    let holds = atLeast ? value >= bound : value <= bound
    print(
        "{\"name\": \"\(name)\", \"value\": \(value), \"unit\": \"\(unit)\", \"bound\": \(bound), "
            + "\"at_least\": \(atLeast), \"holds\": \(holds)}")
}

// MARK: - Corpus

func read(_ name: String) -> [UInt8] {
    guard let file = fopen("\(folder)/\(name)", "r") else {
        perror(name)
        exit(66)
    }
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: ftell(file))
    rewind(file)
    fread(&bytes, 1, bytes.count, file)
    return bytes
}

func messages(_ name: String) -> [[UInt8]] {
    read(name).split(separator: 0x0c).map { Array($0.drop { $0 == 0x0a }) }.filter { !$0.isEmpty }
}

func body(of message: [UInt8]) -> [UInt8] {
    let end = Array("\r\n\r\n".utf8)
    let start = message.indices.first { message[$0...].starts(with: end) } ?? 0
    return Array(message[(start + 4)...])
}

func lines(of body: [UInt8]) -> [[UInt8]] {
    body.split(separator: 0x0a, omittingEmptySubsequences: false).map {
        Array($0.last == 0x0d ? $0.dropLast() : $0)
    }.filter { !$0.isEmpty }
}

func checks(_ count: Int) -> ContentChecks {
    var checks = ContentChecks()
    checks.tables.header = ["pcre:\(folder)/header-\(count).pcre"]
    checks.tables.body = ["pcre:\(folder)/body-\(count).pcre"]
    // The whole text, as for the other engines.
    checks.scannerLimits.bodyChecksSize = 0
    return checks
}

func rules(_ count: Int) -> ContentRules { rules(checks(count)) }

func rules(_ checks: ContentChecks) -> ContentRules {
    do {
        let rules = try ContentRules(checks)
        rules.prepareFastPass()
        return rules
    } catch {
        print(error)
        exit(78)
    }
}

// MARK: - Baselines

/// The patterns of a table, unchanged.
func patterns(_ name: String) -> [[UInt8]] {
    read(name).split(separator: 0x0a).map { line in
        let end = line.lastIndex(of: UInt8(ascii: "/")) ?? line.endIndex
        return Array(line[(line.startIndex + 1)..<end])
    }
}

/// Matches one pattern after another on each line, as Postfix does, with or without the JIT.
final class OneByOne {
    private var codes: [OpaquePointer] = []
    private let data = pcre2_match_data_create_8(16, nil)!

    init(_ patterns: [[UInt8]], jit: Bool) {
        for pattern in patterns {
            var (error, offset): (Int32, Int) = (0, 0)
            let options = PCRE2_CASELESS | PCRE2_DOTALL
            guard let code = pcre2_compile_8(pattern, pattern.count, options, &error, &offset, nil)
            else { continue }
            if jit { pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE) }
            codes.append(code)
        }
    }

    func scan(_ line: [UInt8]) {
        for code in codes where pcre2_match_8(code, line, line.count, 0, 0, data, nil) > 0 { return }
    }
}

/// Scans whole bodies with Vectorscan, without splitting lines or parsing headers.
final class OnePass {
    private var database: OpaquePointer?
    private var scratch: OpaquePointer?

    init(_ patterns: [[UInt8]]) {
        let strings = patterns.map { strdup(String(decoding: $0, as: UTF8.self)) }
        var flags: [UInt32] = []
        for string in strings {
            var flag = UInt32(HS_FLAG_CASELESS | HS_FLAG_MULTILINE | HS_FLAG_SINGLEMATCH)
            var (info, failure): (UnsafeMutablePointer<hs_expr_info_t>?, UnsafeMutablePointer<hs_compile_error_t>?)
            (info, failure) = (nil, nil)
            if hs_expression_info(string, flag, &info, &failure) != HS_SUCCESS {
                flag |= UInt32(HS_FLAG_PREFILTER)
            }
            flags.append(flag)
        }
        var expressions = strings.map { UnsafePointer($0) }
        let ids = strings.indices.map(UInt32.init)
        var failure: UnsafeMutablePointer<hs_compile_error_t>?
        hs_compile_multi(
            &expressions, flags, ids, UInt32(ids.count), UInt32(HS_MODE_BLOCK), nil, &database, &failure)
        hs_alloc_scratch(database, &scratch)
    }

    func scan(_ text: [UInt8]) {
        hs_scan(database, text, UInt32(text.count), 0, scratch, { _, _, _, _, _ in 0 }, nil)
    }
}

/// Ignores the scanner's events.
struct Ignore: ScannerEvents {
    mutating func headers(_ block: HeaderBlock) {}
    mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool) {}
    mutating func body(_ text: BodyText) {}
}

func countNewlines(_ message: [UInt8]) -> Int {
    message.withUnsafeBytes { bytes in
        var (count, start) = (0, 0)
        while let found = memchr(bytes.baseAddress! + start, 0x0a, bytes.count - start) {
            count += 1
            start = UnsafeRawPointer(found) - bytes.baseAddress! + 1
        }
        return count
    }
}

@inline(never)
func scanAll(_ messages: [[UInt8]]) {
    var scanner = MessageScanner()
    var events = Ignore()
    for message in messages {
        scanner.reset()
        message.withUnsafeBytes { scanner.update($0, &events) }
        scanner.finish(&events)
    }
}

@inline(never)
func filterAll(_ filter: MessageFilter, _ rules: ContentRules, _ messages: [[UInt8]]) -> Int {
    var matches = 0
    for message in messages {
        filter.begin(rules)
        filter.update(message)
        matches += filter.finish().matches.count
    }
    return matches
}

// MARK: - The measurements

let small = messages("clean-4096.mail")
let large = messages("clean-65536.mail")
let hits = messages("hits-4096.mail")
var sink = 0

let thousand = rules(1_000)
let filter = MessageFilter(thousand, matcher: Matcher())

if CommandLine.arguments.dropFirst(2).first == "once" {
    scanAll(small)
    sink += filterAll(filter, thousand, small)
    print(small.count)
    exit(0)
}

@MainActor func measureDecoded() {
    var body = ContentChecks()
    body.tables.body = ["pcre:\(folder)/body-1000.pcre"]
    body.scannerLimits.bodyChecksSize = 0
    var decoded = ContentChecks()
    decoded.tables.decodedHeader = ["pcre:\(folder)/header-1000.pcre"]
    decoded.tables.decodedBody = body.tables.body
    decoded.tables.attachment = ["pcre:\(folder)/attachment-100.pcre"]
    var both = decoded
    (both.tables.header, both.tables.body) = (decoded.tables.decodedHeader, body.tables.body)
    both.scannerLimits.bodyChecksSize = 0
    let lists = [rules(body), rules(decoded), thousand, rules(both)]
    let filters = lists.map { MessageFilter($0, matcher: Matcher()) }
    for (name, mail, bound) in [("HTML in base64", "html", 0.25), ("plain text", "plain", 0.6)] {
        let mail = messages("\(mail)-65536.mail")
        let times = medians([
            { sink += filterAll(filters[0], lists[0], mail) }, { sink += filterAll(filters[1], lists[1], mail) },
            { sink += filterAll(filters[2], lists[2], mail) }, { sink += filterAll(filters[3], lists[3], mail) },
        ])
        report("64 KiB of \(name), decoded lists against raw body checks", times[0] / times[1], bound: bound)
        let all = times[2] / times[3]
        print("{\"name\": \"64 KiB of \(name), raw and decoded lists against raw lists\", \"value\": \(all)}")
    }
}

if CommandLine.arguments.dropFirst(2).first == "decoded" {
    measureDecoded()
    exit(0)
}

do {
    let bodies = small.map(body(of:))
    let text = bodies.flatMap(lines(of:))
    let few = Array(text.prefix(200))
    let bodyPatterns = patterns("body-1000.pcre")
    let jit = OneByOne(bodyPatterns, jit: true)
    let interpreter = OneByOne(bodyPatterns, jit: false)
    let matcher = Matcher()
    let list = thousand.sets[0].body
    let times = medians([
        {
            for body in bodies {
                body.withUnsafeBytes {
                    matcher.forEachCandidateLine(in: $0, of: list, pass: list.fastPass) { _, _ in
                        sink += 1
                        return true
                    }
                }
            }
        },
        { for line in few { jit.scan(line) } },
        { for line in few { interpreter.scan(line) } },
    ])
    let perLine = times[0] / Double(text.count)
    report(
        "1,000 body rules against PCRE2-JIT rule by rule, lines/s", times[1] / Double(few.count) / perLine, bound: 500)
    report("1,000 body rules against Postfix's way, lines/s", times[2] / Double(few.count) / perLine, bound: 1_000)

    for (name, mail, bound) in [("4 KiB", small, 0.4), ("64 KiB", large, 0.7)] {
        let bodies = mail.map(body(of:))
        let onePass = OnePass(bodyPatterns)
        let times = medians([
            { sink += filterAll(filter, thousand, mail) },
            { for body in bodies { onePass.scan(body) } },
        ])
        report(
            "\(name) messages through scanner and 1,000+1,000 rules against one bare pass over the body",
            times[1] / times[0], bound: bound)
        print("{\"name\": \"\(name) messages/s on one core\", \"value\": \(Double(mail.count) / times[0])}")
    }
}

do {
    let times = medians([
        { sink += filterAll(filter, thousand, small) }, { sink += filterAll(filter, thousand, hits) },
    ])
    report("one line in a hundred matches against clean", times[0] / times[1], bound: 0.5)
    print("{\"name\": \"matches in the mail with hits\", \"value\": \(filterAll(filter, thousand, hits))}")
}

do {
    let before = allocation_count()
    sink += filterAll(filter, thousand, small)
    let each = Double(allocation_count() - before) / Double(small.count)
    report("heap allocations per clean 4 KiB message", each, bound: 10, atLeast: false)
}

for (name, mail) in [("4 KiB", small), ("64 KiB", large)] {
    let times = medians([
        { scanAll(mail) },
        { for message in mail { sink += countNewlines(message) } },
    ])
    report("the scanner alone against memchr for newlines, \(name)", times[1] / times[0], bound: 0.3)
}

do {
    let cache = FastPassCache(directory: "\(folder)/cache")
    let start = monotonicSeconds()
    let cold = try ContentRules(checks(10_000))
    let coldFilter = MessageFilter(cold, matcher: Matcher())
    sink += filterAll(coldFilter, cold, Array(small.prefix(1)))
    report(
        "10,000+10,000 rules, cold: first message judged after", monotonicSeconds() - start, bound: 1, atLeast: false,
        unit: "s")
    let building = monotonicSeconds()
    cold.prepareFastPass(cache: cache)
    report(
        "10,000+10,000 rules, cold: fast pass ready after", monotonicSeconds() - building, bound: 60, atLeast: false,
        unit: "s")
    let warm = monotonicSeconds()
    let again = try ContentRules(checks(10_000))
    again.prepareFastPass(cache: cache)
    report(
        "10,000+10,000 rules, from the cache: ready after", monotonicSeconds() - warm, bound: 0.5, atLeast: false,
        unit: "s")

    let ten = rules(10)
    let tenFilter = MessageFilter(ten, matcher: Matcher())
    let times = medians([
        { sink += filterAll(tenFilter, ten, small) }, { sink += filterAll(coldFilter, cold, small) },
    ])
    report("10,000+10,000 rules against 10+10, clean 4 KiB messages/s", times[0] / times[1], bound: 0.7)
}

measureDecoded()
