// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Report

/// What the page shows. Its size, and the time that the ledger's loop needs for it, are bounded, however many limits,
/// keys and rules there are. Times are seconds since 1970 by the wall clock.
struct AdminOverview: Encodable, Sendable {
    enum Bounds {
        static let limits = 100
        static let refusals = 100
        /// Keys that are over their limits, and as many again of the fullest.
        static let keys = 30
        static let listeners = 50
        static let rules = 50
    }

    /// What Postfix must be told.
    struct Listeners: Encodable, Sendable {
        var policy: [String]
        var milter: [String]
        var filter: [String]
    }

    var host: String
    var version: String
    var time: Double
    /// Seconds since the admin listener was started.
    var uptime: Double
    /// What is wrong with the ledger, and what that means for mail; nil while counts are saved.
    var trouble: String?
    /// nil while the engine of shared limits is in use, and without `shared`.
    var engineTrouble: EngineTrouble?
    var reload: ReloadFigures
    var listeners: Listeners
    var requests: UInt64
    var connections: Int
    var faults: PolicyFaults
    var answers: [AnswerFigures]
    /// Percentiles of the answer times of the last minute, in microseconds; nil without answers.
    var p50: Int64?
    var p99: Int64?
    var ledger: LedgerFigures
    var keys: Int
    /// The limits that have refused most.
    var limits: [LimitFigures]
    var limitCount: Int
    /// The newest first.
    var refusals: [RefusalGroup]
    /// Keys that were refused lately, and the fullest keys.
    var standings: [KeyStanding]
    var ways: [WayFigures]
    var rules: [RuleFigures]
    var rulesWithoutHits: Int
    /// In the order of the configuration.
    var tags: [TagFigures]
    var audit: [AuditEntry]
    /// The hosts that share limits; nil without `shared`.
    var hosts: SharedFigures?
}

/// What the page shows of one key.
struct AdminKeyPage: Encodable, Sendable {
    /// The limits of which the text is a key, known or not.
    var limits: [FoundKey]
    var refusals: [RefusalGroup]
    /// The newest first, of the last changes to all keys.
    var audit: [AuditEntry]
}
