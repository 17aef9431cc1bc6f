// SPDX-License-Identifier: Apache-2.0
import Limits

/// One clause of the contract of `LedgerStore`. A store conforms if `run` throws for none of `StoreCheck.all`.
package struct StoreCheck: Sendable, CustomStringConvertible {
    package let description: String
    private let body: @Sendable (StoreSession) throws -> Void

    init(_ description: String, _ body: @escaping @Sendable (StoreSession) throws -> Void) {
        self.description = description
        self.body = body
    }

    /// - Parameter makeFixture: makes a new, empty fixture.
    /// - Throws: `ConformanceFailure`, or what the store or the fixture throws.
    package func run(on makeFixture: @escaping () throws -> any StoreFixture) throws {
        try body(StoreSession(makeFixture))
    }

    package static let all = opening + journal + checkpoints + failures + [crashes] + administration
}

// MARK: Opening

extension StoreCheck {
    static let opening = [
        StoreCheck("a new store is empty") { session in
            let state = try session.reopen()
            try requireEqual(state.limits, [], "limits")
            try requireEqual(state.lastBatch, nil, "last batch")
            try requireEqual(session.store.checkpointProgress, .done, "progress")
            let recovered = try session.recovered()
            try requireEqual(recovered.rows, [], "rows")
            try requireEqual(recovered.transactions, [], "transactions")
            try requireEqual(recovered.batches, [], "batches")
        },
        StoreCheck("the hash key stays the same") { session in
            let key = try session.reopen().hashKey
            try session.begin(1)
            try session.complete()
            try require(session.reopen().hashKey == key, "another hash key after a restart")
        },
        StoreCheck("limits come back, and a new one replaces the old one of its name") { session in
            try session.reopen()
            let other = StoredLimit(id: 2, name: "other", signature: "messages by sender")
            let new = StoredLimit(id: 3, name: "per-user", signature: "bytes by sasl_username")
            try session.store.register([
                StoredLimit(id: 1, name: "per-user", signature: "recipients by sasl_username"), other,
            ])
            try session.store.register([])
            try session.store.register([new])
            try session.begin(1)
            try requireEqual(session.reopen().limits.sorted { $0.id < $1.id }, [other, new], "limits")
        },
        StoreCheck("a limit that comes later is stored with the next batch, and outlives a checkpoint") { session in
            let limits = (1...3).map { StoredLimit(id: $0, name: "limit\($0)", signature: "messages by sender") }
            try session.reopen()
            try session.store.register([limits[0]])
            try session.begin(1)
            try session.store.register([limits[1]])
            try session.append(2)
            try requireEqual(session.reopen().limits, [limits[0], limits[1]], "limits after a crash")
            try session.begin(3)
            // While the checkpoint runs.
            try session.store.register([limits[2]])
            try session.append(4)
            try session.complete()
            try session.begin(5)
            try session.complete()
            try requireEqual(session.reopen().limits, limits, "limits after a checkpoint")
        },
        StoreCheck("a store that could not be opened can be opened later") { session in
            try session.fixture.breakOpening()
            do {
                try session.reopen()
                throw ConformanceFailure(description: "open has not thrown")
            } catch let error as StoreError {
                try require(!error.message.isEmpty, "an error without a message")
            }
            try session.fixture.repair()
            try requireEqual(session.store.open().limits, [], "limits")
            try session.begin(1)
        },
    ]
}

// MARK: The journal

extension StoreCheck {
    static let journal = [
        StoreCheck("batches come back in order") { session in
            try session.reopen()
            try session.begin(1)
            let large = [UInt8](repeating: 0xff, count: 300_000)
            for sequence in 2...200 as ClosedRange<UInt64> { try session.append(sequence) }
            try session.append(201, large)
            try session.append(202, [0])
            try requireEqual(session.reopen().lastBatch, [0], "last batch")
            let expected =
                StoreSession.batches(1...200)
                + [Batch(sequence: 201, content: large), Batch(sequence: 202, content: [0])]
            try require(session.recovered().batches == expected, "other batches")
        },
        StoreCheck("batches that were not flushed are lost from the end, if at all") { session in
            try session.reopen()
            try session.begin(1)
            for sequence in 2...50 as ClosedRange<UInt64> {
                try session.append(sequence, flushes: sequence == 30)
            }
            try session.reopen()
            let batches = try session.recovered().batches
            try require(batches.count >= 30, "flushed batches are lost")
            try requireEqual(batches, StoreSession.batches((1...50).prefix(batches.count)), "batches")
        },
        StoreCheck("append throws before the first checkpoint") { session in
            try session.reopen()
            do {
                try session.append(1)
            } catch is StoreError {
                return
            }
            throw ConformanceFailure(description: "append has not thrown")
        },
        StoreCheck("the journal grows with batches, and is small after a checkpoint") { session in
            try session.reopen()
            try session.begin(1)
            let before = try session.store.journalBytes
            for sequence in 2...300 as ClosedRange<UInt64> {
                try session.append(sequence, [UInt8](repeating: 7, count: 1000))
            }
            let grown = try session.store.journalBytes
            try require(grown >= before + 299_000, "\(grown) bytes, \(before) before 299 batches of 1000")
            try session.complete()
            try session.begin(301)
            try require(session.store.journalBytes < grown / 10, "the journal has not become smaller")
            try require(!session.store.wantsCheckpoint(age: .max), "an empty journal wants a checkpoint")
        },
    ]
}

// MARK: Administration

extension StoreCheck {
    static let administration = [
        StoreCheck("the audit trail returns its newest entries, oldest first") { session in
            try session.reopen()
            let entries = (1...5 as ClosedRange<Int64>).map {
                AuditEntry(
                    time: $0, user: "uid 0 (root)", action: "raise", key: "user@example.org", details: "500/1m",
                    reason: "reason, \"quoted\"", limits: $0 == 5 ? [] : ["per-user", "per-client"])
            }
            for entry in entries { try session.store.record(entry) }
            try session.wait("the entries are written") { try session.store.recentAudit(10) == entries }
            try session.reopen()
            try requireEqual(session.store.recentAudit(2), Array(entries.suffix(2)), "audit trail")
        },
        StoreCheck("no file is lost while all are in place") { session in
            try session.reopen()
            try session.begin(1)
            try requireEqual(session.store.lostFile, nil, "lost file")
        },
    ]
}
