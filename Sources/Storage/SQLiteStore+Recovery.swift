// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import GRDB
package import Limits

/// Opening the files, and reading the data of an earlier run.
extension SQLiteStore {
    package func open() throws(StoreError) -> StoredState {
        try acquireLock()
        let stored = try openLedger()
        try openSegments()
        lastSegmentNumber = max(lastSegmentNumber, stored.lastSegment)
        if stored.hashKey == nil, let first = segments.first, first.number > 1 {
            notice(
                "\(path) is new, but the journal begins with \(segmentPath(first.number)): earlier counts are lost")
        }
        unfinishedSegment = nil
        if let last = segments.last, last.number == lastSegmentNumber, last.hashKey != nil,
            let completed = stored.completed, completed < last.number
        {
            unfinishedSegment = last.number
        }
        hashKey = chooseHashKey(stored.hashKey)
        try setAsideForeignSegments()
        if durability == .power { try syncSegments() }
        limits = merge(stored.limits)
        if hashKey != stored.hashKey {
            try describing("write to") { [hashKey, limits] in try background.initialize(hashKey, limits) }
        } else if limits != stored.limits {
            // The segments have them. The next checkpoint writes them: another process may lock the file for long.
            background.register(limits)
        }
        let lastBatch = segments.last { $0.lastBatch != nil }?.lastBatch
        return StoredState(hashKey: hashKey, lastBatch: lastBatch, limits: limits)
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
        } catch let error where isDamage(error, of: path) {
            // The ledger has read some rows by now, and can't tell which. It must be opened anew.
            try replaceLedger(because: error)
            throw StoreError("\(path) was damaged")
        } catch {
            throw StoreError("can't read \(path): \(error.cause(at: path))")
        }
        for segment in segments { try recover(segment, into: sink) }
    }

    private func recover(_ segment: JournalSegment.Contents, into sink: any RecoverySink) throws(StoreError) {
        let file = segmentPath(segment.number)
        do {
            let error = try JournalSegment.forEachBatch(ofSegmentAt: file, sink.recover(batch:sequence:))
            guard let error else { return }
            background.noteDamage(ofSegment: segment.number)
            if unfinishedSegment == segment.number { unfinishedSegment = nil }
            notice(
                "\(file) is damaged (\(error)); the counts in batches that can't be read are lost; the next "
                    + "checkpoint sets the file aside")
        } catch {
            throw StoreError("can't read \(file): \(error.cause(at: file))")
        }
    }

    private func recoverTransactions(in db: Database, into sink: any RecoverySink) throws {
        try CheckpointWriter.forEachTransactionsPart(in: db) { sequence, content in
            do throws(JournalDamage) {
                try sink.recover(transactions: content, sequence: sequence)
            } catch {
                notice(
                    "mail transactions in \(path) can't be read (\(error)); "
                        + "recipients of open transactions may be counted twice")
            }
        }
    }

    /// Visits all rows by rising ids, and skips those that no version writes.
    private func forEachAccount(in db: Database, _ body: (AccountRow) -> Void) throws {
        var damaged = 0
        try db.forEachRow("SELECT id, limit_id, key, sequence, content FROM accounts ORDER BY id") { row in
            do {
                body(
                    AccountRow(
                        id: try row.number(0), limit: try row.number(1), key: try row.bytes(2),
                        sequence: try row.number(3), content: try row.bytes(4)))
            } catch is StoreDamage {
                damaged += 1
            }
        }
        if damaged > 0 { notice("\(damaged) accounts in \(path) can't be read, and their counts start at zero") }
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

    // MARK: ledger.sqlite

    /// Opens and checks `ledger.sqlite`. If it is damaged, renames it, and continues with a new one that has what can
    /// still be read.
    private func openLedger() throws(StoreError) -> CheckpointWriter.Head {
        guard !isForeignDatabase(at: path, own: CheckpointWriter.tableNames) else {
            throw StoreError("\(path) is a database of another program; name another file in ledger.store")
        }
        // A start was killed while it replaced a damaged file.
        if access(path, F_OK) != 0 { rename(rescuePath, path) }
        try setAsideLogOfOtherVersion()
        do {
            return try background.open()
        } catch let error where isDamage(error, of: path) {
            try replaceLedger(because: error)
        } catch {
            throw StoreError("can't open \(path): \(error.cause(at: path))")
        }
        do {
            return try background.open()
        } catch let error where isDamage(error, of: path) {
            // Not even the copy of the readable rows can be used.
            let aside = try settingAside(path)
            notice("\(path) can't be used (\(error)); it was set aside as \(aside), and only the journal is left")
            return try describing("open") { try background.open() }
        } catch {
            throw StoreError("can't open \(path): \(error.cause(at: path))")
        }
    }

    /// The file without its log has what SQLite has copied last. The rest is in the journal.
    private func setAsideLogOfOtherVersion() throws(StoreError) {
        let log = path + "-wal"
        let mapped = try? Data(contentsOf: URL(fileURLWithPath: log), options: .alwaysMapped)
        guard let mapped, WriteAheadLog.hasOtherVersion(mapped) else { return }
        let aside = asidePath(of: log)
        guard rename(log, aside) == 0 else {
            throw StoreError("can't set \(log) aside: \(String(cString: strerror(errno)))")
        }
        unlink(path + "-shm")
        notice("\(log) is damaged (its version is not SQLite's); it was set aside as \(aside)")
    }

    private var rescuePath: String { path + ".rescued" }

    private func replaceLedger(because error: any Error) throws(StoreError) {
        JournalSegment.remove(rescuePath)
        let accounts = try describing("rescue") { try background.rescue(to: rescuePath) }
        let aside = try settingAside(path)
        guard rename(rescuePath, path) == 0 else {
            throw StoreError("can't rename \(rescuePath): \(String(cString: strerror(errno)))")
        }
        notice(
            "\(path) is damaged (\(error)); it was set aside as \(aside). \(accounts) of its keys could be read, "
                + "and the journal has the counts since the last checkpoint")
    }

    private func settingAside(_ file: String) throws(StoreError) -> String {
        guard let aside = try? setAside(file) else {
            throw StoreError("can't set \(file) aside: \(String(cString: strerror(errno)))")
        }
        return aside
    }

    // MARK: Segments

    /// Reads the heads of the segments, and puts them in the order of their batches: their names may be wrong.
    private func openSegments() throws(StoreError) {
        segments = []
        for number in segmentNumbers() {
            lastSegmentNumber = number
            let path = segmentPath(number)
            do {
                try mendLog(ofSegmentAt: path)
                if let contents = try JournalSegment.contents(ofSegmentAt: path, number: number) {
                    segments.append(contents)
                } else {
                    JournalSegment.remove(path)
                }
            } catch let error where isDamage(error, of: path) {
                let aside = try settingAside(path)
                notice("\(path) is damaged (\(error)); it was set aside as \(aside), and the counts in it are lost")
            } catch {
                // Permissions, a lock, the disk: the file stays.
                throw StoreError("can't read \(path): \(error.cause(at: path))")
            }
        }
        // By their names if a first batch can't be read.
        if segments.allSatisfy({ $0.first != nil }) { segments.sort { ($0.first ?? 0) < ($1.first ?? 0) } }
    }

    /// Makes durable what the last run has written. If it was killed before it synced a batch, the batch counts all the
    /// same, and a repeated request is answered without another one.
    private func syncSegments() throws(StoreError) {
        for segment in segments {
            for file in ["", "-wal"].map({ segmentPath(segment.number) + $0 }) where access(file, F_OK) == 0 {
                try describing("sync \(file) of") { try sync(file) }
            }
        }
        let directory = URL(fileURLWithPath: path).deletingLastPathComponent().path
        try describing("sync the directory of") { try sync(directory) }
    }

    /// Repairs a segment's write-ahead log, at whose first damaged frame SQLite would stop reading.
    private func mendLog(ofSegmentAt segment: String) throws {
        let log = segment + "-wal"
        let mapped = try? Data(contentsOf: URL(fileURLWithPath: log), options: .alwaysMapped)
        guard let bytes = mapped, !bytes.isEmpty else { return }
        if let loss = WriteAheadLog.loss(in: bytes, pageSize: JournalSegment.pageSize) {
            try remove(loss, from: log, of: segment)
        }
        // SQLite deletes the log of an empty file, and the log has all pages of a segment.
        if FileManager.default.contents(atPath: segment)?.isEmpty == true,
            WriteAheadLog.hasFrames(bytes, pageSize: JournalSegment.pageSize)
        {
            truncate(segment, off_t(JournalSegment.pageSize))
        }
    }

    /// Takes damaged frames out of a segment's write-ahead log, if more batches can be read without them. Keeps a copy
    /// of the files as they were.
    private func remove(_ loss: WriteAheadLog.Loss, from log: String, of segment: String) throws {
        let mended = segment + ".mended"
        try loss.mended.write(to: URL(fileURLWithPath: mended))
        // Otherwise a loss of power may leave an empty file under the log's name.
        try sync(mended)
        let aside = try keepCopy(of: segment, andLog: log)
        let before = readableBatches(ofSegmentAt: segment)
        guard rename(mended, log) == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
        // The repaired log may lack a page to which others refer, and with it batches from before the damage.
        if readableBatches(ofSegmentAt: segment) < before {
            guard link(aside + "-wal", mended) == 0, rename(mended, log) == 0 else {
                throw POSIXError(.init(rawValue: errno) ?? .EIO)
            }
            return notice(
                "\(log) is damaged: SQLite ignores its last \(loss.ignored) of \(loss.frames) frames, and the batches "
                    + "in them are lost; the original is kept as \(aside)-wal")
        }
        notice(
            "\(log) is damaged: without repair SQLite ignores its last \(loss.ignored) of \(loss.frames) frames. "
                + "\(loss.damaged) frames (\(loss.damagedBytes) bytes) can't be read, the others were kept, and "
                + "the original is kept as \(aside)-wal")
    }

    /// The journal's key where the two differ by damage only: the journal has checksums.
    private func chooseHashKey(_ stored: SipHash.Key?) -> SipHash.Key {
        guard let journal = segments.compactMap(\.hashKey).last else {
            return stored ?? SipHash.Key(low: .random(in: 0...(.max)), high: .random(in: 0...(.max)))
        }
        guard let stored, !journal.isNear(stored) else { return journal }
        return stored
    }

    /// Segments with another key belong to another ledger: their ids mean other accounts.
    private func setAsideForeignSegments() throws(StoreError) {
        let foreign = segments.filter { !($0.hashKey?.isNear(hashKey) ?? true) }
        for segment in foreign {
            let file = segmentPath(segment.number)
            let aside = try settingAside(file)
            notice("\(file) belongs to another ledger than \(path); it was set aside as \(aside)")
        }
        if !foreign.isEmpty { unfinishedSegment = nil }
        segments.removeAll { segment in foreign.contains { $0.number == segment.number } }
    }

    /// The limits of `ledger.sqlite`, corrected by those of the journal, and with the newer ones of the journal.
    private func merge(_ stored: [StoredLimit]) -> [StoredLimit] {
        var byID = Dictionary(stored.map { ($0.id, $0) }) { $1 }
        let newest = stored.map(\.id).max() ?? 0
        for limit in segments.flatMap(\.limits) where byID[limit.id] != nil || limit.id > newest {
            byID[limit.id] = limit
        }
        let byName = Dictionary(byID.values.map { ($0.name, $0) }) { $0.id > $1.id ? $0 : $1 }
        return byName.values.sorted { $0.id < $1.id }
    }
}

extension SipHash.Key {
    /// Whether the keys are the same, but for a few bits that may be damaged. Two random keys differ in about 64.
    fileprivate func isNear(_ other: SipHash.Key) -> Bool {
        (low ^ other.low).nonzeroBitCount + (high ^ other.high).nonzeroBitCount <= 16
    }
}

/// fsync(2) of a file or a directory that this process has not opened otherwise: closing a descriptor ends all locks of
/// the process on the file.
private func sync(_ path: String) throws {
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
}

/// How many batches of a segment can be read.
private func readableBatches(ofSegmentAt path: String) -> Int {
    var count = 0
    _ = try? JournalSegment.forEachBatch(ofSegmentAt: path) { _, _ in count += 1 }
    return count
}

/// A name for a damaged file that no file has.
private func asidePath(of file: String) -> String {
    var stamp = Int(Date().timeIntervalSince1970)
    while access("\(file).damaged-\(stamp)", F_OK) == 0 { stamp += 1 }
    return "\(file).damaged-\(stamp)"
}

/// Keeps a copy of a database and another name for its write-ahead log, which is about to be replaced.
///
/// - Returns: the path of the copy.
private func keepCopy(of file: String, andLog log: String) throws -> String {
    let aside = asidePath(of: file)
    try FileManager.default.copyItem(atPath: file, toPath: aside)
    guard link(log, aside + "-wal") == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
    return aside
}

/// Renames a damaged file, and the files that belong to it.
///
/// - Returns: the new path.
func setAside(_ file: String) throws -> String {
    let aside = asidePath(of: file)
    guard rename(file, aside) == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
    rename(file + "-wal", aside + "-wal")
    unlink(file + "-shm")
    return aside
}
