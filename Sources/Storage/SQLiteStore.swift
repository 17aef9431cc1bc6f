// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
internal import GRDBSQLite
package import Limits

/// Keeps the ledger in SQLite: one row per key in `ledger.sqlite`, and a journal of batches beside it.
///
/// The journal is divided into segments, each a file of its own, so that its two writers never wait for each other.
/// The ledger's thread appends batches to the newest segment. A background queue writes checkpoints to
/// `ledger.sqlite`, then deletes the segments that they made redundant. Each row has the number of the last batch that
/// it holds, so requests can be decided during a checkpoint.
///
///     ledger.sqlite               accounts, limits, transactions
///     ledger.sqlite.segment-N     batches since the last checkpoint
///     ledger.sqlite.lock          locked (flock) by the service that uses them
///
/// Everything but the work of `background` runs on the thread of the ledger, which asserts this in debug builds, or on
/// the thread that opens the ledger.
package final class SQLiteStore: LedgerStore {
    /// Reports damage and errors that the operator should know about.
    package typealias Notice = @Sendable (String) -> Void

    let path: String
    let durability: Durability
    let notice: Notice
    let background: CheckpointWriter
    /// The file descriptor of the lock file; -1 before `open`.
    var lock: Int32 = -1
    var hashKey = SipHash.Key(low: 0, high: 0)
    var limits: [StoredLimit] = []
    /// Limits that the newest segment lacks. The next batch is written together with them.
    private var unwrittenLimits: [StoredLimit] = []
    private var segment: JournalSegment?
    var lastSegmentNumber = 0
    /// The segments of earlier runs, oldest first.
    var segments: [JournalSegment.Contents] = []
    /// Batches that `flush` will write (`durability: relaxed`).
    private var held: [(sequence: UInt64, content: [UInt8])] = []
    private var appends = 0
    /// The newest segment, if the checkpoint that began with it was not completed before the last run ended.
    var unfinishedSegment: Int?
    /// The size of the newest segment.
    package private(set) var journalBytes = 0

    /// A checkpoint begins when the segment has `segmentBytes` and is `segmentAge` milliseconds old, or has
    /// `largestSegment` bytes.
    private static let segmentBytes = 16 << 20
    private static let segmentAge: Int64 = 30_000
    private static let largestSegment = 256 << 20

    package init(path: String, durability: Durability, notice: @escaping Notice) {
        self.path = path
        self.durability = durability
        self.notice = notice
        background = CheckpointWriter(path: path)
    }

    deinit {
        if lock >= 0 { close(lock) }
    }

    // MARK: Limits

    /// The journal refers to limits by their ids, so it has them first, in the transaction of a batch. The next
    /// checkpoint writes them to `ledger.sqlite`, which another process may lock for long.
    package func register(_ new: [StoredLimit]) {
        let names = Set(new.map(\.name))
        limits = limits.filter { !names.contains($0.name) } + new
        unwrittenLimits += new
        background.register(new)
    }

    // MARK: The journal

    package func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        guard let segment else { throw StoreError("the journal of \(path) is not open") }
        killPoint("batch-decided")
        if durability == .relaxed {
            held.append((sequence, Array(batch)))
        } else if unwrittenLimits.isEmpty {
            try segment.append(batch, sequence: sequence)
        } else {
            try append([(sequence, Array(batch))], to: segment)
        }
        killPoint("batch-committed")
        noteGrowth(of: segment, by: batch.count)
    }

    package func flush() throws(StoreError) {
        guard let segment, !held.isEmpty else { return }
        defer { held.removeAll(keepingCapacity: true) }
        try append(held, to: segment)
    }

    private func append(
        _ batches: [(sequence: UInt64, content: [UInt8])], to segment: JournalSegment
    ) throws(StoreError) {
        try segment.append(batches, after: unwrittenLimits)
        unwrittenLimits = []
    }

    /// Reads the size of the WAL at every 256th batch, and adds up the batches in between.
    private func noteGrowth(of segment: JournalSegment, by bytes: Int) {
        appends += 1
        journalBytes += bytes
        if appends % 256 == 0 { noteSize(of: segment) }
    }

    private func noteSize(of segment: JournalSegment) {
        var status = stat()
        if stat(segment.path + "-wal", &status) == 0 { journalBytes = Int(status.st_size) }
    }

    // MARK: Checkpoints

    package func wantsCheckpoint(age: Int64) -> Bool {
        journalBytes >= Self.segmentBytes && (journalBytes >= Self.largestSegment || age >= Self.segmentAge)
    }

    package func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if let segment, !segment.isFaulty, background.progress != .done {
            // The segment begins with the last checkpoint, which was not completed: this one replaces it.
            try append(batch, sequence: sequence)
            return background.beginCheckpoint(from: segment.number, retiring: nil)
        }
        if continueSegment(with: batch, sequence: sequence) { return }
        // Incremented first, so that a file left by a failure is not in the way of the next attempt.
        lastSegmentNumber += 1
        let number = lastSegmentNumber
        let next = try describing("create a journal segment beside") {
            try JournalSegment(
                path: segmentPath(number), number: number, durability: durability, hashKey: hashKey, limits: limits,
                first: (sequence, batch))
        }
        killPoint("segment-created")
        background.beginCheckpoint(from: number, retiring: segment)
        segment = next
        unwrittenLimits = []
        appends = 0
        journalBytes = 0
    }

    /// Repeats the checkpoint that the last run did not complete, in the same segment: however often a start is killed,
    /// the store does not grow.
    ///
    /// - Returns: false if there is none, or the segment can't be written to.
    private func continueSegment(with batch: UnsafeRawBufferPointer, sequence: UInt64) -> Bool {
        guard segment == nil, let number = unfinishedSegment else { return false }
        unfinishedSegment = nil
        let continued = try? JournalSegment(
            continuing: segmentPath(number), number: number, durability: durability, limits: limits,
            next: (sequence, batch))
        guard let continued else { return false }
        background.beginCheckpoint(from: number, retiring: nil)
        segment = continued
        unwrittenLimits = []
        appends = 0
        noteSize(of: continued)
        return true
    }

    /// The commit of a transaction costs as much as some dozen rows.
    package let rowsTogether = 1024

    package func save(_ pieces: [CheckpointPiece]) -> Bool {
        background.enqueue(pieces)
    }

    package var checkpointProgress: CheckpointProgress { background.progress }

    // MARK: Administration

    package func record(_ entry: AuditEntry) {
        background.record(entry) { [notice, path] reason in
            notice("can't write to the audit trail in \(path): \(reason); the missing entry is: \(entry)")
        }
    }

    /// Leaves out damaged entries. Damage to the audit trail never keeps the ledger from being opened.
    package func recentAudit(_ most: Int) throws(StoreError) -> [AuditEntry] {
        do {
            return try background.read { try AuditEntry.newest(most, in: $0) }
        } catch let error where isDamage(error, of: path) {
            notice("the audit trail in \(path) is damaged, and can't be read: \(error)")
            return []
        } catch {
            throw StoreError("can't read \(path): \(error.cause)")
        }
    }

    package var lostFile: String? {
        var (held, found) = (stat(), stat())
        guard lock >= 0, fstat(lock, &held) == 0 else { return nil }
        guard stat(path + ".lock", &found) == 0, (held.st_ino, held.st_dev) == (found.st_ino, found.st_dev) else {
            return path + ".lock"
        }
        return [path, segment?.path].compactMap(\.self).first { access($0, F_OK) != 0 }
    }

    // MARK: Files

    func segmentPath(_ number: Int) -> String { "\(path).segment-\(number)" }

    func segmentNumbers() -> [Int] {
        CheckpointWriter.segmentNumbers(of: path)
    }

    /// Turns an error of SQLite into one for the operator: "can't `what` `path`: ...".
    func describing<T>(_ what: String, _ body: () throws -> T) throws(StoreError) -> T {
        do {
            return try body()
        } catch {
            throw StoreError("can't \(what) \(path): \(error.cause(at: path))")
        }
    }
}

extension StoredLimit {
    /// Replaces the limit of this name. A checkpoint deletes the accounts of the old one: there may be many.
    func save(in db: Database) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO limits (id, name, signature) VALUES (?, ?, ?)",
            arguments: [Int64(bitPattern: id), name, signature])
    }
}
