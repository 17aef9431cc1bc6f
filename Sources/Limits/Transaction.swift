// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import DequeModule
internal import Glibc

/// What has been charged for one mail transaction (one `instance`), or for one connection of a client.
final class Transaction {
    let id: UInt64
    var lastSeen: LedgerTime
    /// A DATA or END-OF-MESSAGE request has told what Postfix accepted.
    var isSettled = false
    var charges = Charges()
    /// Answers to requests other than "pass", to be given again where Postfix asks again.
    var refusals: [(request: UInt64, action: [UInt8])] = []
    /// Accounts of limits in shadow mode that would have refused a recipient; in memory only, for it only saves words.
    var shadowed: [Account] = []
    private var firstRequest: UInt64 = 0
    private var laterRequests: [UInt64] = []
    /// The last batch that a stored copy already holds.
    var savedSequence: UInt64 = 0

    /// Enough for every recipient of a transaction (`smtpd_recipient_limit` is 1000) several times over.
    private static let mostRequests = 4096

    init(id: UInt64, lastSeen: LedgerTime) {
        self.id = id
        self.lastSeen = lastSeen
    }

    func hasAnswered(_ request: UInt64) -> Bool {
        firstRequest == request || laterRequests.contains(request)
    }

    func remember(_ request: UInt64, refusedWith action: [UInt8]? = nil) {
        if firstRequest == 0 {
            firstRequest = request
        } else {
            if laterRequests.count == Self.mostRequests { laterRequests.removeFirst(Self.mostRequests / 2) }
            laterRequests.append(request)
        }
        if let action {
            if refusals.count == Self.mostRequests { refusals.removeFirst(Self.mostRequests / 2) }
            refusals.append((request, action))
        }
    }

    func refusal(of request: UInt64) -> [UInt8]? {
        refusals.first { $0.request == request }?.action
    }

    /// 0 where there was none.
    var latestRequest: UInt64 { laterRequests.last ?? firstRequest }

    var requestCount: Int { firstRequest == 0 ? 0 : 1 + laterRequests.count }

    func forEachRequest(_ body: (UInt64) -> Void) {
        if firstRequest != 0 { body(firstRequest) }
        for request in laterRequests { body(request) }
    }

    func charged(to account: Account) -> UInt64 {
        if let resetAt = account.exception?.resetAt { charges.change(account) { $0.forget(upTo: resetAt) } }
        return charges.total(of: account)
    }

    /// Takes off what was given back.
    func takeBack(_ amount: UInt64, from account: Account) {
        _ = charged(to: account)
        charges.change(account) { $0.giveBack(amount) { _, _ in } }
    }

    var isCharged: Bool { charges.contains { $0.total > 0 } }

    /// Asks for all of it but what stands elsewhere.
    func prefetch() {
        let start = Unmanaged.passUnretained(self).toOpaque()
        for line in 0..<3 { weir_prefetch(start + line * 64) }
    }

    func noteShadowed(_ account: Account) {
        guard shadowed.count < Self.mostRequests, !shadowed.contains(where: { $0 === account }) else { return }
        shadowed.append(account)
    }
}

/// What one account was charged for a transaction, oldest first.
struct Charge {
    let account: Account
    private(set) var total: UInt64
    /// When the oldest of it was charged; what it amounts to is what `later` leaves of `total`.
    private var time: LedgerTime
    /// Empty where all of it was charged in one slot of each window.
    private var later: [(amount: UInt64, time: LedgerTime)] = []

    init(account: Account, amount: UInt64, time: LedgerTime) {
        self.account = account
        self.total = amount
        self.time = time
    }

    private var oldest: UInt64 { later.reduce(total) { $0 &- $1.amount } }

    /// - Precondition: the present slots of the account are those of `time`, or later ones.
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

    /// Drops what was charged up to `end`, oldest first.
    mutating func forget(upTo end: LedgerTime) {
        while total > 0, time <= end { giveBack(oldest) { _, _ in } }
    }

    /// Gives back the oldest first: what stays counted then stays so for the longest.
    mutating func giveBack(_ amount: UInt64, _ body: (_ taken: UInt64, _ time: LedgerTime) -> Void) {
        var (left, oldest, gone) = (min(amount, total), oldest, 0)
        while left > 0 {
            let taken = min(left, oldest)
            body(taken, time)
            total &-= taken
            left &-= taken
            oldest &-= taken
            if oldest == 0, gone < later.count {
                (oldest, time) = later[gone]
                gone += 1
            }
        }
        later.removeFirst(gone)
    }

    func forEachPart(_ body: (_ amount: UInt64, _ time: LedgerTime) -> Void) {
        guard total > 0 else { return }
        body(oldest, time)
        for part in later { body(part.amount, part.time) }
    }
}

/// One charge for each account, in the order of the first. Most transactions have one for a limit or two: these need no
/// allocation.
struct Charges: RandomAccessCollection {
    private var first: Charge?
    private var second: Charge?
    private var others: [Charge] = []
    /// Where the accounts of `others` stand; empty as long as looking at each is quicker.
    private var positions: [ObjectIdentifier: Int] = [:]

    private static let mostWithoutPositions = 16

    var startIndex: Int { 0 }
    var endIndex: Int { first == nil ? 0 : second == nil ? 1 : 2 + others.count }

    subscript(index: Int) -> Charge { index == 0 ? first! : index == 1 ? second! : others[index - 2] }

    /// What a loop over the collection does, without a copy of it.
    func visit(_ body: (Charge) -> Void) {
        if let first { body(first) }
        if let second { body(second) }
        for charge in others { body(charge) }
    }

    func total(of account: Account) -> UInt64 {
        if let first, first.account === account { return first.total }
        if let second, second.account === account { return second.total }
        return position(of: account).map { others[$0].total } ?? 0
    }

    mutating func add(_ amount: UInt64, to account: Account, at time: LedgerTime) {
        let known: Void? = change(account) { $0.add(amount, at: time) }
        guard known == nil else { return }
        let charge = Charge(account: account, amount: amount, time: time)
        if first == nil {
            first = charge
        } else if second == nil {
            second = charge
        } else {
            others.append(charge)
            guard others.count >= Self.mostWithoutPositions else { return }
            let new = positions.isEmpty ? 0 : others.count - 1
            for index in new..<others.count { positions[ObjectIdentifier(others[index].account)] = index }
        }
    }

    /// Changes the charge of an account where there is one.
    mutating func change<Result>(_ account: Account, _ body: (inout Charge) -> Result) -> Result? {
        if first?.account === account { return body(&first!) }
        if second?.account === account { return body(&second!) }
        return position(of: account).map { body(&others[$0]) }
    }

    /// Asks for the first accounts, which are let go with the charges.
    func prefetch() {
        if let first { weir_prefetch(Unmanaged.passUnretained(first.account).toOpaque()) }
        if let second { weir_prefetch(Unmanaged.passUnretained(second.account).toOpaque()) }
    }

    private func position(of account: Account) -> Int? {
        positions.isEmpty ? others.firstIndex { $0.account === account } : positions[ObjectIdentifier(account)]
    }
}

/// The transactions that may still be asked about, oldest first; bounded in time and number.
package struct TransactionTable: ~Copyable {
    /// After DATA or END-OF-MESSAGE only a repeated request can come (within smtpd_policy_service_timeout, 100 s).
    package static let settledLifetime: Int64 = 300_000
    /// A slow client may need this long from the first RCPT to the end of its message.
    static let openLifetime: Int64 = 3_600_000

    private var byID: TransactionIndex
    private var order: Deque<Transaction> = []
    /// How many have left the front of `order`: makes positions in it stable.
    private var departed = 0
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        byID = TransactionIndex(capacity: capacity)
    }

    var count: Int { byID.count }

    subscript(id: UInt64) -> Transaction? { byID[id] }

    /// Asks for the place of an id.
    func prefetch(_ id: UInt64) { byID.prefetch(id) }

    /// Adds a transaction whose id is not there; returns the oldest one where there was no room for both.
    mutating func insert(_ transaction: Transaction) -> Transaction? {
        let evicted = byID.count >= capacity ? popFirst() : nil
        byID.insert(transaction)
        order.append(transaction)
        return evicted
    }

    /// Takes out one that has outlived its use; nil where the oldest have not. Looks at `attempts` at most.
    mutating func popExpired(at time: LedgerTime, attempts: Int) -> Transaction? {
        for _ in 0..<attempts {
            guard let oldest = order.first else { return nil }
            let lifetime = oldest.isSettled ? Self.settledLifetime : Self.openLifetime
            let age = time - oldest.lastSeen
            if age > lifetime { return popFirst() }
            if age < Self.settledLifetime { return nil }
            // Still open: to the end of the line, so that those behind it get their turn.
            order.removeFirst()
            departed += 1
            order.append(oldest)
        }
        return nil
    }

    /// A position from which `next` goes on, whatever leaves or joins meanwhile.
    var firstPosition: Int { departed }

    func transaction(at position: inout Int) -> Transaction? {
        position = max(position, departed)
        let index = position - departed
        guard index < order.count else { return nil }
        if index + Self.lookahead < order.count { order[index + Self.lookahead].prefetch() }
        position += 1
        return order[index]
    }

    /// How far ahead of its end a transaction is asked for; by then nobody has looked at it for long.
    private static let lookahead = 8

    private mutating func popFirst() -> Transaction? {
        guard let oldest = order.popFirst() else { return nil }
        if order.count > Self.lookahead {
            let near = order[Self.lookahead / 2]
            byID.prefetch(near.id)
            near.charges.prefetch()
            order[Self.lookahead].prefetch()
        }
        departed += 1
        byID.remove(oldest.id)
        return oldest
    }
}

/// Transactions by id: open addressing over one allocation for as many as there may ever be, so that it never grows. An
/// id is a keyed hash already, so it is its own place.
///
/// `slots` is valid, and initialised, for `mask + 1` slots from init to deinit; only this value, which can't be copied,
/// knows it. Pages that nothing was put in take no memory: zeroes come from the kernel.
private struct TransactionIndex: ~Copyable {
    private let slots: UnsafeMutablePointer<Slot>
    private let mask: Int
    private(set) var count = 0

    private struct Slot {
        /// 0 where the slot is free.
        var id: UInt64
        var transaction: Unmanaged<Transaction>?
    }

    /// - Parameter capacity: how many there may be at once; at most half of the slots are in use.
    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        mask = size - 1
        // All bits zero is a free slot: id 0, and no reference.
        slots = calloc(size, MemoryLayout<Slot>.stride)!.bindMemory(to: Slot.self, capacity: size)
    }

    deinit {
        for index in 0...mask { slots[index].transaction?.release() }
        free(slots)
    }

    func prefetch(_ id: UInt64) {
        weir_prefetch(slots + (Int(truncatingIfNeeded: id >> 1) & mask))
    }

    subscript(id: UInt64) -> Transaction? {
        let index = index(of: id)
        return slots[index].transaction?.takeUnretainedValue()
    }

    /// Adds a transaction whose id is not there.
    mutating func insert(_ transaction: Transaction) {
        slots[index(of: transaction.id)] = Slot(id: transaction.id, transaction: .passRetained(transaction))
        count += 1
    }

    mutating func remove(_ id: UInt64) {
        var hole = index(of: id)
        guard slots[hole].id == id else { return }
        slots[hole].transaction?.release()
        // Closes the gap (Knuth, volume 3, 6.4, algorithm R).
        var next = hole
        while true {
            next = (next + 1) & mask
            guard slots[next].id != 0 else { break }
            let home = Int(truncatingIfNeeded: slots[next].id >> 1) & mask
            if (next - home) & mask >= (next - hole) & mask {
                slots[hole] = slots[next]
                hole = next
            }
        }
        slots[hole] = Slot(id: 0, transaction: nil)
        count -= 1
    }

    /// The slot of an id, or the free one in which it belongs.
    private func index(of id: UInt64) -> Int {
        // The lowest bit of every id is set.
        var index = Int(truncatingIfNeeded: id >> 1) & mask
        while slots[index].id != id, slots[index].id != 0 { index = (index &+ 1) & mask }
        return index
    }
}
