// SPDX-License-Identifier: Apache-2.0
package import Filter
package import NIOCore
internal import NIOPosix

/// All filter listeners: their event loops, which are not the policy server's, the threads that wait for the disk, and
/// the rules that hold now.
package final class FilterService: Sendable {
    private let listeners: [FilterListener]
    private let group: MultiThreadedEventLoopGroup
    private let threads: NIOThreadPool
    private let rules: RulesInUse
    private let log: EventLog

    private static let diskThreads = 2

    /// nil where no filter is configured.
    package init?(_ configuration: Configuration, rules: ContentRules, log: EventLog) {
        guard !configuration.listen.filter.isEmpty else { return nil }
        group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, System.coreCount))
        threads = NIOThreadPool(numberOfThreads: Self.diskThreads)
        let inUse = RulesInUse(rules)
        self.rules = inUse
        self.log = log
        let filter = configuration.filter
        let bounds = ContentBounds(
            directory: filter.spool, mostMemory: filter.mostMemory << 20, mostSpool: filter.mostSpool << 20)
        listeners = configuration.listen.filter.map { [group, threads] settings in
            FilterListener(
                settings, mostConnections: filter.connections, bounds: bounds, group: group, threads: threads,
                rules: { inUse.current }, log: log)
        }
    }

    /// Rules for the messages that begin from now on; those under way keep theirs.
    package func use(_ rules: ContentRules) {
        self.rules.replace(with: rules) { [log] in
            if !rules.areFew { log.notice("the reloaded checks are compiled, and hold for new messages") }
        }
    }

    /// - Parameter inherited: sockets by their addresses; those that are used are taken out.
    /// - Throws: `ListenerFailure`.
    package func listen(inherited: inout [String: Int32]) async throws {
        threads.start()
        for listener in listeners { try await listener.listen(inherited: &inherited) }
    }

    /// Finishes what is under way by `deadline`, and defers the rest.
    package func stop(by deadline: NIODeadline) async {
        await withTaskGroup(of: Void.self) { group in
            for listener in listeners { group.addTask { await listener.stop(by: deadline) } }
        }
        try? await group.shutdownGracefully()
        try? await threads.shutdownGracefully()
    }
}
