// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// The bounds on the content of messages that all connections hold together.
package final class ContentBounds: Sendable {
    /// The directory of the spool files, which have no names.
    let directory: String
    private let mostMemory: Int
    private let mostSpool: Int
    private let memory = Atomic(0)
    private let spool = Atomic(0)

    /// - Parameters: bounds in bytes.
    package init(directory: String, mostMemory: Int, mostSpool: Int) {
        self.directory = directory
        self.mostMemory = mostMemory
        self.mostSpool = mostSpool
    }

    /// Whether there is room for a new message.
    var hasRoom: Bool { spool.load(ordering: .relaxed) < mostSpool }

    func takeMemory(_ count: Int) -> Bool { Self.take(count, of: memory, upTo: mostMemory) }
    func takeSpool(_ count: Int) -> Bool { Self.take(count, of: spool, upTo: mostSpool) }
    func giveBack(memory count: Int) { if count > 0 { memory.subtract(count, ordering: .relaxed) } }
    func giveBack(spool count: Int) { if count > 0 { spool.subtract(count, ordering: .relaxed) } }

    private static func take(_ count: Int, of taken: borrowing Atomic<Int>, upTo most: Int) -> Bool {
        guard taken.add(count, ordering: .relaxed).newValue <= most else {
            taken.subtract(count, ordering: .relaxed)
            return false
        }
        return true
    }
}
