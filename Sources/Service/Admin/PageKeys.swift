// SPDX-License-Identifier: Apache-2.0
internal import Exchange
internal import NIOCore
internal import NIOPosix
internal import Report
internal import Synchronization

/// The latest keys that the page shows. Asking for them begins to look for new ones, at most once at a time. With many
/// keys, or a host that does not answer, this takes long; callers do not wait that long.
final class PageKeys: Sendable {
    struct Latest {
        /// The fullest keys of all hosts.
        var fullest: [KeyStanding] = []
        /// Keys that the caller has named.
        var named: [KeyName: KeyStanding] = [:]
        /// What other hosts have told of limits and refusals.
        var told: ToldFigures?
    }

    private struct State {
        var latest = Latest()
        /// Completed when those that are being looked for are there.
        var running: EventLoopFuture<Void>?
    }

    private let allHosts: AllHosts
    private let state = Mutex(State())

    private static let patience: TimeAmount = .milliseconds(200)

    init(_ allHosts: AllHosts) {
        self.allHosts = allHosts
    }

    /// The new keys if they are there soon, or else those before.
    func latest(with names: [KeyName]) async -> Latest {
        let waiting = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        // A promise keeps its first result.
        let timeout = waiting.futureResult.eventLoop.scheduleTask(in: Self.patience) { waiting.succeed() }
        defer { timeout.cancel() }
        begin(names).whenComplete { _ in waiting.succeed() }
        try? await waiting.futureResult.get()
        return state.withLock(\.latest)
    }

    private func begin(_ names: [KeyName]) -> EventLoopFuture<Void> {
        state.withLock { state in
            if let running = state.running { return running }
            let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
            state.running = promise.futureResult
            Task {
                let latest = await look(for: names)
                self.state.withLock { state in (state.latest, state.running) = (latest, nil) }
                promise.succeed()
            }
            return promise.futureResult
        }
    }

    private func look(for names: [KeyName]) async -> Latest {
        async let told = allHosts.askForFigures()
        // None while the ledger is not open.
        async let fullest = try? allHosts.fullest(AdminOverview.Bounds.keys, limit: nil, withHistory: true)
        // Without other hosts, the caller has the latest.
        async let named = allHosts.hosts == nil || names.isEmpty ? nil : try? allHosts.standings(of: names)
        return await Latest(fullest: fullest ?? [], named: named ?? [:], told: told)
    }
}
