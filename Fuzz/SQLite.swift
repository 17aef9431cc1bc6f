// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDBSQLite
internal import Glibc
internal import Limits
internal import Storage

extension Target {
    /// A ledger opens with any damage to the files of its store, counts, finishes its next checkpoint, and opens again
    /// with the same counts.
    ///
    /// Each six bytes of the input are a damage: the file, its kind, its place (two bytes), two bytes for it.
    static let sqlite = Target(name: "sqlite") { input in
        var files = StoredFiles.sound
        var choices = Choices(input)
        for _ in 0..<8 where !choices.rest.isEmpty { files.damage(&choices) }
        let folder = Folder(with: files)
        defer { folder.remove() }
        let before = folder.useLedger { ledger in
            ledger.decideRecipient(of: "new", instance: "new")
            precondition(ledger.hasKey("new"), "a new key does not count")
            ledger.finishCheckpoint()
            return ledger.counts()
        }
        for (account, counts) in before { precondition(counts.used == counts.inSlots, "\(account): \(counts)") }
        let after = folder.useLedger { $0.counts() }
        precondition(after == before, "\(before), after a restart \(after)")
    }
}

extension Ledger {
    fileprivate func hasKey(_ key: String) -> Bool {
        (try? standings(ofKey: Array(key.utf8), limit: nil))?.contains { $0.usages.contains { $0.used > 0 } } ?? false
    }
}

/// A directory with the files of a store.
private struct Folder {
    private let path: String
    private var ledger: String { path + "/ledger.sqlite" }

    /// In memory where there is such a file system.
    private static let parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NSTemporaryDirectory()

    init(with files: StoredFiles = StoredFiles()) {
        path = "\(Self.parent)/weir-fuzz-\(getpid())-\(UInt64.random(in: 0...(.max)))"
        precondition(mkdir(path, 0o700) == 0)
        for (name, bytes) in files.all {
            precondition(FileManager.default.createFile(atPath: "\(path)/\(name)", contents: Data(bytes)))
        }
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }

    /// Opens a ledger as the service does, which tries again after a failure.
    func useLedger<T>(_ body: (Ledger) -> T) -> T {
        var error: StoreError?
        for _ in 0..<3 {
            do throws(StoreError) {
                let store = SQLiteStore(path: ledger, durability: .commit, notice: { _ in })
                return body(try Ledger.forFuzzing(on: store))
            } catch let failure {
                error = failure
            }
        }
        preconditionFailure("the ledger stays closed: \(error?.message ?? "")")
    }

    /// A store before its first ledger, with a hash key that is always the same.
    func prepare() {
        do {
            _ = try SQLiteStore(path: ledger, durability: .commit, notice: { _ in }).open()
        } catch {
            preconditionFailure("\(error)")
        }
        var database: OpaquePointer?
        defer { sqlite3_close_v2(database) }
        precondition(sqlite3_open_v2(ledger, &database, SQLITE_OPEN_READWRITE, nil) == SQLITE_OK)
        precondition(
            sqlite3_exec(database, "UPDATE meta SET hash_low = 7, hash_high = 9", nil, nil, nil) == SQLITE_OK)
    }

    /// Without the lock and the shared memory, which are useless after a crash.
    func files() -> StoredFiles {
        var files = StoredFiles()
        for name in ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
        where !name.hasSuffix(".lock") && !name.hasSuffix("-shm") {
            files.all.append((name, Array(FileManager.default.contents(atPath: "\(path)/\(name)") ?? Data())))
        }
        return files
    }
}

/// The files of a store, as bytes.
private struct StoredFiles {
    var all: [(name: String, bytes: [UInt8])] = []

    /// After a crash during a checkpoint: two rows and a transaction of the last one, and two segments of the journal.
    static let sound: StoredFiles = {
        let folder = Folder()
        defer { folder.remove() }
        folder.prepare()
        var files = folder.useLedger { ledger in
            for user in ["user1", "user2"] { ledger.decideRecipient(of: user, instance: "1.\(user)") }
            ledger.finishCheckpoint()
            for user in ["user1", "user3"] { ledger.decideRecipient(of: user, instance: "2.\(user)") }
            precondition((try? ledger.beginCheckpoint()) != nil)
            for user in ["user2", "user4"] { ledger.decideRecipient(of: user, instance: "3.\(user)") }
            return folder.files()
        }
        for index in files.all.indices where files.all[index].name.hasSuffix("-wal") {
            // SQLite makes the salt at random.
            for place in 16..<24 where place < files.all[index].bytes.count { files.all[index].bytes[place] = 1 }
            correctLog(&files.all[index].bytes)
        }
        return files
    }()

    mutating func damage(_ choices: inout Choices) {
        let (file, kind) = (choices.byte(), choices.byte())
        let (place, value) = (
            Int(choices.byte()) << 8 | Int(choices.byte()), (choices.byte(), choices.byte())
        )
        let index = Int(file & 0x7f) % all.count
        guard !all[index].bytes.isEmpty else { return }
        Self.damage(&all[index].bytes, kind, at: place % all[index].bytes.count, value)
        switch kind % 12 {
        case 10: all.swapBytes(index, Int(value.0) % all.count)
        case 11: all[index].bytes = []
        default: break
        }
        // Without the right checksums, SQLite and Weir do not look at what is in a log.
        if file & 0x80 != 0, all[index].name.hasSuffix("-wal") { Self.correctLog(&all[index].bytes) }
    }

    private static func damage(_ bytes: inout [UInt8], _ kind: UInt8, at place: Int, _ value: (UInt8, UInt8)) {
        let page = bytes.count >= 4096 ? 4096 : 1024
        switch kind % 12 {
        case 0, 1: bytes[place] ^= 1 << (value.0 & 7)
        case 2: bytes[place] = value.0
        // The schema and the first rows.
        case 3: bytes[place % min(bytes.count, 4096)] = value.0
        case 4: for index in place..<min(place + 2, bytes.count) { bytes[index] = index == place ? value.0 : value.1 }
        case 5: for index in place..<min(place + 9, bytes.count) { bytes[index] = value.0 }
        case 6: for index in place / 512 * 512..<min(place / 512 * 512 + 512, bytes.count) { bytes[index] = 0 }
        case 7: bytes.removeSubrange(place...)
        case 8, 9:
            let other = Int(value.0) * page
            for index in 0..<page where place / page * page + index < bytes.count && other + index < bytes.count {
                let own = place / page * page + index
                if kind % 12 == 8 { bytes.swapAt(own, other + index) } else { bytes[own] = bytes[other + index] }
            }
        default: break
        }
    }

    /// Gives the frames of a write-ahead log the salt of its header and right checksums, which are of little-endian
    /// words (https://www.sqlite.org/fileformat2.html#walformat).
    private static func correctLog(_ log: inout [UInt8]) {
        guard log.count > 32 else { return }
        let page = log[8..<12].reduce(0) { $0 << 8 | Int($1) }
        guard 512...65_536 ~= page else { return }
        var (first, second) = (UInt32(0), UInt32(0))
        func add(_ range: Range<Int>) {
            func word(_ offset: Int) -> UInt32 {
                log[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
            }
            for offset in stride(from: range.lowerBound, to: range.upperBound - 7, by: 8) {
                first &+= word(offset) &+ second
                second &+= word(offset + 4) &+ first
            }
        }
        func store(at offset: Int) {
            for (index, sum) in [first, second].enumerated() {
                for byte in 0..<4 { log[offset + 4 * index + byte] = UInt8(truncatingIfNeeded: sum >> (24 - 8 * byte)) }
            }
        }
        add(0..<24)
        store(at: 24)
        for frame in stride(from: 32, through: log.count - 24 - page, by: 24 + page) {
            for index in 0..<8 { log[frame + 8 + index] = log[16 + index] }
            add(frame..<frame + 8)
            add(frame + 24..<frame + 24 + page)
            store(at: frame + 16)
        }
    }
}

extension [(name: String, bytes: [UInt8])] {
    fileprivate mutating func swapBytes(_ one: Int, _ other: Int) {
        (self[one].bytes, self[other].bytes) = (self[other].bytes, self[one].bytes)
    }
}
