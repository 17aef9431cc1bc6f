// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Hummingbird
internal import HummingbirdCore
internal import Logging
internal import Loop
internal import NIOCore
internal import NIOExtras
internal import NIOHTTP1
internal import NIOPosix
internal import Report

/// An HTTP server on a socket that is bound already, because the service manager may have passed it. Hummingbird's own
/// server always opens its socket itself.
struct AdminServer {
    private typealias Bounds = AdminListener.Bounds

    private let loop: any EventLoop
    private let quiescing: ServerQuiescingHelper

    /// Returns once it listens.
    ///
    /// - Parameter descriptor: a bound socket, which the server closes when it stops.
    static func start(
        on descriptor: Int32, _ responder: some HTTPResponder<AdminContext>, log: EventLog
    ) async throws -> AdminServer {
        var logger = Logger(label: "weir.admin")
        // What Hummingbird logs is about single connections.
        logger.logLevel = .critical
        let http = HTTP1Channel(
            responder: respond(with: responder, logger: logger), configuration: .init(idleTimeout: Bounds.idleTimeout))
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let quiescing = ServerQuiescingHelper(group: group)
        try ListeningSocket.listen(descriptor)
        _ = try await ServerBootstrap(group: group)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let connections = AdminConnections(most: Bounds.connections, log: log)
                    try channel.pipeline.syncOperations.addHandlers([
                        AdminAcceptPause(log), AvailableConnectionsChannelHandler(delegate: connections),
                        quiescing.makeServerChannelHandler(channel: channel),
                    ])
                }
            }
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { [logger] channel in
                http.setup(channel: channel, logger: logger).map { connection in
                    Task { await http.handle(value: connection, logger: logger) }
                }
            }
            .withBoundSocket(descriptor).get()
        return AdminServer(loop: group.next(), quiescing: quiescing)
    }

    private static func respond(
        with responder: some HTTPResponder<AdminContext>, logger: Logger
    ) -> HTTPChannelHandler.Responder {
        { request, writer, channel in
            var response: Response
            do {
                let context = AdminContext(source: .init(channel: channel, logger: logger))
                response = try await responder.respond(to: request, context: context)
            } catch let error as HTTPParserError {
                // Hummingbird answers it with 400, and closes the connection.
                throw error
            } catch {
                response = Response(status: .internalServerError)
            }
            // RFC 9110.
            response.headers[.date] = utcText(time(nil), format: "%a, %d %b %Y %H:%M:%S GMT")
            response.headers[.server] = "weir"
            try await writer.write(response: response.head, body: response.body)
        }
    }

    /// Accepts no more connections, and returns when all are closed. Requests have `Bounds.timeToStop` to finish.
    func stop() async {
        let stopped = loop.makePromise(of: Void.self)
        quiescing.initiateShutdown(promise: stopped)
        // Only the first result of a promise counts.
        loop.scheduleTask(in: Bounds.timeToStop) { stopped.succeed() }
        try? await stopped.futureResult.get()
    }
}
