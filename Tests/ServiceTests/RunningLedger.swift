// SPDX-License-Identifier: Apache-2.0
import Loop
import NIOCore
import Policy
import Report
import Settings
import Testing

/// A ledger on its own loop, with one limit by sender.
struct RunningLedger {
    let directory: TemporaryDirectory
    /// The policy server, which is not running, listens on `policy` in the directory.
    let configuration: Configuration
    let loop: SocketLoop
    let host: LedgerHost
    let log: EventLog

    /// - Parameter clock: for the shares of the loop's turns.
    static func run(
        clock: (@Sendable () -> NIODeadline)? = nil, _ body: (RunningLedger) async throws -> Void
    ) async throws {
        let directory = try TemporaryDirectory()
        let text = """
            listen: { policy: "unix:\(directory.path)/policy" }
            ledger: { store: "sqlite:\(directory.path)/ledger.sqlite", durability: relaxed }
            limits: [ { name: senders, key: sender, rates: [ 1M/1h ] } ]
            """
        let configuration = try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml").get().configuration
        let log = EventLog(destination: .file("\(directory.path)/log"))
        let loop = try SocketLoop.start(named: "weir-ledger", clock: clock)
        let host = LedgerHost(
            configuration: configuration, loop: loop, clocks: MachineClocks(), log: log,
            alerts: Alerts(
                configuration.alerts, starter: .init(control: -1),
                advice: AlertAdvice(configurationPath: Configuration.defaultPath, configuration),
                log: log),
            probes: ProbeBoard())
        try await loop.submit { host.start() }
        #expect(await host.firstOpening())
        try await body(
            RunningLedger(directory: directory, configuration: configuration, loop: loop, host: host, log: log))
        try await loop.submit { host.stop(by: .now() + .seconds(60)) }
        await loop.stop()
        log.flush()
    }
}
