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

/// The listeners for messages, filters and milters, with their loops, the disk threads, and the rules in force. The
/// policy server has a loop of its own.
package final class ContentService: Sendable {
    private let filters: [FilterListener]
    private let milter: MilterListener?
    private let loops = Mutex<[SocketLoop]>([])
    private let threads: NIOThreadPool
    private let lookupThreads: NIOThreadPool
    private let rules: RulesInUse
    private let log: EventLog
    private let threadsHaveEnded = Atomic(false)

    private static let pollInterval = Duration.milliseconds(10)
    private static let diskThreads = 2
    /// For the lookups of messages that take more than their share of a loop. One that takes long must not hold up all
    /// others.
    private static let lookupThreadCount = max(2, System.coreCount / 2)
    /// Postfix needs cores too. More loops give no more throughput, and each message costs more: a loop with less to do
    /// sleeps and wakes more often.
    private static let loopCount = max(1, System.coreCount / 2)

    /// nil if neither a filter nor a milter is configured.
    package init?(_ configuration: Configuration, rules: ContentRules, host: LedgerHost, log: EventLog) {
        guard configuration.listen.takesContent else { return nil }
        threads = NIOThreadPool(numberOfThreads: Self.diskThreads)
        lookupThreads = NIOThreadPool(numberOfThreads: Self.lookupThreadCount)
        let inUse = RulesInUse(rules)
        self.rules = inUse
        self.log = log
        let filter = configuration.filter
        let bounds = ContentBounds(
            directory: filter.spool, mostMemory: filter.mostMemory << 20, mostSpool: filter.mostSpool << 20)
        filters = configuration.listen.filter.map { [threads, lookupThreads] settings in
            FilterListener(
                settings, mostConnections: filter.connections, bounds: bounds, threads: threads,
                lookupThreads: lookupThreads, probes: host.probes, rules: { inUse.current }, log: log)
        }
        milter =
            configuration.listen.milter.isEmpty
            ? nil
            : MilterListener(
                configuration, bounds: bounds, threads: threads, lookupThreads: lookupThreads, host: host,
                rules: { inUse.current }, log: log)
    }

    /// The figures of each listener.
    package var ways: [WayFigures] { filters.map(\.way) + (milter.map { [$0.way] } ?? []) }

    /// The rules with hits, most first, the number of rules without, and what the tags sum up.
    package func ruleFigures() -> (rules: [RuleFigures], withoutHits: Int, tags: [TagFigures]) {
        var tagged: [(tag: String, hits: Int)] = []
        var rules: [RuleName: RuleFigures] = [:]
        var withoutHits = 0
        let start = secondsSince1970() - Double(monotonicNanoseconds()) / 1e9
        forEachRule { name, tag, values in
            if let tag { tagged.append((tag, values.hits)) }
            if values.hits == 0 { withoutHits += 1 }
            guard values.hits > 0 || values.limitsReached > 0 else { return }
            // A list may name a table twice.
            var rule =
                rules[name]
                ?? .init(
                    checks: name.checks, location: name.location, set: name.set, tag: tag, hits: 0, limitsReached: 0,
                    milliseconds: 0)
            rule.hits += values.hits
            if let time = values.lastHit { rule.lastHit = max(rule.lastHit ?? 0, start + Double(time) / 1e9) }
            rule.limitsReached += values.limitsReached
            rule.milliseconds += Double(values.time) / 1e6
            rules[name] = rule
        }
        let sorted = rules.values.sorted {
            ($0.hits, $1.location, $1.checks, $1.set ?? "") > ($1.hits, $0.location, $0.checks, $0.set ?? "")
        }
        return (sorted, withoutHits, TagFigures.summary(of: tagged))
    }

    /// The rules without a hit since they were loaded, in order.
    package func rulesWithoutHits() -> [RuleName] {
        var names: [RuleName] = []
        forEachRule { name, _, values in if values.hits == 0 { names.append(name) } }
        return names
    }

    private func forEachRule(_ body: (RuleName, _ tag: String?, RuleCounters.Values) -> Void) {
        let rules = rules.current
        for set in rules.sets {
            for (checks, list) in set.classes {
                for (rule, values) in list.counters.snapshot.enumerated() where list.mayDecide(rule) {
                    let location = list.location(of: rule).description
                    body(
                        .init(checks: checks, location: location, set: rules.label(of: set)), list.tag(of: rule), values
                    )
                }
            }
        }
    }

    /// Replaces rules and settings for new messages. Messages under way keep theirs. Waits until a small rule set is in
    /// force.
    ///
    /// - Returns: false if `stopWaiting` has ended the wait.
    package func reload(_ configuration: Configuration, rules: ContentRules) async -> Bool {
        milter?.reload(configuration)
        return await self.rules.replace(with: rules) { [log] in
            if !rules.areFew { log.notice("the reloaded checks are compiled and apply to new messages") }
        }
    }

    /// The service is about to stop: reloads no longer wait for their rules.
    package func stopWaiting() { rules.stopWaiting() }

    /// - Parameters:
    ///   - inherited: sockets by address; those that are used are removed.
    ///   - clock: for the shares of the loops' turns.
    /// - Throws: `ListenerFailure`; `IOError` if a loop can't be started.
    package func listen(
        inherited: inout [String: Int32], clock: (@Sendable () -> NIODeadline)? = nil
    ) async throws {
        threads.start()
        lookupThreads.start()
        let loops = try (1...Self.loopCount).map { try SocketLoop.start(named: "weir-content-\($0)", clock: clock) }
        self.loops.withLock { $0 = loops }
        for filter in filters { try await filter.listen(on: loops, inherited: &inherited) }
        try await milter?.listen(on: loops, inherited: &inherited)
    }

    /// Lets messages under way finish until `deadline`, and defers the rest.
    package func stop(by deadline: NIODeadline) async {
        await withTaskGroup(of: Void.self) { group in
            for filter in filters { group.addTask { await filter.stop(by: deadline) } }
            group.addTask { [milter] in await milter?.stop(by: deadline) }
        }
    }

    /// Ends the threads, after `stop`. Those that are still busy after `limit`, with a pattern or a disk that hangs,
    /// are left to the end of the process. A loop that has ended ignores what they report.
    package func end(within limit: TimeAmount) async {
        let deadline = NIODeadline.now() + limit
        Task {
            try? await lookupThreads.shutdownGracefully()
            try? await threads.shutdownGracefully()
            threadsHaveEnded.store(true, ordering: .relaxed)
        }
        while !threadsHaveEnded.load(ordering: .relaxed), NIODeadline.now() < deadline {
            try? await Task.sleep(for: Self.pollInterval)
        }
        // Both pools report to the loops, so the loops end last.
        for loop in loops.withLock({ $0 }) { await loop.stop() }
    }
}
