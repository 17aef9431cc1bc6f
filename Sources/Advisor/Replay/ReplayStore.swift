// SPDX-License-Identifier: Apache-2.0
import Limits
import Synchronization

/// Stores nothing: a replay counts in memory.
final class ReplayStore: LedgerStore {
    let checkpointProgress = CheckpointProgress.done

    func open() -> StoredState { StoredState(hashKey: SipHash.Key(low: 0, high: 0), lastBatch: nil, limits: []) }
    func recover(into sink: any RecoverySink) {}
    func register(_ limits: [StoredLimit]) {}
    func append(_ batch: UnsafeRawBufferPointer, sequence: UInt64) {}
    func flush() {}
    let journalBytes = 0
    func wantsCheckpoint(age: Int64) -> Bool { false }
    func beginCheckpoint(with batch: UnsafeRawBufferPointer, sequence: UInt64) {}
    let rowsTogether = 1
    func save(_ pieces: [CheckpointPiece]) -> Bool { true }
    func record(_ entry: AuditEntry) {}
    func recentAudit(_ most: Int) -> [AuditEntry] { [] }
    let lostFile: String? = nil
}

/// Clocks that follow the times of the log.
final class ReplayClocks: SystemClocks {
    private let milliseconds = Atomic<Int64>(0)

    let boot: UInt64 = 1

    /// - Parameter time: milliseconds since 1970; an earlier time than before has no effect.
    func advance(to time: Int64) {
        milliseconds.store(max(time, milliseconds.load(ordering: .relaxed)), ordering: .relaxed)
    }

    func read() -> ClockReading {
        let now = milliseconds.load(ordering: .relaxed)
        return ClockReading(sinceBoot: now, wall: now)
    }
}
