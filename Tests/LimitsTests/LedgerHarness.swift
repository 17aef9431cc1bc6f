// SPDX-License-Identifier: Apache-2.0
import Limits
import Synchronization

/// Clocks that only move when told to.
final class TestClocks: SystemClocks {
    private struct State {
        var boot: UInt64 = 1
        var reading = ClockReading(sinceBoot: 5_000_000, wall: 1_790_000_000_000)
    }
    private let state = Mutex(State())

    var boot: UInt64 { state.withLock { $0.boot } }
    func read() -> ClockReading { state.withLock { $0.reading } }

    func advance(_ milliseconds: Int64) {
        state.withLock {
            $0.reading.sinceBoot += milliseconds
            $0.reading.wall += milliseconds
        }
    }

    func stepWall(_ milliseconds: Int64) {
        state.withLock { $0.reading.wall += milliseconds }
    }

    /// A new boot, after `milliseconds` with the power off.
    func reboot(after milliseconds: Int64) {
        state.withLock {
            $0.boot += 1
            $0.reading.sinceBoot = 1000
            $0.reading.wall += milliseconds
        }
    }
}

/// What a crash leaves: everything that was appended, and the checkpoint pieces that were written.
final class MemoryStore: LedgerStore {
    var rows: [UInt64: AccountRow] = [:]
    var limits: [StoredLimit] = []
    var transactions: [(checkpoint: Int, sequence: UInt64, content: [UInt8])] = []
    var segments: [(number: Int, batches: [(sequence: UInt64, content: [UInt8])])] = []
    var failure: StoreError?
    /// Checkpoints are taken, and not written.
    var checkpointFailure: StoreError?
    var checkpointProgress = CheckpointProgress.done
    /// Damage costs what has it, and no more, as with files.
    var toleratesDamage = false
    private(set) var checkpoint = 0
    /// Rows that were handed over since the last checkpoint began.
    private(set) var handed = 0
    /// How often something was.
    private(set) var saves = 0
    /// By default a crash finds a checkpoint half written.
    var rowsTogether = 1

    func open() throws(StoreError) -> Recovery {
        if let failure { throw failure }
        return Recovery(
            hashKey: .init(low: 7, high: 9), lastBatch: segments.flatMap(\.batches).last?.content, limits: limits)
    }

    func recover(into sink: any RecoverySink) throws(StoreError) {
        func take(_ body: () throws -> Void) throws(StoreError) {
            do { try body() } catch {
                if !toleratesDamage { throw StoreError("damage: \(error)") }
            }
        }
        for row in rows.values.sorted(by: { $0.id < $1.id }) { try take { try sink.recover(account: row) } }
        for part in transactions {
            try take {
                try part.content.withUnsafeBytes { try sink.recover(transactions: $0, sequence: part.sequence) }
            }
        }
        for batch in segments.flatMap(\.batches) {
            try take { try batch.content.withUnsafeBytes { try sink.recover(batch: $0, sequence: batch.sequence) } }
        }
    }

    func register(_ new: [StoredLimit]) throws(StoreError) {
        if let failure { throw failure }
        limits = limits.filter { old in !new.contains { $0.name == old.name } } + new
    }

    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if let failure { throw failure }
        segments[segments.count - 1].batches.append((sequence, Array(batch)))
    }

    func flush() throws(StoreError) {}

    func wantsCheckpoint(age: Int64) -> Bool { false }

    func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if let failure { throw failure }
        checkpoint += 1
        handed = 0
        saves = 0
        segments.append((checkpoint, [(sequence, Array(batch))]))
        checkpointProgress = .running
    }

    func save(_ pieces: [CheckpointPiece]) -> Bool {
        saves += 1
        for piece in pieces {
            if case .accounts(let saved) = piece { handed += saved.count }
            if checkpointFailure == nil { save(piece) }
        }
        if let checkpointFailure { checkpointProgress = .failed(checkpointFailure) }
        return true
    }

    private func save(_ piece: CheckpointPiece) {
        switch piece {
        case .accounts(let saved): for row in saved { rows[row.id] = row }
        case .removed(let ids): for id in ids { rows[id] = nil }
        case .transactions(let sequence, let content): transactions.append((checkpoint, sequence, content))
        case .end:
            transactions.removeAll { $0.checkpoint < checkpoint }
            segments.removeAll { $0.number < checkpoint }
            checkpointProgress = .done
        }
    }
}

/// A ledger with a store and clocks of its own, asked in words.
final class LedgerHarness {
    let clocks = TestClocks()
    let store: any LedgerStore
    var limits: [Limit]
    var settings = Ledger.Settings()
    var names = AttributeNames()
    private(set) var ledger: Ledger

    init(
        _ limits: [Limit], names: AttributeNames, store: any LedgerStore = MemoryStore(),
        settings: Ledger.Settings = .init()
    ) throws {
        self.limits = limits
        self.names = names
        self.store = store
        self.settings = settings
        // The room is reserved at each start, and tests start often.
        self.settings.mostTransactions = 4096
        ledger = try Ledger(limits: limits, settings: self.settings, clocks: clocks, store: store)
    }

    /// The process is gone, with all that it had not handed to the store.
    func crash() throws {
        ledger = try Ledger(limits: limits, settings: settings, clocks: clocks, store: store)
    }

    /// One request in a tick of its own; nil: it passed.
    @discardableResult
    func ask(_ attributes: [String: String], commits: Bool = true) throws -> String? {
        ledger.beginTick()
        let action = decide(attributes)
        if commits {
            try ledger.commit()
            if let error = ledger.maintain(slots: 64) { throw error }
        }
        return action
    }

    func decide(_ attributes: [String: String]) -> String? {
        var bytes: [UInt8] = []
        var ranges: [Range<Int>] = []
        for name in names.names {
            let value = Array((attributes[name] ?? "").utf8)
            ranges.append(bytes.count..<bytes.count + value.count)
            bytes += value
        }
        return bytes.withUnsafeBytes { bytes in
            ranges.withUnsafeBufferPointer { ranges in
                let request = Attributes(bytes: bytes, ranges: ranges)
                ledger.prepare(request)
                ledger.fetch()
                let decision = ledger.decide(request)
                transaction = decision.transaction
                return decision.action.map { String(decoding: $0, as: UTF8.self) }
            }
        }
    }
    private(set) var transaction: UInt64 = 0

    func used(_ key: String, limit: String? = nil) -> [UInt64] {
        standing(key, limit: limit)?.usages.map(\.used) ?? []
    }

    func standing(_ key: String, limit: String? = nil) -> Standing? {
        ledger.beginTick()
        return (try? ledger.standings(ofKey: Array(key.utf8), limit: limit))?.first
    }

    func finishCheckpoint() throws {
        ledger.beginTick()
        try ledger.beginCheckpoint()
        while ledger.isCheckpointRunning {
            if let error = ledger.maintain(slots: 16) { throw error }
            try ledger.commit()
        }
    }
}

/// Keeps the counts of the windows that each warning tells.
final class NearObserver: LedgerObserver {
    private(set) var told: [[UInt64]] = []

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {}
    func near(_ event: LimitEvent) { told.append(event.limit.rates.indices.map { event.account.used(lane: $0) }) }
    func blocked(_ event: LimitEvent) {}
    func evicted(_ account: Account, at time: LedgerTime) {}
}

/// Knows the accounts that were given up, for as long as anybody else does.
final class EvictionObserver: LedgerObserver {
    struct Reference {
        weak var account: Account?
    }
    private(set) var evicted: [Reference] = []

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {}
    func near(_ event: LimitEvent) {}
    func blocked(_ event: LimitEvent) {}
    func evicted(_ account: Account, at time: LedgerTime) { evicted.append(Reference(account: account)) }
}

/// Limits in words, for tests.
struct LimitMaker {
    var names = AttributeNames()
    var forms = KeyForms()

    mutating func limit(
        _ name: String = "per-user", key: [String] = ["sasl_username"], count: CountUnit = .recipients,
        rates: [String],
        when: [(String, Condition.Test)] = [],
        over: String = "DEFER_IF_PERMIT 4.7.1 $count/$limit per $window, $retry s",
        mode: Limit.Mode = .enforce, block: Limit.Block? = nil, countRefused: Bool = false,
        exempt: [LookupTable] = [], overrides: [LookupTable] = []
    ) -> Limit {
        let conditions = when.map { Condition(part: KeyPart($0.0, in: &names), test: $0.1, forms: forms) }
        let parts = key.map { KeyPart($0, in: &names) }
        return Limit(
            name: name, conditions: conditions, key: KeyDefinition(parts: parts, forms: forms), count: count,
            rates: rates.map { Rate($0)! }, over: try! ActionTemplate(over),
            tooLarge: try! ActionTemplate("REJECT 5.7.1 never"), mode: mode, warnAt: 80, block: block,
            countRefused: countRefused, exempt: exempt, overrides: overrides)
    }
}

/// A small generator whose runs can be repeated by their seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
