// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
package import Limits
package import Sharing

/// Keeps what this host has to know of shared limits beside its counts: its epoch, its terms, and what it has used of
/// each pool. The file is `ledger.sqlite.shared`, and the lock of the ledger covers it.
///
/// The ledger writes here before its journal, and the answer leaves after both. If the service dies between the two,
/// units of a pool count without their charge: less is admitted, never more.
package final class SharedStore {
    package struct Contents: Sendable {
        package let state: KeptState.Saved?
        package let pools: [KeptState.Pool]
        package let versions: [String]
    }

    private let queue: DatabaseQueue
    private let path: String

    /// Opens the file, or makes it.
    package init(besides ledger: String, durability: Durability) throws(StoreError) {
        path = ledger + ".shared"
        do {
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
            queue = try DatabaseQueue(path: path, configuration: configuration)
            try queue.write { db in
                try db.execute(
                    sql: """
                        CREATE TABLE IF NOT EXISTS state (
                            id INTEGER PRIMARY KEY CHECK (id = 0), mark INTEGER NOT NULL, epoch INTEGER NOT NULL,
                            epoch_id TEXT NOT NULL, connection INTEGER NOT NULL, settled TEXT, pending TEXT NOT NULL);
                        CREATE TABLE IF NOT EXISTS pools (
                            key INTEGER NOT NULL, window INTEGER NOT NULL, slots TEXT NOT NULL,
                            PRIMARY KEY (key, window)) WITHOUT ROWID;
                        CREATE TABLE IF NOT EXISTS limits (text TEXT NOT NULL);
                        """)
            }
        } catch {
            throw StoreError("can't open \(path): \(error)")
        }
    }

    package func read() throws(StoreError) -> Contents {
        do {
            return try queue.read { db in
                let state = try Row.fetchOne(db, sql: "SELECT * FROM state").map { row in
                    KeptState.Saved(
                        mark: UInt64(bitPattern: row["mark"] as Int64), epoch: row["epoch"], epochID: row["epoch_id"],
                        connection: row["connection"], settled: row["settled"],
                        pending: (row["pending"] as String).split(separator: "\n").map(String.init))
                }
                let pools = try Row.fetchAll(db, sql: "SELECT * FROM pools").map { row in
                    KeptState.Pool(
                        lane: Lane(key: UInt64(bitPattern: row["key"] as Int64), window: row["window"]),
                        slots: Self.slots(row["slots"]))
                }
                let versions = try String.fetchAll(db, sql: "SELECT text FROM limits")
                return Contents(state: state, pools: pools, versions: versions)
            }
        } catch {
            throw StoreError("can't read \(path): \(error)")
        }
    }

    /// "slot=units slot=units", as in the engine.
    private static func slots(_ text: String) -> [SlotCounts.Slot] {
        text.split(separator: " ").compactMap { entry in
            let parts = entry.split(separator: "=").compactMap { Int64($0) }
            return parts.count == 2 ? SlotCounts.Slot(number: parts[0], units: parts[1]) : nil
        }
    }

    package func save(
        _ changes: (state: KeptState.Saved?, pools: [KeptState.Pool], versions: [String]?)
    ) throws(StoreError) {
        do {
            try queue.write { db in
                if let state = changes.state { try Self.save(state, db) }
                for pool in changes.pools { try Self.save(pool, db) }
                guard let versions = changes.versions else { return }
                try db.execute(sql: "DELETE FROM limits")
                for text in versions { try db.execute(sql: "INSERT INTO limits VALUES (?)", arguments: [text]) }
            }
        } catch {
            throw StoreError("can't write to \(path): \(error)")
        }
    }

    private static func save(_ state: KeptState.Saved, _ db: Database) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO state VALUES (0, ?, ?, ?, ?, ?, ?)",
            arguments: [
                Int64(bitPattern: state.mark), state.epoch, state.epochID, state.connection, state.settled,
                state.pending.joined(separator: "\n"),
            ])
    }

    private static func save(_ pool: KeptState.Pool, _ db: Database) throws {
        let key = Int64(bitPattern: pool.lane.key)
        if pool.slots.isEmpty {
            try db.cachedStatement(sql: "DELETE FROM pools WHERE key = ? AND window = ?")
                .execute(arguments: [key, pool.lane.window])
        } else {
            let slots = pool.slots.map { "\($0.number)=\($0.units)" }.joined(separator: " ")
            try db.cachedStatement(sql: "INSERT OR REPLACE INTO pools VALUES (?, ?, ?)")
                .execute(arguments: [key, pool.lane.window, slots])
        }
    }
}
