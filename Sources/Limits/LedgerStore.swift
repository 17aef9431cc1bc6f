// SPDX-License-Identifier: Apache-2.0

/// One account as a store keeps it.
package struct AccountRow: Sendable {
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

/// A limit as a store knows it: counts kept under one signature mean nothing under another.
package struct StoredLimit: Equatable, Sendable {
    package var id: UInt64
    package var name: String
    package var signature: String

    package init(id: UInt64, name: String, signature: String) {
        self.id = id
        self.name = name
        self.signature = signature
    }
}

/// A piece of a checkpoint. A checkpoint may be written while the counts go on: each row says up to which batch it
/// counts, and the journal since the checkpoint's begin is kept.
package enum CheckpointPiece: Sendable {
    case accounts([AccountRow])
    case removed([UInt64])
    /// Open transactions, in one blob with the batch up to which it counts.
    case transactions(sequence: UInt64, content: [UInt8])
    /// The last: what the journal held before the checkpoint's begin may go.
    case end
}

/// What a store gives back at a start, in this order.
package struct Recovery {
    package var hashKey: SipHash.Key
    /// The newest batch of the journal: it tells when the counts were last kept.
    package var lastBatch: [UInt8]?
    package var limits: [StoredLimit]

    package init(hashKey: SipHash.Key, lastBatch: [UInt8]?, limits: [StoredLimit]) {
        self.hashKey = hashKey
        self.lastBatch = lastBatch
        self.limits = limits
    }
}

/// Takes what a store has kept.
package protocol RecoverySink: AnyObject {
    func recover(account row: AccountRow) throws(JournalDamage)
    func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage)
    func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage)
}

/// A fault of the store, with what the operator can do.
package struct StoreError: Error, Equatable, Sendable {
    package let message: String

    package init(_ message: String) {
        self.message = message
    }
}

/// Where a ledger keeps its counts: a journal of batches, and checkpoints that let the journal be cut.
///
/// All calls come from the ledger's own loop. `append` is the only one on the way of an answer.
package protocol LedgerStore: AnyObject {
    /// What is known of the past; called once, first.
    func open() throws(StoreError) -> Recovery
    /// Hands all rows, by rising ids, then transactions and batches to `sink`, in the order in which they came about.
    func recover(into sink: any RecoverySink) throws(StoreError)
    /// Adds limits, all or none. One of a name that is there replaces it, and its accounts will be removed.
    func register(_ limits: [StoredLimit]) throws(StoreError)
    /// Keeps one batch as durably as configured before it returns.
    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError)
    /// Where `append` may hold batches back (`durability: relaxed`): keeps what it has held back.
    func flush() throws(StoreError)
    /// Whether the journal has grown enough that a checkpoint is worth it, `age` milliseconds after the last one began.
    func wantsCheckpoint(age: Int64) -> Bool
    /// Starts a checkpoint: batches from `batch` on go to a new piece of the journal, unless it stands for an earlier one
    /// that was not finished. Where that fails, batches go where they went before.
    func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError)
    /// So many rows and transactions are handed over together.
    var rowsTogether: Int { get }
    /// Hands over pieces, to be written elsewhere and together; false while the writer is behind: try again later.
    func save(_ pieces: [CheckpointPiece]) -> Bool
    /// How the checkpoint that was begun stands.
    var checkpointProgress: CheckpointProgress { get }
}

package enum CheckpointProgress: Equatable, Sendable {
    case running
    case done
    case failed(StoreError)
}

/// How much a batch must have survived before its answers go out.
package enum Durability: String, CaseIterable, Sendable {
    /// A crash of the service (`kill -9`): the batch is with the kernel.
    case commit
    /// A crash of the machine: the batch is on the disk (fsync).
    case power
    /// Nothing: batches are committed together, at most 100 ms later.
    case relaxed
}
