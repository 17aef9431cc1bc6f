// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Limits

extension AuditEntry {
    /// The most entries in the table. The oldest are deleted first.
    private static let mostKept = 100_000

    static let table = """
        CREATE TABLE IF NOT EXISTS audit (
            id INTEGER PRIMARY KEY, time INTEGER NOT NULL, user TEXT NOT NULL, action TEXT NOT NULL, key TEXT NOT NULL,
            details TEXT NOT NULL, reason TEXT NOT NULL, limits TEXT NOT NULL);
        """

    func save(in db: Database) throws {
        try db.execute(
            sql: "INSERT INTO audit (time, user, action, key, details, reason, limits) VALUES (?, ?, ?, ?, ?, ?, ?)",
            arguments: [time, user, action, key, details, reason, limits.joined(separator: " ")])
        try db.execute(sql: "DELETE FROM audit WHERE id <= ?", arguments: [db.lastInsertedRowID - Int64(Self.mostKept)])
    }

    /// The newest `most` entries, oldest first, without those that are damaged.
    static func newest(_ most: Int, in db: Database) throws -> [AuditEntry] {
        var entries: [AuditEntry] = []
        try db.forEachRow(
            "SELECT time, user, action, key, details, reason, limits FROM audit ORDER BY id DESC LIMIT \(most)"
        ) { row in
            do throws(StoreDamage) { entries.append(try AuditEntry(columns: row)) } catch {}
        }
        return entries.reversed()
    }

    private init(columns row: SQLiteStatement) throws(StoreDamage) {
        self.init(
            time: try row.integer(0), user: try row.text(1), action: try row.text(2), key: try row.text(3),
            details: try row.text(4), reason: try row.text(5),
            limits: try row.text(6).split(separator: " ").map(String.init))
    }
}
