// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
internal import GRDBSQLite
internal import Limits

/// One file of the journal: a SQLite database in WAL mode that is only appended to.
///
/// SQLite never checkpoints it while it is in use, so all batches stay in the WAL, whose frames have checksums. After a
/// power failure a valid prefix of them is left, without an fsync for each batch. `append` steps the prepared statement
/// itself, because going through GRDB costs more than the insert.
///
/// Sendable, unchecked: only the ledger's thread calls it. A retired segment is not called any more. The checkpoint
/// queue releases the last reference to it, because closing the file takes a while.
final class JournalSegment: @unchecked Sendable {
    let number: Int
    let path: String
    private let queue: DatabaseQueue
    private let insert: OpaquePointer
    private let connection: OpaquePointer
    /// Whether a write has failed. The next checkpoint uses a new segment then, in case the file is at fault.
    private(set) var isFaulty = false

    /// Small pages: a batch of one request has about 80 bytes.
    static let pageSize = 1024

    private static let insertLimit = "INSERT INTO limits VALUES (?, ?, ?)"
    private static let replaceLimit = "INSERT OR REPLACE INTO limits VALUES (?, ?, ?)"
    private static let insertBatch = "INSERT INTO batches VALUES (?, ?)"

    /// Creates a segment with its first batch. If that fails, no file is left behind.
    init(
        path: String, number: Int, durability: Durability, hashKey: SipHash.Key, limits: [StoredLimit],
        first: (sequence: UInt64, content: UnsafeRawBufferPointer)
    ) throws {
        self.number = number
        self.path = path
        do {
            queue = try DatabaseQueue(path: path, configuration: Self.configuration(durability))
            (connection, insert) = try queue.inDatabase { db in
                // One transaction: a file without a hash key was never completed, and holds no batch.
                try db.inTransaction {
                    try Self.create(in: db, hashKey: hashKey)
                    try Self.insert(limits, by: Self.insertLimit, first, in: db)
                    return .commit
                }
                return try Self.prepareInsert(in: db)
            }
        } catch {
            Self.remove(path)
            throw error
        }
    }

    /// Continues the segment of an earlier run, whose checkpoint was not completed.
    init(
        continuing path: String, number: Int, durability: Durability, limits: [StoredLimit],
        next: (sequence: UInt64, content: UnsafeRawBufferPointer)
    ) throws {
        self.number = number
        self.path = path
        queue = try DatabaseQueue(path: path, configuration: Self.configuration(durability))
        (connection, insert) = try queue.inDatabase { db in
            try db.inTransaction {
                try Self.insert(limits, by: Self.replaceLimit, next, in: db)
                return .commit
            }
            return try Self.prepareInsert(in: db)
        }
    }

    private static func create(in db: Database, hashKey: SipHash.Key) throws {
        try db.execute(
            sql: """
                CREATE TABLE meta (hash_low INTEGER NOT NULL, hash_high INTEGER NOT NULL);
                CREATE TABLE limits (id INTEGER PRIMARY KEY, name TEXT NOT NULL, signature TEXT NOT NULL);
                CREATE TABLE batches (sequence INTEGER PRIMARY KEY, content BLOB NOT NULL);
                """)
        try db.execute(
            sql: "INSERT INTO meta VALUES (?, ?)",
            arguments: [Int64(bitPattern: hashKey.low), Int64(bitPattern: hashKey.high)])
    }

    private static func insert(
        _ limits: [StoredLimit], by statement: String,
        _ batch: (sequence: UInt64, content: UnsafeRawBufferPointer), in db: Database
    ) throws {
        for limit in limits {
            try db.execute(
                sql: statement, arguments: [Int64(bitPattern: limit.id), limit.name, limit.signature])
        }
        try db.execute(sql: insertBatch, arguments: [Int64(batch.sequence), Data(batch.content)])
    }

    private static func prepareInsert(in db: Database) throws -> (connection: OpaquePointer, insert: OpaquePointer) {
        var statement: OpaquePointer?
        let code = sqlite3_prepare_v3(
            db.sqliteConnection, insertBatch, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil)
        guard code == SQLITE_OK, let connection = db.sqliteConnection, let statement else {
            throw DatabaseError(resultCode: ResultCode(rawValue: code))
        }
        // GRDB's hooks expect to see every statement. From here on they see none.
        sqlite3_commit_hook(connection, nil, nil)
        sqlite3_rollback_hook(connection, nil, nil)
        sqlite3_update_hook(connection, nil, nil)
        return (connection, statement)
    }

    static func remove(_ path: String) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            unlink(path + suffix)
            killPoint("segment-unlinked")
        }
    }

    deinit {
        // Before GRDB closes the connection, with the queue.
        sqlite3_finalize(insert)
    }

    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        sqlite3_bind_int64(insert, 1, Int64(sequence))
        // No destructor: the bytes outlive the step, and the binding is cleared after it.
        sqlite3_bind_blob(insert, 2, batch.baseAddress, Int32(batch.count), nil)
        let code = sqlite3_step(insert)
        let message = code == SQLITE_DONE ? nil : String(cString: sqlite3_errmsg(connection))
        sqlite3_reset(insert)
        sqlite3_clear_bindings(insert)
        if let message {
            isFaulty = true
            throw StoreError("can't write to \(path): \(message)")
        }
    }

    /// Writes limits and batches in one transaction.
    func append(
        _ batches: [(sequence: UInt64, content: [UInt8])], after limits: [StoredLimit]
    ) throws(StoreError) {
        try execute("BEGIN")
        do throws(StoreError) {
            for limit in limits { try append(limit) }
            for batch in batches {
                let outcome = batch.content.withUnsafeBytes { bytes in
                    Result { () throws(StoreError) in try append(bytes, sequence: batch.sequence) }
                }
                try outcome.get()
            }
            try execute("COMMIT")
        } catch {
            // Fails if SQLite has rolled back already, which is fine.
            sqlite3_exec(connection, "ROLLBACK", nil, nil, nil)
            throw error
        }
    }

    private func append(_ limit: StoredLimit) throws(StoreError) {
        var statement: OpaquePointer?
        defer { sqlite3_finalize(statement) }
        try check(sqlite3_prepare_v2(connection, Self.replaceLimit, -1, &statement, nil), SQLITE_OK)
        // SQLite copies the texts.
        let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
        sqlite3_bind_int64(statement, 1, Int64(bitPattern: limit.id))
        sqlite3_bind_text(statement, 2, limit.name, -1, copied)
        sqlite3_bind_text(statement, 3, limit.signature, -1, copied)
        try check(sqlite3_step(statement), SQLITE_DONE)
    }

    private func execute(_ sql: String) throws(StoreError) {
        try check(sqlite3_exec(connection, sql, nil, nil, nil), SQLITE_OK)
    }

    private func check(_ code: Int32, _ expected: Int32) throws(StoreError) {
        guard code == expected else {
            isFaulty = true
            throw StoreError("can't write to \(path): \(String(cString: sqlite3_errmsg(connection)))")
        }
    }

    private static func configuration(_ durability: Durability) -> Configuration {
        var configuration = Configuration()
        configuration.label = "weir.journal"
        configuration.prepareDatabase { db in
            // No other process reads the file, so the WAL index can be on the heap (locking_mode EXCLUSIVE).
            try db.execute(
                sql: """
                    PRAGMA page_size = \(pageSize);
                    PRAGMA locking_mode = EXCLUSIVE;
                    PRAGMA journal_mode = WAL;
                    PRAGMA wal_autocheckpoint = 0;
                    PRAGMA synchronous = \(durability == .power ? "FULL" : "OFF");
                    """)
        }
        return configuration
    }

    // MARK: Reading a segment of an earlier run

    /// Whether the service died while SQLite changed the new file to WAL mode. Such a file holds no batch, and SQLite
    /// can't read it without a rollback.
    private static func isRollbackPending(at path: String) -> Bool {
        access(path + "-journal", F_OK) == 0 && access(path + "-wal", F_OK) != 0
    }

    struct Contents {
        var number: Int
        /// Nil if it can't be read.
        var hashKey: SipHash.Key?
        /// Empty if they can't be read.
        var limits: [StoredLimit] = []
        /// The sequence number of the first batch; nil if it can't be read.
        var first: UInt64?
        /// Nil if it can't be read.
        var lastBatch: [UInt8]?
    }

    /// Reads the head of a segment. What is damaged in it does not cost the batches.
    ///
    /// - Returns: nil if the segment was never completed, and so holds no batch.
    /// - Throws: `DatabaseError` or `StoreDamage` if the file is not a segment.
    static func contents(ofSegmentAt path: String, number: Int) throws -> Contents? {
        guard !isRollbackPending(at: path) else { return nil }
        return try reading(path) { db in
            func ifSound(_ body: () throws -> Void) throws {
                do { try body() } catch let error where isDamage(error, of: path) {}
            }
            guard try db.tableExists("meta") else { return nil }
            var contents = Contents(number: number)
            var isComplete = true
            try ifSound {
                isComplete = false
                try db.forEachRow("SELECT hash_low, hash_high FROM meta") { row in
                    isComplete = true
                    contents.hashKey = try SipHash.Key(columns: row)
                }
            }
            guard try db.tableExists("batches") else { throw StoreDamage("it has no batches") }
            try ifSound { contents.limits = try StoredLimit.all(in: db, repeatsNames: true) }
            try ifSound {
                try db.forEachRow("SELECT sequence FROM batches ORDER BY sequence LIMIT 1") { row in
                    contents.first = try row.number(0)
                }
            }
            try ifSound {
                try db.forEachRow("SELECT content FROM batches ORDER BY sequence DESC LIMIT 1") { row in
                    contents.lastBatch = try row.bytes(0)
                }
            }
            return isComplete || contents.first != nil ? contents : nil
        }
    }

    /// Visits the batches by rising sequence numbers, and skips those that can't be read.
    ///
    /// - Returns: the first error; nil if all could be read.
    static func forEachBatch(
        ofSegmentAt path: String,
        _ body: (_ content: UnsafeRawBufferPointer, _ sequence: UInt64) throws(JournalDamage) -> Void
    ) throws -> (any Error)? {
        try reading(path) { db in
            var firstError: (any Error)?
            var next: UInt64 = 0
            // Doubled while nothing can be read: a page that is damaged holds many batches.
            var step: UInt64 = 1
            while next < 1 << 62 {
                let start = next
                // All rows at first, in case a number is negative.
                let rest = start == 0 ? "" : "WHERE sequence >= \(start)"
                do {
                    try db.forEachRow("SELECT sequence, content FROM batches \(rest) ORDER BY sequence") { row in
                        do {
                            let sequence = try row.number(0)
                            // In a damaged file, rows may be out of order. This one may have been read before.
                            guard sequence >= start else { return }
                            try row.withBytes(1) { try body($0, sequence) }
                            next = max(next, sequence + 1)
                            step = 1
                        } catch let error where error is JournalDamage || error is StoreDamage {
                            // The number may be what is damaged: it says nothing about where to continue.
                            firstError = firstError ?? error
                        }
                    }
                    break
                } catch let error where isDamage(error, of: path) {
                    firstError = firstError ?? error
                    next += step
                    step *= 2
                }
            }
            return firstError
        }
    }

    /// Reads without changing the files: damage stays visible, and a log is not copied into the database.
    private static func reading<T>(_ path: String, _ body: (Database) throws -> T) throws -> T {
        var configuration = Configuration()
        configuration.readonly = true
        // Another process may look at the file for a moment.
        configuration.busyMode = .timeout(2)
        return try DatabaseQueue(path: path, configuration: configuration).inDatabase(body)
    }
}
