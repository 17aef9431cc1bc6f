// SPDX-License-Identifier: Apache-2.0

/// The questions of this host that wait for answers.
package struct OpenQuestions {
    private struct Question {
        var missing: Set<String>
        var answers: [HostAnswer] = []
        let asked: ContinuousClock.Instant
        /// What is called at the end; nil while the caller does something else.
        var finish: (([HostAnswer]) -> Void)?
    }

    private var questions: [UInt64: Question] = [:]

    /// Questions that wait at once.
    private static let most = 100

    package init() {}

    /// - Parameter hosts: that are expected to answer.
    /// - Returns: false if too many others wait.
    package mutating func begin(_ id: UInt64, to hosts: Set<String>, at now: ContinuousClock.Instant) -> Bool {
        guard questions.count < Self.most else { return false }
        questions[id] = Question(missing: hosts, asked: now)
        return true
    }

    /// Takes an answer. A second one of the same host, and one to a question that is over, count as none.
    ///
    /// - Returns: whether it counts.
    package mutating func take(_ answer: HostAnswer, at now: ContinuousClock.Instant) -> Bool {
        guard var question = questions[answer.id], question.missing.remove(answer.from) != nil else { return false }
        var answer = answer
        // At most: the answer may have been made at any moment since.
        answer.age += (now - question.asked) / .seconds(1)
        question.answers.append(answer)
        questions[answer.id] = question
        if question.missing.isEmpty, question.finish != nil { end(answer.id) }
        return true
    }

    /// Calls `finish` with the answers when all are there, perhaps at once, or at `end`.
    package mutating func finish(_ id: UInt64, _ finish: @escaping ([HostAnswer]) -> Void) {
        guard questions[id] != nil else { return finish([]) }
        questions[id]?.finish = finish
        if questions[id]?.missing.isEmpty == true { end(id) }
    }

    /// The time for answers is over.
    package mutating func end(_ id: UInt64) {
        guard let question = questions.removeValue(forKey: id) else { return }
        question.finish?(question.answers.sorted { $0.from < $1.from })
    }
}
