// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Foundation
internal import GRDB
internal import GRDBSQLite
internal import Glibc
internal import Limits
internal import Synchronization

/// Writes checkpoints to `ledger.sqlite`, away from the ledger's loop, some pieces at a time.
final class CheckpointWriter: Sendable {
    private let path: String
    private let queue = DispatchQueue(label: "weir.checkpoint", qos: .utility)
    private let state = Mutex(State())

    private struct State {
        var database: DatabaseQueue?
        var progress = CheckpointProgress.done
        /// Handed over together, and not written yet.
        var waiting = 0
        /// Counts up with each begin: what waits of a checkpoint that was given up is not written.
        var attempt = 0
        /// Which checkpoint's transactions are being written, and how many parts of them.
        var firstSegment = 0
        var parts: Int64 = 0
        var retired: [JournalSegment] = []
    }

    /// So often pieces may wait: bounds the memory of a checkpoint on a slow disk.
    private static let mostWaiting = 8

    init(path: String) {
        self.path = path
    }

    // MARK: The database, from the ledger's loop (at a start, and when limits change)

    /// Opens and checks the file, and brings its tables to today's form.
    func open() throws -> (hashKey: SipHash.Key?, limits: [StoredLimit]) {
        var configuration = Configuration()
        configuration.label = "weir.ledger"
        configuration.busyMode = .timeout(2)
        configuration.prepareDatabase { db in
            try db.execute(sql: "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 0")
        }
        let database = try DatabaseQueue(path: path, configuration: configuration)
        let fault = try database.read { try String.fetchOne($0, sql: "PRAGMA quick_check(1)") }
        guard fault == "ok" else { throw DatabaseError(resultCode: .SQLITE_CORRUPT, message: fault) }
        try Self.migrator.migrate(database)
        state.withLock { $0.database = database }
        return try database.read { db in
            let meta = try Row.fetchOne(db, sql: "SELECT hash_low, hash_high FROM meta")
            let key = meta.map {
                SipHash.Key(low: UInt64(bitPattern: $0["hash_low"]), high: UInt64(bitPattern: $0["hash_high"]))
            }
            return (key, try StoredLimit.all(in: db))
        }
    }

    func read<T>(_ body: (Database) throws -> T) throws -> T {
        try opened().read(body)
    }

    func write(_ body: (Database) throws -> Void) throws {
        try opened().write(body)
    }

    private func opened() throws -> DatabaseQueue {
        guard let database = state.withLock({ $0.database }) else { throw DatabaseError(resultCode: .SQLITE_MISUSE) }
        return database
    }

    private static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1: accounts, limits, transactions") { db in
            try db.execute(
                sql: """
                    CREATE TABLE meta (
                        id INTEGER PRIMARY KEY CHECK (id = 1), hash_low INTEGER NOT NULL, hash_high INTEGER NOT NULL);
                    CREATE TABLE limits (
                        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, signature TEXT NOT NULL);
                    CREATE TABLE accounts (
                        id INTEGER PRIMARY KEY, limit_id INTEGER NOT NULL, key BLOB NOT NULL,
                        sequence INTEGER NOT NULL, content BLOB NOT NULL);
                    CREATE TABLE transactions (
                        checkpoint INTEGER NOT NULL, part INTEGER NOT NULL, sequence INTEGER NOT NULL,
                        content BLOB NOT NULL, PRIMARY KEY (checkpoint, part)) WITHOUT ROWID;
                    """)
        }
        migrator.registerMigration("2: audit") { try $0.execute(sql: AuditEntry.table) }
        return migrator
    }

    /// Keeps what an administrator did, after what waits to be written.
    ///
    /// - Parameter failed: told where that was not possible.
    func record(_ entry: AuditEntry, failed: @escaping @Sendable (any Error) -> Void) {
        queue.async { [self] in
            do { try write(entry.save) } catch { failed(error) }
        }
    }

    // MARK: Checkpoints

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

    /// Takes pieces to be written in one transaction; false while enough of them wait.
    func enqueue(_ pieces: [CheckpointPiece]) -> Bool {
        let attempt: Int? = state.withLock { state in
            guard state.waiting < Self.mostWaiting else { return nil }
            state.waiting += 1
            return state.attempt
        }
        guard let attempt else { return false }
        queue.async { [self] in
            Self.schedule(asBatch: true)
            defer { Self.schedule(asBatch: false) }
            do {
                if let checkpoint = firstSegment(ofRunning: attempt) { try write(pieces, of: checkpoint, attempt) }
            } catch {
                finish(attempt, .failed(StoreError("can't write to \(path): \(error)")))
            }
            state.withLock { $0.waiting -= 1 }
        }
        return true
    }

    /// Has the thread at hand take no other's turn when it wakes: only a reload waits for a checkpoint. Where that is forbidden,
    /// it is a thread like others.
    private static func schedule(asBatch isBatch: Bool) {
        var parameters = sched_param()
        // SCHED_BATCH of <linux/sched.h>, which Glibc's module leaves out.
        sched_setscheduler(0, isBatch ? 3 : SCHED_OTHER, &parameters)
    }

    /// nil where the attempt has failed or was given up.
    private func firstSegment(ofRunning attempt: Int) -> Int64? {
        state.withLock { $0.attempt == attempt && $0.progress == .running ? Int64($0.firstSegment) : nil }
    }

    private func finish(_ attempt: Int, _ progress: CheckpointProgress) {
        state.withLock { if $0.attempt == attempt { $0.progress = progress } }
    }

    private func write(_ pieces: [CheckpointPiece], of checkpoint: Int64, _ attempt: Int) throws {
        try write { db in for piece in pieces { try write(piece, of: checkpoint, attempt, to: db) } }
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
                // Given up meanwhile: the parts are those of the next attempt, which replaces what this one has written.
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

    /// Makes the checkpoint last, and only then deletes what it has made superfluous.
    private func end(_ checkpoint: Int64, _ attempt: Int) throws {
        // Given up while its last pieces were written: the next one deletes what is superfluous then.
        let known = state.withLock { $0.attempt == attempt ? $0.parts : nil }
        guard let parts = known else { return }
        try write { db in
            // Also what an earlier attempt at this checkpoint has left.
            try db.execute(
                sql: "DELETE FROM transactions WHERE checkpoint < ? OR checkpoint = ? AND part > ?",
                arguments: [checkpoint, checkpoint, parts])
        }
        // Copies the WAL into the file, with the fsyncs that this needs, and cuts it.
        try opened().writeWithoutTransaction { _ = try $0.checkpoint(.truncate) }
        for number in Self.segmentNumbers(of: path) where number < checkpoint {
            JournalSegment.remove("\(path).segment-\(number)")
        }
        finish(attempt, .done)
        // Closing their files takes a while; nothing waits for it here, and the ledger's loop takes the lock as well.
        var retired: [JournalSegment] = []
        state.withLock { swap(&$0.retired, &retired) }
    }

    static func segmentNumbers(of path: String) -> [Int] {
        let (folder, name) = (
            URL(fileURLWithPath: path).deletingLastPathComponent().path, URL(fileURLWithPath: path).lastPathComponent
        )
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        // In bytes, as the file system tells names apart.
        let prefix = (name + ".segment-").utf8
        return files.compactMap { file in
            file.utf8.starts(with: prefix) ? Int(Substring(file.utf8.dropFirst(prefix.count))) : nil
        }.sorted()
    }
}

extension Statement {
    /// Runs the statement once, with what `bind` binds: GRDB's way to it takes several times as long as the insert.
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
        // All that is bound to no memory is NULL, which these columns can't hold.
        guard !bytes.isEmpty else { return _ = sqlite3_bind_zeroblob(self, column, 0) }
        sqlite3_bind_blob(self, column, bytes, Int32(bytes.count), unsafeBitCast(-1, to: sqlite3_destructor_type.self))
    }
}
