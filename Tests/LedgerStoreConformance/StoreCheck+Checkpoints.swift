// SPDX-License-Identifier: Apache-2.0
import Limits

extension StoreCheck {
    static let checkpoints = [
        StoreCheck("a checkpoint makes the older journal redundant") { session in
            try session.reopen()
            try session.begin(1)
            try session.append(2)
            try session.complete([.accounts([row(1, 1)]), .transactions(sequence: 1, content: [1])])
            try session.begin(3)
            try session.append(4)
            try session.save([.accounts([row(2, 4)])])
            try session.append(5)
            try session.save([.removed([1]), .transactions(sequence: 5, content: [2])])
            try session.save([.transactions(sequence: 5, content: [3])])
            try session.complete()
            try session.append(6)
            try session.reopen()
            let recovered = try session.recovered()
            try requireEqual(recovered.rows, [row(2, 4)], "rows")
            try requireEqual(
                recovered.transactions, [Batch(sequence: 5, content: [2]), Batch(sequence: 5, content: [3])],
                "transactions")
            try requireEqual(recovered.batches, StoreSession.batches(3...6), "batches")
        },
        StoreCheck("rows come by rising ids, as they were saved last") { session in
            try session.reopen()
            try session.begin(1)
            let ids: [UInt64] = [1 << 62, 3, 70_000, 1, 2]
            try session.save([.accounts(ids.map { row($0, 1) })])
            let empty = AccountRow(id: 4, limit: 1 << 62, key: [], sequence: 1 << 62, content: [])
            let bytes = AccountRow(id: 5, limit: 2, key: Array(0...255), sequence: 9, content: Array(0...255))
            try session.complete([.accounts([row(3, 2, [9])]), .accounts([bytes, empty])])
            try session.reopen()
            let expected = [row(1, 1), row(2, 1), row(3, 2, [9]), empty, bytes, row(70_000, 1), row(1 << 62, 1)]
            try requireEqual(session.recovered().rows, expected, "rows")
        },
        StoreCheck("a checkpoint runs until its end is written") { session in
            try session.reopen()
            try session.begin(1)
            try requireEqual(session.store.checkpointProgress, .running, "progress after the begin")
            try session.save([.accounts([row(1, 1)])])
            try requireEqual(session.store.checkpointProgress, .running, "progress before the end")
            try session.complete()
        },
        StoreCheck("an abandoned checkpoint leaves the journal, and the next one replaces it") { session in
            try session.reopen()
            try session.begin(1)
            try session.complete()
            try session.begin(2)
            for part in 1...3 as ClosedRange<UInt8> { try session.save([.transactions(sequence: 2, content: [part])]) }
            try session.append(3)
            try session.begin(4)
            try session.append(5)
            try session.reopen()
            try requireEqual(session.recovered().batches.suffix(4), StoreSession.batches(2...5)[...], "batches")
            try session.begin(6)
            try session.save([.transactions(sequence: 6, content: [8])])
            try session.begin(7)
            try session.complete([.transactions(sequence: 7, content: [9])])
            try session.reopen()
            let recovered = try session.recovered()
            try requireEqual(recovered.transactions, [Batch(sequence: 7, content: [9])], "transactions")
            try requireEqual(recovered.batches.last, Batch(sequence: 7, content: StoreSession.content(7)), "last batch")
        },
        StoreCheck("the end of an abandoned checkpoint does not end the next") { session in
            try session.reopen()
            try session.begin(1)
            try session.complete()
            try session.begin(2)
            let rows = (1...20_000 as ClosedRange<UInt64>).map { row($0, 2) }
            // Whether it is still being written when the next checkpoint begins depends on the store. Both are allowed.
            try session.save([.accounts(rows), .end])
            try session.begin(3)
            for _ in 0..<20 { try session.save([.accounts([row(1, 3)])]) }
            try requireEqual(session.store.checkpointProgress, .running, "progress")
            try session.complete()
        },
        StoreCheck("refused pieces are not written, and accepted ones are") { session in
            try session.reopen()
            try session.begin(1)
            var accepted: [UInt64] = []
            for handover in 0..<32 as Range<UInt64> {
                let ids = (handover * 5000 + 1)...(handover + 1) * 5000
                if try session.store.save([.accounts(ids.map { row($0, 1, []) })]) { accepted += ids }
            }
            try require(!accepted.isEmpty, "the store refuses everything")
            try session.complete()
            try session.reopen()
            try require(session.recovered().rows.map(\.id) == accepted, "other rows than the accepted ones")
        },
    ]

    static let failures = [
        StoreCheck("a checkpoint that fails keeps the journal, and can be repeated") { session in
            try session.reopen()
            try session.begin(1)
            try session.append(2)
            try session.complete([.accounts([row(1, 2)])])
            try session.fixture.breakCheckpoints()
            try session.begin(3)
            try session.append(4)
            try session.save([.accounts([row(1, 4), row(2, 4)])])
            try session.wait("the checkpoint fails") { try session.store.checkpointProgress != .running }
            guard case .failed(let error) = try session.store.checkpointProgress, !error.message.isEmpty else {
                throw ConformanceFailure(description: "\(try session.store.checkpointProgress), expected an error")
            }
            try session.append(5)
            try session.fixture.repair()
            try session.begin(6)
            try session.append(7)
            try session.complete([.accounts([row(1, 7), row(3, 7)])])
            try session.reopen()
            let recovered = try session.recovered()
            try requireEqual(recovered.rows, [row(1, 7), row(3, 7)], "rows")
            try requireEqual(recovered.batches.suffix(2), StoreSession.batches(6...7)[...], "batches")
        },
        StoreCheck("a crash after a checkpoint has failed loses nothing") { session in
            try session.reopen()
            try session.begin(1)
            try session.complete([.accounts([row(1, 1)])])
            try session.fixture.breakCheckpoints()
            try session.begin(2)
            try session.save([.accounts([row(1, 2)])])
            try session.wait("the checkpoint fails") { try session.store.checkpointProgress != .running }
            try session.append(3)
            try session.fixture.repair()
            try session.reopen()
            let recovered = try session.recovered()
            try requireEqual(recovered.rows, [row(1, 1)], "rows")
            try requireEqual(recovered.batches.suffix(2), StoreSession.batches(2...3)[...], "batches")
        },
        StoreCheck("what the ledger can't read does not cost the rest") { session in
            try session.reopen()
            try session.begin(1)
            try session.complete([
                .accounts([row(1, 1), row(2, 1), row(3, 1)]), .transactions(sequence: 1, content: [1]),
                .transactions(sequence: 1, content: [2]),
            ])
            try session.reopen()
            let sink = Recovered()
            (sink.damagedRow, sink.damagedTransactions) = (2, [1])
            let recovered = try session.recovered(into: sink)
            try requireEqual(recovered.rows, [row(1, 1), row(3, 1)], "rows")
            try requireEqual(recovered.transactions, [Batch(sequence: 1, content: [2])], "transactions")
            try requireEqual(recovered.batches.last?.sequence, 1, "last batch")
        },
    ]
}
