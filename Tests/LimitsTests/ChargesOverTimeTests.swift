// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// What a slow message was charged, over resets, reloads and restarts. The simulator has found each of these.
@Suite struct ChargesOverTimeTests {
    private static func harness(_ rates: [String]) throws -> (LedgerHarness, LimitMaker) {
        var maker = LimitMaker()
        let limit = maker.limit(rates: rates)
        return (try LedgerHarness([limit], names: maker.names), maker)
    }

    private static func reset(_ harness: LedgerHarness) throws {
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(.reset, onKey: Array("user".utf8), limit: "per-user", by: .here)
        try harness.ledger.commit()
        harness.clocks.advance(1)
    }

    /// A charge after a reset was forgotten with the one before it when both were replayed, and charged again.
    @Test func aResetBetweenTwoRecipientsAndARestart() throws {
        let (harness, _) = try Self.harness(["9/1h"])
        try harness.ask(rcpt("m", to: "a@example.org"))
        try Self.reset(harness)
        try harness.ask(rcpt("m", to: "b@example.org"))
        try harness.crash()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 2))
        #expect(harness.used("user") == [2])
    }

    /// The key was idle between two recipients, so its second account has the charge of the first.
    @Test func anIdleKeyBetweenTwoRecipientsAndARestart() throws {
        let (harness, _) = try Self.harness(["9/10s"])
        try harness.ask(rcpt("m", to: "a@example.org"))
        harness.clocks.advance(70_000)
        try harness.sweep()
        try harness.ask(rcpt("m", to: "b@example.org"))
        try harness.crash()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 2))
        #expect(harness.used("user") == [1])
    }

    @Test func aResetOfAnIdleKeyEndsItsCharges() throws {
        let (harness, _) = try Self.harness(["9/10s"])
        try harness.ask(rcpt("m", to: "a@example.org"))
        harness.clocks.advance(70_000)
        try harness.sweep()
        try Self.reset(harness)
        try harness.sweep()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 1))
        #expect(harness.used("user") == [1])
    }

    /// The key has left memory, a transaction refers to it, and its limit gets another window.
    @Test func aReloadAfterAKeyWasIdle() throws {
        var (harness, maker) = try Self.harness(["9/10s"])
        try harness.ask(rcpt("m", to: "a@example.org"))
        harness.clocks.advance(70_000)
        try harness.sweep()
        harness.limits = [maker.limit(rates: ["9/10s", "20/1m", "30/1h"])]
        harness.ledger.reload(harness.limits, settings: harness.settings)
        try harness.finishCheckpoint()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 1))
        #expect(harness.used("user").allSatisfy { $0 == 0 })
    }

    /// Nothing is given back in a window that did not count the charge.
    @Test func aWindowThatAReloadAdds() throws {
        var (harness, maker) = try Self.harness(["9/1m"])
        try harness.ask(rcpt("m", to: "a@example.org"))
        try harness.ask(rcpt("m", to: "b@example.org"))
        harness.clocks.advance(1)
        harness.limits = [maker.limit(rates: ["9/1m", "9/1h"])]
        harness.ledger.beginTick()
        harness.ledger.reload(harness.limits, settings: harness.settings)
        harness.clocks.advance(1)
        try harness.ask(rcpt("n", to: "a@example.org"))
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 1))
        #expect(harness.used("user") == [2, 1])
    }

    /// What was charged before the reload is not in the new window. What came after it is given back from there.
    @Test func aRefusalGivesBackWhatANewWindowCounts() throws {
        var maker = LimitMaker()
        let bytes = maker.limit("bytes", count: .bytes, rates: ["100/1h"])
        let (before, after) = (maker.limit(rates: ["9/1h"]), maker.limit(rates: ["9/1m"]))
        let harness = try LedgerHarness([before, bytes], names: maker.names)
        try harness.ask(rcpt("m", to: "a@example.org"))
        harness.ledger.reload([after, bytes], settings: harness.settings)
        harness.clocks.advance(1)
        try harness.ask(rcpt("m", to: "b@example.org"))
        #expect(harness.used("user", limit: "per-user") == [1])
        #expect(try harness.ask(settling("END-OF-MESSAGE", "m", count: 2, more: ["size": "800"])) != nil)
        #expect(harness.used("user", limit: "per-user") == [0])
    }
}
