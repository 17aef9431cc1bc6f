// SPDX-License-Identifier: Apache-2.0
import Limits
import Report
import Testing

@Suite struct PolicyActivityTests {
    @Test(arguments: [
        ("DEFER_IF_PERMIT 4.7.1 later", PolicyAction.defer), ("450 4.7.1 later", .defer), ("reject", .reject),
        ("521 5.7.1 no", .reject),
        ("HOLD", .hold), ("PREPEND X-Over: yes", .prepend), ("Relay", .ok), ("dunno", .dunno), ("greylisting", .other),
        ("", .other),
    ])
    func actions(answer: String, expected: PolicyAction) {
        #expect(PolicyAction(Array(answer.utf8)) == expected)
    }

    /// Each word, in upper or lower case, counts under its own name or that of a word with the same effect.
    @Test func everyWordIsCounted() {
        for word in AccessWord.allCases {
            let action = PolicyAction(Array("\(word.rawValue.lowercased()) text".utf8))
            let isOwn = action.name == word.rawValue
            #expect(isOwn || [.relay, .deferIfPermit, .deferIfReject].contains(word), "\(word)")
        }
    }

    @Test func answersBySecond() {
        var activity = PolicyActivity()
        activity.count(Array("HOLD".utf8))
        activity.recordTick(passed: 3, at: 1000)
        activity.count(Array("REJECT no".utf8), requests: 2)
        activity.recordTick(passed: 0, at: 1001)
        #expect(PolicyAction.allCases.map { activity.total($0) }.reduce(0, +) == 6)
        #expect(activity.history(of: .dunno, at: 1002).suffix(3) == [0, 3, 0])
        #expect(activity.history(of: .reject, at: 1002).suffix(3) == [0, 0, 2])
        #expect(activity.history(of: .hold, at: 1003).suffix(3) == [1, 0, 0])
        #expect(activity.history(of: .hold, at: 1000 + Int64(PolicyActivity.secondsKept)).allSatisfy { $0 == 0 })
        #expect(activity.total(.hold) == 1)
    }

    @Test func latencyIsOfTheLastMinute() {
        var activity = PolicyActivity()
        activity.record(latency: 40_000_000, requests: 1000, at: 1000)
        #expect(activity.latencyOfLastMinute(at: 1059).bound(ofShare: 0.5) == 50_000)
        activity.record(latency: 20_000, requests: 1, at: 1069)
        activity.record(latency: 200_000, requests: 1, at: 1075)
        let lastMinute = activity.latencyOfLastMinute(at: 1079)
        #expect(lastMinute.total == 2)
        #expect(lastMinute.bound(ofShare: 0.99) == 250)
        #expect(activity.latencyOfLastMinute(at: 5000).total == 0)
        #expect(activity.latency.total == 1002)
    }
}
