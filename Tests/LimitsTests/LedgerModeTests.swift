// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// Shadow mode, answers that don't refuse, blocks, and tables.
@Suite struct LedgerModeTests {
    @Test func shadowRefusesNothing() throws {
        let harness = try LedgerHarness {
            [$0.limit(rates: ["2/1h"], mode: .shadow), $0.limit("real", rates: ["4/1h"])]
        }
        let answers = try (0..<6).map { try harness.ask(rcpt("m\($0)", to: "a@example.org")) == nil }
        #expect(answers == [true, true, true, true, false, false])
        #expect(harness.used("user", limit: "per-user") == [2])
        #expect(harness.standing("user", limit: "per-user")?.refusedTries == 4)
    }

    @Test func shadowReportsOnceAndBlocksNobody() throws {
        let block = Limit.Block(after: 3, milliseconds: 600_000)
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1m"], mode: .shadow, block: block)] }
        try harness.ask(rcpt("a", to: "a@example.org"))
        for message in 0..<5 {
            try harness.ask(rcpt("m\(message)", to: "a@example.org"))
            try harness.ask(settling("DATA", "m\(message)", count: 1))
        }
        #expect(harness.standing("user")?.refusedTries == 5)
        #expect(harness.standing("user")?.blockedUntil == nil)
    }

    /// There was no room when the end was answered. When Postfix repeats it, there is, but it is not charged.
    @Test func aRepeatedEndIsNotChargedInShadowMode() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["2/1h"], mode: .shadow)] }
        for recipient in ["a", "b"] { try harness.ask(rcpt("one", to: "\(recipient)@example.org")) }
        try harness.ask(rcpt("two", to: "a@example.org"))
        for state in ["DATA", "END-OF-MESSAGE"] { try harness.ask(settling(state, "two", count: 1)) }
        try harness.ask(settling("DATA", "one", count: 1))
        try harness.ask(settling("END-OF-MESSAGE", "two", count: 1))
        #expect(harness.used("user") == [1])
    }

    /// A person said so: shadow mode and an `over` that lets pass do not matter.
    @Test(arguments: [("DEFER_IF_PERMIT later", Limit.Mode.shadow), ("WARN over", .enforce), ("WARN over", .shadow)])
    func aBlockByHandHoldsInEveryMode(over: String, mode: Limit.Mode) throws {
        let harness = try LedgerHarness {
            [$0.limit(rates: ["1/1h"], over: over, mode: mode, blockOver: "REJECT 5.7.1 $name is blocked for $key")]
        }
        func block(_ intervention: Intervention) throws {
            harness.ledger.beginTick()
            _ = try harness.ledger.intervene(intervention, onKey: Array("user".utf8), limit: "per-user", by: .here)
        }
        try block(.block(until: harness.ledger.now + 60_000))
        #expect(try harness.ask(rcpt("a", to: "a@example.org")) == "REJECT 5.7.1 per-user is blocked for user")
        try harness.crash()
        #expect(try harness.ask(rcpt("b", to: "a@example.org"))?.hasPrefix("REJECT") == true)
        #expect(harness.used("user") == [0])
        try block(.unblock)
        for number in 0..<3 {
            #expect(try harness.ask(rcpt("c\(number)", to: "a@example.org"))?.hasPrefix("REJECT") ?? false == false)
        }
    }

    /// A block of the limit's own is answered with `block.over`, and holds no mail up in shadow mode.
    @Test func answerOfABlock() throws {
        let block = Limit.Block(after: 2, milliseconds: 60_000)
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1h"], block: block)] }
        let answers = try (0..<4).map { try harness.ask(rcpt("m\($0)", to: "a@example.org")) }
        #expect(answers.map { $0?.prefix(5) } == [nil, "DEFER", "DEFER", "REJEC"])
        var maker = LimitMaker()
        harness.ledger.reload(
            [maker.limit(rates: ["1/1h"], mode: .shadow, block: block)], settings: harness.settings)
        #expect(harness.standing("user")?.blockedUntil != nil)
        #expect(try harness.ask(rcpt("shadow", to: "a@example.org")) == nil)
    }

    /// If the answer lets the request pass, it is charged, and a later limit can still refuse it.
    @Test(arguments: ["PREPEND X-Rate: $count", "WARN over", "HOLD", "DEFER_IF_REJECT later"])
    func passedRequestsAreCharged(over: String) throws {
        let harness = try LedgerHarness {
            [$0.limit("soft", rates: ["2/1h"], over: over, countRefused: true), $0.limit("hard", rates: ["4/1h"])]
        }
        let answers = try (0..<6).map { try harness.ask(rcpt("m\($0)", to: "a@example.org")) }
        #expect(answers.map { $0?.prefix(4) } == [nil, nil, over.prefix(4), over.prefix(4), "DEFE", "DEFE"])
        #expect(answers[5]?.hasPrefix("DEFER_IF_PERMIT") == true)
        #expect(harness.used("user", limit: "soft") == [4])
        #expect(harness.standing("user", limit: "soft")?.refusedTries == 2)
        #expect(harness.used("user", limit: "hard") == [4])
        try harness.crash()
        #expect(harness.used("user", limit: "soft") == [4])
    }

    @Test func aBlockByHandHoldsAnExemptKey() throws {
        let exempt = LookupTable.text(Array("boss  OK\n".utf8)).table
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1h"], exempt: [exempt])] }
        #expect(try harness.ask(rcpt("a", to: "a@example.org", user: "boss")) == nil)
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(
            .block(until: harness.ledger.now + 60_000), onKey: Array("boss".utf8), limit: "per-user", by: .here)
        #expect(try harness.ask(rcpt("b", to: "a@example.org", user: "boss")) != nil)
        try harness.crash()
        #expect(try harness.ask(rcpt("c", to: "a@example.org", user: "boss")) != nil)
        try harness.finishCheckpoint()
        try harness.crash()
        #expect(try harness.ask(rcpt("d", to: "a@example.org", user: "boss")) != nil)
        harness.clocks.advance(61_000)
        for number in 0..<3 { #expect(try harness.ask(rcpt("e\(number)", to: "a@example.org", user: "boss")) == nil) }
        #expect(harness.used("boss") == [0])
    }

    @Test func anAutomaticBlockEndsForAnExemptKey() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1h"], block: .init(after: 1, milliseconds: 600_000))] }
        for number in 0..<3 { try harness.ask(rcpt("a\(number)", to: "a@example.org")) }
        #expect(harness.standing("user")?.blockedUntil != nil)
        var maker = LimitMaker(names: harness.names)
        let exempt = LookupTable.text(Array("user  OK\n".utf8)).table
        harness.ledger.beginTick()
        harness.ledger.reload([maker.limit(rates: ["1/1h"], exempt: [exempt])], settings: harness.settings)
        #expect(try harness.ask(rcpt("b", to: "a@example.org")) == nil)
    }

    @Test func theWarningHasTheCountsOfAllWindows() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["100/1m", "5/1h"])] }
        let observer = NearObserver()
        harness.ledger.observer = observer
        for number in 0..<5 { try harness.ask(rcpt("m\(number)", to: "a@example.org")) }
        #expect(observer.warnings == [[4, 4]])
    }

    @Test func aBlockEndsByItself() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1m"], block: .init(after: 3, milliseconds: 600_000))] }
        for number in 0..<4 { try harness.ask(rcpt("m\(number)", to: "a@example.org")) }
        #expect(harness.standing("user")?.blockedUntil != nil)
        harness.clocks.advance(120_000)
        #expect(try harness.ask(rcpt("n", to: "a@example.org")) != nil)
        try harness.crash()
        #expect(harness.standing("user")?.blockedUntil != nil)
        harness.clocks.advance(500_000)
        #expect(try harness.ask(rcpt("o", to: "a@example.org")) == nil)
    }

    @Test(arguments: [true, false])
    func refusedRequestsAreChargedIfConfigured(counted: Bool) throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["2/1m"], countRefused: counted)] }
        for number in 0..<5 { try harness.ask(rcpt("m\(number)", to: "a@example.org")) }
        #expect(harness.used("user") == [counted ? 5 : 2])
        try harness.crash()
        #expect(harness.used("user") == [counted ? 5 : 2])
        #expect(harness.standing("user")?.refusedTries == 3)
    }

    @Test func tablesExemptAndOverride() throws {
        let exempt = LookupTable.text(Array("boss@example.org  OK\n".utf8)).table
        let overrides = LookupTable.text(Array("example.com 5/1h\n".utf8)).table
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1h"], exempt: [exempt], overrides: [overrides])] }
        func send(_ user: String) throws -> Int {
            try (0..<8).filter { try harness.ask(rcpt("\(user)\($0)", to: "a@example.org", user: user)) == nil }.count
        }
        #expect(try send("user@example.org") == 1)
        #expect(try send("Boss@Example.org") == 8)
        #expect(try send("user@example.com") == 5)
    }
}
