// SPDX-License-Identifier: Apache-2.0
import Glibc
import Limits
import Loop
import NIOCore
import Policy
import Report
import Settings
import SimulatedMachine
import Synchronization

/// Runs tasks on the thread of the simulation, in the order in which they become ready.
final class StepExecutor: TaskExecutor {
    private let jobs = Mutex<[UnownedJob]>([])

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
    }

    func run() {
        while let job = jobs.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
            job.runSynchronously(on: asUnownedTaskExecutor())
        }
    }
}

/// The clocks of the simulated machine. The wall clock is exact until somebody sets it.
final class SimulatedClocks: SystemClocks, @unchecked Sendable {
    private(set) var boot: UInt64 = 1
    private var bootedAt: Int64
    /// By how much the wall clock has been set forward, all in all.
    private(set) var stepped: Int64 = 0

    static let wallAtStart: Int64 = 1_790_000_000_000

    init() { bootedAt = sim_now() - 5_000_000 }

    func read() -> ClockReading {
        ClockReading(sinceBoot: sim_now() - bootedAt, wall: Self.wallAtStart + sim_now() + stepped)
    }

    func step(by milliseconds: Int64) { stepped += milliseconds }

    func reboot() {
        boot += 1
        bootedAt = sim_now() - 1000
    }
}

/// A value from another task.
final class Box<T>: @unchecked Sendable {
    var value: T?
}

/// A process of the service, without threads of its own: its ledger, its policy listener, and the loop of both.
final class Service {
    let host: LedgerHost
    private let loop: SocketLoop
    private let listener: PolicyListener
    private let executor = StepExecutor()
    private let log: EventLog

    init(_ configuration: Configuration, _ clocks: SimulatedClocks, log: EventLog) throws {
        self.log = log
        loop = try SocketLoop.stepped()
        host = LedgerHost(
            configuration: configuration, loop: loop, clocks: clocks, log: log,
            alerts: Alerts(
                configuration.alerts, starter: .init(control: -1),
                advice: AlertAdvice(configurationPath: Configuration.defaultPath, configuration),
                log: log),
            probes: ProbeBoard())
        listener = PolicyListener(configuration: configuration, host: host, log: log)
        host.start()
        let (listener, endpoints) = (listener, configuration.listen.policy)
        try perform {
            var inherited: [String: Int32] = [:]
            try await listener.listen(on: endpoints, inherited: &inherited)
        }
    }

    func step() { loop.step() }

    /// Runs an asynchronous function to its end.
    @discardableResult
    func perform<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) throws -> T {
        let outcome = Box<Result<T, any Error>>()
        Task(executorPreference: executor) {
            do { outcome.value = .success(try await body()) } catch { outcome.value = .failure(error) }
        }
        while true {
            executor.run()
            if let outcome = outcome.value { return try outcome.get() }
            loop.step()
        }
    }

    /// Runs what waits for answers that were given.
    func runTasks() { executor.run() }

    var isOpen: Bool { (try? host.withLedger { _ in }) != nil }

    var keys: Int { (try? host.withLedger { $0.limits.reduce(0) { $0 + $1.accountCount } }) ?? 0 }

    /// Of the ledger, in milliseconds.
    var time: Int64 { (try? host.withLedger { $0.now.milliseconds }) ?? 0 }

    func standing(_ account: Model.Account) -> Standing? {
        (try? host.withLedger { try $0.standings(ofKey: Array(account.key.utf8), limit: account.limit) })?.first
    }

    /// Makes the next upkeep begin a checkpoint.
    func wantCheckpoint() {
        try? host.withLedger { ledger in
            try ledger.commit()
            ledger.discardBatch()
        }
    }

    /// A clean stop.
    func stop() {
        closeListener()
        host.stop(by: .now() + .seconds(10))
        end()
    }

    /// Releases what a dead process has left. Its calls change nothing any more.
    func abandon() {
        closeListener()
        // The walks over keys that are under way refer to the host, which has the lock of the ledger.
        let pauses: Int64 = 16
        for _ in 0..<pauses {
            sim_advance(2)
            loop.step()
        }
        sim_advance(-2 * pauses)
        sim_drop_jobs()
        end()
    }

    private func closeListener() {
        loop.step()
        let listener = listener
        try? perform { await listener.stop(by: .now()) }
        loop.step()
    }

    private func end() { loop.removeTasks() }
}
