// SPDX-License-Identifier: Apache-2.0

/// One account as a store keeps it.
package struct AccountRow: Equatable, Sendable {
    package var id: UInt64
    package var limit: UInt64
    package var key: [UInt8]
    /// The last batch of the journal whose effects `content` holds.
    package var sequence: UInt64
    package var content: [UInt8]

    package init(id: UInt64, limit: UInt64, key: [UInt8], sequence: UInt64, content: [UInt8]) {
        self.id = id
        self.limit = limit
        self.key = key
        self.sequence = sequence
        self.content = content
    }
}

/// A limit as a store keeps it. Counts of one signature mean nothing under another.
package struct StoredLimit: Equatable, Sendable {
    package var id: UInt64
    package var name: String
    /// Empty if the limit was removed.
    package var signature: String

    package init(id: UInt64, name: String, signature: String) {
        self.id = id
        self.name = name
        self.signature = signature
    }

    /// Stands for a limit that was removed. The id is a new one, so what was stored under the limit's own id belongs to
    /// no limit.
    static func removed(id: UInt64, name: String) -> StoredLimit { StoredLimit(id: id, name: name, signature: "") }

    var isRemoved: Bool { signature.isEmpty }
}

/// A piece of a checkpoint. Requests are decided while a checkpoint is written: each row has the number of the last
/// batch that it holds, and the store keeps the journal from the beginning of the checkpoint on.
package enum CheckpointPiece: Sendable {
    case accounts([AccountRow])
    /// The ids of rows to delete.
    case removed([UInt64])
    /// Open transactions, with the number of the last batch that they hold.
    case transactions(sequence: UInt64, content: [UInt8])
    /// The last piece: the store may now delete the journal from before the checkpoint.
    case end
}

/// What a store knows when it is opened.
package struct StoredState {
    /// The secret with which keys and requests are hashed, the same for the life of the store.
    package var hashKey: SipHash.Key
    /// The newest batch of the journal: its anchor tells when the counts were last written.
    package var lastBatch: [UInt8]?
    package var limits: [StoredLimit]

    package init(hashKey: SipHash.Key, lastBatch: [UInt8]?, limits: [StoredLimit]) {
        self.hashKey = hashKey
        self.lastBatch = lastBatch
        self.limits = limits
    }
}

/// Receives what a store has kept.
package protocol RecoverySink: AnyObject {
    func recover(account row: AccountRow) throws(JournalDamage)
    func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage)
    func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage)
}

/// An error of the store, in words for the operator.
package struct StoreError: Error, Equatable, Sendable {
    package let message: String

    package init(_ message: String) {
        self.message = message
    }
}

/// The progress of the newest checkpoint.
package enum CheckpointProgress: Equatable, Sendable {
    case running
    case done
    /// The journal from before the checkpoint is still there, and the store takes batches as before.
    case failed(StoreError)
}

/// Where a ledger keeps its counts: a journal of batches, and checkpoints that allow the older journal to be deleted.
///
/// The order of calls is `open`, `register`, `recover`, `beginCheckpoint`; after that, any. They come from one thread
/// at a time: first the one that opens the ledger, then the ledger's own. Only `append` delays answers.
///
/// `Tests/LedgerStoreConformance` has the contract as tests that every store must pass.
package protocol LedgerStore: AnyObject {
    // MARK: Opening

    /// Opens the store. May be called again after it has thrown.
    func open() throws(StoreError) -> StoredState

    /// Hands everything to `sink`: all rows by rising ids, then transactions, then batches in order. A batch that the
    /// rows and transactions already hold may be among them.
    ///
    /// If `sink` can't read a row or transactions, the store reports it and continues. If it can't read a batch, the
    /// store may skip those behind it.
    func recover(into sink: any RecoverySink) throws(StoreError)

    /// Adds limits. They are stored together with the next batch, because nothing refers to them before. A limit
    /// replaces the stored one of the same name. The ledger removes the accounts of the old one with the next
    /// checkpoint.
    func register(_ limits: [StoredLimit])

    // MARK: The journal

    /// Writes a batch, and returns when it is as durable as configured.
    ///
    /// - Throws: if it can't, or if no checkpoint has been begun since `open`.
    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError)

    /// Writes the batches that `append` has held back (`durability: relaxed`).
    func flush() throws(StoreError)

    /// The size in bytes of the journal since the last checkpoint began. An estimate will do.
    var journalBytes: Int { get }

    // MARK: Checkpoints

    /// Whether the journal has grown enough for a checkpoint.
    ///
    /// - Parameter age: milliseconds since the last one began.
    func wantsCheckpoint(age: Int64) -> Bool

    /// Starts a checkpoint, and writes `batch` as the first that it does not make redundant. If the checkpoint before
    /// was not completed, the new one replaces it: the store writes no more of its pieces, and until the new one is
    /// done, the journal since the earlier one began stays.
    ///
    /// - Throws: if the journal can't be continued in a new place. Batches go where they went before.
    func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError)

    /// How many rows and transactions the ledger hands over in one call of `save`.
    var rowsTogether: Int { get }

    /// Hands over pieces to be written in one step, away from the ledger's thread.
    ///
    /// - Returns: false if the writer is behind. It has not accepted the pieces; the ledger offers them again later.
    func save(_ pieces: [CheckpointPiece]) -> Bool

    /// `done` before the first checkpoint.
    var checkpointProgress: CheckpointProgress { get }

    // MARK: Administration

    /// Writes what an administrator did to the audit trail, soon and away from the ledger's thread. The store reports
    /// if it can't.
    func record(_ entry: AuditEntry)

    /// The newest `most` entries of the audit trail, oldest first.
    func recentAudit(_ most: Int) throws(StoreError) -> [AuditEntry]

    /// The first file in use that was removed or replaced by another; nil if all are in place.
    var lostFile: String? { get }
}
