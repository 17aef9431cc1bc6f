// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Rules
internal import Synchronization

/// What became of the messages of one way in, over all its loops.
final class MessageCounters: Sendable {
    enum Outcome: String, CaseIterable, Sendable {
        case passed, edited, held, refused, deferred, discarded
    }

    struct Values: Codable, Sendable {
        var messages: [String: UInt64]
        var connections: Int
        /// Absent where there is none.
        var nextHop: NextHopCounters.Values?
    }

    private let messages = Outcome.allCases.map { _ in Counter() }
    let nextHop: NextHopCounters?
    let connections = Atomic(0)

    private final class Counter: Sendable {
        let value = Atomic<UInt64>(0)
    }

    init(nextHop: NextHopCounters? = nil) {
        self.nextHop = nextHop
    }

    func count(_ outcome: Outcome) {
        messages[Outcome.allCases.firstIndex(of: outcome)!].value.add(1, ordering: .relaxed)
    }

    func count(_ verdict: Verdict) {
        switch verdict.disposition {
        case .discard: count(.discarded)
        case .refuse(let refusal): count(refusal.code < 500 ? .deferred : .refused)
        case .accept: count(verdict.isHeld ? .held : verdict.edits.isEmpty ? .passed : .edited)
        }
    }

    var values: Values {
        let counts = messages.map { $0.value.load(ordering: .relaxed) }
        return Values(
            messages: Dictionary(uniqueKeysWithValues: zip(Outcome.allCases.map(\.rawValue), counts)),
            connections: connections.load(ordering: .relaxed), nextHop: nextHop?.values)
    }
}
