// SPDX-License-Identifier: Apache-2.0

/// Requests that wait for `Ledger.decide`, in order of arrival, each with the limits that apply to it.
struct PreparedRequests {
    struct Request {
        let state: ProtocolState
        /// 0 if the request belongs to no mail transaction.
        let transactionID: UInt64
        /// The end of its limits in `limits`; they begin where those of the request before it end.
        let limitsEnd: Int
    }

    /// A limit that applies to a request, and the key by which it counts the request.
    struct ApplicableLimit {
        /// Unmanaged: `Ledger.reload` replaces no limit while a request waits.
        let limit: Unmanaged<LimitState>
        let key: KeyHash
    }

    private var requests: [Request] = []
    private var next = 0
    private(set) var limits: [ApplicableLimit] = []

    /// Whether no request waits.
    var isEmpty: Bool { next == requests.count }

    private var nextLimits: Int { next == 0 ? 0 : requests[next - 1].limitsEnd }

    /// The transaction of the oldest request; 0 if it belongs to none.
    var nextTransaction: UInt64 { requests[next].transactionID }

    /// Makes room for a new request. Keeps the capacity once all requests are decided.
    mutating func recycle() {
        guard isEmpty else { return }
        requests.removeAll(keepingCapacity: true)
        limits.removeAll(keepingCapacity: true)
        next = 0
    }

    /// The oldest request and the indexes of its limits.
    var first: (request: Request, limits: Range<Int>) { (requests[next], nextLimits..<requests[next].limitsEnd) }

    mutating func append(_ limit: ApplicableLimit) {
        limits.append(limit)
    }

    /// Adds the request to which the limits belong that were appended since the last one.
    mutating func append(_ state: ProtocolState, transactionID: UInt64) {
        requests.append(Request(state: state, transactionID: transactionID, limitsEnd: limits.count))
    }

    /// Removes the oldest request.
    ///
    /// - Returns: the request and the indexes of its limits.
    mutating func removeFirst() -> (request: Request, limits: Range<Int>) {
        let start = nextLimits
        let request = requests[next]
        next += 1
        return (request, start..<request.limitsEnd)
    }

    /// Prefetches the accounts of all waiting requests, then their windows.
    func prefetchAccounts() {
        let waiting = limits[nextLimits...]
        for item in waiting { item.limit._withUnsafeGuaranteedRef { $0.accounts.prefetchAccount(item.key) } }
        for item in waiting { item.limit._withUnsafeGuaranteedRef { $0.accounts.prefetchWindows(item.key) } }
    }
}

extension Ledger {
    /// Finds the limits that apply to a request, and prefetches the table slots of their keys.
    package func prepare(_ request: Attributes) {
        owner.check()
        prepared.recycle()
        let state = ProtocolState(request.protocolState)
        prepareLimits(for: request, state)
        let transactionID = transactionID(of: request, state)
        transactions.prefetch(transactionID)
        prepared.append(state, transactionID: transactionID)
    }

    /// The transaction of the request that `decide` takes next; 0 if it belongs to none.
    package var nextTransaction: UInt64 {
        owner.check()
        return prepared.nextTransaction
    }

    /// Prefetches the accounts that the prepared requests will be charged to.
    package func fetch() {
        owner.check()
        prepared.prefetchAccounts()
    }

    private func prepareLimits(for request: Attributes, _ state: ProtocolState) {
        // At the end of a message with several recipients, Postfix names none of them.
        let isUnnamed = state.isMail && request.recipient.isEmpty
        for limit in limits where !(isUnnamed && limit.terms.isPerRecipient) {
            guard applies(limit, to: request) else { continue }
            let key: KeyHash
            if let plain = limit.terms.limit.key.asItStands(in: request) {
                key = hash(of: plain, of: limit)
            } else if limit.terms.limit.key.build(request, into: &keyBuffer) {
                key = hash(of: keyBuffer, of: limit)
            } else {
                continue
            }
            limit.accounts.prefetchSlot(key)
            prepared.append(PreparedRequests.ApplicableLimit(limit: .passUnretained(limit), key: key))
        }
    }

    /// Whether the conditions of a limit hold. If a pattern gives up, the limit does not apply, whether the condition
    /// is negated or not: a wrong charge could refuse mail that the limit is not meant for.
    private func applies(_ limit: LimitState, to request: Attributes) -> Bool {
        do throws(UndecidedCondition) {
            return try limit.terms.holds(request, scratch: scratch, value: &keyBuffer)
        } catch {
            limit.undecided += 1
            observer?.undecided(error, of: limit.limit, request)
            return false
        }
    }

    private func transactionID(of request: Attributes, _ state: ProtocolState) -> UInt64 {
        guard state.isMail, !request.instance.isEmpty else { return 0 }
        // `instance` is unique on one host only, and no request names its host.
        var hash = SipHash(key: hashKey)
        hash.combine(request.instance)
        hash.combine(request.clientAddress)
        hash.combine(request.sender)
        return hash.finalize() | 1
    }
}
