// SPDX-License-Identifier: Apache-2.0

/// The questions of other hosts that wait for their turn. One that takes a walk through all keys is answered at a time,
/// and one other beside it: a long walk holds up no short question, because the ledger answers these between the pieces
/// of the walk.
package struct WaitingQuestions {
    private struct Queue {
        var questions: [(question: HostQuestion, since: ContinuousClock.Instant)] = []
        var isBusy = false
    }

    private var walks = Queue()
    private var others = Queue()

    /// At most this many questions of each kind wait.
    private static let most = 32

    package init() {}

    /// - Returns: false if too many wait already. The question is dropped then.
    package mutating func add(_ question: HostQuestion, at now: ContinuousClock.Instant) -> Bool {
        let queue = Self.queue(of: question)
        guard self[keyPath: queue].questions.count < Self.most else { return false }
        self[keyPath: queue].questions.append((question, now))
        return true
    }

    /// The next question that may be answered now; nil if there is none. The caller calls `end` when it is answered.
    ///
    /// - Parameter mostAge: nobody waits longer for an answer.
    package mutating func next(at now: ContinuousClock.Instant, mostAge: Duration) -> HostQuestion? {
        for queue in [\Self.others, \Self.walks] where !self[keyPath: queue].isBusy {
            self[keyPath: queue].questions.removeAll { now - $0.since > mostAge }
            guard !self[keyPath: queue].questions.isEmpty else { continue }
            self[keyPath: queue].isBusy = true
            return self[keyPath: queue].questions.removeFirst().question
        }
        return nil
    }

    package mutating func end(_ question: HostQuestion) { self[keyPath: Self.queue(of: question)].isBusy = false }

    private static func queue(of question: HostQuestion) -> WritableKeyPath<Self, Queue> {
        switch question.subject {
        case .fullest, .selection, .search: \.walks
        case .names, .key, .figures: \.others
        }
    }
}
