// SPDX-License-Identifier: Apache-2.0
package import MailSyntax
internal import Synchronization

/// The outcomes of the messages of one listener, over all its loops.
package final class MessageCounters: Sendable {
    package enum Outcome: Int, CaseIterable, Sendable {
        case passed, edited, held, refused, deferred, discarded

        package var name: String { "\(self)" }
    }

    package struct Values: Codable, Sendable {
        package var messages: [String: UInt64]
        package var connections: Int
        /// Addresses, by repair, or `refused`. Repairs in headers begin with `header_`.
        package var addresses: [String: UInt64]
        /// nil without a next hop.
        package var nextHop: NextHopCounters.Values?
    }

    /// By outcome.
    private let messages = Outcome.allCases.map { _ in Counter() }
    private let repairs = AddressRepair.allCases.map { _ in Counter() }
    private let headerRepairs = AddressRepair.allCases.map { _ in Counter() }
    private let refusedAddresses = Counter()
    package let nextHop: NextHopCounters?

    private final class Counter: Sendable {
        package let value = Atomic<UInt64>(0)
    }

    package init(nextHop: NextHopCounters? = nil) {
        self.nextHop = nextHop
    }

    package func count(_ outcome: Outcome) {
        messages[outcome.rawValue].value.add(1, ordering: .relaxed)
    }

    /// Counts an address of an envelope by each of its repairs.
    package func count(_ repairs: AddressRepairs) { Self.count(repairs, self.repairs) }

    /// Counts an address in a header by each of its repairs.
    package func count(inHeader repairs: AddressRepairs) { Self.count(repairs, headerRepairs) }

    private static func count(_ repairs: AddressRepairs, _ counters: [Counter]) {
        for (repair, counter) in zip(AddressRepair.allCases, counters) where repairs.contains(repair) {
            counter.value.add(1, ordering: .relaxed)
        }
    }

    package func countRefusedAddress() { refusedAddresses.value.add(1, ordering: .relaxed) }

    private var addresses: [String: UInt64] {
        let names = AddressRepair.allCases.map(\.rawValue)
        let inHeaders = zip(names.map { "header_\($0)" }, headerRepairs)
        let counters = Array(zip(names, repairs)) + Array(inHeaders) + [("refused", refusedAddresses)]
        let counts = counters.map { ($0, $1.value.load(ordering: .relaxed)) }
        return Dictionary(uniqueKeysWithValues: counts.filter { $0.1 > 0 })
    }

    package func values(connections: Int) -> Values {
        let counts = messages.map { $0.value.load(ordering: .relaxed) }
        return Values(
            messages: Dictionary(uniqueKeysWithValues: zip(Outcome.allCases.map(\.name), counts)),
            connections: connections, addresses: addresses, nextHop: nextHop?.values)
    }
}
