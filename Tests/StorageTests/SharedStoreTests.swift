// SPDX-License-Identifier: Apache-2.0
import Foundation
import GRDB
import Limits
import Sharing
import Storage
import Synchronization
import Testing

struct SharedStoreTests {
    private final class Folder {
        let path = NSTemporaryDirectory() + "weir-shared-\(UUID().uuidString)"

        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func open(
            longestLog: Int = 16 << 20, notice: @escaping SQLiteStore.Notice = { Issue.record("\($0)") }
        ) throws -> (store: SharedStore, contents: SharedStore.Contents) {
            try SharedStore.open(
                besides: path + "/ledger.sqlite", durability: .commit, longestLog: longestLog, notice: notice)
        }

        /// To be called when the store is closed.
        func write(_ sql: String) throws {
            try DatabaseQueue(path: path + "/ledger.sqlite.shared").write { try $0.execute(sql: sql) }
        }

        /// To be called when the store is closed.
        func entriesOfLog() throws -> Int {
            try DatabaseQueue(path: path + "/ledger.sqlite.shared").read { db in
                try Int.fetchOne(db, sql: "SELECT count(*) FROM pool_log") ?? 0
            }
        }
    }

    private final class Notices: Sendable {
        let texts = Mutex<[String]>([])
    }

    /// What a host has used, and what of it is not stored yet.
    private struct Host {
        var used: [Lane: [SlotCounts.Slot]] = [:]

        mutating func save(_ changes: [(lane: Lane, first: Int64)], in store: SharedStore) throws {
            let pools = changes.map { lane, first in
                let slots = used[lane, default: []].filter { $0.number >= first }
                return SharedLedger.PoolChange(lane: lane, first: first, slots: slots[...])
            }
            try store.save(SharedLedger.Unsaved(state: nil, pools: pools, changes: nil), versions: nil) { [used] in
                used[$0] ?? []
            }
        }

        /// Counts units in a slot, which is the last of the lane.
        mutating func charge(_ units: Int64, refused: Int64 = 0, to lane: Lane, slot: Int64) {
            var slots = used[lane] ?? []
            let before = slots.last?.number == slot ? slots.removeLast() : SlotCounts.Slot(number: slot, units: 0)
            slots.append(
                SlotCounts.Slot(number: slot, units: before.units + units, refused: before.refused + refused))
            used[lane] = slots
        }

        /// As text, for comparing.
        var text: [String] { Self.text(used.map { KeptState.Pool(lane: $0, slots: $1) }) }

        static func text(_ pools: [KeptState.Pool]) -> [String] {
            pools.filter { !$0.slots.isEmpty }.map { pool in
                "\(pool.lane.key)/\(pool.lane.window): \(pool.slots.map { "\($0.number)=\($0.units),\($0.refused)" })"
            }.sorted()
        }
    }

    private static func lane(_ key: UInt64) -> Lane { Lane(key: key &* 0x9e37_79b9_7f4a_7c15, window: 60_000) }

    /// What was used comes back, however often the file is opened and its log is made shorter meanwhile.
    @Test(arguments: [16 << 20, 2000, 0])
    func whatWasUsedComesBack(longestLog: Int) throws {
        let folder = try Folder()
        var host = Host()
        var seed: UInt64 = 7
        func pick(_ below: UInt64) -> UInt64 {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return seed >> 33 % below
        }
        for opening in 0..<5 as Range<Int64> {
            let (store, contents) = try folder.open(longestLog: longestLog)
            #expect(Host.text(contents.pools) == host.text)
            for turn in 0..<100 as Range<Int64> {
                let slot = opening * 10 + turn / 10
                let lane = Self.lane(pick(20))
                var first = slot
                switch pick(12) {
                case 0: (host.used[lane], first) = ([], .min)
                case 1:
                    first = host.used[lane]?.first?.number ?? slot
                    if host.used[lane]?.isEmpty == false { host.used[lane]?.removeFirst() }
                case 2...4: host.charge(Int64(pick(2)), refused: Int64(pick(5)) + 1, to: lane, slot: slot)
                default: host.charge(Int64(pick(5)) + 1, to: lane, slot: slot)
                }
                let other = Self.lane(20 + pick(50))
                host.charge(1, to: other, slot: slot)
                try host.save([(lane, first), (other, slot)], in: store)
            }
        }
        #expect(Host.text(try folder.open().contents.pools) == host.text)
    }

    @Test func theLogDoesNotGrowWithoutEnd() throws {
        let folder = try Folder()
        var host = Host()
        try withExtendedLifetime(folder.open(longestLog: 1000).store) { store in
            for turn in 0..<5000 as Range<Int64> {
                let lane = Self.lane(UInt64(turn) % 7)
                host.charge(1, to: lane, slot: turn / 1000)
                try host.save([(lane, turn / 1000)], in: store)
            }
        }
        #expect(Host.text(try folder.open().contents.pools) == host.text)
        let entries = try folder.entriesOfLog()
        #expect(entries < 500, "\(entries) entries")
    }

    /// A host that has written a million entries in its life is started again.
    @Test func theLogOfAnOldHostDoesNotGrowAfterAStart() throws {
        let folder = try Folder()
        var host = Host()
        func run() throws {
            try withExtendedLifetime(folder.open(longestLog: 1000).store) { store in
                for turn in 0..<500 as Range<UInt64> {
                    host.charge(1, to: Self.lane(turn % 7), slot: 1)
                    try host.save([(Self.lane(turn % 7), 1)], in: store)
                }
            }
        }
        try run()
        try folder.write("UPDATE pool_log SET entry = entry + 1000000; UPDATE pools SET entry = entry + 1000000")
        try run()
        #expect(Host.text(try folder.open().contents.pools) == host.text)
        let entries = try folder.entriesOfLog()
        #expect(entries < 200, "\(entries) entries")
    }

    /// A slot beyond all clocks, or a window that no limit can have: the file is set aside.
    @Test(arguments: [
        "slots = '4000000000000000000=1'", "slots = '-4000000000000000000=1'", "slots = '1=-1099511627776'",
        "window = 1 << 40",
    ])
    func impossiblePoolsAreDamage(_ change: String) throws {
        let folder = try Folder()
        var host = Host()
        try withExtendedLifetime(folder.open(longestLog: 0).store) { store in
            for turn in 0..<20 as Range<UInt64> {
                host.charge(1, to: Self.lane(turn % 2), slot: 1)
                try host.save([(Self.lane(turn % 2), 1)], in: store)
            }
        }
        try folder.write("UPDATE pools SET \(change)")
        let notices = Notices()
        let (_, contents) = try folder.open { text in notices.texts.withLock { $0.append(text) } }
        #expect(contents.pools.isEmpty)
        #expect(notices.texts.withLock { $0.map { $0.contains("is damaged") } } == [true])
    }
}
