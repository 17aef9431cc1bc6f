// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// Which ready sockets a turn of a loop handles first.
///
/// A socket is costly if it took more than its share of one of the last turns, or had more to do when its share was
/// over. The loop handles the other sockets first, then as many of the costly ones as the turn has time for, and at
/// least one. They take turns: the one that waits longest goes first.
///
/// The thread may lose its processor while it handles a socket, for example to the peer that it has just answered. So a
/// socket that seems to take long is only a suspect at first. It is costly if it takes processor time.
struct CostlySockets {
    private struct Cost {
        /// The processor time that the socket took of the last turns. The latest one counts a quarter: so a single turn
        /// in which the kernel did other work in the thread's time does not make a quiet client wait.
        var time = TimeAmount.zero
        /// How many turns more the processor time is measured.
        var suspicion = 0
        var isCostly = false
        var isWaiting = false
    }

    /// A peer that sends dear and cheap requests by turns is found out.
    private static let vigilance = 8

    /// By descriptor.
    private var costs: [Cost] = []
    /// Ready and costly, the longest wait first. The socket of a descriptor that is not `isWaiting` was closed.
    private var waiting: [Int32] = []
    private var first = 0

    /// Whether some socket waits for `next`.
    var isWaiting: Bool { first < waiting.count }

    /// Whether a ready socket is costly. It then waits until `next` returns it.
    mutating func postpones(_ descriptor: Int32) -> Bool {
        let index = Int(descriptor)
        guard index < costs.count, costs[index].isCostly else { return false }
        if !costs[index].isWaiting {
            costs[index].isWaiting = true
            waiting.append(descriptor)
        }
        return true
    }

    /// Removes the costly socket that has waited longest.
    mutating func next() -> Int32? {
        while first < waiting.count {
            let descriptor = waiting[first]
            first += 1
            if first >= 512 {
                waiting.removeFirst(first)
                first = 0
            }
            if costs[Int(descriptor)].isWaiting {
                costs[Int(descriptor)].isWaiting = false
                return descriptor
            }
        }
        waiting.removeAll(keepingCapacity: true)
        first = 0
        return nil
    }

    /// Whether the processor time of a socket has to be measured.
    func isSuspect(_ descriptor: Int32) -> Bool {
        let index = Int(descriptor)
        return index < costs.count && costs[index].suspicion > 0
    }

    /// A socket was handled.
    ///
    /// - Parameters:
    ///   - time: how long that took.
    ///   - processorTime: of this, if it was measured.
    ///   - hasMore: whether the socket has left work to the next turn.
    mutating func note(
        _ descriptor: Int32, took time: TimeAmount, _ processorTime: TimeAmount?, share: TimeAmount, hasMore: Bool
    ) {
        let index = Int(descriptor)
        while costs.count <= index { costs.append(Cost()) }
        let before = costs[index].time.nanoseconds
        let cost = before + ((processorTime?.nanoseconds ?? 0) - before) / 4
        costs[index].time = .nanoseconds(cost)
        let isSuspect = time > share || cost > share.nanoseconds
        costs[index].suspicion = isSuspect ? Self.vigilance : max(0, costs[index].suspicion - 1)
        costs[index].isCostly = hasMore || cost > share.nanoseconds
    }

    /// The descriptor belongs to no socket, or to a new one.
    mutating func forget(_ descriptor: Int32) {
        if Int(descriptor) < costs.count { costs[Int(descriptor)] = Cost() }
    }
}
