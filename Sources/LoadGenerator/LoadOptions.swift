// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// How much load, how fast and for how long, whatever the protocol.
package struct LoadOptions: Sendable {
    package var connections = 10
    /// When operations are due; nil sends the next as soon as the last is answered.
    package var pace: LoadPace?
    package var duration = TimeAmount.seconds(10)
    /// Operations in all.
    package var count = 10_000_000
    /// How long to wait for an answer, and for connects.
    package var timeout = TimeAmount.seconds(10)
    /// Whether to do as Postfix does when a connection is lost: wait a second, connect, send the same again.
    package var reconnect = false

    package init() {}
}

/// Why a load could not be, or go on.
package enum LoadError: Error, Equatable, CustomStringConvertible {
    /// Not one connection could be made.
    case unreachable(target: String, reason: String)
    case account(path: String, reason: String)

    package var description: String {
        switch self {
        case .unreachable(let target, let reason): "cannot connect to \(target): \(reason)"
        case .account(let path, let reason): "cannot write \(path): \(reason)"
        }
    }
}
