// SPDX-License-Identifier: Apache-2.0
internal import CSandbox
internal import Filter
internal import Glibc
internal import Loop
internal import Report
internal import Settings
internal import Wire

/// What a start does while the process has one thread: everything that needs more than the service needs later.
package struct Preparation: Sendable {
    let configurationPath: String
    let read: ConfigurationReader.Outcome
    /// Sockets by address that are bound already, because only root may use their ports.
    let bound: [String: Int32]
    /// Why the service runs as root although nobody asked for it.
    let rootReason: String?
    let starter: ProgramStarter
    let sandbox: Sandbox

    /// Reads the configuration, changes from root to the service's user, splits off the process that starts programs,
    /// and applies Landlock.
    ///
    /// - Throws: `ConfigurationFaults`, `ListenerFailure`, or what says why the service may not run like this.
    package init(configurationPath: String) throws {
        self.configurationPath = configurationPath
        weir_open_standard_streams()
        // A SIGHUP during the start waits until the service is ready.
        var reload = sigset_t()
        sigemptyset(&reload)
        sigaddset(&reload, SIGHUP)
        pthread_sigmask(SIG_BLOCK, &reload, nil)
        // Until a file or socket has its mode, only the service's own user may use it.
        umask(0o077)
        read = try ConfigurationReader.read(path: configurationPath).get()
        let configuration = read.configuration
        bound = try Self.bindLowPorts(of: configuration.listen)
        rootReason = try ServiceUser.assume(configuration)
        starter = try ProgramStarter.split(for: configuration.alerts)
        // Programs for alerts keep the limit of the start.
        RuntimeLimits.raiseOpenFiles()
        // SQLite's temporary files would be in /var/tmp.
        let ledger = configuration.ledger.store.path
        if let slash = ledger.lastIndex(of: "/") { setenv("SQLITE_TMPDIR", String(ledger[...slash]), 1) }
        // Landlock allows only directories that exist.
        if configuration.listen.takesContent { mkdir(configuration.checks.cacheDirectory, 0o700) }
        let access = FileAccess(configurationPath: configurationPath, configuration, tablePaths: read.tablePaths)
        sandbox = try Sandbox(configuration.sandbox, access: access)
    }

    private static func bindLowPorts(of listen: Configuration.Listen) throws -> [String: Int32] {
        var bound: [String: Int32] = [:]
        let passed = try ServiceManager.inheritedSockets()
        for (key, endpoint) in listen.all {
            guard case .inet(_, let port) = endpoint, port < 1024, passed[endpoint.description] == nil else { continue }
            var others = passed
            bound[endpoint.description] = try ListeningSocket.open(at: endpoint, key: key, inherited: &others)
        }
        return bound
    }
}
