// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOPosix

extension ServerBootstrap {
    /// With a long queue of clients, and a pause of a second where file descriptors run out.
    static func accepting(on group: any EventLoopGroup) -> ServerBootstrap {
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 4096)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
                }
            }
    }

    /// Listens; on an already bound socket where the service manager has passed one.
    ///
    /// - Parameters:
    ///   - key: of the configuration, for errors.
    ///   - inherited: sockets by their addresses; the one that is used is taken out.
    /// - Throws: `ListenerFailure`.
    func listen(
        on endpoint: Configuration.Endpoint, key: String, inherited: inout [String: Int32]
    ) async throws -> any Channel {
        let descriptor = inherited.removeValue(forKey: endpoint.description)
        do {
            switch endpoint {
            case .inet(let name, let port):
                // Linux hands both on to the sockets that are accepted: no calls for each of them.
                let bootstrap = serverChannelOption(.socketOption(.so_keepalive), value: 1)
                    .serverChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                if let descriptor { return try await bootstrap.withBoundSocket(descriptor).get() }
                return try await bootstrap.bind(host: name, port: port).get()
            case .unix(let path, let mode, let group):
                if let descriptor { return try await withBoundSocket(descriptor).get() }
                try UnixSocketFile.clear(path)
                let channel = try await bind(unixDomainSocketPath: path).get()
                try UnixSocketFile.set(mode: mode, group: group, of: path)
                return channel
            }
        } catch {
            throw ListenerFailure(key: key, endpoint: endpoint, cause: error)
        }
    }
}
