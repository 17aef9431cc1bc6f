// SPDX-License-Identifier: Apache-2.0
import Limits

/// A ledger that decides the requests of a replay, and what it refused.
final class ReplayedLedger {
    /// What became of a request.
    struct Outcome {
        /// Limits that refused the request, would have in shadow mode, or answered without refusing.
        var reporting: [String] = []
        /// The limit whose answer the client would have got; nil if the request passed.
        var refusing: String?
    }

    let ledger: Ledger
    private let recorder = RefusalRecorder()

    init(_ limits: [Limit], _ settings: Ledger.Settings, _ clocks: ReplayClocks) throws {
        ledger = try Ledger(limits: limits, settings: settings, clocks: clocks, store: ReplayStore())
        ledger.observer = recorder
    }

    func beginTick(_ moment: LogMoment) {
        recorder.moment = moment
        ledger.beginTick()
    }

    func decide(_ request: Attributes) -> Outcome {
        recorder.outcome = Outcome()
        ledger.prepare(request)
        ledger.fetch()
        _ = ledger.decide(request)
        ledger.discardBatch()
        return recorder.outcome
    }

    /// The refusals of each key of a limit, most refusals first.
    func refusals(of limit: String) -> [KeyRefusals] {
        (recorder.refusals[limit] ?? [:]).values.sorted { ($0.refused, $1.key) > ($1.refused, $0.key) }
    }
}

/// Collects the refusals of the limits.
private final class RefusalRecorder: LedgerObserver {
    /// The time of the request that is being decided.
    var moment = LogMoment.utc(0)
    var outcome = ReplayedLedger.Outcome()
    private(set) var refusals: [String: [[UInt8]: KeyRefusals]] = [:]

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {
        let limit = event.limit
        outcome.reporting.append(limit.name)
        if !event.isShadowed, !limit.answer(to: reason).letsPass { outcome.refusing = limit.name }
        let rate = "\(event.used)/\(event.admitted) per \(Rate.text(ofDuration: event.rate.window.milliseconds))"
        refusals[limit.name, default: [:]][
            event.account.key,
            default: KeyRefusals(
                key: String(decoding: event.account.key, as: UTF8.self), first: moment.reported, firstZone: moment.zone,
                reason: "\(reason.rawValue), \(rate)")
        ].refused += 1
    }

    func near(_ event: LimitEvent, _ request: Attributes) {}
    func mayBeNear(_ event: LimitEvent, _ request: Attributes) {}
    func blocked(_ event: LimitEvent, _ request: Attributes) {}
    func evicted(_ account: Account, at time: LedgerTime) {}
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {}
}
