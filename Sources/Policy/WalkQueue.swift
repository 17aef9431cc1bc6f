// SPDX-License-Identifier: Apache-2.0
package import Loop
internal import NIOCore

/// Walks over many accounts that administrators have asked for: one at a time, in pieces, with a pause after each piece
/// in which requests are answered. However many walks are submitted, a turn of the loop does at most one piece.
///
/// Belongs to the loop.
package final class WalkQueue {
    private let loop: SocketLoop
    private let mostWaiting: Int
    /// The first one is under way. Each call does a piece, and returns whether there is more.
    private var walks: [() -> Bool] = []
    /// Whether a timer will call `advance`.
    private var isPausing = false

    private static let pause: TimeAmount = .milliseconds(2)

    /// - Parameter mostWaiting: walks that may wait for the one that is under way.
    package init(_ loop: SocketLoop, mostWaiting: Int) {
        self.loop = loop
        self.mostWaiting = mostWaiting
    }

    /// - Returns: false if too many others wait. The walk is not called then.
    package func submit(_ walk: @escaping () -> Bool) -> Bool {
        loop.assertInLoop()
        guard walks.count <= mostWaiting else { return false }
        walks.append(walk)
        if !isPausing { advance() }
        return true
    }

    private func advance() {
        isPausing = !walks.isEmpty
        guard let walk = walks.first else { return }
        if !walk() { walks.removeFirst() }
        loop.schedule(in: Self.pause) { self.advance() }
    }
}
