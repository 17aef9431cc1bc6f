// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Rules
internal import Synchronization

/// The content rules in force. A listener uses `current` for each message that begins.
package final class RulesInUse: Sendable {
    private struct State {
        var current: ContentRules
        /// Counts replacements: of several in progress, only the last takes effect.
        var generation: UInt64 = 0
        /// Who waits until the rules of this generation are in force.
        var waiting: (generation: UInt64, continuation: CheckedContinuation<Bool, Never>)?
        var mayWait = true
    }

    private let state: Mutex<State>

    /// Uses `rules` at once, and compiles their fast pass in the background.
    package init(_ rules: ContentRules) {
        state = Mutex(State(current: rules))
        rules.prepareFastPassInBackground(cache: rules.cache)
    }

    package var current: ContentRules { state.withLock { $0.current } }

    /// Replaces the rules as soon as the fast pass of the new ones is compiled. Until then messages are checked by the
    /// old rules, because the new ones would be slow. Waits for small rule sets.
    ///
    /// - Parameter whenInUse: called from another thread; not called if the rules were replaced before.
    /// - Returns: false if the wait for a small rule set has ended before it was in force.
    @discardableResult
    package func replace(with next: ContentRules, whenInUse: @escaping @Sendable () -> Void = {}) async -> Bool {
        let (rules, generation) = state.withLock { state in
            state.generation += 1
            return (ContentRules(next, continuing: state.current), state.generation)
        }
        let compile = { [self] in
            rules.prepareFastPassInBackground(cache: rules.cache) { [self] in use(rules, generation, whenInUse) }
        }
        guard rules.areFew else {
            compile()
            return true
        }
        return await withCheckedContinuation { continuation in
            let superseded = state.withLock { state in
                let superseded = state.waiting?.continuation
                state.waiting = state.mayWait ? (generation, continuation) : nil
                return state.mayWait ? superseded : continuation
            }
            superseded?.resume(returning: false)
            compile()
        }
    }

    /// Ends the wait of `replace`. Later calls of it do not wait either.
    package func stopWaiting() {
        let continuation = state.withLock { state in
            state.mayWait = false
            return state.waiting.take()?.continuation
        }
        continuation?.resume(returning: false)
    }

    private func use(_ rules: ContentRules, _ generation: UInt64, _ whenInUse: () -> Void) {
        let (isLast, continuation) = state.withLock { state in
            let isAwaited = state.waiting?.generation == generation
            let continuation = isAwaited ? state.waiting.take()?.continuation : nil
            guard state.generation == generation else { return (false, continuation) }
            state.current = rules
            return (true, continuation)
        }
        if isLast { whenInUse() }
        continuation?.resume(returning: true)
    }
}

extension ContentRules {
    fileprivate var cache: FastPassCache { FastPassCache(directory: checks.cacheDirectory) }
}
