// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import Limits
internal import Loop
package import NIOCore
internal import NIOHTTP1
internal import NIOPosix
package import Report
package import Settings
internal import Wire

/// A client of the running service's admin listener.
package struct AdminClient: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package enum Kind: Sendable {
            /// No service, or no answer.
            case unreachable
            /// The service can't open its ledger.
            case inTrouble
            /// The user lacks the permission.
            case notPermitted
            /// Any other error status.
            case refused
        }
        package let description: String
        package let kind: Kind
        /// There was a connection, but no answer in time.
        package var isOverdue = false
    }

    private let endpoint: Endpoint
    private let token: String?
    /// Why the token can't be read. An error only if the service asks for a token.
    private let tokenFault: String?
    private var timeout: TimeAmount

    private static let largestReply = 64 << 20

    /// - Parameter timeout: for an answer.
    package init(_ configuration: Configuration, timeout: TimeAmount = .seconds(30)) {
        endpoint = configuration.listen.admin
        self.timeout = timeout
        guard endpoint.isTCP else {
            (token, tokenFault) = (nil, nil)
            return
        }
        let path = configuration.adminTokenPath
        token = AdminToken.read(at: path)
        tokenFault = access(path, R_OK) == 0 ? nil : "can't read \(path): \(String(cString: strerror(errno)))"
    }

    package func fullest(_ most: Int, limit: String?) async throws -> [KeyStanding] {
        try await ask(.GET, "/limits", ["most": String(most), "limit": limit])
    }

    package func standings(ofKey key: String, limit: String?) async throws -> [KeyStanding] {
        try await ask(.GET, "/limits/key", ["key": key, "limit": limit])
    }

    /// The hosts that share limits; nil if no limit is shared.
    package func hosts() async throws -> SharedFigures? {
        do {
            let figures: SharedFigures = try await ask(.GET, "/hosts", [:])
            return figures.hosts.isEmpty ? nil : figures
        } catch let failure as Failure where failure.kind == .refused {
            // A service of an earlier version, during an upgrade.
            return nil
        }
    }

    package func protections() async throws -> AdminMessages.Protections {
        try await ask(.GET, "/protections", [:])
    }

    package func status() async throws -> AdminMessages.Status {
        try await ask(.GET, "/status", [:])
    }

    package func snapshot() async throws -> AdminMessages.Snapshot {
        try await ask(.GET, "/snapshot", [:])
    }

    package func intervene(_ message: AdminMessages.Intervention) async throws -> [KeyStanding] {
        try await ask(.POST, "/limits/key", [:], body: try JSONEncoder().encode(message))
    }

    /// - Parameters:
    ///   - state: `blocked`, `raised`, or the percentage that is used at least of some window; nil for any.
    ///   - match: a shell pattern over keys; nil for all keys.
    package func keys(
        in state: String?, limit: String?, match: String?, most: Int
    ) async throws -> KeyListing {
        try await ask(
            .GET, "/limits/selection", ["state": state, "limit": limit, "match": match, "most": String(most)])
    }

    /// A million keys take some seconds.
    package func intervene(_ message: AdminMessages.SelectionIntervention) async throws -> KeysChanged {
        var client = self
        client.timeout = .minutes(10)
        return try await client.ask(.POST, "/limits/selection", [:], body: try JSONEncoder().encode(message))
    }

    /// Sends a test notice by a channel, or by all.
    package func testAlerts(_ message: AdminMessages.AlertTest) async throws -> [AlertTestOutcome] {
        var client = self
        // A channel fails after 30 s.
        client.timeout = .seconds(50)
        return try await client.ask(.POST, "/alerts/test", [:], body: try JSONEncoder().encode(message))
    }

    /// Registers a probe, which the stage `last` discards.
    ///
    /// - Returns: its token and its start.
    package func beginProbe(upTo last: ProbeStage) async throws -> AdminMessages.Probe {
        try await ask(
            .POST, "/probe", [:], body: try JSONEncoder().encode(AdminMessages.Probe(last: last, token: nil)))
    }

    package func sightings(ofProbe token: String) async throws -> [ProbeSighting] {
        try await ask(.GET, "/probe", ["token": token])
    }

    /// - Returns: all sightings of the probe.
    package func endProbe(_ token: String) async throws -> [ProbeSighting] {
        try await ask(.DELETE, "/probe", ["token": token])
    }

    private func ask<T: Decodable>(
        _ method: HTTPMethod, _ path: String, _ query: [String: String?], body: Data = Data()
    ) async throws -> T {
        let (status, reply) = try await exchange(method, Self.uri(path, query), body)
        guard status == .ok else { throw failure(status, reply) }
        do {
            return try JSONDecoder().decode(T.self, from: reply)
        } catch {
            throw Failure(
                description: "the answer on \(endpoint) is not from this version of Weir", kind: .unreachable)
        }
    }

    /// - Parameter query: items without a value are left out.
    package static func uri(_ path: String, _ query: [String: String?]) -> String {
        var components = URLComponents()
        components.path = path
        components.queryItems = query.compactMap { name, value in value.map { URLQueryItem(name: name, value: $0) } }
        // Addresses may contain a plus sign, which many servers decode as a space.
        return (components.string ?? path).replacing("+", with: "%2B")
    }

    private func failure(_ status: HTTPResponseStatus, _ reply: Data) -> Failure {
        if status == .unauthorized, let tokenFault { return Failure(description: tokenFault, kind: .notPermitted) }
        let text =
            (try? JSONDecoder().decode(AdminMessages.Failure.self, from: reply))?.error
            ?? (status == .notFound
                ? String(decoding: reply, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines) : "")
        return Failure(
            description: text.isEmpty ? "the service answered \(status.code) \(status.reasonPhrase)" : text,
            kind: status == .serviceUnavailable ? .inTrouble : .refused)
    }

    private func failure(toConnect error: any Error) -> Failure {
        if let error = error as? IOError, error.errnoCode == EACCES {
            return Failure(description: "can't connect to \(endpoint): \(error.systemReason)", kind: .notPermitted)
        }
        return Failure(description: "\(endpoint) is unreachable: \(error.systemReason)", kind: .unreachable)
    }

    private func exchange(_ method: HTTPMethod, _ uri: String, _ body: Data) async throws -> (HTTPResponseStatus, Data)
    {
        let group = MultiThreadedEventLoopGroup.singleton
        let promise = group.next().makePromise(of: (HTTPResponseStatus, Data).self)
        let bootstrap = ClientBootstrap(group: promise.futureResult.eventLoop).connectTimeout(.seconds(5))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(
                        NIOHTTPClientResponseAggregator(maxContentLength: Self.largestReply))
                    try channel.pipeline.syncOperations.addHandler(ReplyHandler(endpoint: endpoint, promise: promise))
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
            throw failure(toConnect: error)
        }
        var headers = HTTPHeaders([("Host", "weir"), ("Content-Length", String(body.count)), ("Connection", "close")])
        if let token { headers.add(name: "Authorization", value: "Bearer \(token)") }
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: uri, headers: headers)
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        let overdue = Failure(
            description: "no answer from \(endpoint) within \(timeout.nanoseconds / 1_000_000_000) s",
            kind: .unreachable, isOverdue: true)
        let timer = channel.eventLoop.scheduleTask(in: timeout) {
            channel.pipeline.fireErrorCaught(overdue)
        }
        defer {
            timer.cancel()
            channel.close(promise: nil)
        }
        return try await promise.futureResult.get()
    }
}

private final class ReplyHandler: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPClientResponseFull

    private let endpoint: Endpoint
    private var promise: EventLoopPromise<(HTTPResponseStatus, Data)>?

    init(endpoint: Endpoint, promise: EventLoopPromise<(HTTPResponseStatus, Data)>) {
        self.endpoint = endpoint
        self.promise = promise
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let response = unwrapInboundIn(data)
        let body = response.body.map { Data($0.readableBytesView) } ?? Data()
        promise.take()?.succeed((response.head.status, body))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.take()?.fail(
            error as? AdminClient.Failure
                ?? AdminClient.Failure(
                    description: "lost the connection to \(endpoint): \(error.systemReason)",
                    kind: .unreachable))
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        promise.take()?.fail(
            AdminClient.Failure(
                description: "\(endpoint) closed the connection without an answer", kind: .unreachable))
    }
}
