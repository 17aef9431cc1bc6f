// SPDX-License-Identifier: Apache-2.0

/// What a request is answered.
package struct Decision: Sendable {
    /// The action to answer with; nil: nothing speaks against the request (DUNNO).
    package let action: [UInt8]?
    /// Names the mail transaction to `Ledger.close`; 0 where the request belongs to none.
    package let transaction: UInt64

    package init(action: [UInt8]?, transaction: UInt64) {
        self.action = action
        self.transaction = transaction
    }
}

package enum RefusalReason: String, Sendable {
    /// Some window has no room.
    case over
    /// More than the whole window admits: it can never pass.
    case tooLarge = "too large"
    /// The key is blocked for a time.
    case blocked
}

/// Where a key stands with a limit, at one moment.
package struct LimitEvent {
    package let account: Account
    /// The rate that is meant.
    package let lane: Int
    /// When there is room again, or the block ends.
    package let until: LedgerTime
    package let time: LedgerTime

    package var limit: Limit { account.limit.limit }
    package var rate: Rate { limit.rates[lane] }
    package var used: UInt64 { account.used(lane: lane) }
    package var admitted: UInt64 { account.admitted(lane: lane, at: time) }
    /// Whole seconds until there is room again, one at least.
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

/// Told of what the ledger does, in the middle of deciding: must not block, and not call back.
package protocol LedgerObserver: AnyObject {
    /// A request was refused; in shadow mode, it would have been.
    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8])
    /// A key has come near a limit; told once until it has been away from it.
    func near(_ event: LimitEvent)
    /// A key is blocked for a time.
    func blocked(_ event: LimitEvent)
    /// Counts were given up because there are more keys than the configuration admits.
    func evicted(_ account: Account, at time: LedgerTime)
}
