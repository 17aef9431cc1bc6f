// SPDX-License-Identifier: Apache-2.0

/// The fullest accounts of a limit, collected as they are charged, so that listing them needs no search.
///
/// An account outside the list was not fuller than `threshold` when it was last charged, and has only emptied since. So
/// the list is exact while it has `most` accounts above the threshold. When it has fewer, the threshold is lowered, and
/// the sweep for idle accounts adds those above it.
struct FullestAccounts {
    /// The most accounts that can be listed.
    static let most = 1000
    private static let capacity = 4 * most

    private var accounts: [Account] = []
    private(set) var threshold = 0.0

    /// Adds an account if it is fuller than the threshold.
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

    /// In no order.
    var all: [Account] { accounts }

    /// The accounts with their present fullness, in no order.
    private func measured(at time: LedgerTime) -> [(fullness: Double, account: Account)] {
        accounts.compactMap { account in account.fullness(at: time).map { ($0, account) } }
    }

    /// Removes the less full half.
    private mutating func prune(at time: LedgerTime) {
        var measured = measured(at: time)
        measured.sort { $0.fullness > $1.fullness }
        let kept = measured.prefix(Self.capacity / 2)
        if measured.count > kept.count { threshold = max(threshold, measured[kept.count].fullness) }
        for account in accounts { account.place = Account.noPlace }
        accounts = kept.map(\.account)
        for (place, account) in accounts.enumerated() { account.place = UInt16(place) }
    }

    /// Lowers the threshold if too few accounts are above it.
    mutating func relax(at time: LedgerTime) {
        guard threshold > 0 else { return }
        let above = measured(at: time).count { $0.fullness > threshold }
        if above < Self.most { threshold = threshold < 1e-4 ? 0 : threshold / 2 }
    }

    /// Under new terms, any account may be fuller than before: the sweep measures all again.
    mutating func resetThreshold() { threshold = 0 }
}
