// SPDX-License-Identifier: Apache-2.0
package import Limits

/// Storage on which the checks open stores, one after the other. Each check gets a new fixture, which is empty.
package protocol StoreFixture: AnyObject {
    /// A store on this storage, not opened yet. The earlier store was released as if its process had crashed; the
    /// storage has everything that it had written.
    func makeStore() throws -> any LedgerStore

    /// Makes `LedgerStore.open` fail until `repair`. Called before a store is opened.
    func breakOpening() throws

    /// Makes checkpoints with rows fail until `repair`. The journal still works.
    func breakCheckpoints() throws

    func repair() throws
}

/// A violation of the contract of `LedgerStore`.
package struct ConformanceFailure: Error, CustomStringConvertible {
    package let description: String
}

func require(_ condition: Bool, _ expectation: @autoclosure () -> String) throws {
    if !condition { throw ConformanceFailure(description: expectation()) }
}

func requireEqual<T: Equatable>(_ value: T, _ expected: T, _ what: @autoclosure () -> String) throws {
    if value != expected { throw ConformanceFailure(description: "\(what()): \(value), expected \(expected)") }
}

struct Batch: Equatable {
    var sequence: UInt64
    var content: [UInt8]
}

/// Everything that a store has handed to its sink, in order.
final class Recovered: RecoverySink {
    private(set) var rows: [AccountRow] = []
    private(set) var transactions: [Batch] = []
    private(set) var batches: [Batch] = []
    /// The row and the transactions that the sink reports as unreadable.
    var damagedRow: UInt64?
    var damagedTransactions: [UInt8]?

    func recover(account row: AccountRow) throws(JournalDamage) {
        if row.id == damagedRow { throw JournalDamage(offset: 0) }
        rows.append(row)
    }

    func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        if Array(content) == damagedTransactions { throw JournalDamage(offset: 0) }
        transactions.append(Batch(sequence: sequence, content: Array(content)))
    }

    func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        batches.append(Batch(sequence: sequence, content: Array(content)))
    }
}
