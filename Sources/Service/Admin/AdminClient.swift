// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// Asks a running service, over its admin listener.
package struct AdminClient: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package enum Kind: Sendable {
            /// Nobody answers there.
            case unreachable
            /// The service can't open its ledger.
            case inTrouble
            case refused
        }
        package let description: String
        package let kind: Kind
    }

    private let endpoint: Configuration.Endpoint
    private let token: String?

    private static let timeout: TimeAmount = .seconds(30)
    private static let largestReply = 64 << 20

    package init(_ configuration: Configuration) {
        endpoint = configuration.listen.admin
        token = if case .inet = endpoint { AdminToken.read(at: configuration.adminTokenPath) } else { nil }
    }

    package func fullest(_ most: Int, limit: String?) async throws -> [AdminMessages.Standing] {
        try await ask(.GET, "/limits", ["most": String(most), "limit": limit])
    }

    package func standings(ofKey key: String, limit: String?) async throws -> [AdminMessages.Standing] {
        try await ask(.GET, "/limits/key", ["key": key, "limit": limit])
    }

    package func status() async throws -> AdminMessages.Status {
        try await ask(.GET, "/status", [:])
    }

    package func snapshot() async throws -> AdminMessages.Snapshot {
        try await ask(.GET, "/snapshot", [:])
    }

    package func intervene(_ message: AdminMessages.Intervention) async throws -> [AdminMessages.Standing] {
        try await ask(.POST, "/limits/key", [:], body: try JSONEncoder().encode(message))
    }

    /// A probe that goes as far as `last`; its token.
    package func beginProbe(upTo last: AdminMessages.ProbeStage) async throws -> String {
        let probe: AdminMessages.Probe = try await ask(
            .POST, "/probe", [:], body: try JSONEncoder().encode(AdminMessages.Probe(last: last, token: nil)))
        return probe.token ?? ""
    }

    package func sightings(ofProbe token: String) async throws -> [AdminMessages.ProbeSighting] {
        try await ask(.GET, "/probe", ["token": token])
    }

    /// - Returns: all its sightings.
    package func endProbe(_ token: String) async throws -> [AdminMessages.ProbeSighting] {
        try await ask(.DELETE, "/probe", ["token": token])
    }

    private func ask<T: Decodable>(
        _ method: HTTPMethod, _ path: String, _ query: [String: String?], body: Data = Data()
    ) async throws -> T {
        var components = URLComponents()
        components.path = path
        components.queryItems = query.compactMap { name, value in value.map { URLQueryItem(name: name, value: $0) } }
        // A plus sign in a query means a space to many a server, and addresses have them.
        let uri = (components.string ?? path).replacing("+", with: "%2B")
        let (status, reply) = try await exchange(method, uri, body)
        guard status == .ok else {
            let said = try? JSONDecoder().decode(AdminMessages.Failure.self, from: reply)
            throw Failure(
                description: said?.error ?? "the service answered \(status.code) \(status.reasonPhrase)",
                kind: status == .serviceUnavailable ? .inTrouble : .refused)
        }
        return try JSONDecoder().decode(T.self, from: reply)
    }

    private func exchange(_ method: HTTPMethod, _ uri: String, _ body: Data) async throws -> (HTTPResponseStatus, Data) {
        let group = MultiThreadedEventLoopGroup.singleton
        let promise = group.next().makePromise(of: (HTTPResponseStatus, Data).self)
        let bootstrap = ClientBootstrap(group: promise.futureResult.eventLoop).connectTimeout(.seconds(5))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(
                        NIOHTTPClientResponseAggregator(maxContentLength: Self.largestReply))
                    try channel.pipeline.syncOperations.addHandler(ReplyHandler(promise: promise))
                }
            }
        let channel: any Channel
        do {
            switch endpoint {
            case .inet(let host, let port): channel = try await bootstrap.connect(host: host, port: port).get()
            case .unix(let path, _, _): channel = try await bootstrap.connect(unixDomainSocketPath: path).get()
            }
        } catch {
            promise.fail(error)
            throw Failure(description: "no service answers on \(endpoint): \(error)", kind: .unreachable)
        }
        var headers = HTTPHeaders([("Host", "weir"), ("Content-Length", String(body.count)), ("Connection", "close")])
        if let token { headers.add(name: "Authorization", value: "Bearer \(token)") }
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: uri, headers: headers)
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        let timeout = channel.eventLoop.scheduleTask(in: Self.timeout) { channel.close(promise: nil) }
        defer {
            timeout.cancel()
            channel.close(promise: nil)
        }
        return try await promise.futureResult.get()
    }
}

private final class ReplyHandler: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPClientResponseFull

    private var promise: EventLoopPromise<(HTTPResponseStatus, Data)>?

    init(promise: EventLoopPromise<(HTTPResponseStatus, Data)>) {
        self.promise = promise
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let response = unwrapInboundIn(data)
        let body = response.body.map { Data($0.readableBytesView) } ?? Data()
        promise.take()?.succeed((response.head.status, body))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.take()?.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        promise.take()?.fail(
            AdminClient.Failure(description: "the service closed the connection without an answer", kind: .unreachable))
    }
}

extension Configuration {
    /// Beside the ledger, where only the service's user can write.
    package var adminTokenPath: String {
        let folder = ledger.path.lastIndex(of: "/").map { String(ledger.path[...$0]) } ?? ""
        return folder + "admin-token"
    }
}
