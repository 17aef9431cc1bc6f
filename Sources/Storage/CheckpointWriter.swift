// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Foundation
internal import Glibc
internal import GRDB
internal import GRDBSQLite
internal import Limits
internal import Synchronization

/// Writes checkpoints to `ledger.sqlite` on a queue of its own.
final class CheckpointWriter: Sendable {
    private let path: String
    private let queue = DispatchQueue(label: "weir.checkpoint", qos: .utility)
    private let state = Mutex(State())

    private struct State {
        var database: DatabaseQueue?
        var progress = CheckpointProgress.done
        /// Limits that `ledger.sqlite` lacks. The next pieces are written together with them.
        var limits: [StoredLimit] = []
        /// How many handovers are queued or being written.
        var queued = 0
        /// Entries of the audit trail that are queued or being written.
        var entries = 0
        /// Incremented by each checkpoint: queued pieces of an abandoned one are not written.
        var attempt = 0
        /// The first segment that the checkpoint does not make redundant. It identifies its transactions.
        var firstSegment = 0
        /// How many parts of its transactions have been written.
        var parts: Int64 = 0
        /// Segments to close when the checkpoint is done.
        var retired: [JournalSegment] = []
        /// Segments to set aside when the checkpoint is done, because a part of them could not be read.
        var damaged: Set<Int> = []
    }

    /// At most this many handovers may queue. Bounds the memory of a checkpoint on a slow disk.
    private static let mostQueued = 8
    /// Entries of the audit trail that may queue. An entry has a few hundred bytes.
    private static let mostEntries = 10_000

    /// Segments are counted up from 1. With a thousand a second, more than this take nine thousand years.
    private static let mostSegments = 1 << 48

    /// The part of a checkpoint's transactions that says that it was completed. It has no content.
    private static let completionPart: UInt64 = 0

    init(path: String) {
        self.path = path
    }

    // MARK: The database, used by the ledger's thread at the start

    /// What `ledger.sqlite` says about the store.
    struct Head {
        var hashKey: SipHash.Key?
        var limits: [StoredLimit]
        /// The newest segment number that it knows.
        var lastSegment: Int
        /// The first segment that the last completed checkpoint has left; nil if no checkpoint says so.
        var completed: Int?
    }

    /// Opens and checks the file, and migrates its tables to the current version.
    func open() throws -> Head {
        let database = try Self.database(at: path)
        let fault = try database.read { try String.fetchOne($0, sql: "PRAGMA quick_check(1)") }
        guard fault == "ok" else { throw DatabaseError(resultCode: .SQLITE_CORRUPT, message: fault) }
        try Self.migrator.migrate(database)
        let tables = try Self.tables(of: database)
        let expected = try DatabaseQueue()
        try Self.migrator.migrate(expected)
        for (name, sql) in try Self.tables(of: expected) where tables[name] != sql {
            throw StoreDamage("the table \(name) has another definition")
        }
        let head = try database.read(Self.head)
        // Also if the number of the file format is damaged.
        guard try database.read({ sqlite3_db_readonly($0.sqliteConnection, "main") == 0 }) else {
            throw DatabaseError(resultCode: .SQLITE_READONLY)
        }
        state.withLock { $0.database = database }
        return head
    }

    private static func head(of db: Database) throws -> Head {
        var head = Head(limits: try StoredLimit.all(in: db), lastSegment: 0)
        try db.forEachRow("SELECT hash_low, hash_high FROM meta") { head.hashKey = try SipHash.Key(columns: $0) }
        try db.forEachRow("SELECT checkpoint, part FROM transactions") { row in
            let number = Int(try row.number(0))
            // Damage. The next start would not look for a segment with a number after it.
            guard number <= mostSegments else { return }
            head.lastSegment = max(head.lastSegment, number)
            if try row.number(1) == completionPart { head.completed = max(head.completed ?? 0, number) }
        }
        return head
    }

    /// The statements that have created the tables, by name.
    private static func tables(of database: DatabaseQueue) throws -> [String: String] {
        try database.read { db in
            var tables: [String: String] = [:]
            try db.forEachRow("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL") { row in
                tables[try row.text(0)] = try row.text(1)
            }
            return tables
        }
    }

    private static func database(at path: String) throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.label = "weir.ledger"
        configuration.busyMode = .timeout(2)
        configuration.prepareDatabase { db in
            try db.execute(sql: "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 0")
        }
        return try DatabaseQueue(path: path, configuration: configuration)
    }

    /// Makes a new file with everything that can still be read from the damaged one.
    ///
    /// - Returns: how many accounts it has.
    func rescue(to new: String) throws -> Int {
        let database = try Self.database(at: new)
        try Self.migrator.migrate(database)
        let accounts = try LedgerRescue(of: path, into: database).run()
        try database.writeWithoutTransaction { _ = try $0.checkpoint(.truncate) }
        try database.close()
        return accounts
    }

    /// Writes the hash key and the limits.
    func initialize(_ hashKey: SipHash.Key, _ limits: [StoredLimit]) throws {
        try write { db in
            try db.execute(
                sql: "INSERT OR REPLACE INTO meta (id, hash_low, hash_high) VALUES (1, ?, ?)",
                arguments: [Int64(bitPattern: hashKey.low), Int64(bitPattern: hashKey.high)])
            for limit in limits { try limit.save(in: db) }
            let isEmpty = try Int.fetchOne(db, sql: "SELECT count(*) FROM transactions") == 0
            if isEmpty { try Self.noteCompletion(of: 0, in: db) }
        }
    }

    func read<T>(_ body: (Database) throws -> T) throws -> T {
        try opened().read(body)
    }

    private func write(_ body: (Database) throws -> Void) throws {
        try opened().write(body)
    }

    private func opened() throws -> DatabaseQueue {
        guard let database = state.withLock({ $0.database }) else { throw DatabaseError(resultCode: .SQLITE_MISUSE) }
        return database
    }

    /// Without that of the migrator.
    static let tableNames: Set = ["meta", "limits", "accounts", "transactions", "audit"]

    /// Creates missing tables. The rows that say which migrations have run may be damaged.
    private static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1: accounts, limits, transactions") { db in
            try db.execute(
                sql: """
                    CREATE TABLE IF NOT EXISTS meta (
                        id INTEGER PRIMARY KEY CHECK (id = 1), hash_low INTEGER NOT NULL, hash_high INTEGER NOT NULL);
                    CREATE TABLE IF NOT EXISTS limits (
                        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, signature TEXT NOT NULL);
                    CREATE TABLE IF NOT EXISTS accounts (
                        id INTEGER PRIMARY KEY, limit_id INTEGER NOT NULL, key BLOB NOT NULL,
                        sequence INTEGER NOT NULL, content BLOB NOT NULL);
                    CREATE TABLE IF NOT EXISTS transactions (
                        checkpoint INTEGER NOT NULL, part INTEGER NOT NULL, sequence INTEGER NOT NULL,
                        content BLOB NOT NULL, PRIMARY KEY (checkpoint, part)) WITHOUT ROWID;
                    """)
        }
        migrator.registerMigration("2: audit") { try $0.execute(sql: AuditEntry.table) }
        return migrator
    }

    /// Writes an entry of the audit trail, after the pieces in the queue.
    ///
    /// - Parameter failed: called with the reason if that fails, or if too many entries wait for the disk.
    func record(_ entry: AuditEntry, failed: @escaping @Sendable (String) -> Void) {
        let hasRoom = state.withLock { state in
            guard state.entries < Self.mostEntries else { return false }
            state.entries += 1
            return true
        }
        guard hasRoom else { return failed("\(Self.mostEntries) entries wait for the disk") }
        queue.async { [self] in
            do { try write(entry.save) } catch { failed(error.cause) }
            state.withLock { $0.entries -= 1 }
        }
    }

    // MARK: Checkpoints

    /// The rows of a checkpoint may refer to these limits, and the segments that have them may be deleted after it.
    func register(_ limits: [StoredLimit]) {
        state.withLock { $0.limits += limits }
    }

    func beginCheckpoint(from segment: Int, retiring retired: JournalSegment?) {
        state.withLock {
            $0.progress = .running
            $0.attempt += 1
            $0.firstSegment = segment
            $0.parts = 0
            if let retired { $0.retired.append(retired) }
        }
    }

    var progress: CheckpointProgress { state.withLock { $0.progress } }

    /// Queues pieces to be written in one transaction.
    ///
    /// - Returns: false if `mostQueued` handovers are queued.
    func enqueue(_ pieces: [CheckpointPiece]) -> Bool {
        let attempt: Int? = state.withLock { state in
            guard state.queued < Self.mostQueued else { return nil }
            state.queued += 1
            return state.attempt
        }
        guard let attempt else { return false }
        queue.async { [self] in
            Self.schedule(asBatch: true)
            defer { Self.schedule(asBatch: false) }
            do {
                if let checkpoint = firstSegment(ofRunning: attempt) { try write(pieces, of: checkpoint, attempt) }
            } catch {
                finish(attempt, .failed(StoreError("can't write to \(path): \(error.cause)")))
            }
            state.withLock { $0.queued -= 1 }
        }
        return true
    }

    /// Sets or ends SCHED_BATCH for this thread: a checkpoint should not preempt the thread that answers. Where the
    /// system does not allow it, the thread keeps its policy.
    private static func schedule(asBatch isBatch: Bool) {
        var parameters = sched_param()
        // 3 is SCHED_BATCH (linux/sched.h), which Glibc's module lacks.
        sched_setscheduler(0, isBatch ? 3 : SCHED_OTHER, &parameters)
    }

    /// The first segment of an attempt; nil if it has failed or was abandoned.
    private func firstSegment(ofRunning attempt: Int) -> Int64? {
        state.withLock { $0.attempt == attempt && $0.progress == .running ? Int64($0.firstSegment) : nil }
    }

    private func finish(_ attempt: Int, _ progress: CheckpointProgress) {
        state.withLock { if $0.attempt == attempt { $0.progress = progress } }
    }

    private func write(_ pieces: [CheckpointPiece], of checkpoint: Int64, _ attempt: Int) throws {
        let limits = state.withLock(\.limits)
        try write { db in
            for limit in limits { try limit.save(in: db) }
            for piece in pieces { try write(piece, of: checkpoint, attempt, to: db) }
        }
        state.withLock { $0.limits.removeFirst(limits.count) }
        killPoint("checkpoint-pieces-written")
        if case .end? = pieces.last { try end(checkpoint, attempt) }
    }

    private func write(_ piece: CheckpointPiece, of checkpoint: Int64, _ attempt: Int, to db: Database) throws {
        switch piece {
        case .accounts(let rows):
            let statement = try db.cachedStatement(
                sql: "INSERT OR REPLACE INTO accounts (id, limit_id, key, sequence, content) VALUES (?, ?, ?, ?, ?)")
            for row in rows {
                try statement.run {
                    $0.bind(1, row.id)
                    $0.bind(2, row.limit)
                    $0.bind(3, row.key)
                    $0.bind(4, row.sequence)
                    $0.bind(5, row.content)
                }
            }
        case .removed(let ids):
            let statement = try db.cachedStatement(sql: "DELETE FROM accounts WHERE id = ?")
            for id in ids { try statement.run { $0.bind(1, id) } }
        case .transactions(let sequence, let content):
            let number: Int64? = state.withLock { state in
                // Abandoned in the meantime: the next attempt counts its own parts, and replaces the rows of this one.
                guard state.attempt == attempt else { return nil }
                state.parts += 1
                return state.parts
            }
            guard let part = number else { return }
            let statement = try db.cachedStatement(sql: "INSERT OR REPLACE INTO transactions VALUES (?, ?, ?, ?)")
            try statement.run {
                $0.bind(1, UInt64(checkpoint))
                $0.bind(2, UInt64(part))
                $0.bind(3, sequence)
                $0.bind(4, content)
            }
        case .end:
            break
        }
    }

    /// Makes the checkpoint durable, and only then deletes the segments that it made redundant.
    private func end(_ checkpoint: Int64, _ attempt: Int) throws {
        // Abandoned while its last pieces were written: the next attempt does all of this.
        let current = state.withLock { $0.attempt == attempt ? $0.parts : nil }
        guard let parts = current else { return }
        try write { db in
            // Including rows of an earlier attempt at this checkpoint, and rows with a damaged number.
            try db.execute(
                sql: "DELETE FROM transactions WHERE checkpoint <> ? OR part > ?", arguments: [checkpoint, parts])
            try Self.noteCompletion(of: checkpoint, in: db)
        }
        killPoint("checkpoint-noted")
        // Copies the WAL into the file, with the necessary fsyncs, and truncates it.
        try opened().writeWithoutTransaction { _ = try $0.checkpoint(.truncate) }
        killPoint("checkpoint-copied")
        let damaged = state.withLock { $0.damaged }
        for number in Self.segmentNumbers(of: path) where number < checkpoint {
            let segment = "\(path).segment-\(number)"
            if damaged.contains(number), (try? setAside(segment)) != nil { continue }
            JournalSegment.remove(segment)
        }
        finish(attempt, .done)
        // Swapped out first: closing the files takes a while, and the ledger's thread needs the lock.
        var retired: [JournalSegment] = []
        state.withLock { swap(&$0.retired, &retired) }
    }

    private static func noteCompletion(of checkpoint: Int64, in db: Database) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO transactions (checkpoint, part, sequence, content) VALUES (?, ?, 0, x'')",
            arguments: [checkpoint, Int64(completionPart)])
    }

    /// Visits the transactions of the last completed checkpoint. What later ones have left is in the journal too.
    static func forEachTransactionsPart(
        in db: Database, _ body: (_ sequence: UInt64, _ content: UnsafeRawBufferPointer) throws -> Void
    ) throws {
        try db.forEachRow(
            """
            SELECT sequence, content FROM transactions
            WHERE part <> \(completionPart) AND checkpoint <= coalesce(
                (SELECT max(checkpoint) FROM transactions WHERE part = \(completionPart)), \(Int64.max))
            ORDER BY sequence, part
            """
        ) { row in
            let sequence = try row.number(0)
            try row.withBytes(1) { try body(sequence, $0) }
        }
    }

    /// The next checkpoint that is done sets the segment aside instead of removing it.
    func noteDamage(ofSegment number: Int) {
        state.withLock { _ = $0.damaged.insert(number) }
    }

    static func segmentNumbers(of path: String) -> [Int] {
        let (folder, name) = (
            URL(fileURLWithPath: path).deletingLastPathComponent().path, URL(fileURLWithPath: path).lastPathComponent
        )
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        // Compared as bytes, as the file system does. Swift compares strings by canonical equivalence.
        let prefix = (name + ".segment-").utf8
        return files.compactMap { file in
            file.utf8.starts(with: prefix) ? Int(Substring(file.utf8.dropFirst(prefix.count))) : nil
        }.filter { 0..<1 << 53 ~= $0 }.sorted()
    }
}

extension Statement {
    /// Runs the statement once. Going through GRDB takes several times as long as the insert.
    fileprivate func run(binding bind: (SQLiteStatement) -> Void) throws {
        defer { sqlite3_reset(sqliteStatement) }
        bind(sqliteStatement)
        let code = sqlite3_step(sqliteStatement)
        guard code == SQLITE_DONE else {
            throw DatabaseError(
                resultCode: ResultCode(rawValue: code),
                message: String(cString: sqlite3_errmsg(sqlite3_db_handle(sqliteStatement))))
        }
    }
}

extension SQLiteStatement {
    fileprivate func bind(_ column: Int32, _ number: UInt64) {
        sqlite3_bind_int64(self, column, Int64(bitPattern: number))
    }

    /// Copies the bytes.
    fileprivate func bind(_ column: Int32, _ bytes: [UInt8]) {
        // A blob without an address would be bound as NULL, which these columns don't allow.
        guard !bytes.isEmpty else { return _ = sqlite3_bind_zeroblob(self, column, 0) }
        sqlite3_bind_blob(self, column, bytes, Int32(bytes.count), unsafeBitCast(-1, to: sqlite3_destructor_type.self))
    }
}
