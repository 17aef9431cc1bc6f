// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
internal import Settings

extension Target {
    /// A ledger must open with any rows and batches, count, finish its next checkpoint, and open again with the same
    /// counts.
    ///
    /// Pieces follow each other: a byte for the kind, two for the length, the content.
    static let journal = Target(name: "journal") { input in
        let store = FuzzStore(Choices(input))
        let ledger = store.openLedger()
        ledger.decideRecipient(of: "user1")
        ledger.finishCheckpoint()
        ledger.checkCountsAfterRestart(from: store)
    }
}

extension Ledger {
    /// - Precondition: the checkpoint is finished, and no batch has followed.
    func checkCountsAfterRestart(from store: FuzzStore) {
        let counts = counts()
        for (account, counts) in counts { precondition(counts.used == counts.inSlots, "\(account): \(counts)") }
        let after = store.openLedger().counts()
        precondition(after == counts, "\(counts), after a restart \(after)")
    }
}

struct Counts: Equatable {
    /// What counts in each window.
    var used: [UInt64]
    /// The sum of the slots of each window.
    var inSlots: [UInt64]
}

extension Ledger {
    /// By limit and key.
    func counts() -> [[UInt8]: Counts] {
        var found: [[UInt8]: Counts] = [:]
        var walk = selectionWalk(.any, in: limits)
        while (try? advance(&walk, steps: 4096)) ?? false {}
        for account in walk.found {
            let standing = standing(of: account, withHistory: true)
            for usage in standing.usages { _ = usage.freesAt.map(wallTime) }
            let counts = Counts(
                used: standing.usages.map(\.used),
                inSlots: standing.usages.map { $0.history?.reduce(0, +) ?? 0 })
            // An idle account may leave memory at any time.
            if counts.used.contains(where: { $0 > 0 }) {
                found[Array(standing.limit.utf8) + [0] + standing.key] = counts
            }
        }
        return found
    }

    /// Finishes the checkpoint that is running, and another one.
    func finishCheckpoint() {
        save()
        guard (try? beginCheckpoint()) != nil else { preconditionFailure("no checkpoint") }
        save()
    }

    /// Writes until all is saved. A store may write on another thread: that gets some seconds.
    private func save() {
        for attempt in 0..<20_000 where !isSaved {
            _ = maintain(slots: 4096)
            if attempt >= 10 { usleep(500) }
        }
        precondition(isSaved, "the checkpoint is never finished")
    }

    /// Decides a recipient of a transaction, with the names of the configuration.
    func decideRecipient(of user: String, instance: String = "1") {
        let values = [
            "protocol_state": "RCPT", "instance": instance, "sender": "a@example.org", "recipient": "b@example.com",
            "client_address": "192.0.2.1", "sasl_username": user, "size": "1000",
        ]
        var (bytes, ranges): ([UInt8], [Range<Int>]) = ([], [])
        for name in configuration.attributeNames.names {
            let value = Array((values[name] ?? "").utf8)
            ranges.append(bytes.count..<bytes.count + value.count)
            bytes += value
        }
        bytes.withUnsafeBytes { bytes in
            ranges.withUnsafeBufferPointer { ranges in
                let request = Attributes(bytes: bytes, ranges: ranges)
                beginTick()
                prepare(request)
                fetch()
                _ = decide(request)
            }
        }
        try? commit()
    }
}

private struct StoppedClocks: SystemClocks {
    let boot: UInt64 = 1
    func read() -> ClockReading { ClockReading(sinceBoot: 5_000_000, wall: 1_790_000_000_000) }
}

extension Ledger {
    static func forFuzzing(on store: any LedgerStore) throws(StoreError) -> Ledger {
        var settings = Ledger.Settings()
        (settings.mostAccounts, settings.mostTransactions) = (1_000, 256)
        return try Ledger(limits: configuration.limits, settings: settings, clocks: StoppedClocks(), store: store)
    }
}

/// A store in memory, which begins with what the input says.
final class FuzzStore: LedgerStore {
    private var rows: [UInt64: AccountRow] = [:]
    private var limits: [StoredLimit] = []
    private var transactions: [(sequence: UInt64, content: [UInt8])] = []
    private var batches: [(sequence: UInt64, content: [UInt8])] = []
    /// Of the running checkpoint: how many transactions and batches are older.
    private var older = (transactions: 0, batches: 0)

    init(_ input: Choices) {
        var input = input
        while !input.rest.isEmpty {
            let (kind, length) = (input.byte(), Int(input.byte()) << 8 | Int(input.byte()))
            let content = Array(input.rest.prefix(length))
            for _ in content { _ = input.byte() }
            let number = UInt64(rows.count + transactions.count + batches.count + 1)
            switch kind % 4 {
            case 0, 1:
                let key = Array("user\(kind >> 4)".utf8)
                // Ids of limits are counted up from 1.
                rows[number] = AccountRow(
                    id: number, limit: UInt64(kind >> 2 & 3), key: key, sequence: UInt64(kind), content: content)
            case 2: transactions.append((number, content))
            default: batches.append((number, content))
            }
        }
    }

    func openLedger() -> Ledger {
        do throws(StoreError) {
            return try Ledger.forFuzzing(on: self)
        } catch {
            preconditionFailure(error.message)
        }
    }

    func open() -> StoredState {
        StoredState(hashKey: .init(low: 7, high: 9), lastBatch: batches.last?.content, limits: limits)
    }

    func recover(into sink: any RecoverySink) {
        for row in rows.values.sorted(by: { $0.id < $1.id }) { try? sink.recover(account: row) }
        for part in transactions {
            part.content.withUnsafeBytes { try? sink.recover(transactions: $0, sequence: part.sequence) }
        }
        for batch in batches {
            batch.content.withUnsafeBytes { try? sink.recover(batch: $0, sequence: batch.sequence) }
        }
    }

    func register(_ new: [StoredLimit]) {
        limits = limits.filter { old in !new.contains { $0.name == old.name } } + new
    }

    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) { batches.append((sequence, Array(batch))) }
    func flush() {}
    let journalBytes = 0
    func wantsCheckpoint(age: Int64) -> Bool { false }

    func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) {
        older = (transactions.count, batches.count)
        append(batch, sequence: sequence)
    }

    let rowsTogether = 64

    func save(_ pieces: [CheckpointPiece]) -> Bool {
        for piece in pieces {
            switch piece {
            case .accounts(let saved): for row in saved { rows[row.id] = row }
            case .removed(let ids): for id in ids { rows[id] = nil }
            case .transactions(let sequence, let content): transactions.append((sequence, content))
            case .end:
                transactions.removeFirst(older.transactions)
                batches.removeFirst(older.batches)
                older = (0, 0)
            }
        }
        return true
    }

    let checkpointProgress = CheckpointProgress.done
    func record(_ entry: AuditEntry) {}
    func recentAudit(_ most: Int) -> [AuditEntry] { [] }
    let lostFile: String? = nil
}

private let configuration: Configuration = {
    let text = """
        limits:
          - { name: sender, key: [sasl_username], count: recipients, rates: [5/1m, 20/1d] }
          - name: client
            key: [sasl_username]
            count: messages
            rates: [3/1h]
            block: { after: 3, for: 1m }
          - { name: size, key: [sasl_username], count: bytes, rates: [1M/1h] }
        """
    guard case .success(let outcome) = ConfigurationReader.read(Array(text.utf8), file: "weir.yaml") else {
        preconditionFailure("the configuration is not valid")
    }
    return outcome.configuration
}()
