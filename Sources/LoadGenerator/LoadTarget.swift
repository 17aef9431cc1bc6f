// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The address of a load's target in Postfix's notation: `inet:HOST:PORT` (an IPv6 HOST in brackets) or `unix:PATH`.
package enum LoadTarget: Sendable, Equatable, CustomStringConvertible {
    case inet(host: String, port: Int)
    case unix(path: String)

    /// Returns nil if `text` has neither form.
    package init?(_ text: String) {
        if let path = text.suffix(after: "unix:") {
            guard !path.isEmpty else { return nil }
            self = .unix(path: String(path))
        } else if let endpoint = text.suffix(after: "inet:"), let colon = endpoint.lastIndex(of: ":") {
            var host = endpoint[..<colon]
            if host.first == "[", host.last == "]" { host = host.dropFirst().dropLast() }
            guard !host.isEmpty, let port = Int(endpoint[endpoint.index(after: colon)...]), 1...65535 ~= port else {
                return nil
            }
            self = .inet(host: String(host), port: port)
        } else {
            return nil
        }
    }

    package var description: String {
        switch self {
        case .inet(let host, let port): host.contains(":") ? "inet:[\(host)]:\(port)" : "inet:\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    /// The address to connect to. Blocks while it asks the resolver.
    package func resolve() throws -> SocketAddress {
        switch self {
        case .inet(let host, let port): try .makeAddressResolvingHost(host, port: port)
        case .unix(let path): try SocketAddress(unixDomainSocketPath: path)
        }
    }
}

extension SocketAddress {
    /// Whether packets to this address stay on this machine: 127.0.0.0/8, ::1 and UNIX sockets.
    package var isLoopback: Bool {
        switch self {
        case .v4: ipAddress?.hasPrefix("127.") == true
        case .v6: ipAddress == "::1"
        case .unixDomainSocket: true
        }
    }
}

extension String {
    fileprivate func suffix(after prefix: String) -> Substring? {
        hasPrefix(prefix) ? dropFirst(prefix.count) : nil
    }
}
