// SPDX-License-Identifier: Apache-2.0
import Exchange
import Foundation
import Report
import Testing

/// What hosts send each other: bounds, and messages that are none.
struct HostMessagesTests {
    private static func standing(_ key: String) -> KeyStanding {
        KeyStanding(
            limit: "user", key: key, count: "recipients", mode: "enforce",
            rates: [.init(rate: "100/1h", window: "1h", used: .max, limit: .max, freesAt: 1e300, history: [.max])],
            refusedTries: .max, blockedUntil: -1e300, raisedUntil: 1e9, exempt: false, note: "x")
    }

    @Test(arguments: [
        HostQuestion.Subject.fullest(most: 10, limit: nil), .selection(state: "80", limit: "a", match: "*", most: 5),
        .names([KeyName(limit: "a", key: "ä\u{0}")], withHistory: true), .key("x", limit: nil), .search("y"), .figures,
    ])
    func questionsArriveAsTheyWereSent(_ subject: HostQuestion.Subject) throws {
        let question = HostQuestion(id: 1 << 52, from: "mx1", subject: subject)
        let message = try #require(question.message)
        #expect(HostQuestion(message) == question)
    }

    @Test(arguments: [
        "", "{}", "[]", "null", "{\"id\":1}", "\u{0}", String(repeating: "[", count: 100_000),
        #"{"id":1,"from":"mx1","subject":{"unheardOf":{}}}"#, #"{"id":-1,"from":"mx1","subject":{"figures":{}}}"#,
        #"{"id":1,"from":"mx1","subject":{"fullest":{"most":0}}}"#,
        #"{"id":1,"from":"mx1","subject":{"fullest":{"most":4001}}}"#,
        #"{"id":1,"from":"mx1","age":-1,"standings":[],"count":0,"isCut":false,"limits":{},"refusals":[]}"#,
        #"{"id":1,"from":"mx1","age":1e9,"standings":[],"count":0,"isCut":false,"limits":{},"refusals":[]}"#,
    ])
    func whatIsNoMessageIsNone(_ text: String) {
        #expect(HostQuestion(Array(text.utf8)) == nil)
        #expect(HostAnswer(Array(text.utf8)) == nil)
    }

    @Test func tooMuchIsRefused() throws {
        let names = [KeyName](repeating: KeyName(limit: "a", key: "b"), count: 4001)
        let many = try #require(HostQuestion(id: 1, from: "mx1", subject: .names(names, withHistory: false)).message)
        #expect(HostQuestion(many) == nil)
        let long = HostQuestion(id: 1, from: "mx1", subject: .search(String(repeating: "x", count: 1 << 20)))
        #expect(long.message == nil)
        let spaces = try #require(HostQuestion(id: 1, from: "mx1", subject: .figures).message)
        #expect(HostQuestion(spaces + [UInt8](repeating: 0x20, count: 1 << 20)) == nil)
    }

    @Test func aLongAnswerIsCut() throws {
        var answer = HostAnswer(id: 1, from: "mx1", age: 0)
        answer.standings = (0..<4000).map { Self.standing("\($0)" + String(repeating: "x", count: 500)) }
        let message = try #require(answer.message)
        let received = try #require(HostAnswer(message))
        #expect(1..<4000 ~= received.standings.count)
        #expect(received.standings[0].key == answer.standings[0].key)
        #expect(received.isCut)
        #expect(received.count == 4000)
    }

    @Test func figuresOfAnswersAreBounded() throws {
        var answer = HostAnswer(id: 1, from: "mx1", age: 0)
        answer.standings = [Self.standing("a")]
        answer.limits = ["user": LimitPart(host: "mx9", keys: -1, refusals: .max, blocks: .max)]
        answer.count = -1
        let message = try #require(answer.message)
        let received = try #require(HostAnswer(message))
        let standing = received.standings[0]
        #expect(standing.rates[0].used == 1 << 50)
        #expect(standing.rates[0].history == [1 << 50])
        #expect(standing.rates[0].freesAt == nil)
        #expect(standing.blockedUntil == nil)
        #expect(standing.raisedUntil == 1e9)
        #expect(standing.note == nil)
        #expect(received.limits["user"] == LimitPart(host: "mx1", keys: 0, refusals: 1 << 50, blocks: 1 << 50))
        #expect(received.count == 0)
    }

    /// Ends of blocks and raises are times of a wall clock, and those of two hosts may be years apart.
    @Test func timesAreTurnedToTheClockOfThisHost() throws {
        var answer = HostAnswer(id: 1, from: "mx1", age: 0)
        answer.standings = [Self.standing("a")]
        answer.standings[0].blockedUntil = 1e9 + 60
        answer.sentAt = 1e9
        let message = try #require(answer.message)
        var received = try #require(HostAnswer(message))
        received.setClock(to: 1.5e9)
        #expect(received.standings[0].blockedUntil == 1.5e9 + 60)
        #expect(received.standings[0].raisedUntil == 1.5e9)
        for sentAt in [nil, -1e300, 1e300] {
            answer.sentAt = sentAt
            answer.setClock(to: 1.5e9)
            #expect(answer.standings[0].blockedUntil == 1e9 + 60)
        }
    }

    // MARK: Questions that wait

    private static let start = ContinuousClock.now

    /// The questions of a host, and the answers to those that are over.
    private final class Asked {
        private var open = OpenQuestions()
        var answers: [HostAnswer]?

        func begin(_ id: UInt64, to hosts: Set<String>) -> Bool { open.begin(id, to: hosts, at: start) }

        func finish(_ id: UInt64) { open.finish(id) { self.answers = $0 } }

        func take(_ id: UInt64, from host: String, age: Double = 0, after seconds: Double = 0) -> Bool {
            open.take(HostAnswer(id: id, from: host, age: age), at: start + .seconds(seconds))
        }

        func end(_ id: UInt64) { open.end(id) }
    }

    @Test func aQuestionEndsWithTheLastAnswer() {
        let asked = Asked()
        #expect(asked.begin(1, to: ["mx2", "mx3"]))
        asked.finish(1)
        #expect(asked.take(1, from: "mx3", age: 0.25, after: 1))
        #expect(asked.answers == nil)
        #expect(asked.take(1, from: "mx2", after: 2))
        #expect(asked.answers?.map(\.from) == ["mx2", "mx3"])
        // An answer may have been made at any moment since the question.
        #expect(asked.answers?.map(\.age) == [2, 1.25])
    }

    @Test func strangeAndLateAnswersDoNotCount() {
        let asked = Asked()
        #expect(asked.begin(1, to: ["mx2", "mx3"]))
        asked.finish(1)
        #expect(!asked.take(2, from: "mx2"))
        #expect(!asked.take(1, from: "mx4"))
        #expect(asked.take(1, from: "mx2"))
        #expect(!asked.take(1, from: "mx2"))
        asked.end(1)
        #expect(asked.answers?.map(\.from) == ["mx2"])
        #expect(!asked.take(1, from: "mx3"))
    }

    @Test func answersMayComeBeforeAnybodyWaits() {
        let asked = Asked()
        #expect(asked.begin(1, to: ["mx2"]))
        #expect(asked.take(1, from: "mx2"))
        asked.finish(1)
        #expect(asked.answers?.count == 1)
    }

    @Test func questionsAreBounded() {
        let asked = Asked()
        for id in 0..<100 { #expect(asked.begin(UInt64(id), to: ["mx2"])) }
        #expect(!asked.begin(100, to: ["mx2"]))
        asked.end(0)
        #expect(asked.begin(100, to: ["mx2"]))
    }

    @Test func oneLookAnswersTheSameQuestionOfSeveralHosts() {
        var recent = RecentAnswers()
        recent.add(HostAnswer(id: 1, from: "mx2", age: 0), to: .figures, madeAt: Self.start)
        let question = HostQuestion(id: 2, from: "mx3", subject: .figures)
        let again = recent.answer(to: question, at: Self.start + .milliseconds(250))
        #expect(again?.id == 2)
        #expect(again?.age == 0.25)
        #expect(recent.answer(to: question, at: Self.start + .milliseconds(500)) == nil)
        #expect(recent.answer(to: HostQuestion(id: 3, from: "mx3", subject: .search("a")), at: Self.start) == nil)
        // The oldest leave first, and what does not fit is not kept.
        for number in 0..<20 {
            recent.add(HostAnswer(id: 1, from: "mx2", age: 0), to: .search("\(number)"), madeAt: Self.start)
        }
        #expect(recent.answer(to: HostQuestion(id: 3, from: "mx3", subject: .search("19")), at: Self.start) == nil)
    }
}
