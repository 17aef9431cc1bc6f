// SPDX-License-Identifier: Apache-2.0

/// What administrators change.
enum Intervention: Equatable {
    case block(seconds: Int64)
    case unblock
    case reset
    case raise(PlannedRate, seconds: Int64)
}

extension Model {
    // MARK: Administrators

    mutating func intervene(_ intervention: Intervention, _ account: Account) {
        guard let limit = limits.first(where: { $0.name == account.limit }) else { return }
        let now = now
        switch intervention {
        case .block(let seconds):
            change(account, limit) { ($0.blockedUntil, $0.isBlockedByHand) = (now + seconds * 1000, true) }
        case .unblock:
            // Before the first block it changes nothing.
            guard accounts[account]?.blockedUntil != nil else { return }
            change(account, limit) { ($0.blockedUntil, $0.isBlockedByHand, $0.refused) = (nil, false, []) }
        case .reset:
            change(account, limit) { state in
                (state.windows, state.refused, state.blockedUntil, state.isBlockedByHand) = ([:], [], nil, false)
                state.resetAt = now
            }
        case .raise(let rate, let seconds):
            guard limit.rates.contains(where: { $0.window == rate.window }) else { return }
            change(account, limit) { $0.raised = ([rate], now + seconds * 1000) }
        }
    }

    // MARK: Reloads and restarts

    /// A limit keeps its counts for each window if its name, count, key and that window are unchanged.
    mutating func reload(_ new: [LimitPlan]) {
        for (account, old) in accounts {
            let before = limits.first { $0.name == account.limit }
            guard let before, let limit = new.first(where: { $0.name == account.limit }),
                limit.key == before.key, limit.count == before.count
            else {
                accounts[account] = nil
                for id in transactions.keys {
                    transactions[id]?.charges[account] = nil
                    transactions[id]?.order.removeAll { $0 == account }
                }
                continue
            }
            var state = old
            let windows = Set(limit.rates.map(\.window))
            state.windows = state.windows.filter { windows.contains($0.key) }
            if state.refusedWindow != limit.longestWindow {
                (state.refused, state.refusedWindow) = ([], limit.longestWindow)
            }
            state.raised?.rates.removeAll { !windows.contains($0.window) }
            if state.raised?.rates.isEmpty ?? false { state.raised = nil }
            accounts[account] = state
        }
        limits = new
    }

    /// What a restart forgets: the policy connections, and which limits in shadow mode have logged a transaction.
    mutating func restart() {
        lastTransactions = [:]
        for id in transactions.keys { transactions[id]?.shadowed = [] }
    }

    /// Drops what counts nowhere any more.
    mutating func clean() {
        for (account, old) in accounts {
            var state = old
            for (window, charges) in old.windows {
                state.windows[window] = charges.filter { counts($0.time, in: window) }
            }
            state.refused = old.refused.filter { counts($0, in: old.refusedWindow) }
            accounts[account] = state
        }
    }
}
