// SPDX-License-Identifier: Apache-2.0
import Report
import Testing

@Suite struct AlertHistoryTests {
    private let start = ContinuousClock.now
    private let hour: Duration = .seconds(3600)

    @Test func theSameIsToldOnceInAnInterval() {
        var history = AlertHistory<String>()
        #expect(history.tell("a", at: start, interval: hour) == 0)
        for second in 1...5 { #expect(history.tell("a", at: start + .seconds(second), interval: hour) == nil) }
        #expect(history.tell("b", at: start, interval: hour) == 0)
        #expect(history.tell("a", at: start + hour, interval: hour) == 5)
        #expect(history.tell("a", at: start + hour * 2, interval: hour) == 0)
    }

    @Test func whatIsForgottenIsToldAgain() {
        var history = AlertHistory<String>()
        _ = history.tell("a", at: start, interval: hour)
        history.forget("a")
        #expect(history.tell("a", at: start, interval: hour) == 0)
    }

    /// Of more names than are kept, the newest are known still.
    @Test func isBounded() {
        var history = AlertHistory<Int>()
        for name in 0..<25_000 { #expect(history.tell(name, at: start + .milliseconds(name), interval: hour) == 0) }
        let now = start + .seconds(25)
        #expect(history.tell(24_999, at: now, interval: hour) == nil)
        #expect(history.tell(21_000, at: now, interval: hour) == nil)
        #expect(history.tell(14_999, at: now, interval: hour) == 0)
    }
}
