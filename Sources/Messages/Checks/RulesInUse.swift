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
    }

    private let state: Mutex<State>

    /// Uses `rules` at once, and compiles their fast pass in the background.
    package init(_ rules: ContentRules) {
        state = Mutex(State(current: rules))
        rules.prepareFastPassInBackground(cache: rules.cache)
    }

    package var current: ContentRules { state.withLock { $0.current } }

    /// Replaces the rules as soon as the fast pass of the new ones is compiled. Until then messages are checked by the
    /// old rules, because the new ones would be slow. Small rule sets are in force when this returns.
    ///
    /// - Parameter whenInUse: called from another thread for a large rule set; not called if it was replaced before.
    package func replace(with next: ContentRules, whenInUse: @escaping @Sendable () -> Void = {}) {
        let (rules, generation) = state.withLock { state in
            state.generation += 1
            return (ContentRules(next, continuing: state.current), state.generation)
        }
        guard !rules.areFew else {
            rules.prepareFastPass(cache: rules.cache)
            return use(rules, generation, whenInUse)
        }
        rules.prepareFastPassInBackground(cache: rules.cache) { [self] in use(rules, generation, whenInUse) }
    }

    private func use(_ rules: ContentRules, _ generation: UInt64, _ whenInUse: () -> Void) {
        let isLast = state.withLock { state in
            guard state.generation == generation else { return false }
            state.current = rules
            return true
        }
        if isLast { whenInUse() }
    }
}

extension ContentRules {
    fileprivate var cache: FastPassCache { FastPassCache(directory: checks.cacheDirectory) }
}
