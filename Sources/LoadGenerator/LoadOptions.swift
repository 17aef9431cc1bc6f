// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The options of a load that don't depend on the protocol.
package struct LoadOptions: Sendable {
    package var connections = 10
    /// The rate of an open loop; nil for a closed loop.
    package var pace: LoadPace?
    package var duration = TimeAmount.seconds(10)
    /// Maximum number of operations.
    package var count = 10_000_000
    /// For an answer, and for a connect.
    package var timeout = TimeAmount.seconds(10)
    /// After a lost connection, do as Postfix does: wait a second, reconnect, send the same operation again.
    package var reconnect = false

    package init() {}
}

/// Why a load could not start or continue.
package enum LoadError: Error, Equatable, CustomStringConvertible {
    /// All connects failed.
    case unreachable(target: String, reason: String)
    case account(path: String, reason: String)

    package var description: String {
        switch self {
        case .unreachable(let target, let reason): "can't connect to \(target): \(reason)"
        case .account(let path, let reason): "can't write \(path): \(reason)"
        }
    }
}
