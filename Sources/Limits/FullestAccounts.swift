// SPDX-License-Identifier: Apache-2.0

/// The fullest accounts of a limit, noted as they are charged: telling them takes no look at a million others.
///
/// An account outside was not fuller than `threshold` when it was charged last, and windows only empty from then on. So as
/// long as enough accounts inside are fuller than that, the list is the one that a look at all would give. When they have
/// emptied as well, the threshold falls, and the sweep that looks for idle accounts brings in those that are above it now.
struct FullestAccounts {
    /// The longest list that can be told.
    static let most = 1000
    private static let capacity = 4 * most

    private var accounts: [Account] = []
    private(set) var threshold = 0.0

    /// Notes that an account is as full as `fullness` now.
    mutating func note(_ account: Account, fullness: Double, at time: LedgerTime) {
        guard fullness > threshold, account.place == Account.noPlace else { return }
        if accounts.count == Self.capacity { prune(at: time) }
        account.place = UInt16(accounts.count)
        accounts.append(account)
    }

    mutating func remove(_ account: Account) {
        guard account.place != Account.noPlace else { return }
        let last = accounts.removeLast()
        if last !== account {
            accounts[Int(account.place)] = last
            last.place = account.place
        }
        account.place = Account.noPlace
    }

    /// Accounts with how full they are, in no order.
    func measured(at time: LedgerTime) -> [(fullness: Double, account: Account)] {
        accounts.compactMap { account in account.fullness(at: time).map { ($0, account) } }
    }

    /// Lets the less full half go.
    private mutating func prune(at time: LedgerTime) {
        var measured = measured(at: time)
        measured.sort { $0.fullness > $1.fullness }
        let kept = measured.prefix(Self.capacity / 2)
        if measured.count > kept.count { threshold = max(threshold, measured[kept.count].fullness) }
        for account in accounts { account.place = Account.noPlace }
        accounts = kept.map(\.account)
        for (place, account) in accounts.enumerated() { account.place = UInt16(place) }
    }

    /// Lowers the threshold where too few are above it.
    mutating func relax(at time: LedgerTime) {
        guard threshold > 0 else { return }
        let above = measured(at: time).count { $0.fullness > threshold }
        if above < Self.most { threshold = threshold < 1e-4 ? 0 : threshold / 2 }
    }

    /// Any account may be fuller than it was: under other terms, all are measured anew by the sweep.
    mutating func forgetThreshold() { threshold = 0 }
}
