// SPDX-License-Identifier: Apache-2.0
import Limits

/// A store in memory. Its contents survive a crash of the ledger.
class MemoryStore: LedgerStore {
    var rows: [UInt64: AccountRow] = [:]
    var limits: [StoredLimit] = []
    var transactions: [(checkpoint: Int, sequence: UInt64, content: [UInt8])] = []
    var segments: [(number: Int, batches: [(sequence: UInt64, content: [UInt8])])] = []
    var audit: [AuditEntry] = []
    /// Opening, and writing to the journal, fails with this.
    var failure: StoreError?
    /// Checkpoints fail with this.
    var checkpointFailure: StoreError?
    /// Whether `save` refuses.
    var isBehind = false
    /// Batches wait for `flush`, and a crash loses them (`durability: relaxed`).
    var holdsBatches = false
    private var held: [(sequence: UInt64, content: [UInt8])] = []
    /// Damage costs only the row or batch that has it, as with files.
    var toleratesDamage = false
    /// How many rows, transactions and batches the last start could not read.
    private(set) var damages = 0
    private(set) var checkpoint = 0
    /// Rows handed over since the last checkpoint began.
    private(set) var savedRows = 0
    /// Calls of `save` since the last checkpoint began.
    private(set) var saves = 0
    /// Rows written at once. With 1, most crashes happen in the middle of a checkpoint.
    var rowsTogether = 1
    let lostFile: String? = nil
    private var isOpen = false
    private var progress = CheckpointProgress.done

    init() {}

    /// A store with the contents of `other` after a crash, or a new one.
    init(afterCrashOf other: MemoryStore?) {
        guard let other else { return }
        (rows, limits, transactions, segments, audit) = (
            other.rows, other.limits, other.transactions, other.segments, other.audit
        )
        checkpoint = other.checkpoint
    }

    func open() throws(StoreError) -> StoredState {
        if let failure { throw failure }
        held = []
        return StoredState(
            hashKey: .init(low: 7, high: 9), lastBatch: segments.flatMap(\.batches).last?.content, limits: limits)
    }

    func recover(into sink: any RecoverySink) throws(StoreError) {
        damages = 0
        func tolerating(_ body: () throws -> Void) throws(StoreError) {
            do { try body() } catch {
                damages += 1
                if !toleratesDamage { throw StoreError("damage: \(error)") }
            }
        }
        for row in rows.values.sorted(by: { $0.id < $1.id }) { try tolerating { try sink.recover(account: row) } }
        for part in transactions {
            try tolerating {
                try part.content.withUnsafeBytes { try sink.recover(transactions: $0, sequence: part.sequence) }
            }
        }
        for batch in segments.flatMap(\.batches) {
            try tolerating {
                try batch.content.withUnsafeBytes { try sink.recover(batch: $0, sequence: batch.sequence) }
            }
        }
    }

    func register(_ new: [StoredLimit]) {
        limits = limits.filter { old in !new.contains { $0.name == old.name } } + new
    }

    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if let failure { throw failure }
        guard isOpen else { throw StoreError("no checkpoint has been begun") }
        held.append((sequence, Array(batch)))
        if !holdsBatches { try flush() }
    }

    func flush() throws(StoreError) {
        guard !held.isEmpty else { return }
        segments[segments.count - 1].batches += held
        held = []
    }

    var journalBytes: Int { segments.last?.batches.reduce(0) { $0 + $1.content.count } ?? 0 }

    func wantsCheckpoint(age: Int64) -> Bool { false }

    func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if let failure { throw failure }
        isOpen = true
        checkpoint += 1
        savedRows = 0
        saves = 0
        segments.append((checkpoint, [(sequence, Array(batch))]))
        progress = .running
    }

    var checkpointProgress: CheckpointProgress { progress }

    func save(_ pieces: [CheckpointPiece]) -> Bool {
        guard !isBehind else { return false }
        saves += 1
        for piece in pieces {
            if case .accounts(let saved) = piece { savedRows += saved.count }
            if checkpointFailure == nil { save(piece) }
        }
        if let checkpointFailure { progress = .failed(checkpointFailure) }
        return true
    }

    private func save(_ piece: CheckpointPiece) {
        switch piece {
        case .accounts(let saved): for row in saved { rows[row.id] = row }
        case .removed(let ids): for id in ids { rows[id] = nil }
        case .transactions(let sequence, let content): transactions.append((checkpoint, sequence, content))
        case .end:
            transactions.removeAll { $0.checkpoint < checkpoint }
            segments.removeAll { $0.number < checkpoint }
            progress = .done
        }
    }

    func record(_ entry: AuditEntry) {
        audit.append(entry)
    }

    func recentAudit(_ most: Int) throws(StoreError) -> [AuditEntry] {
        audit.suffix(most)
    }
}
