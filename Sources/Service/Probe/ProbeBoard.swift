// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// Follows the probe mail of `weir doctor --try` through the service.
///
/// A probe is known by a token that only who may use the admin listener has, in its sender or its X-Weir-Probe header.
/// It is charged to nobody, and the last stage that it is to reach takes it away.
package final class ProbeBoard: Sendable {
    /// Where a probe comes by.
    enum Sighting: Sendable {
        case none
        case passing
        /// It is to go no further.
        case last
    }

    private struct Probe {
        let token: [UInt8]
        let last: AdminMessages.ProbeStage
        let begun = ContinuousClock.now
        var sightings: [AdminMessages.ProbeSighting] = []
    }

    /// What all mail looks at.
    private let isExpected = Atomic(false)
    private let state = Mutex<Probe?>(nil)

    private static let lifetime: Duration = .seconds(60)
    private static let mostSightings = 100

    package init() {}

    var isActive: Bool { isExpected.load(ordering: .relaxed) }

    /// A new probe, in place of one that is under way.
    package func begin(upTo last: AdminMessages.ProbeStage) -> String {
        let token = (0..<4).map { _ in String(UInt32.random(in: 0x1000_0000...(.max)), radix: 16) }.joined()
        state.withLock { $0 = Probe(token: Array(token.utf8), last: last) }
        isExpected.store(true, ordering: .relaxed)
        return token
    }

    package func sightings(of token: String) -> [AdminMessages.ProbeSighting] {
        state.withLock { probe in
            guard let probe, probe.token.elementsEqual(token.utf8) else { return [] }
            return probe.sightings
        }
    }

    func end(_ token: String) {
        state.withLock { probe in
            guard let current = probe, current.token.elementsEqual(token.utf8) else { return }
            probe = nil
            isExpected.store(false, ordering: .relaxed)
        }
    }

    /// - Parameters:
    ///   - mark: where the token would be.
    ///   - place: which listener or state it is.
    ///   - outcome: what the stage made of it.
    func see(
        _ mark: some Collection<UInt8>, at stage: AdminMessages.ProbeStage, _ place: @autoclosure () -> String,
        _ outcome: @autoclosure () -> String
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
                    .init(stage: stage, place: place(), milliseconds: milliseconds, outcome: outcome()))
            }
            return stage == current.last ? .last : .passing
        }
    }
}
