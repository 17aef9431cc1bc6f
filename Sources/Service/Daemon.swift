// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Exchange
internal import Glibc
internal import Limits
internal import Loop
internal import Messages
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report
internal import Settings
internal import UnixSignals

/// `weir serve`: starts the listeners, reloads on SIGHUP, stops on SIGTERM and SIGINT.
package actor Daemon {
    private let configurationPath: String
    private let sandbox: Sandbox
    private let starter: ProgramStarter
    /// Bound by the start, by address.
    private let bound: [String: Int32]
    /// The configuration in use.
    private var configuration: Configuration
    /// The configuration that was last read from the file.
    private var lastRead: Configuration
    private let log: EventLog
    private let alerts: Alerts
    private let lastReload = LastReload()
    private let host: LedgerHost
    /// nil without `shared`.
    private let exchange: HostExchange?
    private let policy: PolicyListener
    private let admin: AdminListener
    /// nil if neither a filter nor a milter listens.
    private let content: ContentService?
    private let manager = ServiceManager()
    /// Whether the service manager was told so.
    private var isReady = false

    /// Time for open connections to finish when the service stops.
    private static let gracePeriod: TimeAmount = .seconds(10)
    private static let timeForThreads: TimeAmount = .seconds(1)
    private static let timeForAlerts: TimeAmount = .seconds(3)
    /// In seconds: twice `gracePeriod`, then alerts and the log, and some slack. systemd kills the service after 30 s.
    private static let longestStop: UInt32 = 28
    /// How long a start waits for the ledger before it listens. An smtpd that can't connect asks again after a second.
    private static let patience: TimeAmount = .milliseconds(500)

    /// - Parameters:
    ///   - loop: where policy requests are read and decided.
    ///   - hostsLoop: where hosts that share limits ask each other; nil without `shared`.
    private init(_ preparation: Preparation, loop: SocketLoop, hostsLoop: SocketLoop?) {
        let configuration = preparation.read.configuration
        configurationPath = preparation.configurationPath
        sandbox = preparation.sandbox
        starter = preparation.starter
        bound = preparation.bound
        self.configuration = configuration
        lastRead = configuration
        log = EventLog(destination: configuration.log.destination)
        let alerts = Alerts(
            configuration.alerts, starter: preparation.starter,
            advice: AlertAdvice(configurationPath: preparation.configurationPath, configuration),
            log: log)
        log.onTrouble({ alerts.raise(trouble: $0, $1) }, recovery: { alerts.raise(recovery: $0, $1) })
        self.alerts = alerts
        host = LedgerHost(
            configuration: configuration, loop: loop, clocks: MachineClocks(), log: log, alerts: alerts,
            probes: ProbeBoard())
        exchange = hostsLoop.flatMap { [host, log] in
            HostExchange(configuration.shared, host: host, loop: $0, log: log)
        }
        if let exchange {
            host.onEngine = exchange.use
            host.onNear = exchange.lookAt
            alerts.claim(by: exchange.claim)
        }
        policy = PolicyListener(configuration: configuration, host: host, log: log)
        content = ContentService(configuration, rules: preparation.read.rules, host: host, log: log)
        admin = AdminListener(
            allHosts: AllHosts(host: host, exchange: exchange), policy: policy, content: content, alerts: alerts,
            sandbox: sandbox, lastReload: lastReload, log: log)
    }

    /// Runs until SIGTERM or SIGINT ends it.
    ///
    /// - Throws: if a listener can't be opened.
    private func run(_ signals: AsyncStream<UnixSignal>, _ report: AsyncStream<UnixSignal>.Continuation) async throws {
        RuntimeLimits.surviveFileLimit()
        // For timers. SwiftNIO ends the process if it has no descriptors left when it creates the group.
        NIOSingletons.groupLoopCountSuggestion = 1
        _ = MultiThreadedEventLoopGroup.singleton
        let endings = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        Task { [content] in
            for await signal in endings {
                // Here, because the start may hang, and a reload may wait for its rules.
                Self.limitEnd()
                content?.stopWaiting()
                report.yield(signal)
            }
        }
        try await host.loop.submit { [host] in host.start() }
        // Most ledgers are open by then, and the first requests are counted.
        if await !host.firstOpening(within: Self.patience) {
            try await host.loop.submit { [host] in host.reportSlowOpening() }
        }
        var inherited = try ServiceManager.inheritedSockets().merging(bound) { passed, _ in passed }
        try await policy.listen(on: configuration.listen.policy, inherited: &inherited)
        try await content?.listen(inherited: &inherited)
        let server = try await admin.start(
            on: configuration.listen.admin, inherited: &inherited, tokenPath: configuration.adminTokenPath)
        for address in inherited.keys.sorted() {
            log.warning(
                "the service manager passed the socket \(address), but no listener is configured for it")
        }
        try restrict()
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { [host, manager] in try await manager.keepAlive(host) }
            alerts.begin()
            group.addTask { await self.becomeReady() }
            for await signal in signals {
                if signal == .sighup {
                    await reload()
                } else {
                    log.notice("stopping on \(signal)")
                    break
                }
            }
            await stop(server)
            group.cancelAll()
        }
    }

    /// Gives up the rest of what a running service does not need.
    private func restrict() throws {
        try sandbox.filterCalls(log: log)
        let protections = sandbox.protections
        log.write(protections.faults.isEmpty ? .notice : .warning, "sandbox: \(protections.summary)")
    }

    /// Reports readiness after the first attempt to open the ledger. The service listens already.
    private func becomeReady() async {
        let extending = Task { [manager] in
            while !Task.isCancelled {
                // Reading a large ledger from a slow disk may take longer than TimeoutStartSec=.
                manager.notify("EXTEND_TIMEOUT_USEC=60000000\nSTATUS=opening the ledger", mayBlock: false)
                try? await Task.sleep(for: .seconds(20))
            }
        }
        let isOver = await host.firstOpening()
        extending.cancel()
        guard isOver else { return }
        isReady = true
        log.notice("ready: \(configuration.summary)")
        manager.notify("READY=1\nSTATUS=\(configuration.summary)")
    }

    /// Runs until a signal ends the service.
    ///
    /// - Throws: what kept a listener from opening, or a restriction from being applied.
    package static func serve(_ preparation: Preparation) async throws {
        let (signals, report) = AsyncStream<UnixSignal>.makeStream()
        let reloads = await UnixSignalsSequence(trapping: .sighup)
        Task { for await signal in reloads { report.yield(signal) } }
        let loop = try SocketLoop.start(named: "weir-ledger")
        let isShared = preparation.read.configuration.shared.engine != nil
        let hostsLoop = isShared ? try SocketLoop.start(named: "weir-hosts") : nil
        let daemon = Daemon(preparation, loop: loop, hostsLoop: hostsLoop)
        for warning in preparation.read.warnings { daemon.log.warning(warning.description) }
        if geteuid() == 0 {
            let reason = preparation.rootReason ?? "run Weir as a user of its own, as deploy/systemd/weir.service does"
            daemon.log.warning("running as root: \(reason)")
        }
        do {
            try await daemon.run(signals, report)
        } catch {
            limitEnd()
            // The log should say what is wrong with the ledger, too. But a dead disk must not hide this error.
            await daemon.host.firstOpening(within: patience)
            daemon.log.flush()
            throw error
        }
        await loop.stop()
        await hostsLoop?.stop()
    }

    private func reload() async {
        if isReady {
            manager.notify("RELOADING=1\nMONOTONIC_USEC=\(microseconds(of: CLOCK_MONOTONIC))")
        }
        defer { if isReady { manager.notify("READY=1\nSTATUS=\(configuration.summary)") } }
        for path in sandbox.replaced {
            log.error("\(path) was replaced after the start, so Weir may not use it: restart the service")
        }
        let outcome: ReloadOutcome
        switch ConfigurationReader.read(path: configurationPath) {
        case .failure(let faults):
            for fault in faults.all { log.error(fault.description) }
            if let readable = faults.readable {
                reportOutOfReach(readable, faults.tablePaths)
            } else {
                reportOutOfReach(sandbox.outOfReach(FileAccess(reading: [configurationPath])))
            }
            log.error("\(configurationPath) was rejected; the service keeps its current configuration")
            let others = faults.all.count - 1
            outcome = .rejected(faults.all[0].description + (others > 0 ? " (and \(others) more)" : ""))
        case .success(let read):
            for warning in read.warnings { log.warning(warning.description) }
            outcome = await apply(read)
        }
        report(outcome)
    }

    private enum ReloadOutcome {
        case inUse
        case rejected(String)
        /// The service is about to stop, and did not wait for the rules.
        case stopping
    }

    private func apply(_ read: ConfigurationReader.Outcome) async -> ReloadOutcome {
        var accepted = read.configuration
        for key in RestartKey.all {
            if key.differs(read.configuration, configuration), key.differs(read.configuration, lastRead) {
                log.warning(
                    "\(key.name) has changed: restart the service to apply it; until then the old value is used")
            }
            key.copy(configuration, &accepted)
        }
        lastRead = read.configuration
        if let fault = reportOutOfReach(accepted, read.tablePaths) {
            log.error("\(configurationPath) was rejected; the service keeps its current configuration")
            return .rejected(fault)
        }
        try? await host.loop.submit { [host, policy, accepted] in
            host.reload(accepted)
            policy.reload(accepted)
        }
        exchange?.renewMarks()
        let areInForce = await content?.reload(accepted, rules: read.rules) ?? true
        alerts.reload(accepted.alerts)
        configuration = accepted
        log.redirect(to: configuration.log.destination)
        guard areInForce else { return .stopping }
        log.notice("reloaded: \(configuration.summary)")
        return .inUse
    }

    /// Tells the admin listener and the operators how a reload ended.
    private func report(_ outcome: ReloadOutcome) {
        switch outcome {
        case .inUse:
            if lastReload.record(fault: nil).fault != nil {
                alerts.raise(recovery: Alerts.configurationSubject, "a reload has succeeded")
            }
        case .rejected(let fault):
            _ = lastReload.record(fault: fault)
            alerts.raise(trouble: Alerts.configurationSubject, "rejected, the current one stays in use: \(fault)")
        case .stopping: break
        }
    }

    /// Logs the files and programs of a configuration that the process can't use.
    ///
    /// - Returns: what the log says of the first; nil if there are none.
    @discardableResult
    private func reportOutOfReach(_ configuration: Configuration, _ tablePaths: [String]) -> String? {
        reportOutOfReach(
            sandbox.outOfReach(
                FileAccess(configurationPath: configurationPath, configuration, tablePaths: tablePaths))
                + starter.outOfReach(configuration.alerts))
    }

    @discardableResult
    private func reportOutOfReach(_ paths: [String]) -> String? {
        let faults = paths.map { path in
            "\(path) is out of reach: Weir may use only the directories and programs that weir.yaml named at its "
                + "start; restart the service"
        }
        for fault in faults { log.error(fault) }
        return faults.first
    }

    /// Ends the process if the rest takes too long: a dead disk, or a service manager that does not listen, can keep a
    /// thread forever. The kernel does it, whatever the threads do.
    private static func limitEnd() {
        signal(SIGALRM, SIG_DFL)
        let left = alarm(longestStop)
        // A second signal does not extend the time.
        if left > 0 { alarm(left) }
    }

    private func stop(_ admin: AdminServer) async {
        manager.notify("STOPPING=1")
        let deadline = NIODeadline.now() + Self.gracePeriod
        async let contentHasStopped: Void? = content?.stop(by: deadline)
        await policy.stop(by: deadline)
        await contentHasStopped
        try? await host.loop.submit { [host] in host.stop(by: .now() + Self.gracePeriod) }
        await admin.stop()
        await exchange?.stop()
        await alerts.stop(within: Self.timeForAlerts)
        // Last: a pattern or a disk may keep a thread for long.
        await content?.end(within: Self.timeForThreads)
        log.notice("stopped")
        let lost = log.flush()
        if lost > 0 { manager.notify("STATUS=stopped; the log is not written: dropped its last \(lost) lines") }
    }
}

/// A configuration key that a running service can't change.
private struct RestartKey {
    let name: String
    let differs: (Configuration, Configuration) -> Bool
    let copy: (_ from: Configuration, _ to: inout Configuration) -> Void

    private init<Value: Equatable>(_ name: String, _ path: WritableKeyPath<Configuration, Value>) {
        self.name = name
        differs = { $0[keyPath: path] != $1[keyPath: path] }
        copy = { $1[keyPath: path] = $0[keyPath: path] }
    }

    static var all: [RestartKey] {
        [
            .init("listen.policy", \.listen.policy), .init("listen.admin", \.listen.admin),
            .init("listen.filter", \.listen.filter),
            .init("listen.milter", \.listen.milter), .init("filter", \.filter), .init("ledger.store", \.ledger.store),
            .init("ledger.durability", \.ledger.durability), .init("user", \.user), .init("sandbox", \.sandbox),
            .init("shared", \.shared),
        ]
    }
}
