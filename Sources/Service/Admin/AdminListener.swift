// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Exchange
internal import Glibc
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
internal import ServiceLifecycle
internal import Settings
internal import Wire

/// The admin listener: HTTP on a UNIX socket or a loopback port, for `weir limits`, the page, Prometheus and probes.
///
/// Security: the mode of a UNIX socket limits access to the service's user and the group `weir`. Every local user can
/// connect to a loopback port, so requests there need the token, which only the same user and group can read. Each
/// change is logged with the user who made it.
final class AdminListener: Sendable {
    /// What a request may ask for, and how long and how many.
    enum Bounds {
        /// Of a request, in bytes.
        static let body = 65_536
        /// In bytes.
        static let reason = 500
        /// In bytes.
        static let search = 256
        static let connections = 500
        /// Keys of one answer.
        static let keys = Ledger.mostFullest
        /// Keys of one answer if it has their history.
        static let histories = 100
        /// Limits of a key's page.
        static let limitsOfKey = 100
        /// Ten years, in seconds.
        static let duration: Int64 = 10 * 366 * 86_400
        /// In seconds.
        static let cachedAge: Int64 = 60
        static let cachedResponses = 16
        static let idleTimeout: TimeAmount = .seconds(60)
        static let timeToStop: Duration = .seconds(1)
        /// The service is not alive if its event loop takes longer.
        static let healthTimeout: TimeAmount = .seconds(5)
    }

    let host: LedgerHost
    let allHosts: AllHosts
    let policy: PolicyListener
    /// nil without a milter and filters.
    let content: ContentService?
    let alerts: Alerts
    let sandbox: Sandbox
    let lastReload: LastReload
    let log: EventLog
    let cache = AdminResponseCache()
    let pageKeys: PageKeys
    let started = MachineClocks.microseconds(of: CLOCK_BOOTTIME)

    init(
        allHosts: AllHosts, policy: PolicyListener, content: ContentService?, alerts: Alerts, sandbox: Sandbox,
        lastReload: LastReload, log: EventLog
    ) {
        host = allHosts.host
        self.allHosts = allHosts
        self.policy = policy
        self.content = content
        self.alerts = alerts
        self.sandbox = sandbox
        self.lastReload = lastReload
        self.log = log
        pageKeys = PageKeys(allHosts)
    }

    /// An admin listener that accepts connections.
    struct Running {
        fileprivate let services: ServiceGroup
        fileprivate let task: Task<Void, Never>

        /// Returns once every connection is closed. Requests have `Bounds.timeToStop` to finish.
        func stop() async {
            await services.triggerGracefulShutdown()
            await task.value
        }
    }

    /// Returns once it listens.
    ///
    /// - Throws: `ListenerFailure`.
    func start(on endpoint: Endpoint, tokenPath: String) async throws -> Running {
        let (running, report) = AsyncThrowingStream<Void, any Error>.makeStream()
        do {
            let services = try services(on: endpoint, tokenPath: tokenPath) { report.finish() }
            let task = Task { [log] in
                do {
                    try await services.run()
                } catch {
                    if case .terminated = report.yield() { log.error("the admin listener failed: \(error)") }
                    report.finish(throwing: error)
                }
            }
            for try await _ in running {}
            return Running(services: services, task: task)
        } catch {
            throw ListenerFailure(key: "listen.admin", endpoint: endpoint, cause: error)
        }
    }

    /// Stops by `triggerGracefulShutdown` alone: SwiftNIO ends the process if a server's task is cancelled while a
    /// connection waits to be accepted.
    private func services(
        on endpoint: Endpoint, tokenPath: String, onRunning: @escaping @Sendable () -> Void
    ) throws -> ServiceGroup {
        let token = endpoint.isTCP ? try AdminToken.readOrCreate(at: tokenPath) : nil
        let address: BindAddress
        switch endpoint {
        case .inet(let host, let port):
            address = .hostname(host, port: port)
        case .unix(let path, _, _):
            try UnixSocketFile.clear(path)
            address = .unixDomainSocket(path: path)
        }
        var logger = Logger(label: "weir.admin")
        // Hummingbird logs a shutdown as an error.
        logger.logLevel = .critical
        let application = Application(
            router: router(token: token), server: .http1(configuration: .init(idleTimeout: Bounds.idleTimeout)),
            configuration: .init(
                address: address, serverName: "weir",
                availableConnectionsDelegate: AdminConnections(most: Bounds.connections, log: log)),
            onServerRunning: { [log] channel in
                await AdminAcceptPause.add(to: channel, log: log)
                if case .unix(let path, let mode, let group) = endpoint {
                    do { try UnixSocketFile.set(mode: mode, group: group, of: path) } catch {
                        log.warning("\(error); only the service's own user can use it")
                    }
                }
                onRunning()
            },
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup(numberOfThreads: 1)), logger: logger)
        var configuration = ServiceGroupConfiguration(services: [application], logger: logger)
        configuration.maximumGracefulShutdownDuration = Bounds.timeToStop
        return ServiceGroup(configuration: configuration)
    }

    /// - Parameter token: nil if requests need none.
    private func router(token: String?) -> Router<AdminContext> {
        let router = Router(context: AdminContext.self, options: .autoGenerateHeadEndpoints)
        router.add(middleware: AdminFailureMiddleware())
        router.add(middleware: AdminOriginMiddleware())
        if let token { router.add(middleware: AdminTokenMiddleware(token: token)) }
        AdminPage.addRoutes(to: router)
        addHealthRoutes(to: router)
        addStatusRoutes(to: router)
        addLimitRoutes(to: router)
        addProbeRoutes(to: router)
        addAlertRoutes(to: router)
        return router
    }
}
