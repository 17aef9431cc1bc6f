// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import GRDB
internal import Limits
internal import Sharing

/// What was used of pools, on disk: a row for each lane, and a log of later changes.
///
/// Each write adds one row to the log, however many lanes have changed. When the log is long, its lanes get rows of
/// their own, a few with each write, and then its entries are removed, a few with each write as well. The row of a lane
/// has the number of the last entry that it includes.
///
/// A slot is stored as its number and its units. What refused requests count is stored in the same way behind it, with
/// negative units.
struct PoolLog {
    /// At least; twice as many as have changed, so that the log gets shorter.
    private static let lanesPerWrite = 32
    private static let entriesPerWrite: Int64 = 64

    static let schema = """
        CREATE TABLE IF NOT EXISTS pools (
            key INTEGER NOT NULL, window INTEGER NOT NULL, slots TEXT NOT NULL, entry INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (key, window)) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS pool_log (entry INTEGER PRIMARY KEY, content BLOB NOT NULL);
        """

    /// Bytes. The log is made shorter when it is longer, and meanwhile may become twice as long.
    private let longest: Int
    private var nextEntry: Int64 = 1
    /// The size of the entries since `lastFolded`.
    private var bytes = 0
    private var lanes: Set<Lane> = []
    /// Lanes of earlier entries that get their rows now.
    private var folding: [Lane] = []
    private var lastFolded: Int64 = 0
    /// The first entry that the log may have.
    private var firstEntry: Int64 = 0

    init(longest: Int) { self.longest = longest }

    // MARK: Writing

    /// - Parameter used: what was used of a lane's pool, all of it.
    func write(
        _ changes: [SharedLedger.PoolChange], _ used: (Lane) -> [SlotCounts.Slot], _ db: Database
    ) throws {
        guard !changes.isEmpty else { return }
        try db.cachedStatement(sql: "INSERT INTO pool_log VALUES (?, ?)")
            .execute(arguments: [nextEntry, Self.content(changes)])
        for lane in folding.suffix(Self.lanesFolded(with: changes)) { try save(lane, used(lane), db) }
        if folding.isEmpty, firstEntry <= lastFolded {
            try db.cachedStatement(sql: "DELETE FROM pool_log WHERE entry <= ?").execute(arguments: [lastRemoved])
        }
    }

    /// What `write` has written is committed.
    mutating func committed(_ changes: [SharedLedger.PoolChange]) {
        guard !changes.isEmpty else { return }
        if folding.isEmpty, firstEntry <= lastFolded { firstEntry = lastRemoved + 1 }
        folding.removeLast(min(Self.lanesFolded(with: changes), folding.count))
        note(changes, entry: nextEntry)
        guard bytes > longest, folding.isEmpty, firstEntry > lastFolded else { return }
        (folding, lastFolded) = (Array(lanes), nextEntry - 1)
        lanes.removeAll()
        bytes = 0
    }

    private static func lanesFolded(with changes: [SharedLedger.PoolChange]) -> Int {
        max(lanesPerWrite, 2 * changes.count)
    }

    private var lastRemoved: Int64 { min(lastFolded, firstEntry + Self.entriesPerWrite) }

    private mutating func note(_ changes: [SharedLedger.PoolChange], entry: Int64) {
        nextEntry = max(nextEntry, entry + 1)
        for change in changes {
            lanes.insert(change.lane)
            bytes += 8 * (4 + 2 * Self.pairCount(change.slots))
        }
    }

    private func save(_ lane: Lane, _ used: [SlotCounts.Slot], _ db: Database) throws {
        let key = Int64(bitPattern: lane.key)
        guard !used.isEmpty else {
            return try db.cachedStatement(sql: "DELETE FROM pools WHERE key = ? AND window = ?")
                .execute(arguments: [key, lane.window])
        }
        var pairs: [String] = []
        Self.forEachPair(used[...]) { pairs.append("\($0)=\($1)") }
        let slots = pairs.joined(separator: " ")
        try db.cachedStatement(sql: "INSERT OR REPLACE INTO pools VALUES (?, ?, ?, ?)")
            .execute(arguments: [key, lane.window, slots, nextEntry])
    }

    private static func forEachPair(
        _ slots: ArraySlice<SlotCounts.Slot>, _ body: (_ number: Int64, _ units: Int64) -> Void
    ) {
        for slot in slots {
            if slot.units > 0 { body(slot.number, slot.units) }
            if slot.refused > 0 { body(slot.number, -slot.refused) }
        }
    }

    private static func pairCount(_ slots: ArraySlice<SlotCounts.Slot>) -> Int {
        slots.reduce(0) { $0 + ($1.units > 0 ? 1 : 0) + ($1.refused > 0 ? 1 : 0) }
    }

    // MARK: Reading

    /// Reads what the tables have.
    mutating func read(_ db: Database) throws -> [KeptState.Pool] {
        var pools: [Lane: (slots: [SlotCounts.Slot], entry: Int64)] = [:]
        try db.forEachRow("SELECT key, window, slots, entry FROM pools") { row in
            let lane = Lane(key: UInt64(bitPattern: try row.integer(0)), window: Int64(try row.number(1)))
            let entry = Int64(try row.number(3))
            pools[lane] = (try Self.slots(try row.text(2), of: lane), entry)
            nextEntry = max(nextEntry, entry + 1)
        }
        var first: Int64?
        try db.forEachRow("SELECT entry, content FROM pool_log ORDER BY entry") { row in
            let entry = Int64(try row.number(0))
            let changes = try row.withBytes(1) { try Self.changes(of: $0) }
            note(changes, entry: entry)
            first = first ?? entry
            for change in changes where pools[change.lane]?.entry ?? 0 < entry {
                Self.apply(change, to: &pools[change.lane, default: ([], 0)].slots)
                pools[change.lane]?.entry = entry
            }
        }
        firstEntry = first ?? nextEntry
        return pools.filter { !$1.slots.isEmpty }.map { KeptState.Pool(lane: $0, slots: $1.slots) }
    }

    private static func apply(_ change: SharedLedger.PoolChange, to slots: inout [SlotCounts.Slot]) {
        while let last = slots.last, last.number >= change.first { slots.removeLast() }
        slots += change.slots
    }

    /// "slot=units slot=units", as in the engine, but for refused requests.
    private static func slots(_ text: String, of lane: Lane) throws(StoreDamage) -> [SlotCounts.Slot] {
        var slots: [SlotCounts.Slot] = []
        for entry in text.split(separator: " ") {
            let parts = entry.split(separator: "=").compactMap { Int64($0) }
            guard parts.count == 2 else { throw StoreDamage("slots has a value of another form") }
            try add(parts[0], parts[1], to: &slots, of: lane)
        }
        return slots
    }

    /// Adds a pair of numbers to the slots that come before it.
    private static func add(
        _ number: Int64, _ units: Int64, to slots: inout [SlotCounts.Slot], of lane: Lane
    ) throws(StoreDamage) {
        let end = number.multipliedReportingOverflow(by: lane.window)
        guard Window.allowed.contains(lane.window), !end.overflow, end.partialValue.magnitude < 1 << 61,
            units.magnitude <= SlidingWindows.largestAmount
        else { throw StoreDamage("a slot is out of range") }
        guard units < 0 else { return slots.append(SlotCounts.Slot(number: number, units: units)) }
        let used = slots.last?.number == number ? slots.removeLast().units : 0
        slots.append(SlotCounts.Slot(number: number, units: used, refused: -units))
    }

    // MARK: Entries

    /// Numbers of eight bytes: for each lane its key, its window, the first slot that has changed, how many pairs
    /// follow; and the pairs, each of them a slot's number and units.
    private static func content(_ changes: [SharedLedger.PoolChange]) -> Data {
        var words: [Int64] = []
        words.reserveCapacity(changes.reduce(0) { $0 + 4 + 2 * pairCount($1.slots) })
        for change in changes {
            words.append(Int64(bitPattern: change.lane.key))
            words.append(change.lane.window)
            words.append(change.first)
            words.append(Int64(pairCount(change.slots)))
            forEachPair(change.slots) { number, units in
                words.append(number)
                words.append(units)
            }
        }
        return words.withUnsafeBytes { Data($0) }
    }

    private static func changes(
        of content: UnsafeRawBufferPointer
    ) throws(StoreDamage) -> [SharedLedger.PoolChange] {
        var changes: [SharedLedger.PoolChange] = []
        var place = 0
        func next() throws(StoreDamage) -> Int64 {
            guard place + 8 <= content.count else { throw StoreDamage("an entry of pool_log is cut off") }
            defer { place += 8 }
            return content.loadUnaligned(fromByteOffset: place, as: Int64.self)
        }
        while place < content.count {
            let lane = Lane(key: UInt64(bitPattern: try next()), window: try next())
            let (first, count) = (try next(), try next())
            guard lane.window > 0, 0...Int64(content.count) ~= count else {
                throw StoreDamage("an entry of pool_log is out of range")
            }
            var slots: [SlotCounts.Slot] = []
            for _ in 0..<count { try add(try next(), try next(), to: &slots, of: lane) }
            changes.append(SharedLedger.PoolChange(lane: lane, first: first, slots: slots[...]))
        }
        return changes
    }
}
