// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Synchronization

/// A copy that a verdict adds to a message.
struct LMTPCopy {
    let address: [UInt8]
    /// Identifies the message and the address: the same for each try of the message.
    let mark: Int

    /// - Parameter hash: of the message.
    init(_ address: [UInt8], of hash: Hasher) {
        var hash = hash
        address.withUnsafeBytes { hash.combine(bytes: $0) }
        self.address = address
        mark = hash.finalize()
    }
}

/// The delivery of copies to an LMTP server before the message itself.
final class LMTPCopyTransaction {
    /// In the order in which they are asked.
    let copies: [LMTPCopy]
    /// The connection that carries the client's recipients.
    let recipientsHop: NextHopConnection
    /// How that ended in the meantime.
    private(set) var loss: NextHopDialogue.Ending?

    init(_ copies: [LMTPCopy], before recipientsHop: NextHopConnection) {
        self.copies = copies
        self.recipientsHop = recipientsHop
    }

    func closed(_ connection: NextHopConnection, _ ending: NextHopDialogue.Ending) {
        if connection === recipientsHop { loss = ending }
    }
}

/// Copies that an LMTP server has accepted of messages that come again because a recipient or a copy is deferred.
/// The next try leaves them out. After a restart, they are sent once more.
final class AcceptedCopies: Sendable {
    private struct Marks {
        var known: Set<Int> = []
        /// In the order in which they came. Some may be removed already.
        var order: [Int] = []
        /// The place of the oldest one in a full `order`.
        var oldest = 0
    }

    private let marks = Mutex(Marks())

    /// A mark takes about 40 bytes.
    private static let most = 20_000

    func contains(_ mark: Int) -> Bool { marks.withLock { $0.known.contains(mark) } }

    func insert(_ mark: Int) {
        marks.withLock { marks in
            guard marks.known.insert(mark).inserted else { return }
            guard marks.order.count == Self.most else { return marks.order.append(mark) }
            marks.known.remove(marks.order[marks.oldest])
            marks.order[marks.oldest] = mark
            marks.oldest = (marks.oldest + 1) % Self.most
        }
    }

    func remove(_ mark: Int) { marks.withLock { _ = $0.known.remove(mark) } }
}
