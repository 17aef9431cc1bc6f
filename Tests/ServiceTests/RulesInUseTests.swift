// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Messages
import Rules
import Synchronization
import Testing

@Suite struct RulesInUseTests {
    /// A directory with a table, which the test rewrites.
    private final class Folder: Sendable {
        let path = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)").path

        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func rules(_ text: String, fastPass: Bool = true) throws -> ContentRules {
            try Data(text.utf8).write(to: URL(filePath: path + "/body_checks"))
            var checks = ContentChecks()
            checks.tables.body = ["pcre:\(path)/body_checks"]
            checks.fastPass = fastPass
            checks.cacheDirectory = path + "/cache"
            return try ContentRules(checks)
        }
    }

    /// How many messages were judged by each set of rules, and by none.
    private final class Tally: Sendable {
        let counts = Mutex([0, 0, 0])
        let isOver = Atomic(false)

        func add(_ set: Int?) { counts.withLock { $0[set ?? 2] += 1 } }

        var hasBoth: Bool { counts.withLock { $0[0] > 0 && $0[1] > 0 } }
    }

    private static let message = Array("Subject: x\r\n\r\nfoo\r\nbar\r\n".utf8)

    private static func judge(_ rules: ContentRules) -> Verdict {
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        filter.update(message)
        return filter.finish()
    }

    private static func replace(_ inUse: RulesInUse, with rules: ContentRules) async {
        let isInForce = await inUse.replace(with: rules)
        #expect(isInForce)
    }

    @Test func countersOfUnchangedRulesSurviveAReload() async throws {
        let folder = try Folder()
        let inUse = RulesInUse(try folder.rules("/foo/ WARN one\n/bar/ WARN two\n/foo/ WARN one\n"))
        let before = inUse.current
        _ = Self.judge(before)
        // The first rule has moved down; the second has a different action.
        await Self.replace(inUse, with: try folder.rules("/x/ WARN new\n/foo/ WARN one\n/bar/ WARN three\n"))
        let after = inUse.current
        #expect(after.sets[0].body.counters.snapshot.map(\.hits) == [0, 1, 0])
        // A message that began before the reload is counted too.
        _ = Self.judge(before)
        _ = Self.judge(after)
        #expect(after.sets[0].body.counters.snapshot.map(\.hits) == [0, 3, 1])
    }

    @Test func unchangedRulesKeepTheirFastPass() async throws {
        let folder = try Folder()
        let first = try folder.rules("/foo/ WARN one\n")
        first.prepareFastPass()
        let inUse = RulesInUse(first)
        await Self.replace(inUse, with: try folder.rules("# a comment\n\n/foo/ WARN one\n"))
        #expect(inUse.current.sets[0].body.fastPass === first.sets[0].body.fastPass)
        await Self.replace(inUse, with: try folder.rules("/foo/ WARN one\n", fastPass: false))
        #expect(inUse.current.sets[0].body.fastPass == nil)
        await Self.replace(inUse, with: try folder.rules("/fo/ WARN one\n"))
        #expect(inUse.current.sets[0].body.fastPass != nil)
    }

    @Test func aStopDoesNotWaitForPatterns() async throws {
        let folder = try Folder()
        let inUse = RulesInUse(try folder.rules("/foo/ WARN one\n"))
        inUse.stopWaiting()
        #expect(await !inUse.replace(with: try folder.rules("/bar/ WARN one\n")))
    }

    /// A replacement that supersedes another one waits in its place. Where the patterns were ready before the stop, the
    /// test begins again.
    @Test func aStopEndsAWait() async throws {
        let folder = try Folder()
        func rules(_ word: String) throws -> ContentRules {
            try folder.rules((1...500).map { "/\(word)\($0)(a|b|c)*[0-9]+x/ WARN \($0)\n" }.joined())
        }
        for attempt in 1...1000 {
            let inUse = RulesInUse(try folder.rules("/foo/ WARN one\n"))
            let next = [try rules("one\(attempt)"), try rules("two\(attempt)")]
            let isStopped = await withTaskGroup(of: Bool.self) { group in
                for rules in next { group.addTask { await inUse.replace(with: rules) } }
                guard await group.next() == false else { return false }
                inUse.stopWaiting()
                return await group.next() == false
            }
            if isStopped { return }
        }
        Issue.record("no stop came before the patterns were ready")
    }

    /// Two sets of rules are swapped while messages are judged. Each verdict must come from exactly one of them.
    @Test func everyVerdictComesFromOneSetOfRules() async throws {
        let folder = try Folder()
        let sets = [
            try folder.rules("/foo/ REPLACE foo-a\n/bar/ REPLACE bar-a\n"),
            try folder.rules("/fo+/ REPLACE foo-b\n/ba./ REPLACE bar-b\n"),
        ]
        let expected = sets.map { rules in Self.judge(rules).edits.map(\.replacement) }
        #expect(expected[0] != expected[1])
        let inUse = RulesInUse(sets[0])
        let tally = Tally()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<2 {
                group.addTask {
                    let filter = MessageFilter(inUse.current, matcher: Matcher(inUse.current.checks))
                    while !tally.isOver.load(ordering: .acquiring) {
                        filter.begin(inUse.current)
                        // In pieces, so that swaps happen in the middle of messages.
                        for start in stride(from: 0, to: Self.message.count, by: 7) {
                            filter.update(Array(Self.message[start..<min(start + 7, Self.message.count)]))
                        }
                        let found = filter.finish().edits.map(\.replacement)
                        tally.add(expected.firstIndex(of: found))
                        await Task.yield()
                    }
                }
            }
            // At least 1,000 swaps, and as many as it takes until both sets have judged messages.
            for number in 1...1_000_000 where number <= 1_000 || !tally.hasBoth {
                await Self.replace(inUse, with: sets[number % 2])
                await Task.yield()
            }
            tally.isOver.store(true, ordering: .releasing)
        }
        let judged = tally.counts.withLock { $0 }
        #expect(judged[2] == 0)
        #expect(judged[0] > 0 && judged[1] > 0)
    }
}
