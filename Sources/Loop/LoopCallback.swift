// SPDX-License-Identifier: Apache-2.0

/// A closure that another thread has a loop call once, with a result.
///
/// What the closure holds is released on the loop, because it may belong there: a connection, for example, whose memory
/// the loop would otherwise still use while another thread destroys it.
///
/// Sendable, unchecked: only the loop sets and calls the closure, and it is nil before another thread can release it.
/// This holds if whoever has the callback calls it, or drops it on the loop.
package final class LoopCallback<Outcome: Sendable>: @unchecked Sendable {
    private let loop: SocketLoop
    private var body: ((Outcome) -> Void)?

    /// Made on the loop.
    package init(_ loop: SocketLoop, _ body: @escaping (Outcome) -> Void) {
        loop.assertInLoop()
        self.loop = loop
        self.body = body
    }

    /// Has the loop call the closure. May be called from any thread, once.
    package func call(_ outcome: Outcome) {
        loop.execute {
            let body = self.body
            self.body = nil
            body?(outcome)
        }
    }
}
