// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// A ledger opens with whatever it can read from a damaged store, and counts.
@Suite struct DamagedStoreTests {
    private static func limits(_ maker: inout LimitMaker) -> [Limit] {
        let overrides = LookupTable.text(Array("user1 20/1h\n".utf8)).table
        return [
            maker.limit(
                rates: ["10/1s", "100/1h"], block: .init(after: 3, milliseconds: 60_000), countRefused: true,
                overrides: [overrides]),
            maker.limit("bytes", count: .bytes, rates: ["1G/366d"]),
            maker.limit("connections", key: ["client_address"], count: .connections, rates: ["100/1m"]),
            maker.limit(
                "hook", key: ["sender"], rates: ["50/1d"], when: [("policy_context", .equals([Array("rcpt".utf8)]))]),
        ]
    }

    private static func use(_ harness: LedgerHarness, _ name: String, random: inout some RandomNumberGenerator) throws {
        for message in 0..<6 {
            var request = [
                "protocol_state": "RCPT", "instance": "\(name).\(message).0", "sasl_username": "user\(message % 3)",
                "size": "5000",
                "sender": "s@example.org", "client_address": "192.0.2.\(message)", "client_port": "1",
                "policy_context": "rcpt",
            ]
            for recipient in 0..<Int.random(in: 1...6, using: &random) {
                request["recipient"] = "r\(recipient)@example.org"
                try harness.ask(request)
                harness.clocks.advance(.random(in: 0...400, using: &random))
            }
            request["recipient"] = ""
            request["recipient_count"] = "1"
            request["protocol_state"] = ["DATA", "END-OF-MESSAGE", "RCPT"].randomElement(using: &random)
            try harness.ask(request)
            harness.ledger.close(harness.transaction)
        }
        let until = harness.ledger.now + 3_600_000
        for intervention in [.raise([Rate("50/1h")!], until: until), .block(until: until), .unblock, .reset]
            as [Intervention]
        {
            // Throws if the damage has cost the account of the key.
            _ = try? harness.ledger.intervene(
                intervention, onKey: Array("user\(Int.random(in: 0...2, using: &random))".utf8), limit: nil, by: .here)
        }
        for standing in try harness.ledger.fullest(100, limit: nil) {
            _ = standing.usages.compactMap(\.freesAt).map(harness.ledger.wallTime)
        }
        for user in 0..<3 { _ = harness.used("user\(user)") }
        try harness.ledger.commit()
    }

    private static func mutate(_ bytes: inout [UInt8], random: inout some RandomNumberGenerator) {
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            guard let index = bytes.indices.randomElement(using: &random) else { return }
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes[index] = .random(in: 0...255, using: &random)
            case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 2: bytes.insert(.random(in: 0...255, using: &random), at: index)
            case 3: bytes.remove(at: index)
            case 4: bytes.removeSubrange(index...)
            // A very large LEB128 number.
            default:
                bytes.replaceSubrange(
                    index..<min(bytes.count, index + 2),
                    with: Array(repeating: 0xff, count: 9) + [[0, 1, 0x7f].randomElement(using: &random)!])
            }
        }
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func opens(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var maker = LimitMaker()
        let limits = Self.limits(&maker)
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        let sound = MemoryStore()
        let harness = try LedgerHarness(limits, names: maker.names, store: sound, settings: settings)
        try Self.use(harness, "a", random: &random)
        try harness.finishCheckpoint()
        try Self.use(harness, "b", random: &random)
        for number in 0..<250 {
            let store = MemoryStore()
            (store.limits, store.rows, store.transactions, store.segments) = (
                sound.limits, sound.rows, sound.transactions, sound.segments
            )
            store.toleratesDamage = true
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                switch Int.random(in: 0..<8, using: &random) {
                case 0...2:
                    let id = store.rows.keys.sorted().randomElement(using: &random)!
                    Self.mutate(&store.rows[id]!.content, random: &random)
                case 3:
                    let id = store.rows.keys.sorted().randomElement(using: &random)!
                    let extreme = [0, 1, 1 << 62, .max].randomElement(using: &random)! as UInt64
                    if Bool.random(using: &random) {
                        store.rows[id]!.id = extreme
                    } else {
                        store.rows[id]!.sequence = extreme
                    }
                case 4: Self.mutate(&store.transactions[0].content, random: &random)
                default:
                    let segment = store.segments.indices.randomElement(using: &random)!
                    guard let batch = store.segments[segment].batches.indices.randomElement(using: &random) else {
                        continue
                    }
                    Self.mutate(&store.segments[segment].batches[batch].content, random: &random)
                }
            }
            let damaged = try LedgerHarness(limits, names: maker.names, store: store, settings: settings)
            if number % 2 == 0 { damaged.clocks.advance(.random(in: 0...500_000_000, using: &random)) }
            try Self.use(damaged, "c", random: &random)
            damaged.clocks.advance(7_200_000)
            try damaged.finishCheckpoint()
            try damaged.crash()
            try Self.use(damaged, "d", random: &random)
        }
    }

    /// A ledger with three charges to `user` in a row, and no open checkpoint.
    private static func harnessWithRow(rates: [String]) throws -> (LedgerHarness, MemoryStore) {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: rates)], names: maker.names, store: store)
        try harness.ask(settling("DATA", "first", count: 3))
        try harness.finishCheckpoint()
        return (harness, store)
    }

    /// Ids of new accounts are not counted on from one that only damage explains: the next start would reject them.
    @Test(arguments: [1 << 49, (1 << 62) - 1, 1 << 62] as [UInt64])
    func anAccountWithADamagedID(id: UInt64) throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1h"])
        store.toleratesDamage = true
        var row = try #require(store.rows[1])
        store.rows[1] = nil
        row.id = id
        store.rows[id] = row
        try harness.crash()
        #expect(harness.used("user") == [3])
        try harness.ask(settling("DATA", "second", count: 2, user: "new"))
        try harness.crash()
        #expect(harness.used("new") == [2])
        try harness.finishCheckpoint()
        try harness.crash()
        #expect(harness.used("user") == [3])
        #expect(harness.used("new") == [2])
    }

    /// A row is dropped if only damage explains its number. The journal still counts for its key, and batches are not
    /// numbered on from it.
    @Test(arguments: [1 << 49, 1 << 62, .max] as [UInt64])
    func aRowWithADamagedSequenceNumber(sequence: UInt64) throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1h"])
        store.toleratesDamage = true
        // The journal does not have what the row has any more.
        try harness.finishCheckpoint()
        try harness.ask(settling("DATA", "second", count: 2, user: "new"))
        try harness.ask(settling("DATA", "third", count: 1))
        store.rows[1]?.sequence = sequence
        try harness.crash()
        #expect(store.damages == 1)
        #expect(harness.used("user") == [1])
        #expect(harness.used("new") == [2])
        try harness.finishCheckpoint()
        try harness.ask(settling("DATA", "fourth", count: 1))
        try harness.crash()
        #expect(store.damages == 0, "the checkpoint has replaced the row")
        #expect(harness.used("user") == [2])
    }

    /// A batch is dropped if only damage explains its number. The others count, and none is numbered on from it.
    @Test(arguments: [1 << 49, 1 << 62, .max] as [UInt64])
    func aBatchWithADamagedNumber(sequence: UInt64) throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1h"])
        store.toleratesDamage = true
        try harness.ask(settling("DATA", "second", count: 2))
        try harness.ask(settling("DATA", "third", count: 5))
        let (segment, last) = (store.segments.count - 1, try #require(store.segments.last).batches.count - 1)
        store.segments[segment].batches[last - 1].sequence = sequence
        try harness.crash()
        #expect(store.damages == 1)
        #expect(harness.used("user") == [8])
        try harness.ask(settling("DATA", "fourth", count: 1))
        try harness.crash()
        #expect(harness.used("user") == [9])
    }

    /// Open transactions are forgotten if only damage explains their number, and remember what comes after.
    @Test(arguments: [1 << 49, 1 << 62, .max] as [UInt64])
    func transactionsWithADamagedNumber(sequence: UInt64) throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1h"])
        store.toleratesDamage = true
        for index in store.transactions.indices { store.transactions[index].sequence = sequence }
        try harness.crash()
        #expect(store.damages == 1)
        #expect(harness.used("user") == [3])
        try harness.ask(rcpt("second", to: "a@example.org"))
        try harness.crash()
        try harness.ask(rcpt("second", to: "a@example.org"))
        #expect(harness.used("user") == [4])
    }

    /// The end of the journal may be lost (`durability: relaxed`). Later batches have larger numbers than what the
    /// transactions hold already.
    @Test func transactionsThatAreNewerThanTheJournal() throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1h"])
        try harness.ask(rcpt("second", to: "a@example.org"))
        try harness.finishCheckpoint()
        for index in store.transactions.indices { store.transactions[index].sequence += 20 }
        try harness.crash()
        try harness.ask(rcpt("second", to: "b@example.org"))
        try harness.crash()
        try harness.ask(rcpt("second", to: "b@example.org"))
        #expect(harness.used("user") == [5])
    }

    /// A row of a limit that does not exist any more is deleted, but not an account of the same id.
    @Test func aRowOfARemovedLimitWithAnotherAccountsID() throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1h"])
        try harness.ask(settling("DATA", "second", count: 2, user: "new"))
        var row = try #require(store.rows[1])
        (row.id, row.limit) = (2, 99)
        store.rows[2] = row
        try harness.crash()
        #expect(harness.used("new") == [2])
        try harness.finishCheckpoint()
        try harness.crash()
        #expect(harness.used("new") == [2])
    }

    /// A batch that is much older than the row which it changes counts as well, and the row's counts stay.
    @Test(arguments: [120_000, 1000 << 23, 1000 << 24] as [Int64])
    func aBatchThatIsOlderThanItsRow(age: Int64) throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1m", "1000/1h"])
        try harness.ask(settling("DATA", "old", count: 1))
        let old = try #require(store.segments.last?.batches.last).content
        harness.clocks.advance(age)
        try harness.ask(settling("DATA", "second", count: 5))
        try harness.finishCheckpoint()
        let sound = harness.used("user")
        let last = try #require(store.segments.last?.batches.last)
        store.segments[store.segments.count - 1].batches.append((last.sequence + 1, old))
        try harness.crash()
        let used = harness.used("user")
        #expect(used == sound.map { $0 + 1 })
        try harness.finishCheckpoint()
        try harness.crash()
        #expect(harness.used("user") == used)
    }

    /// A batch that is older than the one before it counts at the time of that one.
    @Test func aBatchThatIsOlderThanTheOneBefore() throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1s", "1000/1h"])
        try harness.ask(settling("DATA", "old", count: 1, user: "other"))
        try harness.ask(settling("DATA", "older", count: 1, user: "other"))
        let old = try #require(store.segments.last?.batches.last)
        // Far enough for the slot numbers of a second to wrap.
        harness.clocks.advance(1000 << 24 / 60)
        try harness.ask(settling("DATA", "second", count: 5))
        let last = try #require(store.segments.last?.batches.last)
        var segment = store.segments.removeLast()
        segment.batches.append((last.sequence + 1, old.content))
        segment.batches.append((last.sequence + 2, last.content))
        store.segments.append(segment)
        try harness.crash()
        #expect(harness.used("user") == [10, 10])
        #expect(harness.used("other") == [1, 1])
        try harness.finishCheckpoint()
        try harness.crash()
        #expect(harness.used("other") == [1, 1])
    }

    /// A row whose last slot moves the clock: what has expired by then does not count.
    @Test func aRowWithASlotFromTheFuture() throws {
        let (harness, store) = try Self.harnessWithRow(rates: ["100/1m"])
        func number(_ value: UInt64) -> [UInt8] {
            value < 128 ? [UInt8(value)] : [UInt8(value & 127) | 128] + number(value >> 7)
        }
        // A slot is a second long.
        let slot = UInt64(harness.ledger.now.milliseconds / 1000)
        let slots = number(2) + number(2 * slot) + number(3) + number(2 * 1000) + number(2)
        store.rows[1]?.content = number(2) + number(60_000) + slots + number(60_000) + number(0) + [0, 0, 0, 0]
        store.segments = []
        store.transactions = []
        harness.clocks.reboot(after: 0)
        try harness.crash()
        #expect(harness.used("user") == [2])
    }
}
