// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
internal import GRDBSQLite
package import Limits

/// The ledger's counts in SQLite: one row per key in `ledger.sqlite`, and a journal of batches beside it.
///
/// The journal is cut into segments, files of their own, so that the two writers never wait for each other: the
/// ledger's loop appends batches to the newest segment, and a background queue writes checkpoints to `ledger.sqlite`
/// and then deletes the segments that these have made superfluous. A row tells the last batch that it holds, so a
/// checkpoint needs no moment at which everything stands still.
///
///     ledger.sqlite               accounts, limits, transactions
///     ledger.sqlite.segment-N     batches since the last checkpoint
///     ledger.sqlite.lock          held by the one service that uses them
///
/// All but the closures handed to `background` runs on the ledger's loop, or where the ledger is opened for it.
package final class SQLiteStore: LedgerStore {
    /// What an operator should know of a start or a fault; told once each.
    package typealias Notice = @Sendable (String) -> Void

    private let path: String
    private let durability: Durability
    private let notice: Notice
    private let background: CheckpointWriter
    private var lock: Int32 = -1
    private var hashKey = SipHash.Key(low: 0, high: 0)
    private var limits: [StoredLimit] = []
    private var segment: JournalSegment?
    private var lastSegmentNumber = 0
    private var held: [(sequence: UInt64, content: [UInt8])] = []
    private var appends = 0
    /// The newest segment of the journal.
    package private(set) var journalBytes = 0

    /// A checkpoint is worth its cost at this size, but not more often than `segmentAge` (milliseconds), up to `largestSegment`.
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

    // MARK: Start

    package func open() throws(StoreError) -> Recovery {
        try takeLock()
        let stored = try openLedger()
        limits = stored.limits
        var lastBatch: [UInt8]?
        var journalKey: SipHash.Key?
        for number in segmentNumbers() {
            lastSegmentNumber = number
            let path = segmentPath(number)
            guard let read = try readable(path, { try JournalSegment.contents(ofSegmentAt: $0) }) else { continue }
            guard let contents = read else {
                JournalSegment.remove(path)
                continue
            }
            journalKey = contents.hashKey
            lastBatch = contents.lastBatch ?? lastBatch
            if limits.isEmpty { limits = contents.limits }
        }
        hashKey =
            stored.hashKey ?? journalKey ?? SipHash.Key(low: .random(in: 0...(.max)), high: .random(in: 0...(.max)))
        if stored.hashKey == nil {
            try describing("write to") { [hashKey, limits] in
                try background.write { db in
                    try db.execute(
                        sql: "INSERT INTO meta (id, hash_low, hash_high) VALUES (1, ?, ?)",
                        arguments: [Int64(bitPattern: hashKey.low), Int64(bitPattern: hashKey.high)])
                    for limit in limits { try limit.save(in: db) }
                }
            }
        }
        return Recovery(hashKey: hashKey, lastBatch: lastBatch, limits: limits)
    }

    package func recover(into sink: any RecoverySink) throws(StoreError) {
        do {
            try background.read { db in
                try forEachAccount(in: db) { account in
                    do { try sink.recover(account: account) } catch {
                        notice("account \(account.id) in \(path) can't be read and starts from nothing: \(error)")
                    }
                }
                let parts = try Row.fetchCursor(
                    db, sql: "SELECT sequence, content FROM transactions ORDER BY sequence, part")
                while let row = try parts.next() {
                    let content = try row.bytes(at: 1)
                    do {
                        try content.withUnsafeBytes { bytes in
                            try sink.recover(transactions: bytes, sequence: UInt64(bitPattern: row[0]))
                        }
                    } catch let damage as JournalDamage {
                        notice(
                            "mail transactions in \(path) can't be read (\(damage)); recipients of mail under way may count twice"
                        )
                    }
                }
            }
        } catch {
            throw StoreError("can't read \(path): \(error)")
        }
        for number in segmentNumbers() {
            _ = try readable(segmentPath(number)) { segment in
                try JournalSegment.forEachBatch(ofSegmentAt: segment) { sequence, content in
                    try sink.recover(batch: content, sequence: sequence)
                }
            }
        }
    }

    /// All rows, in the order of their ids; straight from SQLite, for there may be millions.
    private func forEachAccount(in db: Database, _ body: (AccountRow) -> Void) throws {
        let statement = try db.makeStatement(
            sql: "SELECT id, limit_id, key, sequence, content FROM accounts ORDER BY id")
        try withExtendedLifetime(statement) {
            let row = statement.sqliteStatement
            while case let code = sqlite3_step(row), code != SQLITE_DONE {
                guard code == SQLITE_ROW else {
                    throw DatabaseError(resultCode: ResultCode(rawValue: code), message: db.lastErrorMessage)
                }
                body(
                    AccountRow(
                        id: row.number(0), limit: row.number(1), key: row.bytes(2), sequence: row.number(3),
                        content: row.bytes(4)))
            }
        }
    }

    /// Two services on one ledger would each count half.
    private func takeLock() throws(StoreError) {
        guard lock < 0 else { return }
        let descriptor = Glibc.open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            throw StoreError("can't create \(path).lock: \(String(cString: strerror(errno)))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw StoreError("another weir serve is using \(path)")
        }
        lock = descriptor
    }

    /// Opens `ledger.sqlite`, checks it, and sets it aside where it is damaged: never overwritten, never trusted.
    private func openLedger() throws(StoreError) -> (hashKey: SipHash.Key?, limits: [StoredLimit]) {
        do {
            return try background.open()
        } catch let error where Self.isDamage(error) {
            let aside = try setAside(path)
            notice(
                "\(path) is damaged (\(error)); it was set aside as \(aside), "
                    + "and counting goes on from what the journal holds")
            return try describing("open") { try background.open() }
        } catch {
            throw StoreError("can't open \(path): \(error)")
        }
    }

    /// The result of reading a segment; nil where it is damaged, and set aside.
    ///
    /// - Throws: where it can't be read for any other reason (permissions, a lock, the disk): it is left as it is.
    private func readable<T>(_ segment: String, _ body: (String) throws -> T) throws(StoreError) -> T? {
        do {
            return try body(segment)
        } catch let error where Self.isDamage(error) {
            let aside = try setAside(segment)
            notice(
                "\(segment) is damaged (\(error)); it was set aside as \(aside), counts since the last checkpoint are lost"
            )
            return nil
        } catch {
            throw StoreError("can't read \(segment): \(error)")
        }
    }

    /// The file holds what no version of Weir and SQLite has written.
    private static func isDamage(_ error: any Error) -> Bool {
        if error is JournalDamage { return true }
        let code = (error as? DatabaseError)?.resultCode.primaryResultCode
        return code == .SQLITE_CORRUPT || code == .SQLITE_NOTADB
    }

    private func setAside(_ file: String) throws(StoreError) -> String {
        let stamp = Int(Date().timeIntervalSince1970)
        let aside = "\(file).damaged-\(stamp)"
        guard rename(file, aside) == 0 else {
            throw StoreError("can't set \(file) aside: \(String(cString: strerror(errno)))")
        }
        for suffix in ["-wal", "-shm"] { rename(file + suffix, aside + suffix) }
        return aside
    }

    /// The first of the files in use that is no longer where it was: removed, or replaced by another.
    package var lostFile: String? {
        var (held, found) = (stat(), stat())
        guard lock >= 0, fstat(lock, &held) == 0 else { return nil }
        guard stat(path + ".lock", &found) == 0, (held.st_ino, held.st_dev) == (found.st_ino, found.st_dev) else {
            return path + ".lock"
        }
        return [path, segment?.path].compactMap(\.self).first { access($0, F_OK) != 0 }
    }

    private func segmentPath(_ number: Int) -> String { "\(path).segment-\(number)" }

    private func segmentNumbers() -> [Int] {
        CheckpointWriter.segmentNumbers(of: path)
    }

    // MARK: While in use

    package func register(_ new: [StoredLimit]) throws(StoreError) {
        guard !new.isEmpty else { return }
        try describing("write to") { try background.write { db in for limit in new { try limit.save(in: db) } } }
        let names = new.map(\.name)
        limits = limits.filter { !names.contains($0.name) } + new
    }

    /// Keeps what an administrator did; soon, and away from the ledger's loop.
    package func record(_ entry: AuditEntry) {
        background.record(entry) { [notice, path] error in
            notice("the audit trail in \(path) could not be written: \(error); this is missing there: \(entry)")
        }
    }

    /// What administrators did lately, oldest first.
    package func recentAudit(_ most: Int) throws(StoreError) -> [AuditEntry] {
        try describing("read") { try background.read { try AuditEntry.newest(most, in: $0) } }
    }

    package func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        guard let segment else { throw StoreError("the journal of \(path) is not open") }
        if durability == .relaxed {
            held.append((sequence, Array(batch)))
        } else {
            try segment.append(batch, sequence: sequence)
        }
        noteGrowth(of: segment, by: batch.count)
    }

    package func flush() throws(StoreError) {
        guard let segment, !held.isEmpty else { return }
        defer { held.removeAll(keepingCapacity: true) }
        try segment.append(held)
    }

    /// Asks for the file's true size now and then; between, the content alone is counted.
    private func noteGrowth(of segment: JournalSegment, by bytes: Int) {
        appends += 1
        journalBytes += bytes
        if appends % 256 == 0 {
            var status = stat()
            if stat(segment.path + "-wal", &status) == 0 { journalBytes = Int(status.st_size) }
        }
    }

    package func wantsCheckpoint(age: Int64) -> Bool {
        journalBytes >= Self.segmentBytes && (journalBytes >= Self.largestSegment || age >= Self.segmentAge)
    }

    package func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if let segment, !segment.isFaulty, background.progress != .done {
            // The segment begins at the last checkpoint, which was not finished: this one stands for both.
            try append(batch, sequence: sequence)
            return background.beginCheckpoint(from: segment.number, retiring: nil)
        }
        // Before it is tried: what a failure may leave behind is in nobody's way.
        lastSegmentNumber += 1
        let number = lastSegmentNumber
        let next = try describing("start a journal segment beside") {
            try JournalSegment(
                path: segmentPath(number), number: number, durability: durability, hashKey: hashKey, limits: limits,
                first: (sequence, batch))
        }
        background.beginCheckpoint(from: number, retiring: segment)
        segment = next
        appends = 0
        journalBytes = 0
    }

    /// A transaction of SQLite costs as much as writing some dozen rows.
    package let rowsTogether = 1024

    package func save(_ pieces: [CheckpointPiece]) -> Bool {
        background.enqueue(pieces)
    }

    package var checkpointProgress: CheckpointProgress { background.progress }

    private func describing<T>(_ what: String, _ body: () throws -> T) throws(StoreError) -> T {
        do {
            return try body()
        } catch {
            throw StoreError("can't \(what) \(path): \(error)")
        }
    }
}

extension Row {
    fileprivate func bytes(at index: Int) throws -> [UInt8] {
        try withUnsafeData(atIndex: index) { data in data.map(Array.init) ?? [] }
    }
}

/// The columns of a statement's present row.
extension SQLiteStatement {
    fileprivate func number(_ column: Int32) -> UInt64 {
        UInt64(bitPattern: sqlite3_column_int64(self, column))
    }

    fileprivate func bytes(_ column: Int32) -> [UInt8] {
        // The address first: SQLite may convert the value for it, and tells its size only then.
        let start = sqlite3_column_blob(self, column)
        return Array(UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(self, column))))
    }
}

extension StoredLimit {
    static func all(in db: Database) throws -> [StoredLimit] {
        try Row.fetchAll(db, sql: "SELECT id, name, signature FROM limits").map {
            StoredLimit(id: UInt64(bitPattern: $0[0]), name: $0[1], signature: $0[2])
        }
    }

    /// Replaces what the store had by this name. The accounts of that go with a checkpoint: there may be many.
    func save(in db: Database) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO limits (id, name, signature) VALUES (?, ?, ?)",
            arguments: [Int64(bitPattern: id), name, signature])
    }
}
