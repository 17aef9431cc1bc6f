// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
internal import GRDBSQLite

/// Copies the rows that can still be read of a damaged `ledger.sqlite` into a new one.
///
/// Each table is read from its first row up to the damage, then from its last row down to it. The damaged file is not
/// changed.
struct LedgerRescue {
    private struct Table {
        let name: String
        let columns: String
        let order: [String]
        /// Holds for the rows that a store writes.
        let isValid: String
    }

    private static let tables = [
        Table(
            name: "meta", columns: "id, hash_low, hash_high", order: ["id"],
            isValid: "typeof(hash_low) = 'integer' AND typeof(hash_high) = 'integer'"),
        Table(
            name: "limits", columns: "id, name, signature", order: ["id"],
            isValid: "id > 0 AND id <= 1 << 62 AND typeof(name) = 'text' AND typeof(signature) = 'text'"),
        Table(
            name: "accounts", columns: "id, limit_id, key, sequence, content", order: ["id"],
            isValid: """
                id > 0 AND typeof(limit_id) = 'integer' AND typeof(key) = 'blob' AND typeof(sequence) = 'integer'
                AND typeof(content) = 'blob'
                """),
        Table(
            name: "transactions", columns: "checkpoint, part, sequence, content", order: ["checkpoint", "part"],
            isValid: """
                typeof(checkpoint) = 'integer' AND checkpoint BETWEEN 0 AND 1 << 53
                AND typeof(part) = 'integer' AND part BETWEEN 0 AND 1 << 53
                AND typeof(sequence) = 'integer' AND sequence BETWEEN 0 AND 1 << 62 AND typeof(content) = 'blob'
                """),
        Table(
            name: "audit", columns: "id, time, user, action, key, details, reason, limits", order: ["id"],
            isValid: "typeof(time) = 'integer' AND typeof(user) = 'text' AND typeof(key) = 'text'"),
    ]

    private let damaged: String
    private let database: DatabaseQueue

    /// - Parameters:
    ///   - damaged: the path of the damaged file.
    ///   - database: a new file with the tables of a ledger.
    init(of damaged: String, into database: DatabaseQueue) {
        self.damaged = damaged
        self.database = database
    }

    /// - Returns: how many accounts were copied.
    /// - Throws: if the new file can't be written.
    func run() throws -> Int {
        // Also with the schema of the new file, in case the page that holds the schema is at fault.
        if try !copyTables(of: damaged) { try copyWithNewSchema() }
        return try database.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM accounts") ?? 0 }
    }

    private func copyWithNewSchema() throws {
        let copy = damaged + ".copy"
        defer { for suffix in ["", "-wal", "-shm"] { unlink(copy + suffix) } }
        try database.writeWithoutTransaction { _ = try $0.checkpoint(.truncate) }
        let size = try database.read { try Int.fetchOne($0, sql: "PRAGMA page_size") ?? 4096 }
        guard var page = FileManager.default.contents(atPath: database.path)?.prefix(size), page.count == size,
            var bytes = FileManager.default.contents(atPath: damaged), bytes.count > size
        else { return }
        // Different from the counter at 24: the number of pages in the header is not valid then.
        page[92] ^= 0xff
        bytes.replaceSubrange(0..<size, with: page)
        try bytes.write(to: URL(fileURLWithPath: copy))
        _ = try copyTables(of: copy)
    }

    /// - Returns: false if there is a table that can't be read at all.
    private func copyTables(of path: String) throws -> Bool {
        var source: OpaquePointer?
        defer { sqlite3_close_v2(source) }
        guard sqlite3_open_v2(path, &source, SQLITE_OPEN_READONLY, nil) == SQLITE_OK, let source else { return false }
        // Otherwise one entry of the schema that is damaged makes all tables unreadable.
        sqlite3_exec(source, "PRAGMA writable_schema = ON", nil, nil, nil)
        var isComplete = true
        try database.write { db in
            for table in Self.tables { isComplete = try copy(table, from: source, to: db) && isComplete }
        }
        return isComplete
    }

    /// - Returns: false if the table can't be read at all.
    private func copy(_ table: Table, from source: OpaquePointer, to db: Database) throws -> Bool {
        let places = table.columns.split(separator: ",").map { _ in "?" }.joined(separator: ", ")
        let insert = try db.makeStatement(
            sql: "INSERT OR IGNORE INTO \(table.name) (\(table.columns)) VALUES (\(places))")
        for direction in ["ASC", "DESC"] {
            let order = table.order.map { "\($0) \(direction)" }.joined(separator: ", ")
            var select: OpaquePointer?
            let code = sqlite3_prepare_v2(
                source, "SELECT \(table.columns) FROM \(table.name) WHERE \(table.isValid) ORDER BY \(order)", -1,
                &select, nil)
            defer { sqlite3_finalize(select) }
            guard code == SQLITE_OK, let select else { return false }
            if try copyRows(of: select, by: insert, in: db) { return true }
        }
        return true
    }

    /// - Returns: whether all rows could be read.
    private func copyRows(of select: OpaquePointer, by insert: Statement, in db: Database) throws -> Bool {
        while true {
            switch sqlite3_step(select) {
            case SQLITE_ROW:
                let statement = insert.sqliteStatement
                for column in 0..<sqlite3_column_count(select) {
                    sqlite3_bind_value(statement, column + 1, sqlite3_column_value(select, column))
                }
                defer { sqlite3_reset(statement) }
                let code = sqlite3_step(statement)
                guard code == SQLITE_DONE else {
                    throw DatabaseError(resultCode: ResultCode(rawValue: code), message: db.lastErrorMessage)
                }
            case SQLITE_DONE: return true
            default: return false
            }
        }
    }
}
