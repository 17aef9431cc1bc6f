// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// No interval of a window's length holds more than N, and no refusal comes more than one slot early. Checked against
/// an exact log, with random traffic, steps of the wall clock, and crashes.
@Suite struct SlidingWindowPropertyTests {
    @Test(arguments: 0..<40 as Range<UInt64>)
    func holds(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let windows: [Int64] = [[1000], [60_000], [3_600_000, 60_000], [86_400_000, 7000], [90_001]].randomElement(
            using: &random)!
        let counts = windows.map { _ in UInt64.random(in: 1...40, using: &random) }
        var maker = LimitMaker()
        var limit = maker.limit(rates: zip(counts, windows).map { "\($0)/1s".replacing("1s", with: Self.text($1)) })
        let exact = zip(counts, windows).map { Rate(count: $0, window: Window(milliseconds: $1)) }
        limit.rates = exact
        let harness = try LedgerHarness([limit], names: maker.names)
        /// When each unit was admitted, by a clock without steps.
        var admitted: [Int64] = []
        var now: Int64 = 0
        var refusals = 0
        for number in 0..<1500 {
            let step = Int64.random(
                in: 0...(windows.randomElement(using: &random)! / Int64.random(in: 1...200, using: &random)),
                using: &random)
            harness.clocks.advance(step)
            now += step
            switch Int.random(in: 0..<60, using: &random) {
            case 0: harness.clocks.stepWall(.random(in: -7_200_000...7_200_000, using: &random))
            case 1: try harness.crash()
            case 2: try harness.finishCheckpoint()
            default: break
            }
            let amount = UInt64.random(in: 1...4, using: &random)
            let passed =
                try harness.ask([
                    "protocol_state": "DATA", "instance": "i\(number)", "sasl_username": "user",
                    "recipient_count": String(amount),
                ]) == nil
            if passed {
                admitted += Array(repeating: now, count: Int(amount))
                for rate in exact {
                    let inside = count(of: admitted, after: now - rate.window.milliseconds)
                    // Not #expect: it would take most of the time.
                    if inside > rate.count {
                        Issue.record("\(inside) in a window of \(rate), seed \(seed), request \(number)")
                    }
                }
            } else {
                refusals += 1
                if !isDue(amount, exact, admitted, at: now) {
                    Issue.record("refused too early, seed \(seed), request \(number)")
                }
            }
        }
        #expect(refusals > 0 && !admitted.isEmpty)
    }

    /// Whether some window would be full even if it were one slot longer.
    private func isDue(_ amount: UInt64, _ rates: [Rate], _ admitted: [Int64], at now: Int64) -> Bool {
        rates.contains { rate in
            let window = rate.window.milliseconds
            return count(of: admitted, after: now - window - window / 60 - 2) + amount > rate.count
        }
    }

    private func count(of admitted: [Int64], after time: Int64) -> UInt64 {
        UInt64(admitted.count - (admitted.lastIndex { $0 <= time } ?? -1) - 1)
    }

    private static func text(_ milliseconds: Int64) -> String { "\(max(1, milliseconds / 1000))s" }

    /// The wall clock says how long a reboot took. If it was set back, no time has passed.
    @Test(arguments: [(3_600_000, [0]), (10_000, [5]), (-3_600_000, [5])] as [(Int64, [UInt64])])
    func reboot(away: Int64, left: [UInt64]) throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1m"])], names: maker.names)
        try harness.ask(["protocol_state": "DATA", "instance": "a", "sasl_username": "user", "recipient_count": "5"])
        harness.clocks.reboot(after: away)
        try harness.crash()
        #expect(harness.used("user") == left)
        harness.clocks.advance(61_000)
        #expect(harness.used("user") == [0])
    }

    /// Slot numbers of a one-second window wrap every 77 hours. Slots older than half of that must not look like future
    /// ones.
    @Test(arguments: [10, 30, 45, 60, 77, 78, 100, 1000] as [Int64], ["crash", "reboot", "sleep", "checkpoint"])
    func longIdleness(hours: Int64, by way: String) throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(rates: ["3/1s", "1000/366d"])], names: maker.names)
        func send(_ number: Int64, _ user: String) throws -> String? {
            try harness.ask([
                "protocol_state": "DATA", "instance": "\(user)\(number)", "sasl_username": user, "recipient_count": "1",
            ])
        }
        for number in 0..<3 as Range<Int64> { #expect(try send(number, "user") == nil) }
        #expect(try send(3, "user") != nil)
        if way == "checkpoint" { try harness.finishCheckpoint() }
        let away = hours * 3_600_000
        switch way {
        case "sleep": harness.clocks.advance(away)
        case "reboot":
            harness.clocks.reboot(after: away)
            try harness.crash()
        default:
            // A quiet server: few requests, all with another key, and no checkpoint for days.
            for number in 0..<hours {
                harness.clocks.advance(3_600_000)
                if number % 7 == 0 { #expect(try send(number, "other") == nil) }
            }
            try harness.crash()
        }
        #expect(harness.used("user") == [0, 3])
        for number in 10..<13 as Range<Int64> { #expect(try send(number, "user") == nil) }
        #expect(try send(13, "user") != nil)
        harness.clocks.advance(1100)
        #expect(try send(14, "user") == nil)
    }

    @Test(arguments: [3_600_000, -3_600_000] as [Int64])
    func clockStep(_ step: Int64) throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(rates: ["5/1m"])], names: maker.names)
        func send(_ instance: String, _ count: Int) throws -> String? {
            try harness.ask([
                "protocol_state": "DATA", "instance": instance, "sasl_username": "user",
                "recipient_count": String(count),
            ])
        }
        #expect(try send("a", 5) == nil)
        harness.clocks.stepWall(step)
        #expect(try send("b", 1) != nil, "the window was emptied")
        harness.clocks.advance(61_001)
        #expect(try send("c", 5) == nil, "the window froze")
    }
}
