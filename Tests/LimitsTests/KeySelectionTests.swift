// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct KeySelectionTests {
    @Test(arguments: [
        ("*", "", true), ("*", "alice@example.org", true), ("*@example.org", "alice@example.org", true),
        ("*@example.org", "alice@example.net", false), ("*@EXAMPLE.org", "Alice@Example.org", true),
        ("alice", "alice@example.org", false), ("a?ice", "alice", true), ("a?ice", "aice", false),
        ("m?ller", "müller", true), ("m[!u]ller", "müller", true), ("[a-c]*", "bob", true), ("[a-c]*", "dora", false),
        ("[!a-c]*", "dora", true), ("[^a-c]*", "bob", false), ("[]x]*", "]", true), ("[a-]", "-", true),
        ("\\*", "*", true), ("\\*", "a", false), ("192.0.2.*", "192.0.2.7", true), ("192.0.2.*", "192.0.20.7", false),
        ("*a*b*c", "xxaxxbxxbxc", true), ("*a*b*c", "xxaxxbxxbx", false), ("a|*", "a|b", true),
        // Keys of every spelling of a name.
        ("MÜLLER*", "müller2", true), ("mu\u{308}ller", "müller", true), ("müller*", "muller", false),
        ("ＭÜller@*", "Müller@example.org", true), ("*ü*", "bob", false),
        ("*@Bücher.example", "bob@xn--bcher-kva.example", true), ("*@bücher.example", "bob@bucher.example", false),
        ("*.bücher.example", "mx.xn--bcher-kva.example", true), ("bücher.example", "xn--bcher-kva.example", true),
        ("\\*@bücher.example", "bob@xn--bcher-kva.example", false), ("ü＊", "üb", false), ("ü*|bob", "üb|bob", true),
    ])
    func pattern(pattern: String, key: String, isMatch: Bool) throws {
        #expect(try #require(KeyPattern(pattern)).matches(Array(key.utf8)) == isMatch)
    }

    @Test(arguments: [
        ("LIC", "alice", true), ("alice", "alice", true), ("alicex", "alice", false), ("l?c", "alice", false),
        ("l?c", "al?ce", true), ("[a]*\\", "x[a]*\\y", true), ("ÜLL", "müller", true), ("ü", "muller", false),
        ("bücher.example", "bob@xn--bcher-kva.example", true), ("Ü＊", "ü*b", true),
    ])
    func text(text: String, key: String, isMatch: Bool) throws {
        #expect(try #require(KeyPattern(containing: text)).matches(Array(key.utf8)) == isMatch)
    }

    @Test(arguments: ["", "[a", "[]", "a\\", "[z-a]", String(repeating: "a", count: 257)])
    func isNoPattern(text: String) {
        #expect(KeyPattern(text) == nil)
    }

    /// A pattern with many stars takes no longer than its length times that of the key.
    @Test func manyStars() throws {
        let pattern = try #require(KeyPattern(String(repeating: "*a", count: 120) + "*b"))
        #expect(!pattern.matches(Array(repeating: UInt8(ascii: "a"), count: 256)))
    }

    private func harness(keepsBlocks: Bool = false) throws -> LedgerHarness {
        let block = Limit.Block(after: 1, milliseconds: 600_000)
        let harness = try LedgerHarness {
            [
                $0.limit(rates: ["4/1h"], block: block, keepsBlocks: keepsBlocks),
                $0.limit("per-sender", key: ["sender"], rates: ["100/1h"]),
            ]
        }
        for (user, count) in [("alice", 1), ("bob", 4), ("carol", 5), ("dora", 5)] {
            for number in 0..<count { try harness.ask(rcpt("\(user)\(number)", to: "a@example.org", user: user)) }
        }
        harness.ledger.beginTick()
        for (user, intervention) in [
            ("dora", Intervention.block(until: harness.ledger.now + 60_000)),
            ("alice", .raise([Rate("9/1h")!], until: harness.ledger.now + 60_000)),
        ] {
            _ = try harness.ledger.intervene(intervention, onKey: Array(user.utf8), limit: "per-user", by: .here)
        }
        try harness.ledger.commit()
        return harness
    }

    private func names(_ accounts: [Account]) -> [String] {
        accounts.map { String(decoding: $0.key, as: UTF8.self) }.sorted()
    }

    private func walk(_ harness: LedgerHarness, _ selection: KeySelection) throws -> SelectionWalk {
        var walk = try harness.ledger.selectionWalk(selection)
        while try harness.ledger.advance(&walk, steps: 7) {}
        return walk
    }

    @Test(arguments: [
        (KeySelection.State.any, "*", ["alice", "bob", "carol", "dora"]), (.used, "[!b]*", ["alice", "carol", "dora"]),
        (.blocked, "*", ["carol", "dora"]), (.blockedByLimit(before: 1), "*", ["carol"]), (.raised, "*", ["alice"]),
        (.filled(percent: 100), "*", ["bob", "carol", "dora"]), (.filled(percent: 11), "a*", ["alice"]),
        (.filled(percent: 12), "a*", []), (.blocked, "a*", []),
    ])
    func states(state: KeySelection.State, pattern: String, expected: [String]) throws {
        let selection = KeySelection(limit: "per-user", pattern: KeyPattern(pattern), state: state)
        #expect(names(try walk(try harness(), selection).found) == expected)
    }

    @Test func manyKeysAtOnce() throws {
        let harness = try harness()
        let blocked = try walk(harness, KeySelection(limit: nil, pattern: nil, state: .blocked))
        #expect(
            names(try harness.ledger.intervene(.unblock, on: blocked.found, foundBy: blocked, by: .here)) == [
                "carol", "dora",
            ])
        let raised = try walk(harness, KeySelection(limit: nil, pattern: nil, state: .raised))
        #expect(try harness.ledger.intervene(.unraise, on: raised.found, foundBy: raised, by: .here).count == 1)
        try harness.ledger.commit()
        for _ in 0..<2 {
            for user in ["carol", "dora"] {
                #expect(harness.standing(user, limit: "per-user")?.blockedUntil == nil)
                #expect(harness.standing(user, limit: "per-user")?.refusedTries == 0)
            }
            #expect(harness.standing("alice", limit: "per-user")?.raisedUntil == nil)
            #expect(harness.standing("alice", limit: "per-user")?.usages.map(\.admitted) == [4])
            try harness.crash()
        }
        #expect(throws: AdministrationFault.walkEnded) {
            try harness.ledger.intervene(.reset, on: blocked.found, foundBy: blocked, by: .here)
        }
    }

    /// Which limits a reload makes more generous, so that their own blocks end.
    @Test(
        arguments: [
            (["4/1h"], true, false, nil), (["5/1h"], true, false, "rates were raised"), (["3/1h"], true, false, nil),
            (["4/1h", "9/1d"], true, false, nil), (["4/1d"], true, false, "rates were raised"),
            (["4/1h"], false, false, "block was removed"), (["4/1h"], false, true, nil), (["5/1h"], true, true, nil),
        ] as [([String], Bool, Bool, String?)])
    func reloads(rates: [String], hasBlock: Bool, keepsBlocks: Bool, expected: String?) throws {
        let harness = try harness()
        var maker = LimitMaker()
        let block = hasBlock ? Limit.Block(after: 9, milliseconds: 1000) : nil
        let limit = maker.limit(rates: rates, block: block, keepsBlocks: keepsBlocks)
        let relaxed = harness.ledger.reload([limit], settings: harness.settings)
        #expect(relaxed.map(\.change) == (expected.map { [$0] } ?? []))
    }

    /// A block that begins between a reload and its walk follows the new rates, and stays.
    @Test func blocksAfterReload() throws {
        let harness = try harness()
        var maker = LimitMaker()
        let limit = maker.limit(rates: ["5/1h"], block: Limit.Block(after: 1, milliseconds: 600_000))
        let relaxed = try #require(harness.ledger.reload([limit], settings: harness.settings).first)
        for number in 0..<6 { try harness.ask(rcpt("erin\(number)", to: "a@example.org", user: "erin")) }
        var walk = harness.ledger.selectionWalk(.blockedByLimit(before: relaxed.generation), in: [relaxed.state])
        while try harness.ledger.advance(&walk, steps: 7) {}
        #expect(names(walk.found) == ["carol"])
        #expect(harness.standing("erin", limit: "per-user")?.blockedUntil != nil)
    }

    /// Keys that come and go during a walk make it neither miss another one nor find it twice.
    @Test func changesDuringWalk() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["4/1h"])] }
        for number in 0..<3000 { try harness.ask(rcpt("a\(number)", to: "a@example.org", user: "old\(number)")) }
        var walk = try harness.ledger.selectionWalk(KeySelection(limit: nil, pattern: KeyPattern("old*"), state: .any))
        var more = true
        var number = 0
        while more {
            more = try harness.ledger.advance(&walk, steps: 100)
            for _ in 0..<50 {
                number += 1
                try harness.ask(rcpt("b\(number)", to: "a@example.org", user: "new\(number)"))
            }
        }
        let found = names(walk.found)
        #expect(found.count == 3000)
        #expect(Set(found).count == 3000)
    }
}
