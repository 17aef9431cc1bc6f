// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOPosix

extension ServerBootstrap {
    /// With a long queue of clients, and a pause of a second where file descriptors run out.
    static func accepting(on group: any EventLoopGroup) -> ServerBootstrap {
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 4096)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
                }
            }
    }

    /// Listens; parameters and errors are those of `ListeningSocket.open`.
    func listen(
        on endpoint: Configuration.Endpoint, key: String, inherited: inout [String: Int32]
    ) async throws -> any Channel {
        let descriptor = try ListeningSocket.open(at: endpoint, key: key, inherited: &inherited)
        do {
            return try await withBoundSocket(descriptor).get()
        } catch {
            throw ListenerFailure(key: key, endpoint: endpoint, cause: error)
        }
    }
}
