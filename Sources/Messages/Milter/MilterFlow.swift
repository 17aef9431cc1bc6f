// SPDX-License-Identifier: Apache-2.0
internal import Loop

/// Flow control of a milter connection: whether it sends, reads, or waits for the ledger or the disk.
enum MilterFlow {
    /// Replies wait to be sent. Until they are, nothing is read from the MTA.
    case sending
    case reading
    /// Received events wait for the next turn of the loop.
    case interrupted
    /// Too much input waits for the ledger or the disk; no more is read.
    case waiting

    /// - Parameters:
    ///   - unsent: bytes of replies.
    ///   - unread: bytes of packets that were received but not handled.
    ///   - isWaiting: the dialogue waits for the ledger or the disk.
    ///   - isInterrupted: received events could be handled, but the connection's share of the turn is used up.
    init(unsent: Int, unread: Int, isWaiting: Bool, isInterrupted: Bool) {
        self =
            if unsent > 0 { .sending } else if isWaiting { unread >= Self.mostUnread ? .waiting : .reading } else {
                isInterrupted ? .interrupted : .reading
            }
    }

    var interest: SocketLoop.Interest {
        switch self {
        case .sending: .writing
        case .reading: .reading
        case .interrupted, .waiting: .nothing
        }
    }

    private static let mostUnread = 512 << 10
    /// Maximum bytes of unsent replies. Above it, the MTA's next events wait.
    private static let mostUnsent = 256 << 10

    static func hasRoom(unsent: Int) -> Bool { unsent < mostUnsent }

    /// How much one read takes: a whole message of the usual size, and more of one that is larger.
    static func readSize(unread: Int) -> Int { unread >= 16 << 10 ? 64 << 10 : 16 << 10 }
}
