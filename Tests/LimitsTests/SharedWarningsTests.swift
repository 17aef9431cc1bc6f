// SPDX-License-Identifier: Apache-2.0
import Limits
import Sharing
import Testing

/// When one of two hosts asks the other whether both together are near a limit of 100 an hour. It asks first at 40.
@Suite struct SharedWarningsTests {
    private static let (minute, hour): (Int64, Int64) = (60_000, 3_600_000)
    private let harness: LedgerHarness
    private let shared: SharedCounts
    private let observer = Observer()

    private final class Observer: LedgerObserver {
        /// By window, in milliseconds.
        var questions: [Int64] = []
        var messages = 0

        func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {}
        func near(_ event: LimitEvent, _ request: Attributes) {}
        func mayBeNear(_ event: LimitEvent, _ request: Attributes) { questions.append(event.rate.window.milliseconds) }
        func blocked(_ event: LimitEvent, _ request: Attributes) {}
        func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {}
        func evicted(_ account: Account, at time: LedgerTime) {}
    }

    init() throws {
        harness = try LedgerHarness { maker in
            var limit = maker.limit(rates: ["50/1m", "100/1h"])
            limit.isShared = true
            return [limit]
        }
        let settings = SharedCounts.Settings(
            name: "mx1", hosts: ["mx1", "mx2"], share: 1000, timeout: 50, isOpenOnCutOff: true)
        shared = SharedCounts(settings, limits: harness.limits, kept: nil, versions: [])
        harness.ledger.shared = shared
        harness.ledger.observer = observer
    }

    /// Uses so much more, one by one, and returns the windows that this host has asked about meanwhile.
    private func use(_ count: Int) throws -> [Int64] {
        observer.questions = []
        for _ in 0..<count {
            observer.messages += 1
            #expect(try harness.ask(rcpt("m\(observer.messages)", to: "a@example.org")) == nil)
        }
        return observer.questions
    }

    @discardableResult
    private func note(_ marks: [Int64: UInt64], after change: Int64 = 0) -> Bool {
        harness.ledger.beginTick()
        return harness.ledger.note(
            .init(marks: marks, change: change), ofKey: Array("user".utf8), in: harness.ledger.limits[0])
    }

    private var lastChange: Int64 {
        harness.ledger.lastChange(ofKey: Array("user".utf8), in: harness.ledger.limits[0])
    }

    private func reset(by author: ChangeAuthor) throws {
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(.reset, onKey: Array("user".utf8), limit: "per-user", by: author)
    }

    @Test func aQuestionIsAskedAtTheMarks() throws {
        // The minute is asked about at 20, and both marks follow.
        #expect(try use(19) == [])
        #expect(try use(1) == [Self.minute])
        #expect(!note([Self.minute: 30, Self.hour: 25]))
        #expect(try use(4) == [])
        #expect(try use(1) == [Self.hour])
        // Used meanwhile.
        #expect(note([Self.minute: 30, Self.hour: 25]))
        #expect(!note([Self.hour: 1000]))
        #expect(try use(4) == [])
        #expect(try use(1) == [Self.minute])
    }

    /// The other host relies on the marks of this one, also while nobody answers.
    @Test func aQuestionWithoutAnAnswerIsAskedAgainAtTheSameMark() throws {
        note([Self.minute: 5, Self.hour: 1000])
        #expect(try use(4) == [])
        #expect(try use(2) == [Self.minute])
        harness.clocks.advance(2000)
        #expect(try use(2) == [Self.minute])
    }

    @Test func aWarningOfAShortWindowLeavesTheOthers() throws {
        note([Self.minute: .max, Self.hour: 45])
        #expect(try use(44) == [])
        #expect(try use(1) == [Self.hour])
        // And ends with its window.
        note([Self.minute: .max, Self.hour: .max])
        harness.clocks.advance(Self.minute + 2000)
        #expect(try use(19) == [])
        #expect(try use(1) == [Self.minute])
    }

    @Test func aReloadBeginsAtTheFirstMarks() throws {
        note([Self.minute: .max, Self.hour: 90])
        shared.configure(harness.limits)
        #expect(try use(20) == [Self.minute])
    }

    @Test func aResetForgetsWhatWasKnown() throws {
        #expect(try use(20) == [Self.minute])
        note([Self.minute: .max, Self.hour: .max])
        try reset(by: .everywhere(user: "root", reason: ""))
        #expect(lastChange > 0)
        // From a host that does not know of the reset.
        note([Self.minute: .max, Self.hour: .max])
        #expect(try use(20) == [Self.minute])
        note([Self.minute: .max, Self.hour: .max], after: lastChange)
        #expect(try use(25) == [])
    }

    /// Also of a key that this host has not counted.
    @Test func aResetOfAnotherHostForgetsWhatWasKnown() throws {
        note([Self.minute: .max, Self.hour: .max])
        let subject = SharedChange.Subject(.reset, limit: "per-user", key: Array("user".utf8))
        let change = SharedChange(
            subject, .init(number: 7, mark: 2), until: 0, value: "", author: SharedChange.Author(host: "mx2"))
        // Marks that take it into account stay.
        note([Self.minute: 15], after: 7)
        #expect(harness.ledger.adopt([change]).count == 1)
        #expect(try use(15) == [Self.minute])
        note([Self.minute: .max, Self.hour: .max], after: 6)
        #expect(harness.ledger.adopt([change]).count == 1)
        #expect(try use(20) == [Self.minute])
    }

    /// The marks of this host hold on: the others rely on them.
    @Test func aChangeOnThisHostAloneForgetsNothing() throws {
        note([Self.minute: 5, Self.hour: 90])
        try reset(by: .here)
        #expect(try use(5) == [Self.minute])
    }
}
