// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report
internal import Synchronization

/// The latest list of the fullest keys. Asking for it begins a new one, at most one at a time. With many keys, a list
/// takes seconds; callers do not wait that long.
final class FullestKeys: Sendable {
    private struct State {
        var latest: [KeyStanding] = []
        /// Completed by the end of the list that is being made.
        var running: EventLoopFuture<Void>?
    }

    private let host: LedgerHost
    private let state = Mutex(State())

    private static let patience: TimeAmount = .milliseconds(200)

    init(host: LedgerHost) {
        self.host = host
    }

    /// The new list if it is finished soon, or else the one before.
    func latest() async -> [KeyStanding] {
        let waiting = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        // A promise keeps its first result.
        let timeout = waiting.futureResult.eventLoop.scheduleTask(in: Self.patience) { waiting.succeed() }
        defer { timeout.cancel() }
        begin().whenComplete { _ in waiting.succeed() }
        try? await waiting.futureResult.get()
        return state.withLock(\.latest)
    }

    private func begin() -> EventLoopFuture<Void> {
        state.withLock { state in
            if let running = state.running { return running }
            let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
            state.running = promise.futureResult
            Task {
                // None while the ledger is not open.
                let list = (try? await host.fullest(AdminOverview.Bounds.keys, limit: nil, withHistory: true)) ?? []
                self.state.withLock { state in (state.latest, state.running) = (list, nil) }
                promise.succeed()
            }
            return promise.futureResult
        }
    }
}
