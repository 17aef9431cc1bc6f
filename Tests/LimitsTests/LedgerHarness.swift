// SPDX-License-Identifier: Apache-2.0
import Limits
import Synchronization

/// Clocks that move only when a test moves them.
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

/// A ledger with its own store and clocks. Requests are dictionaries of attributes.
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
        // The table is allocated at each start, and tests start often.
        self.settings.mostTransactions = 4096
        ledger = try Ledger(limits: limits, settings: self.settings, clocks: clocks, store: store)
    }

    convenience init(_ limits: (inout LimitMaker) -> [Limit], settings: Ledger.Settings = .init()) throws {
        var maker = LimitMaker()
        let made = limits(&maker)
        try self.init(made, names: maker.names, settings: settings)
    }

    /// A crash and a restart: everything that was not handed to the store is lost.
    func crash() throws {
        ledger = try Ledger(limits: limits, settings: settings, clocks: clocks, store: store)
    }

    /// Decides one request in a tick of its own. Returns the action, nil for DUNNO.
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
        withRequest(attributes) { request in
            ledger.prepare(request)
            ledger.fetch()
            let decision = ledger.decide(request)
            transaction = decision.transaction
            return decision.action.map { String(decoding: $0, as: UTF8.self) }
        }
    }

    /// The number of a request that has to wait for the engine of shared limits; nil if it need not, or can't.
    func putAside(_ attributes: [String: String]) -> Int? {
        ledger.beginTick()
        return withRequest(attributes) { request in
            ledger.prepare(request)
            ledger.fetch()
            let number = ledger.putAside(request)
            if number == nil { ledger.skip() }
            return number
        }
    }

    /// Decides a request that has waited for the engine of shared limits.
    func decideLast(_ attributes: [String: String], isAnswered: Bool) -> String? {
        withRequest(attributes) { request in
            ledger.decideLast(request, isAnswered: isAnswered).action.map { String(decoding: $0, as: UTF8.self) }
        }
    }

    private func withRequest<Result>(_ attributes: [String: String], _ body: (Attributes) -> Result) -> Result {
        var bytes: [UInt8] = []
        var ranges: [Range<Int>] = []
        for name in names.names {
            let value = Array((attributes[name] ?? "").utf8)
            ranges.append(bytes.count..<bytes.count + value.count)
            bytes += value
        }
        return bytes.withUnsafeBytes { bytes in
            ranges.withUnsafeBufferPointer { ranges in
                body(Attributes(bytes: bytes, ranges: ranges))
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

    /// Looks at all keys, so that idle ones leave memory.
    func sweep() throws {
        ledger.beginTick()
        for _ in 0..<64 { if let error = ledger.maintain(slots: 1 << 16) { throw error } }
    }

    func finishCheckpoint() throws {
        ledger.beginTick()
        try ledger.beginCheckpoint()
        while ledger.isCheckpointRunning {
            if let error = ledger.maintain(slots: 16) { throw error }
        }
    }
}

// MARK: Requests

func rcpt(
    _ instance: String, to recipient: String, user: String = "user", more: [String: String] = [:]
) -> [String: String] {
    ["protocol_state": "RCPT", "instance": instance, "recipient": recipient, "sasl_username": user]
        .merging(more) { $1 }
}

/// A request at DATA or END-OF-MESSAGE.
func settling(
    _ state: String, _ instance: String, count: Int, user: String = "user", more: [String: String] = [:]
) -> [String: String] {
    ["protocol_state": state, "instance": instance, "recipient_count": String(count), "sasl_username": user]
        .merging(more) { $1 }
}

// MARK: Observers

/// Collects the counts of all windows at each warning.
final class NearObserver: LedgerObserver {
    private(set) var warnings: [[UInt64]] = []

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {}
    func near(_ event: LimitEvent, _ request: Attributes) {
        warnings.append(event.limit.rates.indices.map { event.account.used(lane: $0) })
    }
    func mayBeNear(_ event: LimitEvent, _ request: Attributes) {}
    func blocked(_ event: LimitEvent, _ request: Attributes) {}
    func evicted(_ account: Account, at time: LedgerTime) {}
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {}
}

/// Collects why requests were refused.
final class ReasonObserver: LedgerObserver {
    private(set) var reasons: [RefusalReason] = []

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {
        reasons.append(reason)
    }
    func near(_ event: LimitEvent, _ request: Attributes) {}
    func mayBeNear(_ event: LimitEvent, _ request: Attributes) {}
    func blocked(_ event: LimitEvent, _ request: Attributes) {}
    func evicted(_ account: Account, at time: LedgerTime) {}
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {}
}

/// Collects weak references to the evicted accounts.
final class EvictionObserver: LedgerObserver {
    struct Reference {
        weak var account: Account?
    }
    private(set) var evicted: [Reference] = []

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {}
    func near(_ event: LimitEvent, _ request: Attributes) {}
    func mayBeNear(_ event: LimitEvent, _ request: Attributes) {}
    func blocked(_ event: LimitEvent, _ request: Attributes) {}
    func evicted(_ account: Account, at time: LedgerTime) { evicted.append(Reference(account: account)) }
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {}
}

/// Collects the attributes of undecided conditions.
final class UndecidedObserver: LedgerObserver {
    private(set) var attributes: [String] = []

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {}
    func near(_ event: LimitEvent, _ request: Attributes) {}
    func mayBeNear(_ event: LimitEvent, _ request: Attributes) {}
    func blocked(_ event: LimitEvent, _ request: Attributes) {}
    func evicted(_ account: Account, at time: LedgerTime) {}
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {
        attributes.append(condition.attribute)
    }
}

// MARK: Limits and randomness

/// Makes limits from text.
struct LimitMaker {
    var names = AttributeNames()
    var forms = KeyForms()

    mutating func limit(
        _ name: String = "per-user", key: [String] = ["sasl_username"], count: CountUnit = .recipients,
        rates: [String],
        when: [(String, Condition.Test)] = [],
        over: String = "DEFER_IF_PERMIT 4.7.1 $count/$limit per $window, $retry s",
        mode: Limit.Mode = .enforce, block: Limit.Block? = nil,
        blockOver: String = "REJECT 5.7.1 blocked", keepsBlocks: Bool = false, countRefused: Bool = false,
        exempt: [LookupTable] = [], overrides: [LookupTable] = []
    ) -> Limit {
        let conditions = when.map { Condition(part: KeyPart($0.0, in: &names), test: $0.1, forms: forms) }
        let parts = key.map { KeyPart($0, in: &names) }
        return Limit(
            name: name, conditions: conditions, key: KeyDefinition(parts: parts, forms: forms), count: count,
            rates: rates.map { Rate($0)! }, over: try! ActionTemplate(over),
            tooLarge: try! ActionTemplate("REJECT 5.7.1 never"), mode: mode, warnAt: 80, block: block,
            blockOver: try! ActionTemplate(blockOver), keepsBlocks: keepsBlocks, countRefused: countRefused,
            exempt: exempt, overrides: overrides)
    }
}

/// A small random number generator (SplitMix64). A seed repeats a run.
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

extension Ledger {
    /// The result of a whole walk.
    func fullest(_ most: Int, limit: String?, steps: Int = 100) throws -> [Standing] {
        var walk = try fullestWalk(most, limit: limit)
        while advance(&walk, steps: steps) {}
        return walk.result
    }
}
