// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Rules
internal import Synchronization

/// The content rules of the service: a listener takes `current` for each message as it begins.
package final class RulesInUse: Sendable {
    private struct State {
        var current: ContentRules
        /// Counts replacements, so that of several under way only the last is put to use.
        var generation: UInt64 = 0
    }

    private let state: Mutex<State>

    /// Rules that are used at once, and get their fast pass in the background.
    package init(_ rules: ContentRules) {
        state = Mutex(State(current: rules))
        rules.prepareFastPassInBackground(cache: rules.cache)
    }

    package var current: ContentRules { state.withLock { $0.current } }

    /// Puts others in the place of the present ones once their fast pass is ready: until then messages go on by the
    /// old ones, rather than slower by the new ones. Few rules are in use when this returns.
    ///
    /// - Parameter whenInUse: where there are many, called from another thread; not at all where others have come meanwhile.
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
