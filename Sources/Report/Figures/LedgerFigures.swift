// SPDX-License-Identifier: Apache-2.0

/// The state of the ledger's store.
package struct LedgerFigures: Codable, Equatable, Sendable {
    package var path: String
    package var durability: String
    /// Size of the newest journal segment.
    package var journalBytes: Int
    /// Seconds since 1970; nil while the ledger is not open.
    package var lastCheckpoint: Double?
    package var checkpointSeconds: Double?
    package var mostKeys: Int
    package var evictedKeys: UInt64

    package init(
        path: String, durability: String, journalBytes: Int, lastCheckpoint: Double?, checkpointSeconds: Double?,
        mostKeys: Int, evictedKeys: UInt64
    ) {
        self.path = path
        self.durability = durability
        self.journalBytes = journalBytes
        self.lastCheckpoint = lastCheckpoint
        self.checkpointSeconds = checkpointSeconds
        self.mostKeys = mostKeys
        self.evictedKeys = evictedKeys
    }
}

/// Faults of policy clients since the start.
package struct PolicyFaults: Codable, Equatable, Sendable {
    /// Connections beyond `listen.policy_connections`.
    package var refusedConnections: UInt64 = 0
    package var malformed: UInt64 = 0
    package var tooSlow: UInt64 = 0
    package var droppedMidRequest: UInt64 = 0

    package init() {}
}

/// The state of one limit.
package struct LimitFigures: Codable, Equatable, Sendable {
    package var name: String
    /// The attributes of its key, such as `sasl_username|client_address`.
    package var attributes: String
    package var count: String
    package var mode: String
    package var rates: [String]
    package var keys: Int
    package var refusals: UInt64
    /// Keys that the limit has blocked; one counts as often as that happens.
    package var blocks: UInt64
    /// Requests to which the limit did not apply because a pattern of its conditions gave up.
    package var undecided: UInt64
    /// What each host that shares the limit has last told of it; nil if the limit is of this host alone. The other
    /// figures are of this host.
    package var hosts: [LimitPart]?

    package init(
        name: String, attributes: String, count: String, mode: String, rates: [String], keys: Int, refusals: UInt64,
        blocks: UInt64, undecided: UInt64
    ) {
        self.name = name
        self.attributes = attributes
        self.count = count
        self.mode = mode
        self.rates = rates
        self.keys = keys
        self.refusals = refusals
        self.blocks = blocks
        self.undecided = undecided
    }
}

/// A request that a limit refused, or would have refused without shadow mode.
package struct RefusedRequest: Codable, Equatable, Sendable {
    /// Seconds since 1970.
    package var time: Double
    package var limit: String
    package var key: String
    package var mode: String
    package var reason: String
    /// Such as `recipients 100/100 per 1m, 540/1000 per 1h`.
    package var usage: String
    /// Seconds until there is room, or until the block ends.
    package var retry: Int64
    package var action: String
    package var queueID: String
    package var client: String
    package var login: String
    package var sender: String
    package var recipient: String
    /// The host that has refused it, if that is another one.
    package var host: String?

    package init(
        time: Double, limit: String, key: String, mode: String, reason: String, usage: String, retry: Int64,
        action: String, queueID: String, client: String, login: String, sender: String, recipient: String
    ) {
        self.time = time
        self.limit = limit
        self.key = key
        self.mode = mode
        self.reason = reason
        self.usage = usage
        self.retry = retry
        self.action = action
        self.queueID = queueID
        self.client = client
        self.login = login
        self.sender = sender
        self.recipient = recipient
    }

    /// Seconds. A block without an end lasts ten years; anything longer than this is shown as such.
    package static let endless: Int64 = 9 * 365 * 86_400

    /// When such a request passes: `room in 35s`, `block ends in 12h`. Nobody knows when the engine answers again.
    ///
    /// - Parameter duration: the text for a number of seconds.
    package func outlook(_ duration: (Int64) -> String) -> String {
        switch reason {
        case "too large": "never fits"
        case "no engine": "more than this host's share"
        case "blocked": retry > Self.endless ? "block has no end" : "block ends in \(duration(retry))"
        default: "room in \(duration(retry))"
        }
    }
}

/// Requests that were answered with one kind of action.
package struct AnswerFigures: Codable, Equatable, Sendable {
    /// `DUNNO`, `DEFER`, `REJECT`, ...
    package var action: String
    package var total: UInt64
    /// The answers in each second of the last ten minutes, oldest first.
    package var perSecond: [UInt64]

    package init(action: String, total: UInt64, perSecond: [UInt64]) {
        self.action = action
        self.total = total
        self.perSecond = perSecond
    }
}
