// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// Keys that come and go: idle ones, eviction, and reloads.
@Suite struct LedgerMemoryTests {
    @Test func idleKeysLeaveMemoryAndStore() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1m"])], names: maker.names, store: store)
        for number in 0..<200 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        for number in 0..<150 {
            try harness.ask(settling("END-OF-MESSAGE", "m\(number)", count: 1, user: "u\(number)"))
        }
        try harness.finishCheckpoint()
        #expect(store.rows.count == 200)
        harness.clocks.advance(120_000)
        try harness.sweep()
        #expect(harness.ledger.limits[0].accountCount == 0)
        // Messages that have not ended need the rows of their keys after a restart.
        try harness.finishCheckpoint()
        #expect(store.rows.count == 50)
        harness.clocks.advance(TransactionTable.openLifetime)
        try harness.sweep()
        try harness.finishCheckpoint()
        #expect(store.rows.isEmpty)
    }

    /// Also if the ledger looks at the very millisecond at which its lifetime ends.
    @Test func anEndedMessageIsForgottenInTime() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["10/1h"])] }
        for message in ["a", "b"] {
            try harness.ask(rcpt(message, to: "a@example.org"))
            try harness.ask(settling("END-OF-MESSAGE", message, count: 1))
            harness.clocks.advance(TransactionTable.endedLifetime / 2)
        }
        try harness.sweep()
        harness.clocks.advance(1)
        try harness.sweep()
        try harness.ask(rcpt("a", to: "a@example.org"))
        #expect(harness.used("user") == [3])
    }

    /// An account and its limit refer to each other, and the list of the fullest keys refers to accounts.
    @Test func aLedgerIsFreedWithItsKeys() throws {
        weak var limit: LimitState?
        do {
            let harness = try LedgerHarness({ [$0.limit(rates: ["10/1m"])] })
            try harness.ask(rcpt("m1", to: "a@example.org", user: "u1"))
            limit = harness.ledger.limits[0]
            #expect(limit?.accountCount == 1)
        }
        #expect(limit == nil)
    }

    @Test func beyondTheMaximumTheLeastUsedKeyIsEvicted() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let harness = try LedgerHarness({ [$0.limit(rates: ["1000/1h"])] }, settings: settings)
        for number in 0..<50 { try harness.ask(settling("DATA", "h\(number)", count: 1, user: "heavy")) }
        for number in 0..<1000 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        #expect(harness.ledger.limits[0].accountCount <= 100)
        #expect(harness.used("heavy") == [50])
    }

    private func flooded(_ store: MemoryStore) throws -> LedgerHarness {
        var maker = LimitMaker()
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let harness = try LedgerHarness(
            [maker.limit(rates: ["1000/1h"])], names: maker.names, store: store, settings: settings)
        for number in 0..<1000 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        return harness
    }

    @Test func evictedKeysLeaveNoRows() throws {
        let store = MemoryStore()
        let harness = try flooded(store)
        // By the second round, transactions refer to keys of several checkpoints.
        for round in 0..<2 {
            try harness.finishCheckpoint()
            #expect(store.rows.count == 100)
            for number in 0..<500 {
                try harness.ask(rcpt("n\(round).\(number)", to: "a@example.org", user: "v\(round).\(number)"))
            }
        }
        harness.ledger.beginTick()
        try harness.ledger.beginCheckpoint()
        for number in 0..<500 { try harness.ask(rcpt("o\(number)", to: "a@example.org", user: "w\(number)")) }
        while harness.ledger.isCheckpointRunning { #expect(harness.ledger.maintain(slots: 16) == nil) }
        try harness.finishCheckpoint()
        #expect(store.rows.count == 100)
    }

    /// A store with more rows than the settings now allow.
    @Test func aStartKeepsTheMaximumWhileItReads() throws {
        var maker = LimitMaker()
        let limits = [maker.limit(rates: ["1000/1h"])]
        let store = CountingStore()
        let before = try LedgerHarness(limits, names: maker.names, store: store)
        for number in 0..<50 { try before.ask(settling("DATA", "h\(number)", count: 1, user: "heavy")) }
        let until = before.ledger.now + 3_600_000
        for number in 0..<3000 {
            let user = "u\(number)"
            try before.ask(settling("DATA", "m\(number)", count: 1, user: user))
            guard number % 100 == 0 else { continue }
            _ = try before.ledger.intervene(.block(until: until), onKey: Array(user.utf8), limit: nil, by: .here)
        }
        try before.ledger.commit()
        try before.finishCheckpoint()
        try before.finishCheckpoint()
        #expect(store.rows.count == 3001)
        // Half of them in the rows, the others in the journal.
        for number in 3000..<6000 { try before.ask(settling("DATA", "m\(number)", count: 1, user: "u\(number)")) }
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let after = try LedgerHarness(limits, names: maker.names, store: store, settings: settings)
        #expect(100...200 ~= store.mostAccounts)
        #expect(after.ledger.limits[0].accountCount <= 100)
        #expect(after.used("heavy") == [50])
        for number in stride(from: 0, to: 3000, by: 100) {
            #expect(after.standing("u\(number)")?.blockedUntil != nil, "u\(number)")
        }
        try after.finishCheckpoint()
        try after.finishCheckpoint()
        #expect(store.rows.count <= 100)
    }

    @Test func keysOfARemovedLimitLeaveNoRows() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1h"])], names: maker.names, store: store)
        for number in 0..<100 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        harness.ledger.reload([], settings: harness.settings)
        try harness.finishCheckpoint()
        #expect(store.rows.isEmpty)
    }

    /// Before a checkpoint has removed its rows, and with its charges in the journal.
    @Test(arguments: [false, true]) func aLimitThatComesBackStartsEmpty(comesByReload: Bool) throws {
        var maker = LimitMaker()
        let limits = [maker.limit(rates: ["10/1h"])]
        let harness = try LedgerHarness(limits, names: maker.names)
        try harness.ask(rcpt("a", to: "a@example.org"))
        try harness.finishCheckpoint()
        try harness.ask(rcpt("b", to: "a@example.org"))
        harness.ledger.beginTick()
        harness.ledger.reload([], settings: harness.settings)
        try harness.ledger.commit()
        if comesByReload {
            harness.ledger.reload(limits, settings: harness.settings)
            try harness.ledger.commit()
        }
        try harness.crash()
        #expect(harness.used("user").isEmpty)
        try harness.ask(rcpt("c", to: "a@example.org"))
        try harness.crash()
        #expect(harness.used("user") == [1])
    }

    @Test func aRestartBringsBackNoMoreKeysThanAllowed() throws {
        let store = MemoryStore()
        let harness = try flooded(store)
        // All 1000 keys are in the journal.
        try harness.crash()
        #expect(harness.ledger.limits[0].accountCount <= 100)
        try harness.finishCheckpoint()
        #expect(store.rows.count <= 100)
    }

    @Test func aReloadThatAllowsFewerKeysEvictsSome() throws {
        let harness = try flooded(MemoryStore())
        harness.settings.mostAccounts = 20
        harness.ledger.reload(harness.limits, settings: harness.settings)
        for _ in 0..<20 {
            harness.ledger.beginTick()
            #expect(harness.ledger.maintain(slots: 2048) == nil)
        }
        #expect(harness.ledger.limits[0].accountCount == 20)
    }

    @Test func evictedKeysLeaveMemoryWhileTheStoreFails() throws {
        var maker = LimitMaker()
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let store = MemoryStore()
        let harness = try LedgerHarness(
            [maker.limit(rates: ["1000/1h"])], names: maker.names, store: store, settings: settings)
        let observer = EvictionObserver()
        harness.ledger.observer = observer
        store.failure = StoreError("disk full")
        for number in 0..<10_000 {
            // No `instance`: a transaction would keep a reference to the account.
            try harness.ask(
                ["protocol_state": "RCPT", "recipient": "a@example.org", "sasl_username": "u\(number)"], commits: false)
            harness.ledger.discardBatch()
        }
        #expect(observer.evicted.count > 9000)
        #expect(observer.evicted.count { $0.account != nil } < 200)
    }

    @Test func aFloodOfKeysEndsNoBlock() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let harness = try LedgerHarness({ [$0.limit(rates: ["1000/1h"])] }, settings: settings)
        for number in 0..<3 {
            _ = try harness.ledger.intervene(
                .block(until: harness.ledger.now + 3_600_000), onKey: Array("bad\(number)".utf8), limit: "per-user",
                by: .here)
        }
        for number in 0..<2000 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        #expect(harness.ledger.limits[0].accountCount <= 101)
        for number in 0..<3 { #expect(harness.standing("bad\(number)")?.blockedUntil != nil) }
    }

    @Test func theKeyOfARefusedRequestIsNotEvicted() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 1
        let harness = try LedgerHarness(
            {
                [
                    $0.limit(rates: ["0/1h"], block: .init(after: 1, milliseconds: 60_000)),
                    $0.limit("to", key: ["recipient"], rates: ["9/1h"]),
                ]
            },
            settings: settings)
        #expect(try harness.ask(rcpt("a", to: "a@example.org")) != nil)
        #expect(harness.standing("user")?.blockedUntil != nil)
    }

    @Test func reloadKeepsCountsWithTheSameMeaning() throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness(
            [maker.limit(rates: ["10/1h", "50/1d"]), maker.limit("gone", key: ["sender"], rates: ["100/1h"])],
            names: maker.names)
        for number in 0..<5 {
            try harness.ask(rcpt("m\(number)", to: "a@example.org", more: ["sender": "a@example.org"]))
        }
        harness.ledger.beginTick()
        harness.limits = [
            maker.limit(rates: ["7/1h", "3/1m", "60/1d"]), maker.limit("new", key: ["sender"], rates: ["100/1h"]),
        ]
        harness.ledger.reload(harness.limits, settings: harness.settings)
        #expect(harness.used("user") == [5, 0, 5])
        #expect(harness.used("a@example.org").isEmpty)
        // A transaction that was open during the reload is settled as usual.
        try harness.ask(settling("DATA", "m4", count: 3, more: ["sender": "a@example.org"]))
        #expect(harness.used("user")[0] == 7)
        try harness.crash()
        #expect(harness.used("user")[0] == 7)
    }

    /// Until a request looks the key up again, it has the overrides from before the reload, window by window.
    @Test(arguments: [["100/1m", "1000/1h"], ["1000/1h", "5000/1d"]])
    func otherWindowsWithOverrides(rates: [String]) throws {
        let overrides = LookupTable.text(Array("user 5000/1h\n".utf8)).table
        let harness = try LedgerHarness { [$0.limit(rates: ["1000/1h"], overrides: [overrides])] }
        try harness.ask(rcpt("a", to: "a@example.org"))
        var maker = LimitMaker(names: harness.names)
        harness.ledger.beginTick()
        harness.ledger.reload([maker.limit(rates: rates, overrides: [overrides])], settings: harness.settings)
        let listed = try harness.ledger.fullest(10, limit: nil).flatMap(\.usages)
        for _ in 0..<50 { _ = harness.ledger.maintain(slots: 256) }
        #expect(try harness.ask(rcpt("b", to: "a@example.org")) == nil)
        for usages in [listed, harness.standing("user")?.usages ?? []] {
            #expect(usages.map(\.admitted) == rates.map { $0 == "1000/1h" ? 5000 : Rate($0)!.count })
        }
    }
}

/// Notes how many accounts a ledger has while it reads.
private final class CountingStore: MemoryStore {
    private(set) var mostAccounts = 0

    private final class Sink: RecoverySink {
        let recovery: LedgerRecovery
        var most = 0
        init(_ recovery: LedgerRecovery) { self.recovery = recovery }

        private func count() { most = max(most, recovery.ledger.limits.reduce(0) { $0 + $1.accountCount }) }

        func recover(account row: AccountRow) throws(JournalDamage) {
            try recovery.recover(account: row)
            count()
        }

        func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
            try recovery.recover(transactions: content, sequence: sequence)
        }

        func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
            try recovery.recover(batch: content, sequence: sequence)
            count()
        }
    }

    override func recover(into sink: any RecoverySink) throws(StoreError) {
        guard let recovery = sink as? LedgerRecovery else { throw StoreError("another sink") }
        let counting = Sink(recovery)
        try super.recover(into: counting)
        mostAccounts = counting.most
    }
}
