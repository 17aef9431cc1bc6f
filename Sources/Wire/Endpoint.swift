// SPDX-License-Identifier: Apache-2.0

/// The address of a listener, in Postfix's notation: `inet:127.0.0.1:10040` or `unix:/run/weir/policy`.
package enum Endpoint: Hashable, Sendable {
    case inet(host: String, port: Int)
    /// `mode` and `group` are those of the socket's file. A nil group leaves the service's own.
    case unix(path: String, mode: UInt16, group: String?)

    package var isTCP: Bool {
        switch self {
        case .inet: true
        case .unix: false
        }
    }
}

extension Endpoint: CustomStringConvertible {
    package var description: String {
        switch self {
        case .inet(let host, let port): host.contains(":") ? "inet:[\(host)]:\(port)" : "inet:\(host):\(port)"
        case .unix(let path, _, _): "unix:\(path)"
        }
    }
}
