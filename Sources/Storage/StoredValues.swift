// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import GRDB
internal import GRDBSQLite
internal import Limits

/// A file of the store holds what no version of Weir writes: another schema, or a value of the wrong type or range.
struct StoreDamage: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Reading rows. GRDB's `row[...]` traps where a value is NULL or of another type, and damaged files hold such values.
extension Database {
    /// Steps through the rows of a query. `body` reads the columns of the present one.
    func forEachRow(_ sql: String, _ body: (SQLiteStatement) throws -> Void) throws {
        let statement = try makeStatement(sql: sql)
        try withExtendedLifetime(statement) {
            let row = statement.sqliteStatement
            while case let code = sqlite3_step(row), code != SQLITE_DONE {
                guard code == SQLITE_ROW else {
                    throw DatabaseError(resultCode: ResultCode(rawValue: code), message: lastErrorMessage)
                }
                try body(row)
            }
        }
    }
}

/// The columns of a statement's present row.
extension SQLiteStatement {
    func integer(_ column: Int32) throws(StoreDamage) -> Int64 {
        guard sqlite3_column_type(self, column) == SQLITE_INTEGER else { throw damage(column) }
        return sqlite3_column_int64(self, column)
    }

    /// An id or a sequence number: counted up from 0.
    func number(_ column: Int32) throws(StoreDamage) -> UInt64 {
        let value = try integer(column)
        guard 0...1 << 62 ~= value else { throw damage(column) }
        return UInt64(value)
    }

    func text(_ column: Int32) throws(StoreDamage) -> String {
        guard sqlite3_column_type(self, column) == SQLITE_TEXT, let start = sqlite3_column_text(self, column) else {
            throw damage(column)
        }
        return String(cString: start)
    }

    /// The bytes of a blob, valid until the next step.
    func withBytes<T>(_ column: Int32, _ body: (UnsafeRawBufferPointer) throws -> T) throws -> T {
        guard sqlite3_column_type(self, column) == SQLITE_BLOB else { throw damage(column) }
        let start = sqlite3_column_blob(self, column)
        return try body(UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(self, column))))
    }

    func bytes(_ column: Int32) throws -> [UInt8] { try withBytes(column, Array.init) }

    private func damage(_ column: Int32) -> StoreDamage {
        let name = sqlite3_column_name(self, column).map(String.init(cString:)) ?? "a column"
        return StoreDamage("\(name) has a value of another type or range")
    }
}

extension SipHash.Key {
    /// - Parameter columns: both halves of the key, from column 0 on.
    init(columns row: SQLiteStatement) throws(StoreDamage) {
        self.init(low: UInt64(bitPattern: try row.integer(0)), high: UInt64(bitPattern: try row.integer(1)))
    }
}

extension StoredLimit {
    /// - Parameter repeatsNames: whether a later limit may have the name of one before. A segment has both.
    static func all(in db: Database, repeatsNames: Bool = false) throws -> [StoredLimit] {
        var limits: [StoredLimit] = []
        var (ids, names): (Set<UInt64>, Set<String>) = ([], [])
        try db.forEachRow("SELECT id, name, signature FROM limits ORDER BY id") { row in
            let limit = StoredLimit(id: try row.number(0), name: try row.text(1), signature: try row.text(2))
            guard ids.insert(limit.id).inserted, names.insert(limit.name).inserted || repeatsNames else {
                throw StoreDamage("limit \(limit.id) is stored twice")
            }
            limits.append(limit)
        }
        return limits
    }
}

extension Error {
    /// What is wrong, for an operator: without SQLite's number of the error and the statement.
    var cause: String { (self as? DatabaseError)?.message ?? "\(self)" }

    /// The same, with what keeps SQLite from the files of the database at `path`.
    func cause(at path: String) -> String {
        switch (self as? DatabaseError)?.resultCode.primaryResultCode {
        case .SQLITE_CANTOPEN, .SQLITE_READONLY, .SQLITE_FULL, .SQLITE_IOERR, .SQLITE_PERM:
            cause + (StoreObstacle.found(at: path).map { " (\($0))" } ?? "")
        default: cause
        }
    }
}

/// Whether an error says that the file itself is at fault, and not its permissions, the disk, a lock or the memory.
///
/// A statement of the store that SQLite can't compile or run (SQLITE_ERROR, a constraint, a type) shows another schema
/// or other rows than the store has written.
func isDamage(_ error: any Error, of path: String) -> Bool {
    if error is JournalDamage || error is StoreDamage || error is RowDecodingError { return true }
    guard let code = (error as? DatabaseError)?.resultCode.primaryResultCode else { return false }
    switch code {
    case .SQLITE_CORRUPT, .SQLITE_NOTADB, .SQLITE_ERROR, .SQLITE_CONSTRAINT, .SQLITE_MISMATCH, .SQLITE_SCHEMA,
        .SQLITE_TOOBIG, .SQLITE_RANGE, .SQLITE_FORMAT, .SQLITE_EMPTY, .SQLITE_INTERNAL:
        return true
    // The number of the file format may say that the file must not be written to.
    case .SQLITE_READONLY:
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        return access(path, W_OK) == 0 && access(folder, W_OK) == 0
    default:
        return false
    }
}
