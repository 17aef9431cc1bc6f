// SPDX-License-Identifier: Apache-2.0
internal import Limits

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

        package init(action: Action, key: String, limit: String?, rates: [String]?, duration: Int64?) {
            self.action = action
            self.key = key
            self.limit = limit
            self.rates = rates
            self.duration = duration
        }
    }

    package struct Status: Codable, Equatable, Sendable {
        package var requests: UInt64
        package var connections: Int
        package var faults: PolicyFaults
        package var keys: Int
        /// What keeps the ledger from being kept; absent where all is well.
        package var trouble: String?
        package var limits: [LimitStatus]
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
        package var keys: Int
        package var refusals: UInt64
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
                used: usage.used, limit: usage.admitted, freesAt: usage.freesAt.map(seconds))
        }
        refusedTries = standing.refusedTries
        blockedUntil = standing.blockedUntil.map(seconds)
        raisedUntil = standing.raisedUntil.map(seconds)
        exempt = standing.isExempt
    }
}
