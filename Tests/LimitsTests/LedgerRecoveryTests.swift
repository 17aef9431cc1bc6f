// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// Errors of the store, crashes, and checkpoints.
@Suite struct LedgerRecoveryTests {
    @Test func aFaultyStoreLosesNothing() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["100/1h"])], names: maker.names, store: store)
        try harness.ask(rcpt("a", to: "a@example.org"))
        store.failure = StoreError("disk full")
        #expect(throws: StoreError.self) { try harness.ask(rcpt("b", to: "a@example.org")) }
        harness.ledger.beginTick()
        _ = harness.decide(rcpt("c", to: "a@example.org"))
        harness.ledger.discardBatch()
        #expect(harness.used("user") == [3])
        store.failure = nil
        harness.ledger.beginTick()
        try harness.ledger.restartJournal()
        while harness.ledger.isCheckpointRunning { _ = harness.ledger.maintain(slots: 64) }
        try harness.crash()
        #expect(harness.used("user") == [3])
    }

    /// The journal is lost, and the wall clock was set back over a reboot: the rows are from the future.
    @Test func aClockBehindTheStore() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["5/1h"])], names: maker.names, store: store)
        for recipient in 0..<3 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        try harness.ask(settling("DATA", "n", count: 1))
        try harness.finishCheckpoint()
        for segment in store.segments.indices { store.segments[segment].batches = [] }
        harness.clocks.reboot(after: -7_200_000)
        try harness.crash()
        #expect(harness.used("user") == [4])
        try harness.ask(settling("DATA", "m", count: 1))
        #expect(harness.used("user") == [2])
        try harness.crash()
        #expect(harness.used("user") == [2])
        #expect(try harness.ask(settling("DATA", "o", count: 4)) != nil)
        harness.clocks.advance(3_600_000 + 120_000)
        #expect(harness.used("user") == [0])
    }

    /// A row from the future moves the clock so far that the slot numbers of an earlier row wrap.
    @Test func aRowFromTheFuture() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["5/1m"])], names: maker.names, store: store)
        try harness.ask(settling("DATA", "m", count: 4, user: "early"))
        try harness.finishCheckpoint()
        let early = store.rows[1]
        // 24 bits of a slot's number are stored, and a slot is a second long.
        let wrap: Int64 = 1000 << 24
        harness.clocks.advance(wrap)
        try harness.ask(settling("DATA", "n", count: 3, user: "late"))
        try harness.finishCheckpoint()
        store.rows[1] = early
        store.segments = []
        store.transactions = []
        harness.clocks.reboot(after: -wrap)
        try harness.crash()
        #expect(harness.used("late") == [3])
        #expect(harness.used("early").allSatisfy { $0 == 0 })
    }

    /// A key was removed while idle and came back under a new id. Its row stays, although the journal still has the old
    /// id.
    @Test func theJournalOfAKeysEarlierLife() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["5/1m"])], names: maker.names, store: store)
        try harness.ask(settling("END-OF-MESSAGE", "a", count: 1))
        let journal = store.segments
        try harness.finishCheckpoint()
        harness.clocks.advance(120_000)
        harness.ledger.beginTick()
        for _ in 0..<50 { _ = harness.ledger.maintain(slots: 256) }
        #expect(harness.ledger.limits[0].accountCount == 0)
        try harness.ask(rcpt("c", to: "a@example.org"))
        try harness.ask(rcpt("d", to: "a@example.org"))
        try harness.finishCheckpoint()
        #expect(store.rows.keys.sorted() == [2])
        // A crash after the checkpoint was written, and before the older journal was deleted.
        store.segments = [(number: 0, batches: journal.flatMap(\.batches))] + store.segments
        try harness.crash()
        #expect(harness.used("user") == [2])
    }

    /// A key leaves memory while a checkpoint is saved that deletes the journal of its last change.
    @Test func whatWasGivenBackStaysSo() throws {
        let harness = try LedgerHarness { [$0.limit(key: ["recipient"], rates: ["5/1h"])] }
        for recipient in ["a@example.org", "b@example.org"] { try harness.ask(rcpt("m", to: recipient)) }
        try harness.finishCheckpoint()
        harness.ledger.beginTick()
        // The MTA has rejected the other recipient.
        _ = harness.decide(settling("DATA", "m", count: 1).merging(["recipient": "b@example.org"]) { $1 })
        try harness.ledger.beginCheckpoint()
        // Looks at one place of the table, and saves nothing.
        for _ in 0..<1024 where harness.standing("a@example.org") != nil { _ = harness.ledger.maintain(slots: 0) }
        #expect(harness.standing("a@example.org") == nil)
        while harness.ledger.isCheckpointRunning { _ = harness.ledger.maintain(slots: 16) }
        try harness.crash()
        #expect(harness.used("a@example.org").allSatisfy { $0 == 0 })
    }

    /// What upkeep gives back, and the next charge, happen at different times. Both keep theirs over a crash.
    @Test func aChargeAfterUpkeepKeepsItsTime() throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        let harness = try LedgerHarness({ [$0.limit(rates: ["9/1s"])] }, settings: settings)
        try harness.ask(rcpt("m", to: "r@example.org", user: "a"))
        harness.clocks.advance(TransactionTable.openLifetime + 1)
        harness.ledger.beginTick()
        // The message ended before DATA.
        #expect(harness.ledger.maintain(slots: 64) == nil)
        harness.clocks.advance(50)
        try harness.ask(rcpt("n", to: "r@example.org", user: "b"))
        let history = harness.standing("b")?.usages[0].history
        try harness.crash()
        #expect(harness.standing("b")?.usages[0].history == history)
    }

    /// A key is evicted while a checkpoint is saved that deletes the journal of its last change.
    @Test func whatWasGivenBackToAnEvictedKeyStaysSo() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 2
        let store = MemoryStore()
        var maker = LimitMaker()
        let harness = try LedgerHarness(
            [maker.limit(rates: ["9/1h"])], names: maker.names, store: store, settings: settings)
        for number in 0..<3 { try harness.ask(rcpt("m", to: "r\(number)@example.org", user: "a")) }
        for number in 0..<2 { try harness.ask(rcpt("n", to: "r\(number)@example.org", user: "b")) }
        try harness.finishCheckpoint()
        harness.ledger.beginTick()
        // The MTA has rejected two of the three recipients.
        _ = harness.decide(settling("DATA", "m", count: 1, user: "a"))
        try harness.ledger.beginCheckpoint()
        _ = harness.decide(rcpt("o", to: "r@example.org", user: "c"))
        #expect(harness.standing("a") == nil)
        try harness.ledger.commit()
        while harness.ledger.isCheckpointRunning { _ = harness.ledger.maintain(slots: 16) }
        #expect(!store.rows.values.contains { $0.key == Array("a".utf8) })
        try harness.crash()
        #expect(harness.standing("a") == nil)
        #expect(harness.used("b") == [2])
        #expect(harness.used("c") == [1])
        // Its counts are lost, so the end is charged in full.
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 1, user: "a"))
        #expect(harness.used("a") == [1])
    }

    /// A start reads more keys than it keeps, and has to forget some before it replays the journal.
    @Test func whatWasGivenBackStaysSoIfAStartForgetsOtherKeys() throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        var maker = LimitMaker()
        let harness = try LedgerHarness(
            [maker.limit(rates: ["9/1m", "9/1h"])], names: maker.names, settings: settings)
        for user in ["a", "a", "b", "c", "d"] {
            try harness.ask(rcpt(user, to: "r\(harness.clocks.read().wall)@example.org", user: user))
            harness.clocks.advance(1)
        }
        try harness.finishCheckpoint()
        harness.clocks.advance(5000)
        try harness.ask(rcpt("dropped", to: "r@example.org", user: "a"))
        let dropped = harness.transaction
        try harness.ask(rcpt("kept", to: "r@example.org", user: "a"))
        harness.clocks.advance(5000)
        harness.ledger.beginTick()
        harness.ledger.close(dropped)
        try harness.ledger.commit()
        #expect(harness.used("a") == [3, 3])
        harness.clocks.advance(5000)
        // A start keeps twice as many until it has read all.
        harness.settings.mostAccounts = 1
        try harness.crash()
        #expect(harness.used("a") == [3, 3])
        #expect(harness.standing("a")?.usages[0].history?.filter { $0 > 0 } == [2, 1])
        // The slots of the charges are still those in which they were made.
        harness.clocks.advance(52_000)
        #expect(harness.used("a") == [0, 3])
    }

    /// A message is open whose key has left memory. The limit gets more windows than the key ever had.
    @Test func aReloadAfterAKeyHasLeftMemory() throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(rates: ["9/1s"])], names: maker.names)
        try harness.ask(rcpt("m", to: "a@example.org"))
        harness.clocks.advance(5000)
        try harness.sweep()
        harness.limits = [maker.limit(rates: ["9/1s", "9/1m", "9/1h", "9/1d", "9/7d"])]
        harness.ledger.reload(harness.limits, settings: harness.settings)
        try harness.finishCheckpoint()
        try harness.crash()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 3))
        #expect(harness.used("user") == [2, 2, 2, 2, 2])
    }

    @Test func aCheckpointIsSavedInPortions() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        store.rowsTogether = 100
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names, store: store)
        for number in 0..<1000 { try harness.ask(settling("DATA", "m\(number)", count: 1, user: "u\(number)")) }
        try harness.finishCheckpoint()
        #expect(store.savedRows == 1000)
        // Ten calls for the rows, ten for the transactions, and the end.
        #expect(18...22 ~= store.saves)
    }

    /// Each crash leaves a copy of the open transactions. Recovery must not add them up.
    @Test func transactionsDoNotGrowWithCrashes() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["100/1h"])], names: maker.names, store: store)
        for recipient in 0..<3 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        try harness.finishCheckpoint()
        let size = try #require(store.transactions.last).content.count
        for _ in 0..<5 {
            try harness.crash()
            while store.transactions.last?.checkpoint != store.checkpoint {
                harness.ledger.beginTick()
                #expect(harness.ledger.maintain(slots: 1) == nil)
            }
            #expect(harness.ledger.isCheckpointRunning)
            #expect(store.transactions.last?.content.count == size)
        }
        #expect(harness.used("user") == [3])
    }

    /// Open transactions of some age move to the back of their queue, which must not keep a checkpoint from its end.
    @Test func aCheckpointEndsThoughTransactionsStayOpen() throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names)
        for number in 0..<100 { try harness.ask(settling("DATA", "m\(number)", count: 1, user: "u\(number)")) }
        harness.clocks.advance(600_000)
        harness.ledger.beginTick()
        try harness.ledger.beginCheckpoint()
        for _ in 0..<100 where harness.ledger.isCheckpointRunning {
            #expect(harness.ledger.maintain(slots: 16) == nil)
        }
        #expect(harness.ledger.isSaved)
    }

    @Test func aStoreThatIsBehindGetsThePiecesLater() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names, store: store)
        try harness.finishCheckpoint()
        for number in 0..<20 { try harness.ask(settling("DATA", "m\(number)", count: 1, user: "u\(number)")) }
        store.isBehind = true
        harness.ledger.beginTick()
        try harness.ledger.beginCheckpoint()
        for _ in 0..<50 { #expect(harness.ledger.maintain(slots: 64) == nil) }
        #expect(store.rows.isEmpty)
        #expect(harness.ledger.isCheckpointRunning)
        store.isBehind = false
        while harness.ledger.isCheckpointRunning { #expect(harness.ledger.maintain(slots: 64) == nil) }
        #expect(store.rows.count == 20)
        #expect(store.savedRows == 20, "each row once")
    }

    /// The pieces of a checkpoint are of different moments. If a crash loses what lies in between, the message must not
    /// be remembered as charged more than the key has.
    @Test func aCheckpointDoesNotOvertakeBatchesThatAreHeldBack() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        store.holdsBatches = true
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names, store: store)
        try harness.finishCheckpoint()
        try harness.ask(rcpt("m", to: "r1@example.org"))
        try harness.ledger.beginCheckpoint()
        while store.savedRows == 0 { #expect(harness.ledger.maintain(slots: 1) == nil) }
        try harness.ask(rcpt("m", to: "r2@example.org"), commits: false)
        try harness.ledger.commit()
        while harness.ledger.isCheckpointRunning { #expect(harness.ledger.maintain(slots: 1) == nil) }
        try harness.crash()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 2))
        #expect(harness.used("user") == [2])
    }

    @Test func failingCheckpointsAreRetriedWithBackoff() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names, store: store)
        func maintainForAnHour() -> Int {
            let before = store.checkpoint
            for second in 0..<3600 {
                harness.clocks.advance(1000)
                // Keys change before, while and after they are saved.
                for _ in 0..<4 {
                    harness.ledger.beginTick()
                    _ = harness.decide(settling("DATA", "m\(second)", count: 1, user: "u\(second % 10)"))
                    try? harness.ledger.commit()
                    _ = harness.ledger.maintain(slots: 64)
                }
            }
            return store.checkpoint - before
        }
        for number in 0..<10 {
            try harness.ask(settling("END-OF-MESSAGE", "idle\(number)", count: 1, user: "idle\(number)"))
        }
        try harness.finishCheckpoint()
        store.checkpointFailure = StoreError("locked")
        #expect(throws: UpkeepFault.self) { try harness.finishCheckpoint() }
        #expect(50...70 ~= maintainForAnHour())
        store.checkpointFailure = nil
        harness.clocks.advance(60_000)
        for _ in 0..<500 {
            harness.ledger.beginTick()
            #expect(harness.ledger.maintain(slots: 256) == nil)
        }
        #expect(store.savedRows <= 10, "each key once")
        #expect(maintainForAnHour() == 0)
        try harness.finishCheckpoint()
        #expect(
            Set(store.rows.values.map(\.key)) == Set((0..<10).map { Array("u\($0)".utf8) }),
            "idle keys have left the store")
    }

    /// Crashes at any point: what was committed is counted once, and transactions continue.
    @Test(arguments: 0..<10 as Range<UInt64>)
    func crashes(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var maker = LimitMaker()
        let harness = try LedgerHarness(
            [
                maker.limit(rates: ["100000/1h"]),
                maker.limit("client", key: ["client_address"], count: .messages, rates: ["100000/1h"]),
            ],
            names: maker.names)
        var accepted: [String: UInt64] = [:]
        var messages: [String: UInt64] = [:]
        for number in 0..<300 {
            let user = "u\(Int.random(in: 0..<5, using: &random))"
            let recipients = Int.random(in: 1...5, using: &random)
            let taken = Int.random(in: 1...recipients, using: &random)
            let client = ["client_address": "192.0.2.\(Int.random(in: 1...3, using: &random))"]
            func maybe(_ request: [String: String]) throws {
                if Int.random(in: 0..<10, using: &random) == 0 {
                    // A crash after the decision and before the commit. Postfix asks again.
                    try harness.ask(request, commits: false)
                    try harness.crash()
                }
                try harness.ask(request)
                if Int.random(in: 0..<10, using: &random) == 0 {
                    // A crash after the commit and before the answer. Postfix asks again.
                    try harness.crash()
                    try harness.ask(request)
                }
                if Int.random(in: 0..<12, using: &random) == 0 {
                    harness.ledger.beginTick()
                    try harness.ledger.beginCheckpoint()
                }
                harness.clocks.advance(.random(in: 0...50, using: &random))
            }
            for recipient in 0..<recipients {
                try maybe(rcpt("m\(number)", to: "r\(recipient)@example.org", user: user, more: client))
            }
            try maybe(settling("DATA", "m\(number)", count: taken, user: user, more: client))
            accepted[user, default: 0] += UInt64(taken)
            messages[client["client_address"]!, default: 0] += 1
        }
        for (user, count) in accepted { #expect(harness.used(user) == [count], "seed \(seed)") }
        for (client, count) in messages { #expect(harness.used(client) == [count], "seed \(seed)") }
    }
}
