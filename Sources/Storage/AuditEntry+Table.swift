// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Limits

extension AuditEntry {
    /// The most entries in the table. The oldest are deleted first.
    private static let mostKept = 100_000

    static let table = """
        CREATE TABLE audit (
            id INTEGER PRIMARY KEY, time INTEGER NOT NULL, user TEXT NOT NULL, action TEXT NOT NULL, key TEXT NOT NULL,
            details TEXT NOT NULL, reason TEXT NOT NULL, limits TEXT NOT NULL);
        """

    func save(in db: Database) throws {
        try db.execute(
            sql: "INSERT INTO audit (time, user, action, key, details, reason, limits) VALUES (?, ?, ?, ?, ?, ?, ?)",
            arguments: [time, user, action, key, details, reason, limits.joined(separator: " ")])
        try db.execute(sql: "DELETE FROM audit WHERE id <= ?", arguments: [db.lastInsertedRowID - Int64(Self.mostKept)])
    }

    /// The newest `most` entries, oldest first.
    static func newest(_ most: Int, in db: Database) throws -> [AuditEntry] {
        let rows = try Row.fetchAll(
            db, sql: "SELECT time, user, action, key, details, reason, limits FROM audit ORDER BY id DESC LIMIT ?",
            arguments: [most])
        return rows.reversed().map { row in
            let limits: String = row[6]
            return AuditEntry(
                time: row[0], user: row[1], action: row[2], key: row[3], details: row[4], reason: row[5],
                limits: limits.split(separator: " ").map(String.init))
        }
    }
}
