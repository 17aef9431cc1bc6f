// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// Follows the probe mail of `weir doctor --try` through the service.
///
/// A probe carries a token in its sender or its X-Weir-Probe header. Only users of the admin listener get a token. A
/// probe is charged to no key, and the last stage that it is to reach discards it.
package final class ProbeBoard: Sendable {
    /// The header that holds the token.
    package static let header = "X-Weir-Probe"

    /// What a stage is to do with a message.
    package enum Sighting: Sendable {
        case none
        case passing
        /// Discard it here.
        case last
    }

    private struct Probe {
        let token: [UInt8]
        let last: ProbeStage
        let begun: ContinuousClock.Instant
        var sightings: [ProbeSighting] = []
    }

    /// Checked for every message.
    private let isExpected = Atomic(false)
    private let state = Mutex<Probe?>(nil)

    private static let lifetime: Duration = .seconds(60)
    private static let mostSightings = 100

    package init() {}

    package var isActive: Bool { isExpected.load(ordering: .relaxed) }

    /// Begins a probe, which replaces a running one.
    ///
    /// - Parameter begun: now; the times of the sightings count from it.
    /// - Returns: its token.
    package func begin(upTo last: ProbeStage, at begun: ContinuousClock.Instant) -> String {
        let token = (0..<4).map { _ in String(UInt32.random(in: 0x1000_0000...(.max)), radix: 16) }.joined()
        state.withLock { $0 = Probe(token: Array(token.utf8), last: last, begun: begun) }
        isExpected.store(true, ordering: .relaxed)
        return token
    }

    package func sightings(of token: String) -> [ProbeSighting] {
        state.withLock { probe in
            guard let probe, probe.token.elementsEqual(token.utf8) else { return [] }
            return probe.sightings
        }
    }

    package func end(_ token: String) {
        state.withLock { probe in
            guard let current = probe, current.token.elementsEqual(token.utf8) else { return }
            probe = nil
            isExpected.store(false, ordering: .relaxed)
        }
    }

    /// - Parameters:
    ///   - mark: the bytes that may contain the token.
    ///   - place: the listener or protocol state.
    ///   - outcome: what the stage did with it.
    ///   - isRefused: the stage would have refused real mail.
    package func see(
        _ mark: some Collection<UInt8>, at stage: ProbeStage, _ place: @autoclosure () -> String,
        _ outcome: @autoclosure () -> String, isRefused: Bool = false
    ) -> Sighting {
        guard isActive else { return .none }
        return state.withLock { probe in
            guard let current = probe else { return .none }
            let age = ContinuousClock.now - current.begun
            guard age < Self.lifetime else {
                probe = nil
                isExpected.store(false, ordering: .relaxed)
                return .none
            }
            guard mark.firstRange(of: current.token) != nil else { return .none }
            if current.sightings.count < Self.mostSightings {
                let milliseconds = Double(age.components.seconds) * 1000 + Double(age.components.attoseconds) / 1e15
                probe?.sightings.append(
                    .init(
                        stage: stage, place: place(), milliseconds: milliseconds, outcome: outcome(),
                        isRefused: isRefused))
            }
            return stage == current.last ? .last : .passing
        }
    }
}

/// The stages that a mail passes, in their order.
package enum ProbeStage: String, Codable, Sendable, CaseIterable {
    case policy, milter, filter
}

/// One stage has seen a probe mail.
package struct ProbeSighting: Codable, Equatable, Sendable {
    package var stage: ProbeStage
    /// `RCPT`, or the filter's address.
    package var place: String
    /// Since the start of the probe.
    package var milliseconds: Double
    /// What the stage did with it.
    package var outcome: String
    /// The stage would have refused real mail. nil from a service of an earlier version.
    package var isRefused: Bool?
}
