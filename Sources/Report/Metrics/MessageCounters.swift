// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// The outcomes of the messages of one listener, over all its loops.
package final class MessageCounters: Sendable {
    package enum Outcome: String, CaseIterable, Sendable {
        case passed, edited, held, refused, deferred, discarded
    }

    package struct Values: Codable, Sendable {
        package var messages: [String: UInt64]
        package var connections: Int
        /// nil without a next hop.
        package var nextHop: NextHopCounters.Values?
    }

    private let messages = Outcome.allCases.map { _ in Counter() }
    package let nextHop: NextHopCounters?

    private final class Counter: Sendable {
        package let value = Atomic<UInt64>(0)
    }

    package init(nextHop: NextHopCounters? = nil) {
        self.nextHop = nextHop
    }

    package func count(_ outcome: Outcome) {
        messages[Outcome.allCases.firstIndex(of: outcome)!].value.add(1, ordering: .relaxed)
    }

    package func values(connections: Int) -> Values {
        let counts = messages.map { $0.value.load(ordering: .relaxed) }
        return Values(
            messages: Dictionary(uniqueKeysWithValues: zip(Outcome.allCases.map(\.rawValue), counts)),
            connections: connections, nextHop: nextHop?.values)
    }
}
