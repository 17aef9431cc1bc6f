// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Limits
internal import Loop
internal import Policy
internal import Report
internal import Settings

extension LedgerHost {
    func status(of policy: PolicyListener) async throws -> AdminMessages.Status {
        try await loop.submit { [self] in presentStatus(of: policy) }
    }

    /// The figures of the ledger and the policy server; the caller fills in the rest of the snapshot.
    func snapshot(of policy: PolicyListener, version: String) async throws -> (AdminMessages.Snapshot, LatencyHistogram)
    {
        try await loop.submit { [self] in
            withActivity { activity, second in
                let lastMinute = activity.latencyOfLastMinute(at: second)
                var snapshot = AdminMessages.Snapshot(
                    time: secondsSince1970(), version: version, configuration: configuration.summary,
                    status: presentStatus(of: policy),
                    answers: activity.answers(at: second), medianAnswer: lastMinute.bound(ofShare: 0.5),
                    slowAnswer: lastMinute.bound(ofShare: 0.99),
                    refusals: activity.refusals.newestFirst, ways: [], rules: [], rulesWithoutHits: 0,
                    audit: audit.newestFirst)
                snapshot.refusalGroups = Array(
                    activity.refusalGroups.newestFirst(at: snapshot.time).prefix(AdminOverview.Bounds.refusals))
                return (snapshot, activity.latency)
            }
        }
    }

    private func presentStatus(of policy: PolicyListener) -> AdminMessages.Status {
        // The limits are left out while the ledger can't be opened.
        let limits = try? withLedger { ledger in
            ledger.limits.map { LimitFigures($0) }
        }
        var status = AdminMessages.Status(
            requests: requests, connections: policy.openConnections, faults: policy.faults,
            keys: limits?.reduce(0) { $0 + $1.keys } ?? 0, trouble: troubleText, ledger: presentLedger(),
            limits: limits ?? [])
        status.engineTrouble = engineTrouble
        return status
    }

    func presentLedger() -> LedgerFigures {
        let checkpoint = try? withLedger(\.lastCheckpoint)
        return LedgerFigures(
            path: configuration.ledger.store.path, durability: configuration.ledger.durability.rawValue,
            journalBytes: journalBytes,
            lastCheckpoint: checkpoint.map { Double($0.began) / 1000 },
            checkpointSeconds: checkpoint?.took.map { Double($0) / 1000 },
            mostKeys: configuration.ledger.mostKeys, evictedKeys: evictedKeys)
    }
}

extension PolicyActivity {
    mutating func answers(at second: Int64) -> [AnswerFigures] {
        PolicyAction.allCases.compactMap { action in
            let total = total(action)
            guard total > 0 || action == .dunno else { return nil }
            return .init(action: action.name, total: total, perSecond: history(of: action, at: second))
        }
    }
}

extension LimitFigures {
    init(_ state: LimitState) {
        let limit = state.limit
        self.init(
            name: limit.name, attributes: limit.key.parts.map(\.name).joined(separator: "|"),
            count: limit.count.rawValue, mode: limit.mode.rawValue, rates: limit.rates.map(\.description),
            keys: state.accountCount, refusals: state.refusals, blocks: state.blocks,
            undecided: state.undecided)
    }
}
