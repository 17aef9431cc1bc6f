// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Exchange
internal import Glibc
internal import Hummingbird
internal import Limits
internal import Loop
internal import Messages
internal import NIOCore
internal import Policy
internal import Report
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
        /// The body of a request, in bytes.
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
        static let timeToStop: TimeAmount = .seconds(1)
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
    let started = microseconds(of: CLOCK_BOOTTIME)

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

    /// Returns once it listens.
    ///
    /// - Parameters:
    ///   - inherited: sockets by address; the one that is used is removed.
    ///   - tokenPath: of the file with the token, which requests on a port need.
    /// - Throws: `ListenerFailure`.
    func start(
        on endpoint: Endpoint, inherited: inout [String: Int32], tokenPath: String
    ) async throws -> AdminServer {
        do {
            let token = endpoint.isTCP ? try AdminToken.readOrCreate(at: tokenPath) : nil
            let descriptor = try openSocket(at: endpoint, inherited: &inherited)
            return try await AdminServer.start(on: descriptor, router(token: token).buildResponder(), log: log)
        } catch let failure as ListenerFailure {
            throw failure
        } catch {
            throw ListenerFailure(key: Self.key, endpoint: endpoint, cause: error)
        }
    }

    private static let key = "listen.admin"

    /// If the mode or the group of a UNIX socket can't be set, only the service's own user can use it. Mail does not
    /// wait for that.
    private func openSocket(at endpoint: Endpoint, inherited: inout [String: Int32]) throws -> Int32 {
        guard case .unix(let path, let mode, let group) = endpoint, inherited[endpoint.description] == nil else {
            return try ListeningSocket.open(at: endpoint, key: Self.key, inherited: &inherited)
        }
        let own = Endpoint.unix(path: path, mode: 0o600, group: nil)
        let descriptor = try ListeningSocket.open(at: own, key: Self.key, inherited: &inherited)
        do {
            try UnixSocketFile.set(mode: mode, group: group, of: path)
        } catch {
            log.warning("\(error); only the service's own user can use it")
        }
        return descriptor
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
