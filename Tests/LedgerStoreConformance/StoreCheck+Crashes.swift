// SPDX-License-Identifier: Apache-2.0
import Limits

/// What a store must return after a crash, according to the calls so far.
private struct Obligations {
    var limits: [StoredLimit] = []
    /// Due with the next batch. The store may have them before.
    var registered: [StoredLimit] = []
    /// The last batch that was written.
    var last: UInt64 = 0
    /// The batch with which the last completed checkpoint began. This and all later batches must come back.
    var required: UInt64 = 1
    /// The rows of the last completed checkpoint.
    var saved: [UInt64: AccountRow] = [:]
    /// The contents handed over since then for each row; nil for a removal. The store may have written any of them.
    var handedOver: [UInt64: [AccountRow?]] = [:]

    mutating func noteBatch() {
        last += 1
        limits = registered
    }

    mutating func complete(from sequence: UInt64) {
        required = sequence
        for (id, versions) in handedOver { saved[id] = versions[versions.count - 1] }
        handedOver = [:]
    }

    func check(_ state: StoredState, _ recovered: Recovered) throws {
        if state.limits != registered { try requireEqual(state.limits, limits, "limits") }
        let expected = last < required ? [] : StoreSession.batches(required...last)
        try requireEqual(recovered.batches.suffix(expected.count), expected[...], "batches")
        try require(
            zip(recovered.batches, recovered.batches.dropFirst()).allSatisfy { $0.sequence < $1.sequence },
            "batches out of order")
        try requireEqual(state.lastBatch, last == 0 ? nil : StoreSession.content(last), "last batch")
        try require(
            zip(recovered.rows, recovered.rows.dropFirst()).allSatisfy { $0.id < $1.id }, "rows out of order")
        let rows = Dictionary(uniqueKeysWithValues: recovered.rows.map { ($0.id, $0) })
        for id in Set(saved.keys).union(handedOver.keys).union(rows.keys) {
            let isSaved = rows[id] == saved[id]
            let isHandedOver = handedOver[id, default: []].contains { rows[id] == $0 }
            try require(isSaved || isHandedOver, "row \(id) is \(String(describing: rows[id]))")
        }
    }
}

/// The calls of a ledger's life, one by one.
private final class LedgerLife {
    private let session: StoreSession
    private(set) var obligations = Obligations()
    /// The batch with which the running checkpoint began.
    private var checkpoint: UInt64 = 0

    init(_ session: StoreSession) {
        self.session = session
    }

    private func register(_ id: UInt64) throws {
        let limit = StoredLimit(id: id, name: "limit\(id)", signature: "recipients by sasl_username")
        try session.store.register([limit])
        obligations.registered.append(limit)
    }

    private func begin() throws {
        try session.begin(obligations.last + 1)
        obligations.noteBatch()
        checkpoint = obligations.last
    }

    private func append() throws {
        try session.append(obligations.last + 1)
        obligations.noteBatch()
    }

    private func save(_ ids: ClosedRange<UInt64>) throws {
        let rows = ids.map { row($0, obligations.last, [UInt8(obligations.last)]) }
        for row in rows { obligations.handedOver[row.id, default: []].append(row) }
        try session.save([.accounts(rows)])
    }

    private func remove(_ id: UInt64) throws {
        obligations.handedOver[id, default: []].append(nil)
        try session.save([.removed([id])])
    }

    private func complete() throws {
        try session.complete([.transactions(sequence: obligations.last, content: [UInt8(obligations.last)])])
        obligations.complete(from: checkpoint)
    }

    /// Makes the first `count` calls.
    ///
    /// - Returns: false if there are fewer.
    func run(calls count: Int) throws -> Bool {
        var calls: [() throws -> Void] = [{ [self] in try register(1) }]
        calls += [begin, append, { [self] in try save(1...3) }, append, complete]
        calls += [{ [self] in try register(2) }, append]
        // Abandoned.
        calls += [begin, append, { [self] in try save(2...4) }]
        calls += [begin, { [self] in try save(1...4) }, { [self] in try register(3) }, append]
        calls += [{ [self] in try remove(3) }, append, complete]
        calls += [append, begin, append, { [self] in try save(5...5) }]
        for call in calls.prefix(count) { try call() }
        return count <= calls.count
    }
}

extension StoreCheck {
    static let crashes = StoreCheck("a crash between any two calls loses nothing that was written") { session in
        var count = 0
        while true {
            let session = try session.onNewFixture()
            try session.reopen()
            let life = LedgerLife(session)
            guard try life.run(calls: count) else { return }
            try life.obligations.check(session.reopen(), session.recovered())
            // The store still works after the crash.
            let next = life.obligations.last + 1
            try session.begin(next)
            try session.complete([.accounts([row(9, next)])])
            try session.reopen()
            try requireEqual(session.recovered().rows.last, row(9, next), "last row after crash \(count)")
            count += 1
        }
    }
}
