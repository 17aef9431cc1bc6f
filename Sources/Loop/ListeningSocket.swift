// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
package import NIOCore
package import Wire

package enum ListeningSocket {
    /// Opens a socket at an address for SwiftNIO or `SocketLoop`. A socket that the service manager has passed for this
    /// address is used instead.
    ///
    /// - Parameters:
    ///   - key: the configuration key, for errors.
    ///   - inherited: sockets by address; the one that is used is removed.
    /// - Returns: a non-blocking descriptor that is bound but does not listen yet.
    /// - Throws: `ListenerFailure`.
    package static func open(
        at endpoint: Endpoint, key: String, inherited: inout [String: Int32]
    ) throws(ListenerFailure) -> Int32 {
        let passed = inherited.removeValue(forKey: endpoint.description)
        if let passed { _ = fcntl(passed, F_SETFL, O_NONBLOCK) }
        do {
            switch endpoint {
            case .inet(let host, let port):
                let descriptor = try passed ?? bound(to: .makeAddressResolvingHost(host, port: port))
                return try closing(descriptor) {
                    // On Linux accepted sockets inherit these options.
                    try set(SO_KEEPALIVE, at: SOL_SOCKET, of: descriptor)
                    try set(TCP_NODELAY, at: Int32(IPPROTO_TCP), of: descriptor)
                    try set(TCP_NOTSENT_LOWAT, at: Int32(IPPROTO_TCP), of: descriptor, to: mostUnsent)
                }
            case .unix(let path, let mode, let group):
                if let passed { return passed }
                try UnixSocketFile.clear(path)
                let descriptor = try bound(to: SocketAddress(unixDomainSocketPath: path))
                return try closing(descriptor) { try UnixSocketFile.set(mode: mode, group: group, of: path) }
            }
        } catch {
            throw ListenerFailure(
                key: key, endpoint: endpoint, cause: error, rival: rival(of: endpoint, inherited, error))
        }
    }

    /// The passed socket that may have the port of an endpoint under another address.
    private static func rival(
        of endpoint: Endpoint, _ inherited: [String: Int32], _ error: any Error
    ) -> String? {
        guard case .inet(_, let port) = endpoint, (error as? IOError)?.errnoCode == EADDRINUSE else { return nil }
        return inherited.keys.filter { $0.hasPrefix("inet:") && $0.hasSuffix(":\(port)") }.min()
    }

    /// Bytes that the kernel keeps for a TCP client that does not read, beyond what the client's own buffer takes. Its
    /// own bound (tcp_wmem) is 4 MiB for each client.
    private static let mostUnsent: Int32 = 64 << 10

    private static func bound(to address: SocketAddress) throws -> Int32 {
        let descriptor = try SocketStream.open(for: address)
        return try closing(descriptor) {
            try set(SO_REUSEADDR, at: SOL_SOCKET, of: descriptor)
            let code = address.withSockAddr { bind(descriptor, $0, socklen_t($1)) }
            guard code == 0 else { throw IOError(errnoCode: errno, reason: "bind") }
        }
    }

    /// Returns the descriptor, which is closed if `body` throws.
    private static func closing(_ descriptor: Int32, _ body: () throws -> Void) throws -> Int32 {
        do { try body() } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// Begins to listen. A socket that listens already only changes its backlog.
    package static func listen(_ descriptor: Int32) throws(IOError) {
        guard Glibc.listen(descriptor, backlog) == 0 else { throw IOError(errnoCode: errno, reason: "listen") }
    }

    private static let backlog: Int32 = 4096

    /// Sets a socket option: 1 enables it.
    package static func set(
        _ option: Int32, at level: Int32, of descriptor: Int32, to value: Int32 = 1
    ) throws(IOError) {
        var value = value
        guard setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0 else {
            throw IOError(errnoCode: errno, reason: "setsockopt")
        }
    }
}

/// A listener can't be opened.
package struct ListenerFailure: Error, CustomStringConvertible {
    let key: String
    let endpoint: Endpoint
    let cause: any Error
    /// A socket of the service manager that has the same port.
    let rival: String?

    package init(key: String, endpoint: Endpoint, cause: any Error, rival: String? = nil) {
        self.key = key
        self.endpoint = endpoint
        self.cause = cause
        self.rival = rival
    }

    package var description: String {
        "can't listen on \(endpoint) (\(key)): \(cause.systemReason)"
            + (rival.map { "; the service manager has passed \($0): \(key) must name it in the same way" } ?? "")
    }
}
