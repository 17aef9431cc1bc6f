// SPDX-License-Identifier: Apache-2.0
internal import Wire

/// How an operator's machine reaches the page: `ssh -L` forwards a local port to the admin listener.
package struct PageTunnel: Sendable {
    /// On the operator's machine.
    package let port: Int
    /// The value of `ssh -L`.
    package let forwarding: String

    /// For a UNIX socket. docs/operation.md uses the same.
    private static let usualPort = 8045

    package init(_ configuration: Configuration) {
        switch configuration.listen.admin {
        case .inet(let host, let port):
            self.port = port
            forwarding = "\(port):\(host.contains(":") ? "[\(host)]" : host):\(port)"
        case .unix(let path, _, _):
            port = Self.usualPort
            forwarding = "\(port):\(path)"
        }
    }
}
