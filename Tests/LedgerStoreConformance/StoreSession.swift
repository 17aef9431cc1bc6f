// SPDX-License-Identifier: Apache-2.0
import Glibc
import Limits

/// One store at a time on a fixture, as a ledger uses it.
final class StoreSession {
    let fixture: any StoreFixture
    private let makeFixture: () throws -> any StoreFixture
    private var opened: (any LedgerStore)?

    init(_ makeFixture: @escaping () throws -> any StoreFixture) throws {
        self.makeFixture = makeFixture
        fixture = try makeFixture()
    }

    func onNewFixture() throws -> StoreSession { try StoreSession(makeFixture) }

    var store: any LedgerStore {
        get throws {
            guard let opened else { throw ConformanceFailure(description: "no store is open") }
            return opened
        }
    }

    /// A crash, then a new store on the same storage.
    @discardableResult
    func reopen() throws -> StoredState {
        opened = nil
        let store = try fixture.makeStore()
        opened = store
        return try store.open()
    }

    func recovered(into sink: Recovered = Recovered()) throws -> Recovered {
        try store.recover(into: sink)
        return sink
    }

    func append(_ sequence: UInt64, _ content: [UInt8]? = nil, flushes: Bool = true) throws {
        let store = try store
        try (content ?? Self.content(sequence)).withUnsafeBytes { bytes throws in
            try store.append(bytes, sequence: sequence)
        }
        if flushes { try store.flush() }
    }

    func begin(_ sequence: UInt64) throws {
        let store = try store
        try store.flush()
        try Self.content(sequence).withUnsafeBytes { bytes throws in
            try store.beginCheckpoint(with: bytes, sequence: sequence)
        }
        try store.flush()
    }

    /// The default content of a batch.
    static func content(_ sequence: UInt64) -> [UInt8] { Array("batch \(sequence)".utf8) }

    static func batches(_ sequences: some Sequence<UInt64>) -> [Batch] {
        sequences.map { Batch(sequence: $0, content: content($0)) }
    }

    /// Offers pieces until the store takes them.
    func save(_ pieces: [CheckpointPiece]) throws {
        let store = try store
        try wait("the store takes pieces") { store.save(pieces) }
    }

    /// Hands over the end of a checkpoint, and waits until it is done.
    func complete(_ pieces: [CheckpointPiece] = []) throws {
        try save(pieces + [.end])
        try awaitProgress(.done)
    }

    func awaitProgress(_ expected: CheckpointProgress) throws {
        let store = try store
        try wait("the checkpoint ends") { store.checkpointProgress != .running }
        try requireEqual(store.checkpointProgress, expected, "the progress of the checkpoint")
    }

    func wait(_ expectation: String, _ isMet: () throws -> Bool) throws {
        // Up to a minute; only a failing store takes that long.
        for _ in 0..<60_000 {
            if try isMet() { return }
            usleep(1000)
        }
        throw ConformanceFailure(description: "timeout: \(expectation)")
    }
}

func row(_ id: UInt64, _ sequence: UInt64, _ content: [UInt8] = [1, 2, 3]) -> AccountRow {
    AccountRow(id: id, limit: 1, key: Array("user\(id)".utf8), sequence: sequence, content: content)
}
