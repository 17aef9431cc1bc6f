// SPDX-License-Identifier: Apache-2.0
import Report
import Testing

@Suite struct AlertHistoryTests {
    private let start = ContinuousClock.now
    private let hour: Duration = .seconds(3600)

    @Test func sendsAnAlertOncePerInterval() {
        var history = AlertHistory<String>()
        #expect(history.record("a", at: start, interval: hour) == 0)
        for second in 1...5 { #expect(history.record("a", at: start + .seconds(second), interval: hour) == nil) }
        #expect(history.record("b", at: start, interval: hour) == 0)
        #expect(history.record("a", at: start + hour, interval: hour) == 5)
        #expect(history.record("a", at: start + hour * 2, interval: hour) == 0)
    }

    @Test func sendsAForgottenAlertAgain() {
        var history = AlertHistory<String>()
        _ = history.record("a", at: start, interval: hour)
        history.forget("a")
        #expect(history.record("a", at: start, interval: hour) == 0)
    }

    /// With more names than the bound, the newest are remembered.
    @Test func isBounded() {
        var history = AlertHistory<Int>()
        for name in 0..<25_000 { #expect(history.record(name, at: start + .milliseconds(name), interval: hour) == 0) }
        let now = start + .seconds(25)
        #expect(history.record(24_999, at: now, interval: hour) == nil)
        #expect(history.record(21_000, at: now, interval: hour) == nil)
        #expect(history.record(14_999, at: now, interval: hour) == 0)
    }
}
