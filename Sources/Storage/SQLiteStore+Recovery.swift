// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
internal import GRDBSQLite
package import Limits

/// Opening the files, and reading what an earlier run has left.
extension SQLiteStore {
    package func open() throws(StoreError) -> StoredState {
        try acquireLock()
        let stored = try openLedger()
        limits = stored.limits
        var lastBatch: [UInt8]?
        var journalKey: SipHash.Key?
        for number in segmentNumbers() {
            lastSegmentNumber = number
            let path = segmentPath(number)
            guard let read = try readable(path, { try JournalSegment.contents(ofSegmentAt: $0) }) else { continue }
            guard let contents = read else {
                JournalSegment.remove(path)
                continue
            }
            journalKey = contents.hashKey
            lastBatch = contents.lastBatch ?? lastBatch
            if limits.isEmpty { limits = contents.limits }
        }
        hashKey =
            stored.hashKey ?? journalKey ?? SipHash.Key(low: .random(in: 0...(.max)), high: .random(in: 0...(.max)))
        if stored.hashKey == nil { try initialize() }
        return StoredState(hashKey: hashKey, lastBatch: lastBatch, limits: limits)
    }

    /// Writes the hash key and the limits to a new `ledger.sqlite`.
    private func initialize() throws(StoreError) {
        try describing("write to") { [hashKey, limits] in
            try background.write { db in
                try db.execute(
                    sql: "INSERT INTO meta (id, hash_low, hash_high) VALUES (1, ?, ?)",
                    arguments: [Int64(bitPattern: hashKey.low), Int64(bitPattern: hashKey.high)])
                for limit in limits { try limit.save(in: db) }
            }
        }
    }

    package func recover(into sink: any RecoverySink) throws(StoreError) {
        do {
            try background.read { db in
                try forEachAccount(in: db) { account in
                    do { try sink.recover(account: account) } catch {
                        notice("account \(account.id) in \(path) can't be read, and its counts start at zero: \(error)")
                    }
                }
                try recoverTransactions(in: db, into: sink)
            }
        } catch {
            throw StoreError("can't read \(path): \(error)")
        }
        for number in segmentNumbers() {
            _ = try readable(segmentPath(number)) { segment in
                try JournalSegment.forEachBatch(ofSegmentAt: segment) { sequence, content in
                    try sink.recover(batch: content, sequence: sequence)
                }
            }
        }
    }

    private func recoverTransactions(in db: Database, into sink: any RecoverySink) throws {
        let parts = try Row.fetchCursor(
            db, sql: "SELECT sequence, content FROM transactions ORDER BY sequence, part")
        while let row = try parts.next() {
            let content = try row.bytes(at: 1)
            do {
                try content.withUnsafeBytes { bytes in
                    try sink.recover(transactions: bytes, sequence: UInt64(bitPattern: row[0]))
                }
            } catch let damage as JournalDamage {
                notice(
                    "mail transactions in \(path) can't be read (\(damage)); "
                        + "recipients of open transactions may be counted twice")
            }
        }
    }

    /// Visits all rows by rising ids. Steps the statement itself: there may be millions of rows.
    private func forEachAccount(in db: Database, _ body: (AccountRow) -> Void) throws {
        let statement = try db.makeStatement(
            sql: "SELECT id, limit_id, key, sequence, content FROM accounts ORDER BY id")
        try withExtendedLifetime(statement) {
            let row = statement.sqliteStatement
            while case let code = sqlite3_step(row), code != SQLITE_DONE {
                guard code == SQLITE_ROW else {
                    throw DatabaseError(resultCode: ResultCode(rawValue: code), message: db.lastErrorMessage)
                }
                body(
                    AccountRow(
                        id: row.number(0), limit: row.number(1), key: row.bytes(2), sequence: row.number(3),
                        content: row.bytes(4)))
            }
        }
    }

    /// Two services with one ledger would each count half of the mail.
    private func acquireLock() throws(StoreError) {
        guard lock < 0 else { return }
        let descriptor = Glibc.open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            throw StoreError("can't create \(path).lock: \(String(cString: strerror(errno)))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw StoreError("another weir serve is using \(path)")
        }
        lock = descriptor
    }

    /// Opens and checks `ledger.sqlite`. If it is damaged, renames it and creates a new one.
    private func openLedger() throws(StoreError) -> (hashKey: SipHash.Key?, limits: [StoredLimit]) {
        do {
            return try background.open()
        } catch let error where Self.isDamage(error) {
            let aside = try setAside(path)
            notice(
                "\(path) is damaged (\(error)); it was set aside as \(aside), "
                    + "and only the counts in the journal are left")
            return try describing("open") { try background.open() }
        } catch {
            throw StoreError("can't open \(path): \(error)")
        }
    }

    /// Reads a segment. If it is damaged, renames it.
    ///
    /// - Returns: the result of `body`; nil if the segment is damaged.
    /// - Throws: if the segment can't be read for any other reason (permissions, a lock, the disk). It is left as it
    ///   is.
    private func readable<T>(_ segment: String, _ body: (String) throws -> T) throws(StoreError) -> T? {
        do {
            return try body(segment)
        } catch let error where Self.isDamage(error) {
            let aside = try setAside(segment)
            notice(
                "\(segment) is damaged (\(error)); it was set aside as \(aside), "
                    + "and the counts since the last checkpoint are lost"
            )
            return nil
        } catch {
            throw StoreError("can't read \(segment): \(error)")
        }
    }

    /// Whether an error says that a file holds what no version of Weir or SQLite writes.
    private static func isDamage(_ error: any Error) -> Bool {
        if error is JournalDamage { return true }
        let code = (error as? DatabaseError)?.resultCode.primaryResultCode
        return code == .SQLITE_CORRUPT || code == .SQLITE_NOTADB
    }

    /// Renames a damaged file, and the files that belong to it.
    ///
    /// - Returns: the new path.
    private func setAside(_ file: String) throws(StoreError) -> String {
        let stamp = Int(Date().timeIntervalSince1970)
        let aside = "\(file).damaged-\(stamp)"
        guard rename(file, aside) == 0 else {
            throw StoreError("can't set \(file) aside: \(String(cString: strerror(errno)))")
        }
        for suffix in ["-wal", "-shm"] { rename(file + suffix, aside + suffix) }
        return aside
    }
}

extension Row {
    fileprivate func bytes(at index: Int) throws -> [UInt8] {
        try withUnsafeData(atIndex: index) { data in data.map(Array.init) ?? [] }
    }
}

/// The columns of a statement's current row.
extension SQLiteStatement {
    fileprivate func number(_ column: Int32) -> UInt64 {
        UInt64(bitPattern: sqlite3_column_int64(self, column))
    }

    fileprivate func bytes(_ column: Int32) -> [UInt8] {
        // The address first: SQLite may convert the value for it, which changes its size.
        let start = sqlite3_column_blob(self, column)
        return Array(UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(self, column))))
    }
}
