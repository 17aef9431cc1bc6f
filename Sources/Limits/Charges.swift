// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics

/// What a transaction has charged to one account, in parts by time, oldest first.
struct Charge {
    fileprivate(set) var account: Account
    private(set) var total: UInt64
    /// When the oldest part was charged. Its amount is `total` without `later`.
    private var time: LedgerTime
    /// Empty if all of it was charged within one slot of each window.
    private var later: [(amount: UInt64, time: LedgerTime)] = []

    init(account: Account, amount: UInt64, time: LedgerTime) {
        self.account = account
        self.total = amount
        self.time = time
    }

    private var oldest: UInt64 { later.reduce(total) { $0 &- $1.amount } }

    /// - Precondition: the limit's present slots are those of `time`, or later.
    mutating func add(_ amount: UInt64, at time: LedgerTime) {
        if total == 0 {
            self.time = time
        } else if !account.isOfPresentSlots(later.last?.time ?? self.time) {
            later.append((amount, time))
        } else if !later.isEmpty {
            later[later.count - 1].amount &+= amount
        }
        total &+= amount
    }

    /// Drops what was charged up to `end`.
    mutating func forget(upTo end: LedgerTime) {
        while total > 0, time <= end { giveBack(oldest) { _, _ in } }
    }

    /// Gives back the oldest parts first, so that what stays counted stays so for as long as it can.
    mutating func giveBack(_ amount: UInt64, _ body: (_ part: UInt64, _ time: LedgerTime) -> Void) {
        var (left, oldest, finished) = (min(amount, total), oldest, 0)
        while left > 0 {
            let part = min(left, oldest)
            body(part, time)
            total &-= part
            left &-= part
            oldest &-= part
            if oldest == 0, finished < later.count {
                (oldest, time) = later[finished]
                finished += 1
            }
        }
        later.removeFirst(finished)
    }

    func forEachPart(_ body: (_ amount: UInt64, _ time: LedgerTime) -> Void) {
        guard total > 0 else { return }
        body(oldest, time)
        for part in later { body(part.amount, part.time) }
    }
}

/// The charges of a transaction, one for each account, in the order in which the accounts were first charged. Most
/// transactions have one or two: these need no allocation.
struct Charges: RandomAccessCollection {
    private var first: Charge?
    private var second: Charge?
    private var others: [Charge] = []
    /// Indexes in `others`, by the hash of the key; empty as long as a linear search is faster.
    private var positions: [UInt64: Int] = [:]

    private static let mostWithoutPositions = 16

    var startIndex: Int { 0 }
    var endIndex: Int { first == nil ? 0 : second == nil ? 1 : 2 + others.count }

    subscript(index: Int) -> Charge { index == 0 ? first! : index == 1 ? second! : others[index - 2] }

    /// Like a loop over the collection, without a copy of it.
    func visit(_ body: (Charge) -> Void) {
        if let first { body(first) }
        if let second { body(second) }
        for charge in others { body(charge) }
    }

    /// nil if the account was charged nothing.
    func total(of account: Account) -> UInt64? {
        if let first, first.account === account { return first.total }
        if let second, second.account === account { return second.total }
        return position(of: account).map { others[$0].total }
    }

    /// Transfers to `account` what was charged to an earlier account of its key. That has left memory because its
    /// windows had run out. One that was evicted stays: its counts were dropped, so they are charged again.
    ///
    /// - Returns: whether there was such an account.
    mutating func transfer(to account: Account) -> Bool {
        func transferred(_ charge: inout Charge) -> Bool {
            let earlier = charge.account
            guard earlier.hash == account.hash, earlier.wasIdle else { return false }
            if let resetAt = earlier.exception?.resetAt { charge.forget(upTo: resetAt) }
            charge.account = account
            return true
        }
        if first != nil, transferred(&first!) { return true }
        if second != nil, transferred(&second!) { return true }
        if positions.isEmpty { return others.indices.contains { transferred(&others[$0]) } }
        return positions[account.hash.low].map { transferred(&others[$0]) } ?? false
    }

    mutating func add(_ amount: UInt64, to account: Account, at time: LedgerTime) {
        let changed: Void? = change(account) { $0.add(amount, at: time) }
        guard changed == nil else { return }
        let charge = Charge(account: account, amount: amount, time: time)
        if first == nil {
            first = charge
        } else if second == nil {
            second = charge
        } else {
            others.append(charge)
            guard others.count >= Self.mostWithoutPositions else { return }
            let new = positions.isEmpty ? 0 : others.count - 1
            for index in new..<others.count { positions[others[index].account.hash.low] = index }
        }
    }

    /// Changes the charge of an account; nil if there is none.
    mutating func change<Result>(_ account: Account, _ body: (inout Charge) -> Result) -> Result? {
        if first?.account === account { return body(&first!) }
        if second?.account === account { return body(&second!) }
        return position(of: account).map { body(&others[$0]) }
    }

    /// Prefetches the first accounts, whose references are released with the charges.
    func prefetch() {
        if let first { weir_prefetch(Unmanaged.passUnretained(first.account).toOpaque()) }
        if let second { weir_prefetch(Unmanaged.passUnretained(second.account).toOpaque()) }
    }

    private func position(of account: Account) -> Int? {
        guard !positions.isEmpty else { return others.firstIndex { $0.account === account } }
        guard let position = positions[account.hash.low] else { return nil }
        // The key may have had two accounts: one was evicted, the other was opened later.
        return others[position].account === account ? position : others.firstIndex { $0.account === account }
    }
}
