// SPDX-License-Identifier: Apache-2.0
import LoadGenerator
import NIOCore
import Testing

@Suite struct LoadPaceTests {
    private func dueTimes(_ pace: LoadPace, _ count: Int) -> [Double] {
        var schedule = ArrivalSchedule(start: .uptimeNanoseconds(0), pace: pace, duration: .hours(1))
        return (0..<count).map { _ in
            let due = schedule.popDue(at: .distantFuture) ?? .distantFuture
            return Double(due.uptimeNanoseconds) / 1e9
        }
    }

    @Test func `a peak has three times the rate in its middle third`() {
        let pace = LoadPace.peak(rate: 1, for: .seconds(6))
        let times = dueTimes(pace, 11)
        let wanted = [0, 1, 2, 2 + 1 / 3.0, 2 + 2 / 3.0, 3, 3 + 1 / 3.0, 3 + 2 / 3.0, 4, 5, 6]
        #expect(zip(times, wanted).allSatisfy { abs($0 - $1) < 1e-6 })
        #expect(pace.due(within: 3) == 5)
        #expect(abs(pace.meanRate - 10 / 6.0) < 1e-9)
    }

    @Test func `a day sends all operations in time, most of them before the evening`() {
        let pace = LoadPace.day(count: 24_000, in: .seconds(24))
        let times = dueTimes(pace, 24_000)
        #expect(times.last! < 24 && times.last! > 23.9)
        #expect(zip(times, times.dropFirst()).allSatisfy { $0 <= $1 })
        let morning = times.count { $0 < 6 }, office = times.count { 8 <= $0 && $0 < 17 }
        #expect(morning < 24_000 / 10)
        #expect(office > 24_000 * 6 / 10)
        #expect(abs(pace.meanRate - 1000) < 1e-6)
        #expect(abs(pace.due(within: 24) - 24_000) < 1e-6)
    }

    @Test func `a rising rate is the sum of both rates after its start`() {
        let pace = LoadPace.rising(rate: 10, by: 30, after: .seconds(1), for: .seconds(2))
        let times = dueTimes(pace, 50)
        #expect(times.count { $0 < 1 } == 10)
        #expect(times.count { 1 <= $0 && $0 < 2 } == 40)
    }
}

@Suite struct TrojanReportTests {
    @Test func `reports when the trojan was held, what passed, and honest refusals`() {
        var report = TrojanReport()
        for second in [3, 4, 5] { report.count(isTrojan: true, isRefused: false, at: .seconds(Int64(second))) }
        report.count(isTrojan: false, isRefused: false, at: .seconds(5))
        report.count(isTrojan: true, isRefused: true, at: .seconds(7))
        report.count(isTrojan: false, isRefused: true, at: .seconds(8))
        report.count(isTrojan: true, isRefused: false, at: .seconds(9))
        #expect(report.passedBeforeHeld == 3)
        #expect(report.heldAfterSeconds == 4)
        #expect(report.heldSinceLastPassSeconds == 2)
        #expect(report.passedAfterHeld == 1)
        #expect(report.answered == 5)
        #expect(report.honestAnswered == 2)
        #expect(report.honestRefused == 1)
    }

    @Test func `the trojan sends at its own rate with its own address`() throws {
        var mix = PolicyMix()
        mix.population.senders = 50
        mix.population.honestRate = 75
        mix.population.trojan = .init(after: .seconds(10), rate: 25)
        let traffic = try PolicyTraffic(mix, firstInstance: PolicyInstance(processID: 1, time: 1))
        var dialogue = traffic.makeDialogue()
        func trojans(_ count: Int, at time: TimeAmount) throws -> Int {
            try (0..<count).count { _ in
                var output = ByteBuffer(), input = ByteBuffer(string: "action=DUNNO\n\n")
                dialogue.begin(into: &output, at: time)
                _ = try dialogue.receive(&input, into: &output, at: time)
                return String(buffer: output).contains("sender=user50@")
            }
        }
        #expect(try trojans(400, at: .seconds(9)) == 0)
        #expect(try trojans(400, at: .seconds(10)) == 100)
        #expect(traffic.trojan?.passed == 100)
    }
}
