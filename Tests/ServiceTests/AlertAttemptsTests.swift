// SPDX-License-Identifier: Apache-2.0
import Report
import Testing

@Suite struct AlertAttemptsTests {
    @Test func pausesGrow() {
        var attempts = AlertAttempts()
        #expect((0..<7).map { _ in attempts.fail(isLast: false) } == [1, 5, 10, 20, 40, 60, 60].map(Duration.seconds))
    }

    @Test func theThirdFailureIsReported() {
        var attempts = AlertAttempts()
        let reported = (0..<4).map { _ in
            _ = attempts.fail(isLast: false)
            return attempts.areReported
        }
        #expect(reported == [false, false, true, true])
    }

    /// A notice that always fails holds up later ones for an hour, not forever.
    @Test func endsAfterAnHour() {
        var attempts = AlertAttempts()
        var time = Duration.zero
        while let pause = attempts.fail(isLast: false), time < .seconds(86_400) { time += pause }
        #expect(Duration.seconds(3600)...Duration.seconds(3660) ~= time)
    }

    @Test func theLastAttemptIsNotRepeated() {
        var attempts = AlertAttempts()
        #expect(attempts.fail(isLast: true) == nil)
    }
}
