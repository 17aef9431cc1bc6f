// SPDX-License-Identifier: Apache-2.0
import Exchange
import Report
import Testing

/// Which of the other hosts' questions is answered next.
struct WaitingQuestionsTests {
    private static let now = ContinuousClock.now

    private static func question(_ id: UInt64, _ subject: HostQuestion.Subject) -> HostQuestion {
        HostQuestion(id: id, from: "mx2", subject: subject)
    }

    private static func waiting(_ questions: HostQuestion...) -> WaitingQuestions {
        var waiting = WaitingQuestions()
        for question in questions { _ = waiting.add(question, at: now) }
        return waiting
    }

    private static let walk = question(1, .fullest(most: 10, limit: nil))
    private static let otherWalk = question(2, .search("a"))
    private static let short = question(3, .key("a", limit: nil))
    private static let otherShort = question(4, .figures)

    @Test func aWalkHoldsUpNoShortQuestion() {
        var waiting = Self.waiting(Self.walk, Self.otherWalk, Self.short, Self.otherShort)
        func next() -> UInt64? { waiting.next(at: Self.now, mostAge: .seconds(10))?.id }
        var order = [next(), next(), next()]
        for ended in [Self.short, Self.otherShort, Self.walk] {
            waiting.end(ended)
            order.append(next())
        }
        #expect(order == [3, 1, nil, 4, nil, 2])
    }

    @Test func aQuestionForWhichNobodyWaitsIsDropped() {
        var waiting = Self.waiting(Self.short)
        let late = Self.now + .seconds(11)
        _ = waiting.add(Self.otherShort, at: late)
        let next = waiting.next(at: late, mostAge: .seconds(10))
        #expect(next?.id == 4)
    }

    @Test func walksThatWaitLeaveRoomForOthers() {
        var waiting = WaitingQuestions()
        var count = 0
        while waiting.add(Self.walk, at: Self.now) { count += 1 }
        #expect(count == 32)
        let isTaken = waiting.add(Self.short, at: Self.now)
        #expect(isTaken)
    }
}
