// SPDX-License-Identifier: Apache-2.0
import Limits

/// Finds what a limit would refuse if it were the only one, but another limit refuses first.
struct Masking {
    /// A limit by itself.
    private struct Single {
        let name: String
        let ledger: ReplayedLedger
        /// Requests that the limit refuses when alone, and others when together, by the name of the other.
        var masked: [String: Int] = [:]
    }

    private var singles: [Single] = []

    init(_ limits: [Limit], _ settings: Ledger.Settings, _ clocks: ReplayClocks) throws {
        guard limits.count > 1, limits.contains(where: { $0.mode == .enforce && !$0.over.letsPass }) else { return }
        singles = try limits.map { Single(name: $0.name, ledger: try ReplayedLedger([$0], settings, clocks)) }
    }

    func beginTick(_ moment: LogMoment) {
        for single in singles { single.ledger.beginTick(moment) }
    }

    func maintain() {
        for single in singles { _ = single.ledger.ledger.maintain(slots: 256) }
    }

    /// - Parameters:
    ///   - together: what became of the requests with all limits.
    ///   - decide: lets a ledger decide the same requests.
    mutating func compare(
        _ together: [ReplayedLedger.Outcome], _ decide: (ReplayedLedger) -> [ReplayedLedger.Outcome]
    ) {
        for index in singles.indices {
            let name = singles[index].name
            for (outcome, alone) in zip(together, decide(singles[index].ledger)) {
                guard let refusing = outcome.refusing, !alone.reporting.isEmpty, !outcome.reporting.contains(name)
                else { continue }
                singles[index].masked[refusing, default: 0] += 1
            }
        }
    }

    /// What masked a limit, most requests first.
    func masks(of limit: String) -> [LimitMask] {
        (singles.first { $0.name == limit }?.masked ?? [:]).map { LimitMask(by: $0.key, requests: $0.value) }
            .sorted { ($0.requests, $1.by) > ($1.requests, $0.by) }
    }
}
