// SPDX-License-Identifier: Apache-2.0
internal import Loop

/// Flow control of a milter connection: whether it sends, reads, or waits for the ledger or the disk.
enum MilterFlow {
    /// The MTA has replies to take. Until it has taken them, nothing is read from it.
    case sending
    case reading
    /// So much input waits for the ledger or the disk that no more is read.
    case waiting

    /// - Parameters:
    ///   - unsent: bytes of replies.
    ///   - unread: bytes of packets that were received but not handled.
    ///   - isWaiting: the dialogue waits for the ledger or the disk.
    init(unsent: Int, unread: Int, isWaiting: Bool) {
        self = unsent > 0 ? .sending : isWaiting && unread >= Self.mostUnread ? .waiting : .reading
    }

    var interest: SocketLoop.Interest {
        switch self {
        case .sending: .writing
        case .reading: .reading
        case .waiting: .nothing
        }
    }

    private static let mostUnread = 512 << 10
    /// Bytes of replies that the MTA has not taken. Beyond, its next events wait.
    private static let mostUnsent = 256 << 10

    static func hasRoom(unsent: Int) -> Bool { unsent < mostUnsent }

    /// How much one read takes: a whole message of the usual size, and more of one that is larger.
    static func readSize(unread: Int) -> Int { unread >= 16 << 10 ? 64 << 10 : 16 << 10 }
}
