// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Patterns
import Rules
import Testing

/// Lookups that take more than their share of an event loop.
@Suite struct SuspensionTests {
    private static let heavy = String(repeating: "x", count: 60) + "qy"
    private static let header = #"""
        /^X-Heavy: (x+x+)+(.)\2y$/ REJECT too late
        /^X-Old:/ REPLACE X-New: value
        /^X-Gone:/ IGNORE
        /^Subject: .*z/ HOLD
        """#
    private static let body = #"""
        /^(x+x+)+(.)\2y$/ REJECT too late
        /^gone/ IGNORE
        /^(\w+)\1$/ REPLACE twice $1
        !/^[a-z\r]+$/ PREPEND odd
        """#
    private static let message = """
        X-Gone: 1\r\nX-Heavy: \(heavy)\r\nX-Old: 2\r\nX-Weir-Verdict: HOLD\r\nSubject: a z\r\n folded\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nX-Gone: 3\r\n\r\nxx\r\n\(heavy)\r\n\
        gone\r\n\(heavy)\r\nabab\r\nplain\r\n--b--\r\nend 1\r\nno line end
        """

    private static func rules(header: String = Self.header) throws -> ContentRules {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        var checks = ContentChecks()
        checks.matchLimits.steps = 20_000
        for (name, text) in [("header", header), ("body", body)] {
            try text.write(to: directory.appending(path: name), atomically: true, encoding: .utf8)
        }
        checks.tables.header = ["pcre:\(directory.path)/header"]
        checks.tables.body = ["pcre:\(directory.path)/body"]
        return try ContentRules(checks)
    }

    /// What matters of a verdict, and how often it was suspended.
    private static func judge(_ rules: ContentRules, _ share: LoopShare?, piece: Int) -> (String, suspensions: Int) {
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: share))
        var suspensions = 0
        func resumeIfSuspended() {
            guard filter.isSuspended else { return }
            suspensions += 1
            filter.prepareToResume()
            filter.resume()
        }
        var outcome = ""
        // The second message uses what the first one has left.
        for _ in 0..<2 {
            filter.begin(rules)
            let bytes = Array(message.utf8)
            for start in stride(from: 0, to: bytes.count, by: piece) {
                filter.update(Array(bytes[start..<min(start + piece, bytes.count)]))
                resumeIfSuspended()
            }
            filter.endInput()
            resumeIfSuspended()
            let verdict = filter.finish()
            outcome += "\(verdict.disposition) \(verdict.isHeld) \(verdict.notes)\n"
            for match in verdict.matches {
                outcome += "\(match.location) \(String(decoding: match.content, as: UTF8.self))\n"
            }
            outcome += String(decoding: verdict.apply(to: bytes, lineEnd: .crlf), as: UTF8.self)
        }
        return (outcome, suspensions)
    }

    @Test(arguments: [1, 7, 100, 10_000], [false, true])
    func resultsStayTheSame(piece: Int, hasFastPass: Bool) throws {
        let rules = try Self.rules()
        if hasFastPass { rules.prepareFastPass() }
        let (expected, none) = Self.judge(rules, nil, piece: piece)
        #expect(none == 0)
        #expect(expected.contains("match limit exceeded"))
        for steps: UInt32 in [1, 50, 2_000, 200_000] {
            var share = LoopShare()
            share.steps = steps
            let (outcome, suspensions) = Self.judge(rules, share, piece: piece)
            #expect(outcome == expected)
            #expect(suspensions > 0)
        }
    }

    /// Ordinary lookups are suspended too, once they have used up the share of the period.
    @Test func timeOfAPeriodIsBounded() throws {
        let rules = try Self.rules()
        rules.prepareFastPass()
        nonisolated(unsafe) var now: UInt64 = 1_000_000
        var share = LoopShare()
        (share.time, share.period) = (50, 1_000_000)
        let matcher = Matcher(limits: rules.checks.matchLimits, share: share) {
            now += 10
            return now
        }
        let filter = MessageFilter(rules, matcher: matcher)
        filter.update(Array("Subject: a\r\n\r\n".utf8))
        #expect(!filter.isSuspended)
        filter.update(Array(String(repeating: "abab 1\r\n", count: 50).utf8))
        #expect(filter.isSuspended)
        filter.prepareToResume()
        filter.resume()
        #expect(filter.finish().edits.count == 50)
        now += share.period
        filter.begin(rules)
        filter.update(Array("Subject: a\r\n\r\nabab\r\n".utf8))
        #expect(!filter.isSuspended)
    }

    /// A lookup that is repeated elsewhere says once what its rules can't do.
    @Test func rulesGivenUpAreNotedOnce() throws {
        let rules = try Self.rules(
            header: #"""
                /(*UTF)^X-Heavy: never/ REJECT not UTF-8
                /^X-Heavy: .(x+x+)+(.)\2y$/ REJECT too late
                """#)
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: LoopShare()))
        filter.update(Array("X-Heavy: ".utf8) + [0xff] + Array("\(Self.heavy)\r\n\r\n".utf8))
        #expect(filter.isSuspended)
        filter.prepareToResume()
        filter.resume()
        let lines = filter.finish().notes.map { note -> Substring in
            if case .givenUp(let location, _) = note { "\(location)".split(separator: ":").last ?? "" } else { "" }
        }
        #expect(lines == ["1", "2"])
    }

    @Test func abandonedFilterEnds() throws {
        let rules = try Self.rules()
        var share = LoopShare()
        share.steps = 1
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: share))
        filter.update(Array(Self.message.utf8))
        #expect(filter.isSuspended)
        filter.endInput()
        filter.prepareToResume()
        filter.abandon()
        filter.resume()
        #expect(!filter.isSuspended)
        #expect(filter.finish().matches.isEmpty)
    }
}
