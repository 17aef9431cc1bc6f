// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The protocol of a load: what it sends, and how it reads the answers. One object serves all connections of a load, on
/// the load's event loop. `LoadRun` does the rest (connections, pace, timeouts, figures).
package protocol LoadTraffic: AnyObject, SendableMetatype {
    associatedtype Dialogue: LoadDialogue

    /// Creates the dialogue of a connection.
    func makeDialogue() -> Dialogue

    /// The answers so far.
    var outcomes: OutcomeTally { get }

    /// Nil if the population has no trojan.
    var trojan: TrojanReport? { get }

    /// Flushes the answers to disk. Called once a second and at the end.
    func save() throws
}

/// The client side of a protocol on one connection: bytes in, bytes out, no I/O and no clock. An operation is the unit
/// of rates and latencies: a policy request or a message.
package protocol LoadDialogue {
    /// Called after a connect or reconnect.
    mutating func connected()

    /// Writes the start of an operation: the one that a lost connection left unanswered, else the next.
    ///
    /// - Parameter time: since the load began.
    mutating func begin(into output: inout ByteBuffer, at time: TimeAmount)

    /// Consumes bytes from the peer and writes the next ones.
    mutating func receive(
        _ input: inout ByteBuffer, into output: inout ByteBuffer, at time: TimeAmount
    ) throws -> LoadStep
}

/// The peer refused the session.
package struct SessionRefused: Error, Equatable {
    package let reply: String

    package init(reply: String) {
        self.reply = reply
    }
}

/// The state of the operation after `LoadDialogue.receive`.
package enum LoadStep: Equatable {
    /// Not over yet.
    case wait
    /// The operation is over.
    case answered
}
