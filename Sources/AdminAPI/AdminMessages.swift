// SPDX-License-Identifier: Apache-2.0
package import Limits
package import Report

/// The JSON of the admin listener. Times are seconds since 1970 by the wall clock.
package enum AdminMessages {
    package struct Intervention: Codable, Equatable, Sendable {
        package var action: KeyAction
        package var key: String
        /// Only this limit; nil means every limit that knows the key.
        package var limit: String?
        /// For `raise`: rates such as `500/1h`. Each replaces the limit's rate of the same window.
        package var rates: [String]?
        /// For `raise` and `block`, in seconds.
        package var duration: Int64?
        /// Why, for the audit trail.
        package var reason: String?

        package init(
            action: KeyAction, key: String, limit: String?, rates: [String]?, duration: Int64?, reason: String?
        ) {
            self.action = action
            self.key = key
            self.limit = limit
            self.rates = rates
            self.duration = duration
            self.reason = reason
        }
    }

    /// A change to all keys of a selection that it concerns: `unblock` to those that are blocked, `unraise` to those
    /// that are raised, `reset` to those that have used something.
    package struct SelectionIntervention: Codable, Equatable, Sendable {
        package var action: KeyAction
        /// Only this limit.
        package var limit: String?
        /// A shell pattern over keys; nil for all keys.
        package var match: String?
        /// For `block`, in seconds.
        package var duration: Int64?
        package var reason: String?
        /// Changes nothing if there are more keys.
        package var most: Int?

        package init(
            action: KeyAction, limit: String?, match: String?, duration: Int64?, reason: String?, most: Int?
        ) {
            self.action = action
            self.limit = limit
            self.match = match
            self.duration = duration
            self.reason = reason
            self.most = most
        }
    }

    package struct Status: Codable, Equatable, Sendable {
        package var requests: UInt64
        package var connections: Int
        package var faults: PolicyFaults
        package var keys: Int
        /// Why the ledger is not saved; nil if it is.
        package var trouble: String?
        package var ledger: LedgerFigures
        package var limits: [LimitFigures]

        package init(
            requests: UInt64, connections: Int, faults: PolicyFaults, keys: Int, trouble: String?,
            ledger: LedgerFigures,
            limits: [LimitFigures]
        ) {
            self.requests = requests
            self.connections = connections
            self.faults = faults
            self.keys = keys
            self.trouble = trouble
            self.ledger = ledger
            self.limits = limits
        }
    }

    /// Everything that the page and `weir top` show.
    package struct Snapshot: Codable, Sendable {
        package var time: Double
        package var version: String
        package var configuration: String
        package var status: Status
        /// The service fills it in; nil from services that are too old to know it.
        package var reload: ReloadFigures?
        /// DUNNO first, then the other actions that occurred.
        package var answers: [AnswerFigures]
        /// p50 of the answer times of the last minute, in microseconds; `slowAnswer` is p99. nil without answers.
        package var medianAnswer: Int64?
        package var slowAnswer: Int64?
        package var refusals: [RefusedRequest]
        /// By limit and key, the newest first; nil from services that are too old to know it.
        package var refusalGroups: [RefusalGroup]?
        package var ways: [WayFigures]
        /// Most hits first.
        package var rules: [RuleFigures]
        package var rulesWithoutHits: Int
        /// In the order of the configuration; nil from services that are too old to know it.
        package var tags: [TagFigures]?
        /// Newest first.
        package var audit: [AuditEntry]
        /// The hosts that share limits; nil without `shared`. The service fills it in.
        package var hosts: SharedFigures?

        package init(
            time: Double, version: String, configuration: String, status: Status, answers: [AnswerFigures],
            medianAnswer: Int64?, slowAnswer: Int64?, refusals: [RefusedRequest], ways: [WayFigures],
            rules: [RuleFigures],
            rulesWithoutHits: Int, audit: [AuditEntry]
        ) {
            self.time = time
            self.version = version
            self.configuration = configuration
            self.status = status
            self.answers = answers
            self.medianAnswer = medianAnswer
            self.slowAnswer = slowAnswer
            self.refusals = refusals
            self.ways = ways
            self.rules = rules
            self.rulesWithoutHits = rulesWithoutHits
            self.audit = audit
        }
    }

    /// What the process has given up.
    package struct Protections: Codable, Equatable, Sendable {
        /// The account that it runs as.
        package var user: String
        package var noNewPrivileges: Bool
        /// The version of Landlock that limits files and ports; nil without.
        package var landlock: Int?
        /// Whether system calls are filtered.
        package var callFilter: Bool
        /// Why something is missing.
        package var faults: [String]

        package init(user: String, noNewPrivileges: Bool, landlock: Int?, callFilter: Bool, faults: [String]) {
            self.user = user
            self.noNewPrivileges = noNewPrivileges
            self.landlock = landlock
            self.callFilter = callFilter
            self.faults = faults
        }

        /// `runs as weir; no new privileges, Landlock 7, a filter of system calls`
        package var summary: String {
            let held = [
                noNewPrivileges ? "no new privileges" : nil, landlock.map { "Landlock \($0)" },
                callFilter ? "a filter of system calls" : nil,
            ].compactMap(\.self)
            return "runs as \(user); " + ((held.isEmpty ? ["no restrictions"] : held) + faults).joined(separator: ", ")
        }
    }

    /// Requests a probe, or names one.
    package struct Probe: Codable, Equatable, Sendable {
        /// The last stage that the probe is to reach, which discards it.
        package var last: ProbeStage?
        package var token: String?
        /// From which the times of the sightings count; nil in a request. Of the machine's clock, so it means nothing
        /// on another machine.
        package var begun: ContinuousClock.Instant?

        package init(last: ProbeStage?, token: String?, begun: ContinuousClock.Instant? = nil) {
            self.last = last
            self.token = token
            self.begun = begun
        }
    }

    package struct AlertTest: Codable, Equatable, Sendable {
        /// The configuration key of the only channel, such as `alerts.mail`; nil for all.
        package var channel: String?

        package init(channel: String?) {
            self.channel = channel
        }
    }

    package struct Failure: Codable, Equatable, Sendable {
        package var error: String

        package init(error: String) {
            self.error = error
        }
    }
}
