// SPDX-License-Identifier: Apache-2.0

/// The answer to a request.
package struct Decision: Sendable {
    /// The action of an access table; nil for DUNNO.
    package let action: [UInt8]?
    /// The id of the mail transaction, for `Ledger.close` and `withdraw`; 0 if the request belongs to none.
    package let transaction: UInt64

    package init(action: [UInt8]?, transaction: UInt64) {
        self.action = action
        self.transaction = transaction
    }
}

package enum RefusalReason: String, Sendable {
    /// A window has no room now.
    case over
    /// The request needs more than an empty window admits: it can never pass.
    case tooLarge = "too large"
    /// The limit has room, but the request needs more than this host's share of it, and the engine does not answer.
    case noEngine = "no engine"
    /// The key is blocked for a time.
    case blocked
}

/// How a key stands with a limit at one moment.
package struct LimitEvent {
    package let account: Account
    /// The index of the rate in question.
    package let lane: Int
    /// When there is room again, or when the block ends.
    package let until: LedgerTime
    package let time: LedgerTime
    /// Whether the limit only says what it would do.
    package let isShadowed: Bool

    package var limit: Limit { account.limit.limit }
    package var rate: Rate { limit.rates[lane] }
    package var used: UInt64 { account.used(lane: lane) }
    package var admitted: UInt64 { account.admitted(lane: lane, at: time) }
    /// Whole seconds until then, at least one.
    package var retrySeconds: Int64 { max(1, (until - time + 999) / 1000) }

    func value(of placeholder: ActionTemplate.Placeholder) -> [UInt8] {
        switch placeholder {
        case .name: Array(limit.name.utf8)
        case .key: account.key
        case .count: Array(String(used).utf8)
        case .limit: Array(String(admitted).utf8)
        case .window: Array(Rate.text(ofDuration: rate.window.milliseconds).utf8)
        case .retry: Array(String(retrySeconds).utf8)
        }
    }
}

/// Callbacks from a ledger that is deciding a request. They must not block, and must not call the ledger.
package protocol LedgerObserver: AnyObject {
    /// A request was refused or, in shadow mode, would have been.
    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8])
    /// A key has reached `warn_at` of a limit. Called again only after it has been below.
    func near(_ event: LimitEvent, _ request: Attributes)
    /// All hosts that share the limit may have reached `warn_at` of it together: the others must be asked.
    func mayBeNear(_ event: LimitEvent, _ request: Attributes)
    /// A key was blocked after too many refused requests.
    func blocked(_ event: LimitEvent, _ request: Attributes)
    /// A limit did not apply to a request, because a pattern of its conditions gave up.
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes)
    /// An account was evicted, because there are more keys than the configuration allows.
    func evicted(_ account: Account, at time: LedgerTime)
}
