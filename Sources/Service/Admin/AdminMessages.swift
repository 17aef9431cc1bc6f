// SPDX-License-Identifier: Apache-2.0
package import Limits

/// What the admin listener says and takes, as JSON. Times are seconds since 1970, as the wall clock has them now.
package enum AdminMessages {
    /// Where a key stands with one limit.
    package struct Standing: Codable, Equatable, Sendable {
        package struct Rate: Codable, Equatable, Sendable {
            /// As written in the configuration, `100/1m`.
            package var rate: String
            package var window: String
            package var used: UInt64
            package var limit: UInt64
            /// When there is room for one more; absent where there is now.
            package var freesAt: Double?
            /// What was charged in each slot of the window, oldest first, where one key was asked for.
            package var history: [UInt64]?
        }

        package var limit: String
        package var key: String
        package var count: String
        package var mode: String
        package var rates: [Rate]
        /// Tries refused within the longest window.
        package var refusedTries: UInt64
        package var blockedUntil: Double?
        package var raisedUntil: Double?
        package var exempt: Bool
        /// What whoever has changed something should know besides.
        package var note: String?
    }

    package struct FoundKey: Codable, Equatable, Sendable {
        package var limit: String
        package var key: String
        /// Something has been counted for it lately, or somebody has set it apart.
        package var isKnown: Bool
    }

    package struct Search: Codable, Equatable, Sendable {
        /// What the text means by itself, in the limits that can have such a key.
        package var meant: [FoundKey]
        /// Keys in which the text stands.
        package var found: [FoundKey]
        /// There are more.
        package var isCut: Bool
    }

    package struct Intervention: Codable, Equatable, Sendable {
        package enum Action: String, Codable, Sendable, CaseIterable {
            case reset, raise, block, unblock
        }
        package var action: Action
        package var key: String
        /// Only this limit; absent: every limit that knows the key.
        package var limit: String?
        /// For `raise`: rates such as `500/1h`, each in place of the limit's rate of the same window.
        package var rates: [String]?
        /// For `raise` and `block`, in seconds.
        package var duration: Int64?
        /// Why, for the audit trail.
        package var reason: String?

        package init(
            action: Action, key: String, limit: String?, rates: [String]?, duration: Int64?, reason: String?
        ) {
            self.action = action
            self.key = key
            self.limit = limit
            self.rates = rates
            self.duration = duration
            self.reason = reason
        }
    }

    package struct Status: Codable, Equatable, Sendable {
        package var requests: UInt64
        package var connections: Int
        package var faults: PolicyFaults
        package var keys: Int
        /// What keeps the ledger from being kept; absent where all is well.
        package var trouble: String?
        package var ledger: LedgerStatus
        package var limits: [LimitStatus]
    }

    package struct LedgerStatus: Codable, Equatable, Sendable {
        package var path: String
        package var durability: String
        /// Of the newest segment.
        package var journalBytes: Int
        /// When it began; absent while the ledger can't be opened.
        package var lastCheckpoint: Double?
        package var checkpointSeconds: Double?
        package var mostKeys: Int
        package var evictedKeys: UInt64
    }

    /// What policy clients have done wrong since the start.
    package struct PolicyFaults: Codable, Equatable, Sendable {
        /// Over `listen.policy_connections`.
        package var refusedConnections: UInt64
        package var malformed: UInt64
        package var tooSlow: UInt64
        package var droppedMidRequest: UInt64
    }

    package struct LimitStatus: Codable, Equatable, Sendable {
        package var name: String
        /// What it counts by, such as `sasl_username|client_address`.
        package var attributes: String
        package var count: String
        package var mode: String
        package var rates: [String]
        package var keys: Int
        package var refusals: UInt64
    }

    /// A request that a limit refused, or would have refused in shadow mode.
    package struct Refusal: Codable, Equatable, Sendable {
        /// Seconds since 1970.
        package var time: Double
        package var limit: String
        package var key: String
        package var mode: String
        package var reason: String
        /// Such as `recipients 100/100 per 1m, 540/1000 per 1h`.
        package var usage: String
        /// Seconds until there is room.
        package var retry: Int64
        package var action: String
        package var queueID: String
        package var client: String
        package var login: String
        package var sender: String
        package var recipient: String
    }

    package struct RuleName: Codable, Hashable, Sendable {
        /// `header`, `mime_header`, `nested_header` or `body`; the first of those that share their tables.
        package var checks: String
        /// `pcre:/etc/postfix/header_checks:12`
        package var location: String
    }

    /// What a rule of the checks has done.
    package struct Rule: Codable, Equatable, Sendable {
        package var checks: String
        /// `pcre:/etc/postfix/header_checks:12`
        package var location: String
        package var hits: Int
        /// nil where it has none.
        package var lastHit: Double?
        package var limitsReached: Int
        package var milliseconds: Double
    }

    package struct Way: Codable, Sendable {
        /// `milter`, or a filter by where it listens.
        package var name: String
        var values: MessageCounters.Values

        package var messages: [String: UInt64] { values.messages }
        package var connections: Int { values.connections }
    }

    /// Requests that were answered with one kind of action.
    package struct Answers: Codable, Equatable, Sendable {
        /// `DUNNO`, `DEFER`, `REJECT`, ...
        package var action: String
        package var total: UInt64
        /// Of the last ten minutes, oldest first.
        package var perSecond: [UInt64]
    }

    /// All that the page and `weir top` show at one moment.
    package struct Snapshot: Codable, Sendable {
        package var time: Double
        package var version: String
        package var configuration: String
        package var status: Status
        /// DUNNO first, and the other actions that there were.
        package var answers: [Answers]
        /// Microseconds below which half, and 99 %, of the answers of the last minute took; absent where there were none.
        package var medianAnswer: Int64?
        package var slowAnswer: Int64?
        package var refusals: [Refusal]
        package var ways: [Way]
        /// Those with the most hits first.
        package var rules: [Rule]
        package var rulesWithoutHits: Int
        /// Newest first.
        package var audit: [AuditEntry]
    }

    /// Holds the token of a probe mail.
    package static let probeHeader = "X-Weir-Probe"

    /// In the order in which mail comes by.
    package enum ProbeStage: String, Codable, Sendable, CaseIterable {
        case policy, milter, filter
    }

    /// A probe mail was seen.
    package struct ProbeSighting: Codable, Equatable, Sendable {
        package var stage: ProbeStage
        /// `RCPT`, or the filter's address.
        package var place: String
        /// Since the probe was asked for.
        package var milliseconds: Double
        /// What became of it there.
        package var outcome: String
    }

    /// Asks for a probe, and names it.
    package struct Probe: Codable, Equatable, Sendable {
        /// The last stage that it is to reach, which takes it away.
        package var last: ProbeStage?
        package var token: String?
    }

    package struct Failure: Codable, Equatable, Sendable {
        package var error: String
    }
}

extension AdminMessages.Standing {
    init(_ standing: Limits.Standing, in ledger: Ledger) {
        func seconds(_ time: LedgerTime) -> Double { Double(ledger.wallTime(of: time)) / 1000 }
        limit = standing.limit
        key = String(decoding: standing.key, as: UTF8.self)
        count = standing.count.rawValue
        mode = standing.mode.rawValue
        rates = standing.usages.map { usage in
            Rate(
                rate: usage.rate.description, window: Limits.Rate.text(ofDuration: usage.rate.window.milliseconds),
                used: usage.used, limit: usage.admitted, freesAt: usage.freesAt.map(seconds), history: usage.history)
        }
        refusedTries = standing.refusedTries
        blockedUntil = standing.blockedUntil.map(seconds)
        raisedUntil = standing.raisedUntil.map(seconds)
        exempt = standing.isExempt
    }
}
