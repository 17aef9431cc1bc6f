// SPDX-License-Identifier: Apache-2.0

/// A client's connection, identified by its address and port (sent by Postfix 3.0 and later).
///
/// The ledger keeps a counted connection as a `Transaction`, its record, in the same table as mail transactions.
struct ClientConnection {
    let id: UInt64
    let record: Transaction?
    /// Whether it has been counted already.
    let isCounted: Bool
    /// The answer to every request of a connection that was refused.
    let refusal: [UInt8]?
    /// The hash of its first mail transaction; `noFirstTransaction` for a request that does not tell.
    let firstTransaction: UInt64

    static let noFirstTransaction: UInt64 = 1

    /// Whether a limit has yet to count the connection. A limit counts it at its first request, unless the limit looks
    /// at `policy_context` and so may apply to a later request only.
    func isNew(to limit: LimitState) -> Bool {
        guard isCounted else { return true }
        return limit.terms.looksAtContext && !(record?.charges.contains { $0.account.limit === limit } ?? false)
    }
}

extension Ledger {
    /// A repeated CONNECT within this time (ms) is Postfix asking again after an error, not a new connection.
    private static let repeatedConnect: Int64 = 110_000

    /// The connection of a request; nil if the request does not name its client.
    func connection(of request: Attributes, _ state: ProtocolState) -> ClientConnection? {
        guard !request.clientPort.isEmpty, !request.clientAddress.isEmpty else { return nil }
        var hash = SipHash(key: hashKey)
        hash.combine(request.clientAddress)
        hash.combine(request.clientPort)
        let id = hash.finalize() | 1
        let first = firstTransaction(of: request)
        guard let record = transactions[id] else {
            return ClientConnection(id: id, record: nil, isCounted: false, refusal: nil, firstTransaction: first)
        }
        if isOver(record, state) || isAnother(first, than: record.latestRequest) {
            record.refusals = []
            return ClientConnection(id: id, record: record, isCounted: false, refusal: nil, firstTransaction: first)
        }
        if record.latestRequest == ClientConnection.noFirstTransaction, first != record.latestRequest {
            record.remember(first, refusedWith: nil)
        }
        let refusal = record.refusals.first?.action
        if refusal == nil { record.lastSeen = now }
        return ClientConnection(id: id, record: record, isCounted: true, refusal: refusal, firstTransaction: first)
    }

    private func isOver(_ record: Transaction, _ state: ProtocolState) -> Bool {
        let lifetime = state == .connect ? Self.repeatedConnect : TransactionTable.endedLifetime
        return now - record.lastSeen > lifetime
    }

    /// Whether a first transaction shows that the client has reused its port for a new connection.
    private func isAnother(_ first: UInt64, than recorded: UInt64) -> Bool {
        let unknown = ClientConnection.noFirstTransaction
        return first != unknown && recorded != unknown && recorded != first
    }

    /// The first transaction of an SMTP session has the sequence number 0 at the end of its `instance`.
    private func firstTransaction(of request: Attributes) -> UInt64 {
        let instance = request.instance
        guard instance.count > 2, instance.suffix(2).elementsEqual(".0".utf8) else {
            return ClientConnection.noFirstTransaction
        }
        var hash = SipHash(key: hashKey)
        hash.combine(instance)
        return hash.finalize() | 2
    }

    /// Records that a connection was counted, or that a limit on connections refused it.
    func record(
        _ connection: ClientConnection, _ request: Attributes, violation: Violation?, action: [UInt8]?
    ) {
        let isRefused =
            violation.map { violation in
                violation.account.limit.limit.count.isOfConnection
                    && (violation.reason == .over || violation.reason == .noEngine)
            } ?? false
        guard isRefused || plan.steps.contains(where: { $0.isOfConnection && $0.charge > 0 }) else { return }
        let action = isRefused ? action : nil
        let record = connection.record ?? Transaction(id: connection.id, lastSeen: now)
        record.lastSeen = now
        record.isSettled = true
        record.isEnded = true
        if !connection.isCounted { record.charges = Charges() }
        if connection.record == nil { insert(record) }
        record.remember(connection.firstTransaction, refusedWith: action)
        journal.beginTransaction(
            record, request: connection.firstTransaction, action: action, isNewConnection: !connection.isCounted,
            at: tick)
        carryOut(for: record, request, ofConnection: true)
    }
}
