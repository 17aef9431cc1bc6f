// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Storage
import Synchronization
import Testing

/// The files of a real store, damaged in random places. The ledger opens, counts, and keeps everything undamaged.
@Suite struct DamagedFilesTests {
    /// The files that remain after a crash, by name.
    typealias Files = [String: Data]

    private static let users = 120
    private static let name = "ledger.sqlite"

    final class Folder {
        let path = NSTemporaryDirectory() + "weir-damage-\(UUID().uuidString)"
        var ledger: String { path + "/" + DamagedFilesTests.name }

        init(_ files: Files = [:]) throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            for (name, bytes) in files { try bytes.write(to: URL(fileURLWithPath: path + "/" + name)) }
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        /// Without the lock and the shared memory, which are useless after a crash.
        func files() throws -> Files {
            var files: Files = [:]
            for name in try FileManager.default.contentsOfDirectory(atPath: path)
            where !name.hasSuffix(".lock") && !name.hasSuffix("-shm") {
                files[name] = try Data(contentsOf: URL(fileURLWithPath: path + "/" + name))
            }
            return files
        }

        func store(_ notices: Notices = Notices()) -> SQLiteStore {
            SQLiteStore(path: ledger, durability: .commit, notice: notices.append)
        }
    }

    final class Notices: Sendable {
        private let all = Mutex<[String]>([])
        var texts: [String] { all.withLock { $0 } }
        @Sendable func append(_ text: String) { all.withLock { $0.append(text) } }
    }

    private static func limits() -> (AttributeNames, [Limit]) {
        var maker = LimitMaker()
        let limits = [
            maker.limit(rates: ["100000/1d"]),
            maker.limit("client", key: ["client_address"], count: .messages, rates: ["5/1h", "100000/7d"]),
            maker.limit("bytes", key: ["sender"], count: .bytes, rates: ["1G/1d"]),
        ]
        return (maker.names, limits)
    }

    static func open(_ folder: Folder) throws -> LedgerHarness {
        let (names, limits) = limits()
        return try LedgerHarness(limits, names: names, store: folder.store())
    }

    /// Three recipients for each user, in a transaction that stays open.
    private static func send(_ round: Int, to harness: LedgerHarness) throws {
        for user in 0..<users {
            for recipient in 0..<3 {
                try harness.ask(
                    rcpt(
                        "\(round).\(user)", to: "r\(recipient)@example.org", user: "user\(user)",
                        more: ["client_address": "192.0.2.\(user)", "sender": "s\(user)@example.org", "size": "1000"]))
            }
        }
    }

    /// The files of a store after a checkpoint, and later after a crash during the next one.
    private static func makeFiles() throws -> (earlier: Files, later: Files) {
        let folder = try Folder()
        let harness = try open(folder)
        // The checkpoint that the start has begun.
        try harness.finishCheckpoint()
        try send(1, to: harness)
        try harness.finishCheckpoint()
        try send(2, to: harness)
        let earlier = try folder.files()
        harness.ledger.beginTick()
        try harness.ledger.beginCheckpoint()
        try send(3, to: harness)
        return (earlier, try folder.files())
    }

    static let made = Result { try makeFiles() }

    /// A description of the damage, and whether it is in one place only.
    private typealias Damage = (text: String, isSmall: Bool)

    private static func damage(_ files: inout Files, earlier: Files, random: inout SeededGenerator) -> Damage {
        let names = files.keys.sorted()
        let name = names.randomElement(using: &random)!
        var bytes = files[name]!
        guard !bytes.isEmpty else { return ("nothing", true) }
        var place = Int.random(in: bytes.indices, using: &random)
        defer { files[name] = bytes }
        switch Int.random(in: 0..<12, using: &random) {
        case 0...3:
            bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            return ("a bit at \(place) of \(name)", true)
        case 4, 5:
            // The schema and the first rows.
            place %= 4096
            bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            return ("a bit at \(place) of \(name)", true)
        case 6:
            bytes[place] = .random(in: 0...255, using: &random)
            return ("a byte at \(place) of \(name)", true)
        case 7:
            let end = min(place / 512 * 512 + 512, bytes.count)
            for index in place / 512 * 512..<end { bytes[index] = 0 }
            return ("the sector of \(place) of \(name)", true)
        case 8:
            bytes = bytes.prefix(place)
            return ("the end of \(name), from \(place) on", false)
        case 9:
            let other = names.randomElement(using: &random)!
            swap(&bytes, &files[other]!)
            return ("\(name) and \(other) are swapped", false)
        case 10:
            bytes = earlier[name] ?? Data()
            return ("\(name) is from an earlier moment", false)
        default:
            for index in place..<min(place + 8, bytes.count) { bytes[index] = .random(in: 0...255, using: &random) }
            return ("eight bytes at \(place) of \(name)", true)
        }
    }

    /// Opens the ledger like the service, which tries again after a failure.
    static func openSoon(_ folder: Folder, _ note: String) throws -> LedgerHarness {
        for _ in 0..<2 {
            if let harness = try? open(folder) { return harness }
        }
        return try #require(try? open(folder), "the ledger stays closed: \(note)")
    }

    /// The recipients that are counted, at most what was sent for each user.
    private static func counted(_ harness: LedgerHarness, most: UInt64) -> UInt64 {
        (0..<users).reduce(0) { $0 + min(harness.used("user\($1)", limit: "per-user").first ?? 0, most) }
    }

    @Test(arguments: 0..<4 as Range<UInt64>)
    func opensAndCounts(seed: UInt64) throws {
        let (earlier, sound) = try Self.made.get()
        var random = SeededGenerator(seed: seed)
        var (sent, kept) = (0 as UInt64, 0 as UInt64)
        for trial in 0..<80 {
            var files = sound
            let damage = Self.damage(&files, earlier: earlier, random: &random)
            let note = "seed \(seed), trial \(trial): \(damage.text)"
            let folder = try Folder(files)
            let harness = try Self.openSoon(folder, note)
            if damage.isSmall {
                sent += UInt64(Self.users * 9)
                kept += Self.counted(harness, most: 9)
            }
            try harness.ask(rcpt("new", to: "a@example.org", user: "new"))
            #expect(harness.used("new", limit: "per-user") == [1], "\(note)")
            if trial % 4 == 0 { try harness.finishCheckpoint() }
        }
        #expect(kept > sent * 95 / 100, "\(kept) of \(sent), seed \(seed)")
    }

    /// SQLite ends a log silently at the first frame with a wrong checksum.
    @Test(arguments: [0, 5, 20, 40, 60, 60_000])
    func aFlippedBitInALog(place: Int) throws {
        let folder = try Folder()
        let before = try Self.open(folder)
        for round in 1...3 { try Self.send(round, to: before) }
        var files = try folder.files()
        let name = Self.name + ".segment-1-wal"
        var bytes = try #require(files[name])
        bytes[place] ^= 4
        files[name] = bytes
        let damaged = try Folder(files)
        let notices = Notices()
        let (names, limits) = Self.limits()
        let harness = try LedgerHarness(limits, names: names, store: damaged.store(notices))
        // At most one batch is lost; the next frame of the same page may contain it, too.
        #expect(Self.counted(harness, most: 9) >= UInt64(Self.users * 9 - 1))
        let notice = try #require(notices.texts.first)
        #expect(notice.contains("frames"), "\(notice)")
        let aside = try FileManager.default.contentsOfDirectory(atPath: damaged.path)
            .first { $0.contains("damaged") && $0.hasSuffix("-wal") }
        let kept = FileManager.default.contents(atPath: damaged.path + "/" + (aside ?? "none"))
        #expect(kept == bytes)
        #expect(try Data(contentsOf: URL(fileURLWithPath: damaged.path + "/" + name)) != bytes)
    }

    /// An incomplete end of the log after a crash is not damage.
    @Test(arguments: [1, 500, 1024, 1047])
    func aLogThatWasCutShort(bytes: Int) throws {
        let folder = try Folder()
        let harness = try Self.open(folder)
        try Self.send(1, to: harness)
        var files = try folder.files()
        let name = Self.name + ".segment-1-wal"
        files[name]?.removeLast(bytes)
        let cut = try Folder(files)
        let notices = Notices()
        let (names, limits) = Self.limits()
        let after = try LedgerHarness(limits, names: names, store: cut.store(notices))
        #expect(Self.counted(after, most: 9) >= UInt64(Self.users * 3 - 1))
        #expect(notices.texts.isEmpty, "\(notices.texts)")
    }
}
