// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// What a kind of load sends and how it reads what comes back. One object serves all connections of a load, on the
/// load's event loop; `LoadRun` does the rest (connections, pace, time-outs, figures).
package protocol LoadTraffic: AnyObject, SendableMetatype {
    associatedtype Dialogue: LoadDialogue

    /// The dialogue of one more connection.
    func makeDialogue() -> Dialogue

    /// What the peers answered so far.
    var outcomes: OutcomeTally { get }

    /// How the trojan fared, where the population has one.
    var trojan: TrojanReport? { get }

    /// Brings to disk what is to be kept of the answers. Called once a second and at the end.
    func save() throws
}

/// One connection's side of a protocol: bytes in, bytes out, no I/O and no clock. An operation is what the load's rate
/// counts and what a latency is measured of: a policy request, an SMTP message.
package protocol LoadDialogue {
    /// A connection was made, the first or another one.
    mutating func connected()

    /// Writes what starts the operation in hand: the one that a lost connection left unanswered, or else the next.
    ///
    /// - Parameter time: since the load began.
    mutating func begin(into output: inout ByteBuffer, at time: TimeAmount)

    /// Consumes what came from the peer, and writes what follows.
    mutating func receive(
        _ input: inout ByteBuffer, into output: inout ByteBuffer, at time: TimeAmount
    ) throws -> LoadStep
}

/// The peer does not want the session at all.
package struct SessionRefused: Error, Equatable {
    /// Its words.
    package let reply: String

    package init(reply: String) {
        self.reply = reply
    }
}

/// What a dialogue makes of the bytes it was given.
package enum LoadStep: Equatable {
    /// The operation goes on.
    case wait
    /// The operation is over.
    case answered
}
