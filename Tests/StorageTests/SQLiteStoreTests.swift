// SPDX-License-Identifier: Apache-2.0
import Foundation
import GRDB
import Limits
import Storage
import Synchronization
import Testing

/// The SQLite store's own behaviour: its files, and damage to them. `SQLiteStoreConformanceTests` has the contract of
/// all stores.
@Suite struct SQLiteStoreTests {
    private final class Folder: Sendable {
        let path = NSTemporaryDirectory() + "weir-store-\(UUID().uuidString)"
        let notices = Mutex<[String]>([])
        let ledger: String

        init(name: String = "ledger.sqlite") throws {
            ledger = path + "/" + name
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func store(_ durability: Durability = .commit) -> SQLiteStore {
            SQLiteStore(path: ledger, durability: durability) { [self] notice in notices.withLock { $0.append(notice) }
            }
        }

        var files: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? [] }
    }

    private final class Sink: RecoverySink {
        var rows: [AccountRow] = []
        var transactions: [[UInt8]] = []
        var batches: [UInt64: [UInt8]] = [:]
        func recover(account row: AccountRow) { rows.append(row) }
        func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) {
            transactions.append(Array(content))
        }
        func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) { batches[sequence] = Array(content) }
    }

    private func append(_ content: [UInt8], _ sequence: UInt64, to store: SQLiteStore) throws {
        try content.withUnsafeBytes { bytes throws in try store.append(bytes, sequence: sequence) }
    }

    /// Begins a checkpoint. The first batch of the new segment is one zero byte.
    private func begin(_ sequence: UInt64, of store: SQLiteStore) throws {
        try [0 as UInt8].withUnsafeBytes { bytes throws in try store.beginCheckpoint(with: bytes, sequence: sequence) }
    }

    private func finish(_ store: SQLiteStore) async throws {
        while !store.save([.end]) { try await Task.sleep(for: .milliseconds(1)) }
        while store.checkpointProgress == .running { try await Task.sleep(for: .milliseconds(1)) }
        #expect(store.checkpointProgress == .done)
    }

    @Test(arguments: Durability.allCases)
    func appendedBatchesComeBack(durability: Durability) throws {
        let folder = try Folder()
        var key: SipHash.Key?
        do {
            let store = folder.store(durability)
            key = try store.open().hashKey
            store.register([StoredLimit(id: 1, name: "per-user", signature: "recipients")])
            try begin(0, of: store)
            for number in 1...100 as ClosedRange<UInt64> { try append([UInt8(number)], number, to: store) }
            try store.flush()
        }
        let store = folder.store(durability)
        let recovery = try store.open()
        #expect(recovery.hashKey == key)
        #expect(recovery.limits.map(\.name) == ["per-user"])
        #expect(recovery.lastBatch == [100])
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.batches.count == 101)
    }

    /// Entries of the audit trail wait for a disk that hangs, but not without end.
    @Test func auditEntriesThatWaitAreBounded() throws {
        let folder = try Folder()
        let store = folder.store(.relaxed)
        _ = try store.open()
        try DatabaseQueue(path: folder.ledger).inDatabase { database in
            try database.execute(sql: "BEGIN IMMEDIATE")
            for number in 1...11_000 {
                store.record(
                    AuditEntry(
                        time: 0, user: "alice", action: "reset", key: "\(number)", details: "", reason: "", limits: []))
            }
            #expect(folder.notices.withLock { $0.contains { $0.contains("10000 entries wait for the disk") } })
            try database.execute(sql: "ROLLBACK")
        }
        // The writer tries again to get the lock, and the entries come then.
        for _ in 0..<100_000 where try store.recentAudit(1).isEmpty { Thread.sleep(forTimeInterval: 0.001) }
        #expect(try store.recentAudit(1).count == 1)
    }

    @Test func aCheckpointTruncatesTheJournal() async throws {
        let folder = try Folder()
        let row = AccountRow(id: 3, limit: 1, key: Array("user".utf8), sequence: 2, content: [1, 2, 3])
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(0, of: store)
            try await finish(store)
            try append([1], 1, to: store)
            try begin(2, of: store)
            try append([3], 3, to: store)
            #expect(store.save([.accounts([row, AccountRow(id: 4, limit: 1, key: [1], sequence: 2, content: [])])]))
            #expect(store.save([.removed([4])]))
            #expect(store.save([.transactions(sequence: 2, content: [9])]))
            try await finish(store)
        }
        let store = folder.store()
        _ = try store.open()
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.rows.map(\.id) == [3])
        #expect(sink.rows.first?.content == row.content)
        #expect(sink.transactions == [[9]])
        #expect(sink.batches == [2: [0], 3: [3]])
        #expect(folder.files.filter { $0.contains("segment-1") }.isEmpty)
    }

    @Test func aDamagedLedgerIsSetAside() async throws {
        let folder = try Folder()
        do {
            let store = folder.store()
            _ = try store.open()
            store.register([StoredLimit(id: 1, name: "per-user", signature: "recipients")])
            try begin(0, of: store)
            try append([1], 1, to: store)
            try await finish(store)
        }
        let rubbish = Data((0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 7) })
        try rubbish.write(to: URL(fileURLWithPath: folder.ledger))
        let store = folder.store()
        let recovery = try store.open()
        #expect(recovery.limits.map(\.name) == ["per-user"], "the journal still knows")
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.batches == [0: [0], 1: [1]])
        let aside = try #require(
            folder.files.first { $0.contains(".damaged-") && !$0.hasSuffix("-wal") && !$0.hasSuffix("-shm") })
        #expect(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/" + aside)) == rubbish)
        #expect(folder.notices.withLock(\.count) == 1)
    }

    /// A path that was mistyped in weir.yaml. Such a database is neither changed nor renamed.
    @Test(arguments: ["users", "accounts"])
    func aDatabaseOfAnotherProgramIsLeftAlone(table: String) async throws {
        let folder = try Folder(name: "a %3f #1?.sqlite")
        let other = try DatabaseQueue(path: folder.ledger)
        try await other.write { try $0.execute(sql: "CREATE TABLE \(table) (name TEXT); CREATE TABLE posts (a)") }
        try other.close()
        let before = try Data(contentsOf: URL(fileURLWithPath: folder.ledger))
        #expect {
            _ = try folder.store().open()
        } throws: {
            "\($0)".contains("is a database of another program; name another file in ledger.store")
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: folder.ledger)) == before)
        #expect(folder.files == ["a %3f #1?.sqlite", "a %3f #1?.sqlite.lock"])
    }

    /// The migrator makes its table first.
    @Test func aLedgerWhoseCreationWasKilledIsOpened() async throws {
        let folder = try Folder()
        let started = try DatabaseQueue(path: folder.ledger)
        try await started.write {
            try $0.execute(sql: "CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY)")
        }
        try started.close()
        _ = try folder.store().open()
        #expect(folder.notices.withLock { $0 }.isEmpty)
    }

    @Test func aSegmentWhoseCreationWasKilledIsNoDamage() throws {
        let folder = try Folder()
        let segment = folder.ledger + ".segment-7"
        // In the middle of a transaction that is not in WAL mode, the rollback journal is complete.
        let database = try DatabaseQueue(path: folder.path + "/model")
        try database.writeWithoutTransaction { db in
            try db.execute(sql: "PRAGMA synchronous = OFF; CREATE TABLE t (c); BEGIN; INSERT INTO t VALUES (1)")
            for suffix in ["", "-journal"] {
                try FileManager.default.copyItem(atPath: folder.path + "/model" + suffix, toPath: segment + suffix)
            }
            try db.execute(sql: "ROLLBACK")
        }
        _ = try folder.store().open()
        #expect(folder.files.filter { $0.contains("segment-7") } == [])
        #expect(folder.notices.withLock(\.self) == [])
    }

    @Test func aDamagedSegmentIsSetAside() throws {
        let folder = try Folder()
        try Data(repeating: 1, count: 4096).write(to: URL(fileURLWithPath: folder.ledger + ".segment-7"))
        let store = folder.store()
        _ = try store.open()
        try store.recover(into: Sink())
        try begin(0, of: store)
        #expect(folder.files.contains { $0.contains("segment-7.damaged-") })
        #expect(folder.notices.withLock { $0.first }?.contains("segment-7") == true)
    }

    /// Whichever frames of a log are damaged: the batches before them are never lost, and some after them come back.
    @Test(arguments: 1...6)
    func batchesBeforeDamagedFramesComeBack(count: Int) throws {
        let (folder, pageSize, batches) = (try Folder(), 1024, 40 as UInt64)
        let store = folder.store()
        let log = folder.ledger + ".segment-1-wal"
        func size() -> Int { (try? Data(contentsOf: URL(fileURLWithPath: log)).count) ?? 0 }
        _ = try store.open()
        try begin(1, of: store)
        var ends = [size()]
        for number in 2...batches {
            try append(Array(repeating: UInt8(number), count: 300), number, to: store)
            ends.append(size())
        }
        var gained = 0
        for frame in (ends[0] - 32) / (24 + pageSize)..<(ends[ends.count - 1] - 32) / (24 + pageSize) {
            let crashed = try Folder()
            for name in folder.files where !name.hasSuffix("-shm") && !name.hasSuffix(".lock") {
                try FileManager.default.copyItem(atPath: folder.path + "/" + name, toPath: crashed.path + "/" + name)
            }
            let start = 32 + frame * (24 + pageSize)
            var bytes = try Data(contentsOf: URL(fileURLWithPath: log))
            for damaged in 0..<count where start + damaged * (24 + pageSize) < bytes.count {
                bytes[start + damaged * (24 + pageSize) + 24 + 500] ^= 1
            }
            try bytes.write(to: URL(fileURLWithPath: crashed.ledger + ".segment-1-wal"))
            let restarted = crashed.store()
            _ = try restarted.open()
            let sink = Sink()
            try restarted.recover(into: sink)
            let before = ends.count { $0 <= start }
            #expect(sink.batches.count >= before, "frame \(frame): \(sink.batches.count) of \(before) batches")
            gained += max(0, sink.batches.count - before)
        }
        #expect(gained > 0)
    }

    /// With a right checksum. SQLite then opens neither the log nor its database.
    @Test(arguments: [("ledger.sqlite", 4096), ("ledger.sqlite.segment-1", 1024)])
    func aLogOfAnotherVersionIsDamage(file: String, pageSize: UInt32) throws {
        let (folder, crashed) = (try Folder(), try Folder())
        let store = folder.store()
        _ = try store.open()
        try begin(1, of: store)
        try append([1, 2, 3], 2, to: store)
        for name in folder.files where !name.hasSuffix("-shm") && !name.hasSuffix(".lock") {
            try FileManager.default.copyItem(atPath: folder.path + "/" + name, toPath: crashed.path + "/" + name)
        }
        let log = URL(fileURLWithPath: crashed.path + "/" + file + "-wal")
        var bytes = try Array(Data(contentsOf: log))
        if bytes.isEmpty { bytes = Array(repeating: 0, count: 32) }
        func put(_ words: [UInt32], at offset: Int) {
            let new = words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) } }
            bytes.replaceSubrange(offset..<offset + new.count, with: new)
        }
        put([0x377f_0682, 3_007_001, pageSize], at: 0)
        var (first, second) = (UInt32(0), UInt32(0))
        for offset in stride(from: 0, to: 24, by: 8) {
            func word(_ offset: Int) -> UInt32 {
                bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
            }
            first &+= word(offset) &+ second
            second &+= word(offset + 4) &+ first
        }
        put([first, second], at: 24)
        try Data(bytes).write(to: log)

        let restarted = crashed.store()
        _ = try restarted.open()
        let sink = Sink()
        try restarted.recover(into: sink)
        #expect(sink.batches[2] == [1, 2, 3])
        #expect(crashed.notices.withLock { $0.contains { $0.contains(file + "-wal is damaged") } })
        #expect(crashed.files.contains { $0.hasPrefix(file) && $0.contains(".damaged-") })
    }

    @Test func anAbandonedCheckpointKeepsItsSegment() async throws {
        let folder = try Folder()
        let row = AccountRow(id: 3, limit: 1, key: Array("user".utf8), sequence: 1, content: [1])
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(1, of: store)
            try await finish(store)
            try begin(2, of: store)
            for number in 1...3 as ClosedRange<UInt8> {
                #expect(store.save([.transactions(sequence: 2, content: [number])]))
            }
            for sequence in 3...9 as ClosedRange<UInt64> { try begin(sequence, of: store) }
            #expect(folder.files.filter { $0.hasSuffix("segment-1") || $0.hasSuffix("segment-2") }.count == 2)
            #expect(folder.files.filter { $0.hasSuffix("segment-3") }.isEmpty)
            #expect(store.save([.accounts([row])]))
            #expect(store.save([.transactions(sequence: 9, content: [9])]))
            try await finish(store)
        }
        let store = folder.store()
        _ = try store.open()
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.rows.map(\.id) == [3])
        #expect(sink.transactions == [[9]])
        #expect(sink.batches.keys.sorted() == Array(2...9))
        #expect(folder.files.filter { $0.hasSuffix("segment-1") }.isEmpty)
    }

    /// The end of an abandoned checkpoint must not delete what the next has not saved yet.
    @Test func queuedPiecesOfAnAbandonedCheckpointAreNotWritten() async throws {
        let folder = try Folder()
        let store = folder.store()
        _ = try store.open()
        try begin(1, of: store)
        try await finish(store)
        try begin(2, of: store)
        let rows = (1...50_000 as ClosedRange<UInt64>).map {
            AccountRow(id: $0, limit: 1, key: [1], sequence: 2, content: [1])
        }
        #expect(store.save([.accounts(rows), .transactions(sequence: 2, content: [2]), .end]))
        // While the writer writes the rows.
        try begin(3, of: store)
        #expect(store.save([.accounts([])]))
        while !store.save([.accounts([])]) { try await Task.sleep(for: .milliseconds(1)) }
        #expect(store.checkpointProgress == .running)
        #expect(!folder.files.filter { $0.hasSuffix("segment-1") }.isEmpty)
        try await finish(store)
        #expect(folder.files.filter { $0.hasSuffix("segment-1") }.isEmpty)
    }

    /// How many handovers the store accepts while its writer waits for another transaction.
    private func acceptedWhileLocked(_ folder: Folder, by store: SQLiteStore) throws -> Int {
        try DatabaseQueue(path: folder.ledger).write { _ in
            (1...20 as ClosedRange<UInt64>).prefix { id in
                store.save([.accounts([AccountRow(id: id, limit: 1, key: [1], sequence: 1, content: [])])])
            }.count
        }
    }

    /// Bounds the memory of a checkpoint on a slow disk.
    @Test func theWriterRefusesPiecesBeyondItsQueue() async throws {
        let folder = try Folder()
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(1, of: store)
            #expect(try acceptedWhileLocked(folder, by: store) == 8)
            try await finish(store)
        }
        let store = folder.store()
        _ = try store.open()
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.rows.map(\.id) == Array(1...8))
    }

    /// The loop that answers adds limits at a reload. Waiting for `ledger.sqlite` would time out here.
    @Test(arguments: Durability.allCases)
    func limitsAreAddedWhileAnotherProcessHoldsTheFile(durability: Durability) throws {
        let folder = try Folder()
        do {
            let store = folder.store(durability)
            _ = try store.open()
            try begin(1, of: store)
            try DatabaseQueue(path: folder.ledger).write { _ in
                store.register([StoredLimit(id: 1, name: "new", signature: "recipients")])
                try append([2], 2, to: store)
                try store.flush()
            }
        }
        let store = folder.store(durability)
        #expect(try store.open().limits.map(\.name) == ["new"])
    }

    /// A reload has changed what a limit counts. The segment has the limit as it was, and as it is.
    @Test func aLimitThatHasChangedWithinASegment() async throws {
        let folder = try Folder()
        let new = StoredLimit(id: 2, name: "per-user", signature: "messages")
        do {
            let store = folder.store()
            _ = try store.open()
            store.register([StoredLimit(id: 1, name: "per-user", signature: "recipients")])
            try begin(0, of: store)
            try await finish(store)
            store.register([new])
            try append([1], 1, to: store)
        }
        #expect(try folder.store().open().limits == [new])
    }

    @Test func aFailedSegmentDoesNotBlockTheNextAttempt() throws {
        let folder = try Folder()
        let store = folder.store()
        _ = try store.open()
        store.register([
            StoredLimit(id: 1, name: "a", signature: "x"), StoredLimit(id: 1, name: "b", signature: "x"),
        ])
        // Fails at the second limit with the same id, when the file already exists.
        #expect(throws: StoreError.self) { try begin(1, of: store) }
        #expect(folder.files.filter { $0.contains("segment") }.isEmpty)
        store.register([StoredLimit(id: 2, name: "b", signature: "x")])
        // The file must not block another attempt with the same number.
        try FileManager.default.createDirectory(
            atPath: folder.ledger + ".segment-1", withIntermediateDirectories: false)
        try begin(2, of: store)
        try append([3], 3, to: store)
    }

    /// A segment after such a number would not be found by the next start.
    @Test(arguments: [(1 << 53) - 1, 1 << 53, 1 << 62] as [Int64])
    func aCheckpointWithADamagedNumber(number: Int64) async throws {
        let folder = try Folder()
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(1, of: store)
            #expect(store.save([.transactions(sequence: 1, content: [1])]))
            try await finish(store)
        }
        let database = try DatabaseQueue(path: folder.ledger)
        try await database.write { try $0.execute(sql: "UPDATE transactions SET checkpoint = ?", arguments: [number]) }
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(2, of: store)
            try append([3], 3, to: store)
        }
        let store = folder.store()
        _ = try store.open()
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.batches[3] == [3])
        try begin(4, of: store)
        try await finish(store)
        let left = try await database.read {
            try Int.fetchOne($0, sql: "SELECT count(*) FROM transactions WHERE checkpoint = \(number)")
        }
        #expect(left == 0)
    }

    /// One batch with a damaged number costs no other, and is reported.
    @Test func aBatchWithADamagedNumber() async throws {
        let folder = try Folder()
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(1, of: store)
            for number in 2...5 as ClosedRange<UInt64> { try append([UInt8(number)], number, to: store) }
        }
        let segment = folder.ledger + ".segment-1"
        try await DatabaseQueue(path: segment).write { db in
            try db.execute(sql: "UPDATE batches SET sequence = -1 WHERE sequence = 3")
        }
        let store = folder.store()
        _ = try store.open()
        let sink = Sink()
        try store.recover(into: sink)
        #expect(sink.batches.keys.sorted() == [1, 2, 4, 5])
        #expect(folder.notices.withLock { $0.first }?.contains("segment-1 is damaged") == true)
    }

    @Test func aSegmentThatWasNeverCompletedIsDeleted() throws {
        let folder = try Folder()
        for suffix in ["", "-wal"] { try Data().write(to: URL(fileURLWithPath: folder.ledger + ".segment-3" + suffix)) }
        let store = folder.store()
        _ = try store.open()
        try store.recover(into: Sink())
        #expect(folder.files.filter { $0.contains("segment-3") }.isEmpty)
        #expect(folder.notices.withLock { $0.isEmpty })
    }

    @Test(arguments: ["z\u{e4}hler.sqlite", "za\u{308}hler.sqlite", "\u{1f4ec}.sqlite"])
    func theNameMayHaveAnyCharacters(name: String) throws {
        let folder = try Folder(name: name)
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(1, of: store)
            try append([2], 2, to: store)
        }
        let store = folder.store()
        #expect(try store.open().lastBatch == [2])
    }

    /// Each start begins a checkpoint, and is killed before it is complete.
    @Test func aKillLoopDoesNotGrowTheStore() async throws {
        let folder = try Folder()
        let content = [UInt8](repeating: 7, count: 20_000)
        func count(_ rows: String) async throws -> Int? {
            let sql = "SELECT count(*) FROM \(rows)"
            return try await DatabaseQueue(path: folder.ledger).read { try Int.fetchOne($0, sql: sql) }
        }
        func start(_ number: UInt64) async throws -> (transactions: Int, batches: Int) {
            let store = folder.store()
            _ = try store.open()
            let sink = Sink()
            try store.recover(into: sink)
            try begin(number, of: store)
            #expect(store.save([.transactions(sequence: number, content: content)]))
            #expect(store.save([.transactions(sequence: number, content: content)]))
            // A crash would end the writer. Here its queue still runs, so this waits until the rows are written.
            while try await count("transactions WHERE sequence = \(number)") != 2 {
                try await Task.sleep(for: .milliseconds(1))
            }
            return (sink.transactions.count, sink.batches.count)
        }
        func bytes() throws -> Int {
            try folder.files.reduce(0) { sum, name in
                let attributes = try FileManager.default.attributesOfItem(atPath: folder.path + "/" + name)
                return sum + (attributes[.size] as? Int ?? 0)
            }
        }
        do {
            let store = folder.store()
            _ = try store.open()
            try begin(1, of: store)
            #expect(store.save([.transactions(sequence: 1, content: content)]))
            try await finish(store)
        }
        /// Those of a database come and go with its connections, which may still be open for a moment.
        func files() -> [String] { folder.files.filter { !$0.hasSuffix("-wal") && !$0.hasSuffix("-shm") } }
        for number in 2..<5 as Range<UInt64> { _ = try await start(number) }
        let (before, size) = (files(), try bytes())
        for number in 5..<55 as Range<UInt64> {
            let read = try await start(number)
            #expect(read.transactions == 1, "those of the checkpoint that was completed")
            #expect(read.batches == Int(number) - 1)
        }
        #expect(files() == before)
        #expect(try bytes() < size + 55 * 4096)
        // One of the completed checkpoint, the mark of its completion, and two of the one that is never completed.
        #expect(try await count("transactions") == 4)
    }

    @Test func onlyOneServiceMayUseIt() throws {
        let folder = try Folder()
        let store = folder.store()
        _ = try store.open()
        let error = #expect(throws: StoreError.self) { try folder.store().open() }
        #expect(error?.message.contains("another weir serve") == true)
    }

    @Test func afterAFaultTheSameStoreCanBeOpened() throws {
        let folder = try Folder()
        try FileManager.default.createDirectory(atPath: folder.ledger, withIntermediateDirectories: false)
        let store = folder.store()
        #expect(throws: StoreError.self) { try store.open() }
        try FileManager.default.removeItem(atPath: folder.ledger)
        _ = try store.open()
    }
}
