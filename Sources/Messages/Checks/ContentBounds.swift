// SPDX-License-Identifier: Apache-2.0
internal import Decoding
internal import Synchronization

/// The bounds on the content of messages that all connections hold together.
package final class ContentBounds: Sendable, SharedMemory {
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

    package func reserveMemory(_ count: Int) -> Bool { Self.reserve(count, of: memory, upTo: mostMemory) }
    func reserveSpool(_ count: Int) -> Bool { Self.reserve(count, of: spool, upTo: mostSpool) }
    package func release(memory count: Int) { if count > 0 { memory.subtract(count, ordering: .relaxed) } }
    func release(spool count: Int) { if count > 0 { spool.subtract(count, ordering: .relaxed) } }

    private static func reserve(_ count: Int, of reserved: borrowing Atomic<Int>, upTo most: Int) -> Bool {
        guard reserved.add(count, ordering: .relaxed).newValue <= most else {
            reserved.subtract(count, ordering: .relaxed)
            return false
        }
        return true
    }
}
