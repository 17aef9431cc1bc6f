// SPDX-License-Identifier: Apache-2.0
internal import GRDBSQLite
internal import Glibc

/// Whether a file is a database of another program: SQLite can read its tables, and they are not those of a ledger. One
/// name may be the same.
///
/// Such a file is no damaged ledger. Weir must neither write to it nor rename it. This reads only the file itself,
/// without its log, and leaves no other files beside it.
///
/// - Parameter own: names of the tables of a ledger.
func isForeignDatabase(at path: String, own: Set<String>) -> Bool {
    var status = stat()
    // To open a named pipe would take until somebody writes to it.
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
    var database: OpaquePointer?
    defer { sqlite3_close_v2(database) }
    let flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI
    guard sqlite3_open_v2("file:\(escaped(path))?immutable=1", &database, flags, nil) == SQLITE_OK else { return false }
    var select: OpaquePointer?
    defer { sqlite3_finalize(select) }
    // SQLite's own tables and the migrator's are in other databases, too. The migrator's is the first of a new ledger.
    let statement = """
        SELECT name FROM sqlite_master
        WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND name <> 'grdb_migrations'
        """
    guard sqlite3_prepare_v2(database, statement, -1, &select, nil) == SQLITE_OK else { return false }
    var names: Set<String> = []
    while true {
        switch sqlite3_step(select) {
        case SQLITE_ROW:
            guard let name = sqlite3_column_text(select, 0) else { continue }
            names.insert(String(cString: name))
        case SQLITE_DONE: return !names.isSubset(of: own) && names.intersection(own).count <= 1
        default: return false
        }
    }
}

/// The path as it stands in a URI.
private func escaped(_ path: String) -> String {
    path.replacing("%", with: "%25").replacing("?", with: "%3f").replacing("#", with: "%23")
}
