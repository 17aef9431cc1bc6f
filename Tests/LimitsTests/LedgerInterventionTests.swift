// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// Changes to a key by an administrator.
@Suite struct LedgerInterventionTests {
    @Test func interventions() throws {
        let harness = try LedgerHarness {
            [$0.limit(rates: ["1/1h", "10/1d"]), $0.limit("other", key: ["sender"], rates: ["1/1h"])]
        }
        let key = Array("user".utf8)
        try harness.ask(rcpt("a", to: "a@example.org"))
        #expect(try harness.ask(rcpt("b", to: "a@example.org")) != nil)
        func intervene(_ intervention: Intervention) throws {
            harness.ledger.beginTick()
            #expect(
                try harness.ledger.intervene(intervention, onKey: key, limit: nil, by: .here).map(\.limit) == [
                    "per-user"
                ])
            try harness.ledger.commit()
            try harness.crash()
        }
        try intervene(.raise([Rate("3/1h")!], until: harness.ledger.now + 60_000))
        #expect(try harness.ask(rcpt("c", to: "a@example.org")) == nil)
        #expect(try harness.ask(rcpt("d", to: "a@example.org")) == nil)
        #expect(try harness.ask(rcpt("e", to: "a@example.org")) != nil)
        harness.clocks.advance(61_000)
        #expect(harness.standing("user")?.usages.map(\.admitted) == [1, 10])
        try intervene(.reset)
        #expect(harness.used("user") == [0, 0])
        try intervene(.block(until: harness.ledger.now + 60_000))
        #expect(try harness.ask(rcpt("f", to: "a@example.org")) != nil)
        try intervene(.unblock)
        #expect(try harness.ask(rcpt("g", to: "a@example.org")) == nil)
        #expect(try harness.ledger.intervene(.reset, onKey: Array("nobody".utf8), limit: nil, by: .here).isEmpty)
        #expect(
            try harness.ledger.intervene(
                .block(until: harness.ledger.now + 1), onKey: Array("nobody".utf8), limit: "other", by: .here
            ).count == 1)
    }

    /// Charges from before a reset are not given back from those after it.
    @Test(
        arguments: ["close", "withdraw", "DATA", "refused"],
        [[], ["crash"], ["checkpoint"], ["checkpoint", "crash"], ["crash", "checkpoint", "crash"]])
    func resetWithOpenTransactions(ending: String, then: [String]) throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        let harness = try LedgerHarness(
            { [$0.limit(rates: ["10/1d"]), $0.limit("bytes", count: .bytes, rates: ["1000/1d"])] }, settings: settings)
        func go(_ steps: [String]) throws {
            for step in steps { if step == "crash" { try harness.crash() } else { try harness.finishCheckpoint() } }
        }
        for recipient in 0..<10 { try harness.ask(rcpt("a", to: "r\(recipient)@example.org")) }
        let before = harness.transaction
        harness.clocks.advance(1)
        _ = try harness.ledger.intervene(.reset, onKey: Array("user".utf8), limit: nil, by: .here)
        try harness.ledger.commit()
        try go(then)
        harness.clocks.advance(1)
        for recipient in 0..<10 { #expect(try harness.ask(rcpt("b", to: "r\(recipient)@example.org")) == nil) }
        try harness.ask(settling("DATA", "b", count: 10))
        try go(then)
        harness.ledger.beginTick()
        switch ending {
        case "close": harness.ledger.close(before)
        case "withdraw": harness.ledger.withdraw(before)
        case "DATA": #expect(try harness.ask(settling("DATA", "a", count: 10)) != nil)
        default: #expect(try harness.ask(settling("END-OF-MESSAGE", "a", count: 10, more: ["size": "2000"])) != nil)
        }
        try harness.ledger.commit()
        #expect(harness.used("user", limit: "per-user") == [10])
        try go(then)
        #expect(harness.used("user", limit: "per-user") == [10])
        #expect(try harness.ask(rcpt("c", to: "a@example.org")) != nil)
    }

    @Test func interventionsFindTheKeyOfRequests() throws {
        let harness = try LedgerHarness {
            [$0.limit(rates: ["5/1h"]), $0.limit("per-client", key: ["client_address"], rates: ["5/1h"])]
        }
        func block(_ key: String, limit: String?) throws -> [String] {
            harness.ledger.beginTick()
            return try harness.ledger.intervene(
                .block(until: harness.ledger.now + 60_000), onKey: Array(key.utf8), limit: limit, by: .here
            )
            .map { "\($0.limit) \(String(decoding: $0.key, as: UTF8.self))" }
        }
        #expect(try block("USER", limit: "per-user") == ["per-user user"])
        #expect(try harness.ask(rcpt("a", to: "a@example.org")) != nil)
        #expect(try block("User", limit: nil) == ["per-user user"])
        #expect(try block("2001:db8::5", limit: "per-client") == ["per-client 2001:db8::/64"])
        #expect(try block("2001:db8::/64", limit: nil) == ["per-client 2001:db8::/64"])
        #expect(
            throws: AdministrationFault.noKey("192.0.2.077", limits: ["per-client, which counts by client_address"])
        ) {
            try block("192.0.2.077", limit: "per-client")
        }
        #expect(throws: AdministrationFault.self) { try block("", limit: nil) }
        #expect(throws: AdministrationFault.unknownLimit("nosuch", known: ["per-user", "per-client"])) {
            try harness.ledger.standings(ofKey: Array("user".utf8), limit: "nosuch")
        }
        #expect(harness.ledger.limits.map(\.accountCount) == [1, 1])
    }

    @Test func raisingKeepsTheRatesOfATable() throws {
        let overrides = LookupTable.text(Array("user 5/1h 50/1d\n".utf8)).table
        let harness = try LedgerHarness {
            [$0.limit(rates: ["1/1h", "10/1d"], overrides: [overrides]), $0.limit("other", rates: ["1/1w"])]
        }
        try harness.ask(rcpt("a", to: "a@example.org"))
        let key = Array("user".utf8)
        let until = harness.ledger.now + 60_000
        let standings = try harness.ledger.intervene(
            .raise([Rate("7/1h")!], until: until), onKey: key, limit: nil, by: .here)
        #expect(standings.map(\.limit) == ["per-user"])
        #expect(standings[0].usages.map(\.admitted) == [7, 50])
        #expect(throws: AdministrationFault.self) {
            try harness.ledger.intervene(.raise([Rate("7/2h")!], until: until), onKey: key, limit: nil, by: .here)
        }
    }

    /// The first checkpoint after a start deletes the segment in which the key was opened, and the key is charged
    /// later.
    @Test func aKeyThatWasOnlyOpenedBeforeACrash() throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(count: .bytes, rates: ["1000/1h"])], names: maker.names)
        try harness.ask(["protocol_state": "RCPT", "instance": "1", "sasl_username": "a@b", "recipient": "x@y"])
        try harness.crash()
        try harness.finishCheckpoint()
        try harness.ask(["protocol_state": "END-OF-MESSAGE", "instance": "1", "sasl_username": "a@b", "size": "300"])
        #expect(harness.used("a@b") == [300])
        try harness.crash()
        #expect(harness.used("a@b") == [300])
    }

    /// An unblock by hand resets the count of refused requests that leads to the next block.
    @Test(arguments: [false, true])
    func unblockingResetsRefusedRequests(crashes: Bool) throws {
        var maker = LimitMaker()
        let limit = maker.limit(rates: ["1/1m"], block: .init(after: 3, milliseconds: 600_000))
        let harness = try LedgerHarness([limit], names: maker.names)
        var number = 0
        func refuse(_ count: Int) throws {
            for _ in 0..<count {
                number += 1
                try harness.ask([
                    "protocol_state": "RCPT", "instance": "\(number)", "sasl_username": "a@b",
                    "recipient": "\(number)@y",
                ])
            }
        }
        try refuse(4)
        #expect(harness.standing("a@b")?.blockedUntil != nil)
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(.unblock, onKey: Array("a@b".utf8), limit: nil, by: .here)
        try harness.ledger.commit()
        if crashes { try harness.crash() }
        #expect(harness.standing("a@b")?.refusedTries == 0)
        try refuse(2)
        #expect(harness.standing("a@b")?.blockedUntil == nil)
        try refuse(1)
        #expect(harness.standing("a@b")?.blockedUntil != nil)
    }

    /// Whether the key was blocked long ago makes no difference: an idle key has forgotten it.
    @Test(arguments: [false, true])
    func unblockingAKeyThatIsNotBlocked(crashes: Bool) throws {
        var maker = LimitMaker()
        let limit = maker.limit(rates: ["1/1m"], block: .init(after: 3, milliseconds: 600_000))
        let harness = try LedgerHarness([limit], names: maker.names)
        for number in 0..<3 { try harness.ask(rcpt("m", to: "r\(number)@example.org")) }
        #expect(harness.standing("user")?.refusedTries == 2)
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(.unblock, onKey: Array("user".utf8), limit: nil, by: .here)
        try harness.ledger.commit()
        if crashes { try harness.crash() }
        #expect(harness.standing("user")?.refusedTries == 0)
        #expect(harness.used("user") == [1])
        for number in 3..<5 { try harness.ask(rcpt("m", to: "r\(number)@example.org")) }
        #expect(harness.standing("user")?.blockedUntil == nil)
    }

    /// A raise applies to windows by their lengths. Other windows keep their current rates.
    @Test(arguments: [["crash"], ["checkpoint", "crash"], []])
    func aRaiseUnderOtherRates(then: [String]) throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["10/1m", "1000/1h"])] }
        var maker = LimitMaker(names: harness.names)
        try harness.ask(rcpt("a", to: "a@example.org"))
        let until = harness.ledger.now + 3_600_000
        _ = try harness.ledger.intervene(
            .raise([Rate("5000/1h")!], until: until), onKey: Array("user".utf8), limit: nil, by: .here)
        try harness.ledger.commit()
        for (rates, admitted) in [
            (["10/1m", "1000/1h"], [10, 5000]), (["1000/1h", "10/1m"], [5000, 10]), (["1000/1h", "5/1m"], [5000, 5]),
            (["1000/1h", "5/1m", "9000/1d"], [5000, 5, 9000]), (["5/1m", "9000/1d"], [5, 9000]),
        ] as [([String], [UInt64])] {
            harness.limits = [maker.limit(rates: rates)]
            for step in then { if step == "crash" { try harness.crash() } else { try harness.finishCheckpoint() } }
            if then.isEmpty {
                harness.ledger.beginTick()
                harness.ledger.reload(harness.limits, settings: harness.settings)
            }
            #expect(harness.standing("user")?.usages.map(\.admitted) == admitted)
            #expect(harness.standing("user")?.raisedUntil == (rates.contains("1000/1h") ? until : nil))
        }
    }

    /// A row and a batch as earlier versions wrote them, with a count for each rate of the limit.
    @Test func raisesOfEarlierVersions() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1m", "1000/1h"])], names: maker.names, store: store)
        try harness.ask(rcpt("a", to: "a@example.org"))
        let until = harness.ledger.now.milliseconds + 3_600_000
        var number = UInt64(bitPattern: until << 1)
        var time: [UInt8] = []
        while number >= 0x80 {
            time.append(UInt8(truncatingIfNeeded: number) | 0x80)
            number >>= 7
        }
        time.append(UInt8(number))
        let last = store.segments.count - 1
        let batch = store.segments[last].batches.last!
        // The anchor ends where the entry begins that opens account 1 of limit 1.
        let entry: [UInt8] = [1, 1, 1, 4] + Array("user".utf8)
        let end = batch.content.indices.first { batch.content[$0...].starts(with: entry) }
        let anchor = Array(batch.content[..<(try #require(end))])
        let counts: [UInt8] = [2, 20, 0x90, 0x4e]
        store.segments[last].batches.append((batch.sequence + 1, anchor + ([5, 1] + time + counts)))
        try harness.crash()
        #expect(harness.standing("user")?.usages.map(\.admitted) == [20, 10_000])
        // No slots and no block, then the raise.
        let windows: [UInt8] = [3, 0xe0, 0xd4, 3, 0, 0x80, 0xdd, 0xdb, 1, 0, 0x80, 0xdd, 0xdb, 1, 0]
        store.rows[1] = AccountRow(
            id: 1, limit: 1, key: Array("user".utf8), sequence: 1000, content: windows + ([0, 0] + time + counts))
        harness.limits = [maker.limit(rates: ["1000/1h", "10/1m"])]
        try harness.crash()
        #expect(harness.standing("user")?.usages.map(\.admitted) == [10_000, 20])
        #expect(harness.standing("user")?.raisedUntil?.milliseconds == until)
    }
}
