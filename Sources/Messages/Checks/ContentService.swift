// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Glibc
internal import Loop
package import NIOCore
internal import NIOPosix
package import Policy
package import Report
internal import Rules
package import Settings
internal import Synchronization

/// All listeners that take messages, filters and milters: their loops, which are not the policy server's, the
/// threads that wait for the disk, and the rules that hold now.
package final class ContentService: Sendable {
    private let filters: [FilterListener]
    private let milter: MilterListener?
    private let loops = Mutex<[SocketLoop]>([])
    private let threads: NIOThreadPool
    private let rules: RulesInUse
    private let log: EventLog

    private static let diskThreads = 2
    /// What else runs needs cores, too. With more loops messages go no faster, and each costs more: loops that find less to
    /// do at a time sleep and wake more often.
    private static let loopCount = max(1, System.coreCount / 2)

    /// nil where neither a filter nor a milter is configured.
    package init?(_ configuration: Configuration, rules: ContentRules, host: LedgerHost, log: EventLog) {
        guard !configuration.listen.filter.isEmpty || !configuration.listen.milter.isEmpty else { return nil }
        threads = NIOThreadPool(numberOfThreads: Self.diskThreads)
        let inUse = RulesInUse(rules)
        self.rules = inUse
        self.log = log
        let filter = configuration.filter
        let bounds = ContentBounds(
            directory: filter.spool, mostMemory: filter.mostMemory << 20, mostSpool: filter.mostSpool << 20)
        filters = configuration.listen.filter.map { [threads] settings in
            FilterListener(
                settings, mostConnections: filter.connections, bounds: bounds, threads: threads, probes: host.probes,
                rules: { inUse.current }, log: log)
        }
        milter =
            configuration.listen.milter.isEmpty
            ? nil
            : MilterListener(
                configuration, bounds: bounds, threads: threads, host: host, rules: { inUse.current }, log: log)
    }

    /// What the ways in have done.
    package var ways: [WayFigures] { filters.map(\.way) + (milter.map { [$0.way] } ?? []) }

    /// The rules with hits, most first, and how many have none.
    package func ruleFigures() -> (rules: [RuleFigures], withoutHits: Int) {
        var rules: [RuleName: RuleFigures] = [:]
        var withoutHits = 0
        let start = Double(MachineClocks.microseconds(of: CLOCK_REALTIME)) / 1e6 - Double(monotonicNanoseconds()) / 1e9
        forEachRule { name, values in
            if values.hits == 0 { withoutHits += 1 }
            guard values.hits > 0 || values.limitsReached > 0 else { return }
            // A table may stand in one list twice.
            var rule =
                rules[name]
                ?? .init(checks: name.checks, location: name.location, hits: 0, limitsReached: 0, milliseconds: 0)
            rule.hits += values.hits
            if let time = values.lastHit { rule.lastHit = max(rule.lastHit ?? 0, start + Double(time) / 1e9) }
            rule.limitsReached += values.limitsReached
            rule.milliseconds += Double(values.time) / 1e6
            rules[name] = rule
        }
        let sorted = rules.values.sorted { ($0.hits, $1.location, $1.checks) > ($1.hits, $0.location, $0.checks) }
        return (sorted, withoutHits)
    }

    /// The rules that have decided nothing since they were loaded, in their order.
    package func rulesWithoutHits() -> [RuleName] {
        var names: [RuleName] = []
        forEachRule { name, values in if values.hits == 0 { names.append(name) } }
        return names
    }

    private func forEachRule(_ body: (RuleName, RuleCounters.Values) -> Void) {
        for (checks, list) in rules.current.classes {
            for (rule, values) in list.counters.snapshot.enumerated() where list.mayDecide(rule) {
                body(.init(checks: checks, location: list.location(of: rule).description), values)
            }
        }
    }

    /// Rules and settings for the messages that begin from now on; those under way keep theirs.
    package func reload(_ configuration: Configuration, rules: ContentRules) {
        milter?.reload(configuration)
        self.rules.replace(with: rules) { [log] in
            if !rules.areFew { log.notice("the reloaded checks are compiled and apply to new messages") }
        }
    }

    /// - Parameter inherited: sockets by their addresses; those that are used are taken out.
    /// - Throws: `ListenerFailure`; `IOError` where a loop can't be had.
    package func listen(inherited: inout [String: Int32]) async throws {
        threads.start()
        let loops = try (1...Self.loopCount).map { try SocketLoop.start(named: "weir-content-\($0)") }
        self.loops.withLock { $0 = loops }
        for filter in filters { try await filter.listen(on: loops, inherited: &inherited) }
        try await milter?.listen(on: loops, inherited: &inherited)
    }

    /// Finishes what is under way by `deadline`, and defers the rest.
    package func stop(by deadline: NIODeadline) async {
        await withTaskGroup(of: Void.self) { group in
            for filter in filters { group.addTask { await filter.stop(by: deadline) } }
            group.addTask { [milter] in await milter?.stop(by: deadline) }
        }
        // What the disk has done is told to the loops, so they end last.
        try? await threads.shutdownGracefully()
        for loop in loops.withLock({ $0 }) { await loop.stop() }
    }
}
