// SPDX-License-Identifier: Apache-2.0
internal import DequeModule

/// What has been charged for one mail transaction (one `instance`), or for one connection of a client.
final class Transaction {
    let id: UInt64
    var lastSeen: LedgerTime
    /// A DATA or END-OF-MESSAGE request has told what Postfix accepted.
    var isSettled = false
    var charges: [Charge] = []
    /// Answers to requests other than "pass", to be given again where Postfix asks again.
    var refusals: [(request: UInt64, action: [UInt8])] = []
    private var firstRequest: UInt64 = 0
    private var laterRequests: [UInt64] = []
    /// The last batch that a stored copy already holds.
    var savedSequence: UInt64 = 0

    struct Charge {
        let account: Account
        var amount: UInt64
        let time: LedgerTime
    }

    /// Enough for every recipient of a transaction (`smtpd_recipient_limit` is 1000) several times over.
    private static let mostRequests = 4096

    init(id: UInt64, lastSeen: LedgerTime) {
        self.id = id
        self.lastSeen = lastSeen
    }

    func hasAnswered(_ request: UInt64) -> Bool {
        firstRequest == request || laterRequests.contains(request)
    }

    func remember(_ request: UInt64, refusedWith action: [UInt8]?) {
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

    var requests: [UInt64] { firstRequest == 0 ? [] : [firstRequest] + laterRequests }

    /// Takes off what was given back of a charge.
    func takeBack(_ amount: UInt64, from account: Account, chargedAt time: LedgerTime) {
        guard let index = charges.firstIndex(where: { $0.account === account && $0.time == time }) else { return }
        charges[index].amount -= min(amount, charges[index].amount)
        if charges[index].amount == 0 { charges.remove(at: index) }
    }

    func charged(to account: Account) -> UInt64 {
        var sum: UInt64 = 0
        for charge in charges where charge.account === account { sum &+= charge.amount }
        return sum
    }
}

/// The transactions that may still be asked about, oldest first; bounded in time and number.
struct TransactionTable {
    /// After DATA or END-OF-MESSAGE only a repeated request can come (within smtpd_policy_service_timeout, 100 s).
    static let settledLifetime: Int64 = 300_000
    /// A slow client may need this long from the first RCPT to the end of its message.
    static let openLifetime: Int64 = 3_600_000

    private var byID: [UInt64: Transaction] = [:]
    private var order: Deque<Transaction> = []
    /// How many have left the front of `order`: makes positions in it stable.
    private var departed = 0
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        // Growing a large dictionary would stop the loop; untouched pages cost nothing.
        byID.reserveCapacity(capacity)
    }

    var count: Int { byID.count }

    subscript(id: UInt64) -> Transaction? { byID[id] }

    /// Adds a transaction whose id is not there; returns the oldest one where there was no room for both.
    mutating func insert(_ transaction: Transaction) -> Transaction? {
        let evicted = byID.count >= capacity ? popFirst() : nil
        byID[transaction.id] = transaction
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
        guard position - departed < order.count else { return nil }
        defer { position += 1 }
        return order[position - departed]
    }

    private mutating func popFirst() -> Transaction? {
        guard let oldest = order.popFirst() else { return nil }
        departed += 1
        byID[oldest.id] = nil
        return oldest
    }
}
