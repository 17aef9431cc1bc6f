// SPDX-License-Identifier: Apache-2.0
import LedgerStoreConformance
import Limits
import Testing

/// The store of the ledger's tests conforms to the contract of stores, and the checks find stores that don't.
@Suite struct MemoryStoreTests {
    @Test(arguments: StoreCheck.all)
    func conforms(check: StoreCheck) throws {
        try check.run { MemoryFixture() }
    }

    @Test(arguments: FlawedStore.Flaw.allCases)
    func aFlawIsFound(flaw: FlawedStore.Flaw) throws {
        let check = try #require(StoreCheck.all.first { $0.description == flaw.rawValue })
        #expect(throws: (any Error).self) {
            try check.run { MemoryFixture { FlawedStore(flaw, afterCrashOf: $0) } }
        }
    }
}

private final class MemoryFixture: StoreFixture {
    private let make: (MemoryStore?) -> MemoryStore
    private var store: MemoryStore?
    private var cannotOpen = false

    init(_ make: @escaping (MemoryStore?) -> MemoryStore = { MemoryStore(afterCrashOf: $0) }) {
        self.make = make
    }

    func makeStore() -> any LedgerStore {
        let next = make(store)
        next.toleratesDamage = true
        if cannotOpen { next.failure = StoreError("no space left") }
        store = next
        return next
    }

    func breakOpening() { cannotOpen = true }
    func breakCheckpoints() { store?.checkpointFailure = StoreError("no space left") }

    func repair() {
        cannotOpen = false
        store?.failure = nil
        store?.checkpointFailure = nil
    }
}

final class FlawedStore: MemoryStore {
    /// A flaw, and the check that finds it.
    enum Flaw: String, CaseIterable {
        case otherHashKey = "the hash key stays the same"
        case keepsOldLimits = "limits come back, and a new one replaces the old one of its name"
        case opensAlways = "a store that could not be opened can be opened later"
        case losesBatches = "batches come back in order"
        case reordersBatches = "batches that were not flushed are lost from the end, if at all"
        case appendsAlways = "append throws before the first checkpoint"
        case journalOnlyGrows = "the journal grows with batches, and is small after a checkpoint"
        case keepsRemovedRows = "a checkpoint makes the older journal redundant"
        case unorderedRows = "rows come by rising ids, as they were saved last"
        case doneAtOnce = "a checkpoint runs until its end is written"
        case mixesCheckpoints = "an abandoned checkpoint leaves the journal, and the next one replaces it"
        case endsNextCheckpoint = "the end of an abandoned checkpoint does not end the next"
        case writesRefusedPieces = "refused pieces are not written, and accepted ones are"
        case hidesFailures = "a checkpoint that fails keeps the journal, and can be repeated"
        case losesBatchesAfterFailure = "a crash after a checkpoint has failed loses nothing"
        case stopsAtDamage = "what the ledger can't read does not cost the rest"
        case cutsAtBegin = "a crash between any two calls loses nothing that was written"
        case losesLateLimits = "a limit that comes later is stored with the next batch, and outlives a checkpoint"
        case oldestAuditEntries = "the audit trail returns its newest entries, oldest first"
    }

    private var flaw = Flaw.otherHashKey

    convenience init(_ flaw: Flaw, afterCrashOf other: MemoryStore?) {
        self.init(afterCrashOf: other)
        self.flaw = flaw
    }

    override func open() throws(StoreError) -> StoredState {
        if flaw == .opensAlways { failure = nil }
        var state = try super.open()
        if flaw == .otherHashKey { state.hashKey = SipHash.Key(low: .random(in: 0...(.max)), high: 0) }
        return state
    }

    override func register(_ new: [StoredLimit]) {
        if flaw == .losesLateLimits, !segments.isEmpty { return }
        let old = limits
        super.register(new)
        if flaw == .keepsOldLimits { limits = old + new }
    }

    override func recover(into sink: any RecoverySink) throws(StoreError) {
        switch flaw {
        case .stopsAtDamage: toleratesDamage = false
        case .reordersBatches: segments[segments.count - 1].batches.reverse()
        default: break
        }
        try super.recover(into: flaw == .unorderedRows ? ReversingSink(sink) : sink)
    }

    override func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if flaw == .losesBatches, sequence % 10 == 0 { return }
        if flaw == .appendsAlways, segments.isEmpty { return }
        if flaw == .losesBatchesAfterFailure, case .failed = checkpointProgress { return }
        try super.append(batch, sequence: sequence)
    }

    override var journalBytes: Int { flaw == .journalOnlyGrows ? .max / 2 : super.journalBytes }

    override func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) throws(StoreError) {
        if flaw == .cutsAtBegin { segments = [] }
        try super.beginCheckpoint(with: batch, sequence: sequence)
    }

    override var checkpointProgress: CheckpointProgress {
        switch (flaw, super.checkpointProgress) {
        case (.doneAtOnce, _), (.hidesFailures, .failed): .done
        case (.endsNextCheckpoint, .running): saves > 10 ? .done : .running
        case (_, let progress): progress
        }
    }

    override func save(_ pieces: [CheckpointPiece]) -> Bool {
        if flaw == .keepsRemovedRows, case .removed? = pieces.first { return true }
        let old = transactions
        let isTaken = super.save(pieces)
        if flaw == .mixesCheckpoints, transactions.count < old.count { transactions = old }
        if flaw == .writesRefusedPieces, case .accounts? = pieces.first { return saves % 3 != 0 }
        return isTaken
    }

    override func recentAudit(_ most: Int) throws(StoreError) -> [AuditEntry] {
        flaw == .oldestAuditEntries ? Array(audit.prefix(most)) : try super.recentAudit(most)
    }
}

/// Hands on pairs of rows in the wrong order.
private final class ReversingSink: RecoverySink {
    private let sink: any RecoverySink
    private var held: AccountRow?

    init(_ sink: any RecoverySink) {
        self.sink = sink
    }

    func recover(account row: AccountRow) throws(JournalDamage) {
        guard let held else { return held = row }
        try sink.recover(account: row)
        try sink.recover(account: held)
        self.held = nil
    }

    func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        try sink.recover(transactions: content, sequence: sequence)
    }

    func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        try sink.recover(batch: content, sequence: sequence)
    }
}
