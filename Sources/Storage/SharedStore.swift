// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
package import Limits
package import Sharing

/// Keeps what this host has to know of shared limits beside its counts: its epoch, its terms, what it has used of each
/// pool, and the changes that hold on all hosts.
///
/// The file is `ledger.sqlite.shared`, and the lock of the ledger covers it.
///
/// The ledger writes here before its journal, and the answer leaves after both. If the service dies between the two,
/// units of a pool count without their charge: less is admitted, never more.
package final class SharedStore {
    package struct Contents: Sendable {
        /// nil in a new file.
        package var state: KeptState.Saved?
        package var pools: [KeptState.Pool] = []
        package var versions: [String] = []
        package var changes: [SharedChange] = []
        package var numbers = SharedChanges.Numbers()
    }

    private let queue: DatabaseQueue
    private let path: String
    private var log: PoolLog

    private init(_ queue: DatabaseQueue, _ path: String, _ log: PoolLog) {
        self.queue = queue
        self.path = path
        self.log = log
    }

    /// Opens and reads the file, or makes it. A damaged one is set aside: this host then begins as a new one.
    ///
    /// - Parameter longestLog: bytes of the log of pools, above which it is made shorter.
    package static func open(
        besides ledger: String, durability: Durability, longestLog: Int = 16 << 20, notice: SQLiteStore.Notice
    ) throws(StoreError) -> (store: SharedStore, contents: Contents) {
        let path = ledger + ".shared"
        do {
            do {
                return try open(path, durability, longestLog)
            } catch let error where isDamage(error, of: path) {
                let aside = try setAside(path)
                notice(
                    "\(path) is damaged (\(error)); it was set aside as \(aside), and this host has no share of limits "
                        + "until all hosts have connected to the engine")
                return try open(path, durability, longestLog)
            }
        } catch {
            throw StoreError("can't open \(path): \(error.cause(at: path))")
        }
    }

    private static func open(
        _ path: String, _ durability: Durability, _ longestLog: Int
    ) throws -> (SharedStore, Contents) {
        var configuration = Configuration()
        configuration.label = "weir.shared"
        configuration.prepareDatabase { db in
            try db.execute(
                sql: """
                    PRAGMA locking_mode = EXCLUSIVE;
                    PRAGMA journal_mode = WAL;
                    PRAGMA synchronous = \(durability == .power ? "FULL" : "OFF");
                    """)
        }
        let queue = try DatabaseQueue(path: path, configuration: configuration)
        try queue.write { db in
            try db.execute(
                sql: """
                    \(PoolLog.schema)
                    CREATE TABLE IF NOT EXISTS state (
                        id INTEGER PRIMARY KEY CHECK (id = 0), mark INTEGER NOT NULL, epoch INTEGER NOT NULL,
                        epoch_id TEXT NOT NULL, connection INTEGER NOT NULL, settled TEXT, pending TEXT NOT NULL);
                    CREATE TABLE IF NOT EXISTS limits (text TEXT NOT NULL);
                    CREATE TABLE IF NOT EXISTS changes (
                        subject TEXT PRIMARY KEY, number INTEGER NOT NULL, mark INTEGER NOT NULL,
                        until INTEGER NOT NULL, content TEXT NOT NULL) WITHOUT ROWID;
                    CREATE TABLE IF NOT EXISTS numbers (
                        id INTEGER PRIMARY KEY CHECK (id = 0), newest INTEGER NOT NULL, forgotten INTEGER NOT NULL,
                        forgotten_mark INTEGER NOT NULL);
                    """)
        }
        var log = PoolLog(longest: longestLog)
        let contents = try queue.read { try read($0, &log) }
        return (SharedStore(queue, path, log), contents)
    }

    private static func read(_ db: Database, _ log: inout PoolLog) throws -> Contents {
        var contents = Contents()
        try db.forEachRow("SELECT mark, epoch, epoch_id, connection, ifnull(settled, ''), pending FROM state") { row in
            let settled = try row.text(4)
            contents.state = KeptState.Saved(
                mark: UInt64(bitPattern: try row.integer(0)), epoch: Int64(try row.number(1)),
                epochID: try row.text(2), connection: Int64(try row.number(3)),
                settled: settled.isEmpty ? nil : settled,
                pending: try row.text(5).split(separator: "\n").map(String.init))
        }
        contents.pools = try log.read(db)
        try db.forEachRow("SELECT text FROM limits") { contents.versions.append(try $0.text(0)) }
        try db.forEachRow("SELECT subject, number, mark, until, content FROM changes") { row in
            let version = SharedChange.Version(
                number: Int64(try row.number(1)), mark: UInt64(bitPattern: try row.integer(2)))
            guard let subject = SharedChange.Subject(text: try row.text(0)),
                let change = SharedChange(subject, version, until: Int64(try row.number(3)), content: try row.text(4))
            else { return }  // Other hosts tell it again.
            contents.changes.append(change)
        }
        try db.forEachRow("SELECT newest, forgotten, forgotten_mark FROM numbers") { row in
            contents.numbers = SharedChanges.Numbers(
                newest: Int64(try row.number(0)),
                forgotten: SharedChange.Version(
                    number: Int64(try row.number(1)), mark: UInt64(bitPattern: try row.integer(2))))
        }
        return contents
    }

    /// - Parameters:
    ///   - versions: the texts of limits; nil: as they were.
    ///   - used: what was used of a lane's pool, all of it.
    package func save(
        _ unsaved: SharedLedger.Unsaved, versions: [String]?, used: (Lane) -> [SlotCounts.Slot]
    ) throws(StoreError) {
        do {
            try queue.write { db in
                if let state = unsaved.state { try Self.save(state, db) }
                try log.write(unsaved.pools, used, db)
                if let changes = unsaved.changes { try Self.save(changes, db) }
                guard let versions else { return }
                try db.execute(sql: "DELETE FROM limits")
                for text in versions { try db.execute(sql: "INSERT INTO limits VALUES (?)", arguments: [text]) }
            }
        } catch {
            throw StoreError("can't write to \(path): \(error.cause)")
        }
        log.committed(unsaved.pools)
    }

    private static func save(_ state: KeptState.Saved, _ db: Database) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO state VALUES (0, ?, ?, ?, ?, ?, ?)",
            arguments: [
                Int64(bitPattern: state.mark), state.epoch, state.epochID, state.connection, state.settled,
                state.pending.joined(separator: "\n"),
            ])
    }

    private static func save(_ changes: SharedChanges.Unsaved, _ db: Database) throws {
        let numbers = changes.numbers
        try db.execute(
            sql: "INSERT OR REPLACE INTO numbers VALUES (0, ?, ?, ?)",
            arguments: [numbers.newest, numbers.forgotten.number, Int64(bitPattern: numbers.forgotten.mark)])
        for change in changes.changes {
            try db.cachedStatement(sql: "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?)").execute(arguments: [
                change.subject.text, change.version.number, Int64(bitPattern: change.version.mark), change.until,
                change.content,
            ])
        }
        for subject in changes.removed {
            try db.cachedStatement(sql: "DELETE FROM changes WHERE subject = ?").execute(arguments: [subject.text])
        }
    }
}
