// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Foundation
internal import Glibc
internal import HTTPTypes
internal import Hummingbird
internal import HummingbirdCore
internal import Limits
internal import Logging
internal import Loop
internal import Messages
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report
internal import Settings
internal import Synchronization
internal import Wire

/// The admin listener: HTTP on a UNIX socket (or on loopback), for `weir limits` and whatever else asks.
///
/// Security: on a UNIX socket the file's mode says who may connect (the service's user and the group `weir`); on
/// loopback, where anybody on the machine may, each request must carry the token that only these can read. What
/// changes anything leaves a line in the log with the user who did it.
final class AdminListener: Sendable {
    private let host: LedgerHost
    private let policy: PolicyListener
    /// nil where nothing takes messages.
    private let content: ContentService?
    private let alerts: Alerts
    private let log: EventLog
    /// For pages, of which many may ask at the same moment.
    private let lastAnswers = Mutex<[String: (bytes: ByteBuffer, madeAt: NIODeadline)]>([:])

    private static let mostLastAnswers = 16

    private static let largestBody = 65_536
    private static let longestReason = 500
    private static let mostConnections = 500
    private static let mostHistories = 100
    private static let longestSearch = 256
    private static let idleTimeout: TimeAmount = .seconds(60)
    /// Longer than any answer may take; the service is not alive beyond.
    private static let healthTimeout: TimeAmount = .seconds(5)

    init(host: LedgerHost, policy: PolicyListener, content: ContentService?, alerts: Alerts, log: EventLog) {
        self.host = host
        self.policy = policy
        self.content = content
        self.alerts = alerts
        self.log = log
    }

    /// Serves until its task is cancelled.
    ///
    /// - Parameter onRunning: called when it listens.
    /// - Throws: `ListenerFailure`.
    func run(
        on endpoint: Configuration.Endpoint, tokenPath: String, onRunning: @escaping @Sendable () -> Void
    ) async throws {
        do {
            try await serve(on: endpoint, tokenPath: tokenPath, onRunning: onRunning)
        } catch {
            throw ListenerFailure(key: "listen.admin", endpoint: endpoint, cause: error)
        }
    }

    private func serve(
        on endpoint: Configuration.Endpoint, tokenPath: String, onRunning: @escaping @Sendable () -> Void
    ) async throws {
        let router = Router(context: AdminContext.self, options: .autoGenerateHeadEndpoints)
        router.add(middleware: FailureMiddleware())
        router.add(middleware: OriginMiddleware())
        if endpoint.isTCP {
            router.add(middleware: TokenMiddleware(token: try AdminToken.readOrCreate(at: tokenPath)))
        }
        addRoutes(to: router)
        let address: BindAddress
        switch endpoint {
        case .inet(let host, let port):
            address = .hostname(host, port: port)
        case .unix(let path, _, _):
            try UnixSocketFile.clear(path)
            address = .unixDomainSocket(path: path)
        }
        var logger = Logger(label: "weir.admin")
        // It takes the end of the service for a fault.
        logger.logLevel = .critical
        let application = Application(
            router: router, server: .http1(configuration: .init(idleTimeout: Self.idleTimeout)),
            configuration: .init(
                address: address, serverName: "weir",
                availableConnectionsDelegate: AdminConnections(most: Self.mostConnections, log: log)),
            onServerRunning: { [log] _ in
                if case .unix(let path, let mode, let group) = endpoint {
                    do { try UnixSocketFile.set(mode: mode, group: group, of: path) } catch {
                        log.warning("\(error); only the service's own user can use it")
                    }
                }
                onRunning()
            },
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup(numberOfThreads: 1)), logger: logger)
        try await application.run()
    }

    private func addRoutes(to router: Router<AdminContext>) {
        router.get("status") { [host, policy] _, _ in
            try Self.json(try await host.status(of: policy))
        }
        router.get("snapshot") { [self] request, _ in
            try await lately(request) { try await self.snapshot().snapshot }
        }
        router.get("metrics") { [self] _, _ in
            let (snapshot, latency) = try await snapshot()
            var metrics = Metrics()
            metrics.begin("weir_build_info", "gauge", "The version that runs.")
            metrics.add("weir_build_info", [("version", snapshot.version)], 1)
            metrics.add(snapshot, latency: latency)
            metrics.single(
                "weir_alerts_failed_total", "counter",
                "Alert notices that a channel did not take; they are in the log.", alerts.failedNotices)
            metrics.single(
                "weir_log_lines_dropped_total", "counter", "Log lines dropped because the log is too slow.",
                log.droppedLines)
            metrics.addProcess()
            return Self.text(metrics.text, as: "text/plain; version=0.0.4")
        }
        router.get("healthz") { [self] _, _ in
            await isAlive()
                ? Self.text("alive\n")
                : Self.text("the ledger's event loop does not turn\n", status: .serviceUnavailable)
        }
        router.get("readyz") { [self] _, _ in
            guard await isAlive() else {
                return Self.text("the ledger's event loop does not turn\n", status: .serviceUnavailable)
            }
            let fault = try await host.loop.submit { [host] in host.fault }
            guard let fault else { return Self.text("ready\n") }
            return Self.text("the ledger can't be kept: \(fault.message)\n", status: .serviceUnavailable)
        }
        for file in AdminPage.files {
            router.get(.init(file.path)) { _, _ in
                Response(
                    status: .ok, headers: AdminPage.headers(type: file.type),
                    body: .init(byteBuffer: ByteBuffer(string: file.content)))
            }
        }
        router.get("limits") { [self] request, _ in
            let most = request.uri.queryParameters.get("most", as: Int.self) ?? 50
            guard (1...100_000).contains(most) else { return try Self.failure("most is a number from 1 to 100000") }
            let limit = request.uri.queryParameters.get("limit")
            let withHistory = request.uri.queryParameters.get("history") == "1"
            guard !withHistory || most <= Self.mostHistories else {
                return try Self.failure("with history most is a number from 1 to \(Self.mostHistories)")
            }
            return try await lately(request) {
                try await self.host.fullest(most, limit: limit, withHistory: withHistory)
            }
        }
        router.get("limits/meant") { [host] request, _ in
            try Self.json(try await host.meanings(of: request.uri.queryParameters.get("key") ?? ""))
        }
        router.get("search") { [host] request, _ in
            let text = request.uri.queryParameters.get("text") ?? ""
            guard (1...Self.longestSearch).contains(text.utf8.count) else {
                return try Self.failure("text has from 1 to \(Self.longestSearch) bytes")
            }
            guard let result = try await host.search(text) else {
                return try Self.json(
                    AdminMessages.Failure(error: "another search is under way"), status: .tooManyRequests)
            }
            return try Self.json(result)
        }
        router.get("rules/unused") { [self] request, _ in
            try await lately(request) { self.content?.rulesWithoutHits() ?? [] }
        }
        router.get("limits/key") { [host] request, _ in
            guard let key = request.uri.queryParameters.get("key") else { return try Self.failure("no key was given") }
            return try Self.json(
                try await host.standings(ofKey: key, limit: request.uri.queryParameters.get("limit")))
        }
        router.post("probe") { [host] request, _ in
            let body = try await request.body.collect(upTo: Self.largestBody)
            guard
                let last = try? JSONDecoder().decode(AdminMessages.Probe.self, from: Data(body.readableBytesView)).last
            else {
                return try Self.failure("the body names no last stage")
            }
            return try Self.json(AdminMessages.Probe(last: last, token: host.probes.begin(upTo: last)))
        }
        router.get("probe") { [host] request, _ in
            try Self.json(host.probes.sightings(of: request.uri.queryParameters.get("token") ?? ""))
        }
        router.delete("probe") { [host] request, _ in
            let token = request.uri.queryParameters.get("token") ?? ""
            defer { host.probes.end(token) }
            return try Self.json(host.probes.sightings(of: token))
        }
        router.post("limits/key") { [self] request, context in
            let body = try await request.body.collect(upTo: Self.largestBody)
            guard
                let message = try? JSONDecoder().decode(
                    AdminMessages.Intervention.self, from: Data(body.readableBytesView))
            else {
                return try Self.failure("the body is no intervention")
            }
            let user = await context.user()
            return try await intervene(message, by: user)
        }
    }

    private func intervene(_ message: AdminMessages.Intervention, by user: String) async throws -> Response {
        var rates: [Rate] = []
        for text in message.rates ?? [] {
            guard let rate = Rate(text) else {
                return try Self.failure("'\(text)' is no rate; write N/window, such as 500/1h")
            }
            rates.append(rate)
        }
        if message.action == .raise, rates.isEmpty { return try Self.failure("raise takes rates, such as 500/1h") }
        if let duration = message.duration, !(1...10 * 366 * 86_400).contains(duration) {
            return try Self.failure("a duration is from a second to ten years")
        }
        guard (message.reason ?? "").utf8.count <= Self.longestReason else {
            return try Self.failure("a reason has \(Self.longestReason) bytes at most")
        }
        let details = [
            message.limit.map { "limit \($0)" }, rates.isEmpty ? nil : rates.map(\.description).joined(separator: " "),
            message.duration.map { "for \($0)s" },
        ].compactMap(\.self).joined(separator: ", ")
        let change = KeyChange(
            message.action, key: message.key, limit: message.limit, rates: rates, duration: message.duration,
            reason: message.reason ?? "", user: user, details: details)
        return try Self.json(try await host.apply(change))
    }

    private func snapshot() async throws -> (snapshot: AdminMessages.Snapshot, latency: LatencyHistogram) {
        var (snapshot, latency) = try await host.snapshot(of: policy, version: WeirVersion.current)
        snapshot.ways = content?.ways ?? []
        if let figures = content?.ruleFigures() { (snapshot.rules, snapshot.rulesWithoutHits) = figures }
        return (snapshot, latency)
    }

    /// Whether the loop that answers Postfix still turns.
    private func isAlive() async -> Bool {
        let loop = host.loop
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Bool.self)
        // The first of the two counts.
        let timeout = promise.futureResult.eventLoop.scheduleTask(in: Self.healthTimeout) { promise.succeed(false) }
        loop.execute { promise.succeed(true) }
        defer { timeout.cancel() }
        return (try? await promise.futureResult.get()) ?? false
    }

    private static func text(
        _ text: String, as type: String = "text/plain; charset=utf-8", status: HTTPResponse.Status = .ok
    ) -> Response {
        Response(
            status: status, headers: [.contentType: type, .cacheControl: "no-store"],
            body: .init(byteBuffer: ByteBuffer(string: text)))
    }

    /// Answers as it was answered last, where that is not older than the request's `age` admits, in seconds.
    private func lately(
        _ request: Request, _ make: @Sendable () async throws -> some Encodable
    ) async throws -> Response {
        let age = min(60, max(0, request.uri.queryParameters.get("age", as: Int64.self) ?? 0))
        guard age > 0 else { return try Self.json(try await make()) }
        let (uri, now) = (request.uri.string, NIODeadline.now())
        if let last = lastAnswers.withLock({ $0[uri] }), now - last.madeAt < .seconds(age) {
            return Self.json(bytes: last.bytes)
        }
        let bytes = try Self.encoded(try await make())
        lastAnswers.withLock { answers in
            if answers.count >= Self.mostLastAnswers { answers = [:] }
            answers[uri] = (bytes, now)
        }
        return Self.json(bytes: bytes)
    }

    private static func encoded(_ value: some Encodable) throws -> ByteBuffer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return ByteBuffer(bytes: try encoder.encode(value))
    }

    private static func json(bytes: ByteBuffer, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: "application/json", .cacheControl: "no-store"],
            body: .init(byteBuffer: bytes))
    }

    fileprivate static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        json(bytes: try encoded(value), status: status)
    }

    private static func failure(_ text: String) throws -> Response {
        try json(AdminMessages.Failure(error: text), status: .badRequest)
    }
}

/// A request's context: knows the channel, to ask who is at its other end.
struct AdminContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    private let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    /// Ends the connection of a request that is refused, when the answer has gone: the rest of what it sends would hold a
    /// connection for as long as it likes.
    func closeSoon() {
        channel.eventLoop.scheduleTask(in: .seconds(1)) { [channel] in channel.close(promise: nil) }
    }

    /// The user at the other end of a UNIX socket; on loopback, whoever has the token.
    func user() async -> String {
        guard let options = channel as? any SocketOptionProvider,
            let peer: PeerCredentials = try? await options.unsafeGetSocketOption(
                level: .socket, name: .init(rawValue: SO_PEERCRED)
            ).get(),
            peer.uid != uid_t.max, peer.pid != 0
        else { return "\(channel.remoteAddress?.description ?? "somebody") with the token" }
        return "uid \(peer.uid)\(Self.name(ofUser: peer.uid).map { " (\($0))" } ?? "")"
    }

    private static func name(ofUser uid: uid_t) -> String? {
        var entry = passwd()
        var found: UnsafeMutablePointer<passwd>?
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16_384) { buffer in
            guard getpwuid_r(uid, &entry, buffer.baseAddress!, buffer.count, &found) == 0, found != nil else {
                return nil
            }
            return String(cString: entry.pw_name)
        }
    }
}

/// Takes no more connections than the listener has room for, and complains where there are as many.
private struct AdminConnections: AvailableConnectionsDelegate {
    let most: Int
    let log: EventLog
    private var open = 0

    init(most: Int, log: EventLog) {
        self.most = most
        self.log = log
    }

    mutating func connectionOpened() {
        open += 1
        if open >= most {
            log.complain(
                .tooManyAdminConnections, "\(open) connections to the admin listener: it takes no more until one ends")
        }
    }

    mutating func connectionClosed() { open -= 1 }

    func isAcceptingNewConnections() -> Bool { open < most }
}

/// `struct ucred` of unix(7), which the C library shows only to GNU sources.
private struct PeerCredentials {
    var pid: Int32
    var uid: UInt32
    var gid: UInt32
}

/// Answers with the reason what the ledger can't do.
private struct FailureMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch let unavailable as LedgerUnavailable {
            let text = "nothing can be told or changed while the ledger can't be opened: \(unavailable.reason)"
            return try AdminListener.json(AdminMessages.Failure(error: text), status: .serviceUnavailable)
        } catch let fault as AdministrationFault {
            let isUnknown = if case .unknownLimit = fault { true } else { false }
            return try AdminListener.json(
                AdminMessages.Failure(error: fault.description), status: isUnknown ? .notFound : .badRequest)
        }
    }
}

/// Lets no page of another site in: neither by its own name for this address, nor by a form of its own.
private struct OriginMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        let host = request.head.authority ?? ""
        guard Self.isOwn(host) else {
            context.closeSoon()
            throw HTTPError(.misdirectedRequest, message: "this is no name of the admin listener")
        }
        if let origin = request.headers[.origin] {
            guard origin.hasPrefix("http://"), origin.dropFirst("http://".count) == host else {
                throw forbidden(context)
            }
        }
        if let site = request.headers[Self.fetchSite], site != "same-origin", site != "none" {
            throw forbidden(context)
        }
        return try await next(request, context)
    }

    private func forbidden(_ context: AdminContext) -> HTTPError {
        context.closeSoon()
        return HTTPError(.forbidden)
    }

    private static let fetchSite = HTTPField.Name("Sec-Fetch-Site")!

    /// `weir` is what `weir limits` says, a loopback name what a browser or a tunnel does.
    private static func isOwn(_ host: String) -> Bool {
        let isBracketed = host.hasPrefix("[")
        let name = isBracketed ? String(host.prefix { $0 != "]" }.dropFirst()) : String(host.prefix { $0 != ":" })
        return ["", "weir", "localhost"].contains(name.lowercased()) || EndpointType.isLoopback(name)
    }
}

/// Lets nobody in who does not have the token, but to the page itself, which knows nothing, and to the probes.
private struct TokenMiddleware: RouterMiddleware {
    let token: String

    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        if request.method == .get || request.method == .head, Self.isOpen(request.uri.path) {
            return try await next(request, context)
        }
        let given = Array((request.headers[.authorization] ?? "").utf8)
        let expected = Array("Bearer \(token)".utf8)
        // All bytes are compared, so that the time tells nothing.
        let difference = zip(given, expected).reduce(UInt8(given.count == expected.count ? 0 : 1)) {
            $0 | ($1.0 ^ $1.1)
        }
        guard difference == 0 else {
            context.closeSoon()
            let text = given.isEmpty ? "the token is needed" : "wrong token"
            return try AdminListener.json(AdminMessages.Failure(error: text), status: .unauthorized)
        }
        return try await next(request, context)
    }

    private static func isOpen(_ path: String) -> Bool {
        path == "/healthz" || path == "/readyz" || AdminPage.files.contains { $0.path == path }
    }
}
