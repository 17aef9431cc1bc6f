// SPDX-License-Identifier: Apache-2.0

/// The answers of the last moments. Several hosts, or one that asks again and again, cost the ledger one look.
package struct RecentAnswers {
    private var answers: [HostQuestion.Subject: (answer: HostAnswer, madeAt: ContinuousClock.Instant)] = [:]

    private static let mostAge: Duration = .milliseconds(500)
    private static let most = 8

    package init() {}

    /// - Parameter time: the figures are not older.
    package mutating func add(
        _ answer: HostAnswer, to subject: HostQuestion.Subject, madeAt time: ContinuousClock.Instant
    ) {
        answers = answers.filter { time - $0.value.madeAt < Self.mostAge }
        if answers.count < Self.most { answers[subject] = (answer, time) }
    }

    /// nil if the question has to be answered anew.
    package func answer(to question: HostQuestion, at now: ContinuousClock.Instant) -> HostAnswer? {
        guard let (answer, madeAt) = answers[question.subject], now - madeAt < Self.mostAge else { return nil }
        var copy = answer
        copy.id = question.id
        copy.age = (now - madeAt) / .seconds(1)
        return copy
    }
}
