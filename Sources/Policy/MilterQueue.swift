// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// A question that a milter has asked and the ledger has not answered yet.
package final class OpenQuestion: Sendable {
    let question: PolicyQuestion
    /// nil once the question is answered or cancelled.
    private let answer: Mutex<(@Sendable (PolicyAnswer) -> Void)?>

    init(_ question: PolicyQuestion, _ answer: @escaping @Sendable (PolicyAnswer) -> Void) {
        self.question = question
        self.answer = Mutex(answer)
    }

    var isCancelled: Bool { answer.withLock { $0 == nil } }

    func resolve(_ result: PolicyAnswer) {
        takeAnswer()?(result)
    }

    func cancel() { _ = takeAnswer() }

    private func takeAnswer() -> (@Sendable (PolicyAnswer) -> Void)? {
        answer.withLock { answer in
            defer { answer = nil }
            return answer
        }
    }
}

/// What milters hand over to the ledger's loop, in order, while that loop is busy.
///
/// The bound is the number of milter connections. A connection has one open question at a time, and a question that is
/// cancelled leaves the queue. Each of the other entries follows an answer of the ledger, which can give none before
/// the queue is drained.
struct MilterQueue: Sendable {
    enum Entry: Sendable {
        case ask(OpenQuestion)
        /// The message of the question was aborted.
        case abandon(PolicyQuestion)
        /// The charge of a transaction is to be withdrawn.
        case withdraw(UInt64)
    }

    private var entries: [Entry] = []
    /// Whether the loop has a task that drains the queue.
    private var isScheduled = false

    var count: Int { entries.count }

    /// - Returns: whether the caller has to schedule a task that drains the queue.
    mutating func append(_ entry: Entry) -> Bool {
        entries.append(entry)
        defer { isScheduled = true }
        return !isScheduled
    }

    mutating func remove(_ question: OpenQuestion) {
        let place = entries.firstIndex { entry in
            if case .ask(let other) = entry { other === question } else { false }
        }
        if let place { entries.remove(at: place) }
    }

    mutating func drain() -> [Entry] {
        defer { (entries, isScheduled) = ([], false) }
        return entries
    }
}
