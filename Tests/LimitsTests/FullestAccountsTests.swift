// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// The list that is kept while keys are charged equals the result of a walk over all accounts.
struct FullestAccountsTests {
    private static let users = 12_000

    private func harness() throws -> LedgerHarness {
        var maker = LimitMaker()
        var settings = Ledger.Settings()
        settings.mostAccounts = Self.users
        return try LedgerHarness(
            [maker.limit(rates: ["300/10m", "1000/1h"], countRefused: true)], names: maker.names, settings: settings)
    }

    /// The fullness of the fullest accounts, from a walk over all accounts.
    private func byWalking(_ ledger: Ledger, most: Int) -> [Double] {
        var walk = ledger.selectionWalk(.any, in: ledger.limits)
        while (try? ledger.advance(&walk, steps: 4096)) ?? false {}
        let found = walk.found.compactMap { $0.fullness(at: ledger.now) }
        return Array(found.sorted(by: >).prefix(most))
    }

    private func fullness(_ standing: Standing) -> Double {
        standing.usages.map { Double($0.used) / Double($0.admitted) }.max() ?? 0
    }

    private func check(_ harness: LedgerHarness, most: Int = 100, sourceLocation: SourceLocation = #_sourceLocation) {
        harness.ledger.beginTick()
        let list = (try? harness.ledger.fullest(most, limit: nil)) ?? []
        #expect(list.map(fullness) == byWalking(harness.ledger, most: most), sourceLocation: sourceLocation)
        #expect(Set(list.map(\.key)).count == list.count, sourceLocation: sourceLocation)
    }

    /// Messages of many users. A few of them send most of the mail.
    private func traffic(_ harness: LedgerHarness, messages: Int, spread: Int64, _ random: inout SeededGenerator) throws
    {
        for _ in 0..<messages {
            let share = Double.random(in: 0..<1, using: &random)
            let user = Int(share * share * share * Double(Self.users))
            try harness.ask([
                "protocol_state": "DATA", "instance": "m\(random.next())", "sasl_username": "u\(user)",
                "recipient_count": String(Int.random(in: 1...20, using: &random)),
            ])
            harness.clocks.advance(.random(in: 0...2 * spread, using: &random))
        }
    }

    private func sweep(_ harness: LedgerHarness, rounds: Int) throws {
        for _ in 0..<rounds {
            harness.ledger.beginTick()
            // More slots than the table has.
            if let error = harness.ledger.maintain(slots: 1 << 20) { throw error }
            try harness.ledger.commit()
        }
    }

    @Test(arguments: 0..<3 as Range<UInt64>)
    func isTheFullestOfAll(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let harness = try harness()
        for _ in 0..<6 {
            try traffic(harness, messages: 5000, spread: 40, &random)
            check(harness)
        }
        try harness.crash()
        check(harness)
        // Less traffic: the fullest accounts empty, and others take their place.
        for _ in 0..<20 {
            try traffic(harness, messages: 100, spread: 2000, &random)
            try sweep(harness, rounds: 4)
        }
        check(harness)
        harness.clocks.advance(2 * 3_600_000)
        try sweep(harness, rounds: 2)
        #expect(try harness.ledger.fullest(100, limit: nil).isEmpty)
    }

    /// However many accounts there are, a piece does no more than its steps.
    @Test func eachPieceIsBounded() throws {
        var random = SeededGenerator(seed: 3)
        let harness = try harness()
        try traffic(harness, messages: 20_000, spread: 1, &random)
        harness.ledger.beginTick()
        let expected = byWalking(harness.ledger, most: 1000)
        for steps in [FullestWalk.stepsPerStanding, 1000, 100_000] {
            var walk = try harness.ledger.fullestWalk(1000, limit: nil)
            var hasMore = true
            while hasMore {
                let (measured, made) = (walk.measured, walk.made)
                hasMore = harness.ledger.advance(&walk, steps: steps)
                let taken = walk.measured - measured + FullestWalk.stepsPerStanding * (walk.made - made)
                #expect(taken <= steps)
                #expect(taken > 0 || !hasMore)
            }
            #expect(walk.result.map(fullness) == expected)
        }
    }

    /// Accounts that are evicted between the pieces are left out.
    @Test func accountsThatLeaveMeanwhile() throws {
        var random = SeededGenerator(seed: 5)
        let harness = try harness()
        try traffic(harness, messages: 5000, spread: 1, &random)
        harness.ledger.beginTick()
        var walk = try harness.ledger.fullestWalk(1000, limit: nil)
        _ = harness.ledger.advance(&walk, steps: 500)
        harness.ledger.reload([], settings: harness.settings)
        while harness.ledger.advance(&walk, steps: 500) {}
        #expect(walk.result.isEmpty)
    }

    @Test func interventionsAndReloadsShowAtOnce() throws {
        var random = SeededGenerator(seed: 7)
        let harness = try harness()
        try traffic(harness, messages: 15_000, spread: 40, &random)
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(
            .block(until: harness.ledger.now + 60_000), onKey: Array("new".utf8), limit: "per-user", by: .here)
        let list = try harness.ledger.fullest(100, limit: "per-user")
        #expect(list.contains { $0.key == Array("new".utf8) })
        #expect(throws: AdministrationFault.unknownLimit("other", known: ["per-user"])) {
            try harness.ledger.fullest(100, limit: "other")
        }

        var maker = LimitMaker()
        harness.limits = [maker.limit(rates: ["30000/10m", "100/1h"])]
        harness.ledger.reload(harness.limits, settings: harness.settings)
        try sweep(harness, rounds: 2)
        harness.clocks.advance(60_000)
        check(harness)
    }
}
