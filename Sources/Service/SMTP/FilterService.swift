// SPDX-License-Identifier: Apache-2.0
package import Filter
package import NIOCore
internal import NIOPosix
internal import Synchronization

/// All filter listeners: their event loops, which are not the policy server's, the threads that wait for the disk, and
/// the rules that hold now.
package final class FilterService: Sendable {
    private let listeners: [FilterListener]
    private let group: MultiThreadedEventLoopGroup
    private let threads: NIOThreadPool
    private let current: CurrentRules

    private static let diskThreads = 2

    /// nil where no filter is configured.
    package init?(_ configuration: Configuration, rules: ContentRules, log: EventLog) {
        guard !configuration.listen.filter.isEmpty else { return nil }
        group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, System.coreCount))
        threads = NIOThreadPool(numberOfThreads: Self.diskThreads)
        let current = CurrentRules(rules)
        self.current = current
        let filter = configuration.filter
        let bounds = ContentBounds(
            directory: filter.spool, mostMemory: filter.mostMemory << 20, mostSpool: filter.mostSpool << 20)
        listeners = configuration.listen.filter.map { [group, threads] settings in
            FilterListener(
                settings, mostConnections: filter.connections, bounds: bounds, group: group, threads: threads,
                rules: { current.value }, log: log)
        }
    }

    /// Rules for the messages that begin from now on; those under way keep theirs.
    package func use(_ rules: ContentRules) {
        rules.prepareFastPassInBackground()
        current.value = rules
    }

    /// - Parameter inherited: sockets by their addresses; those that are used are taken out.
    /// - Throws: `ListenerFailure`.
    package func listen(inherited: inout [String: Int32]) async throws {
        threads.start()
        current.value.prepareFastPassInBackground()
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

/// What all event loops read at each message, and a reload replaces.
private final class CurrentRules: Sendable {
    private let rules: Mutex<ContentRules>

    init(_ rules: ContentRules) { self.rules = Mutex(rules) }

    var value: ContentRules {
        get { rules.withLock { $0 } }
        set { rules.withLock { $0 = newValue } }
    }
}
