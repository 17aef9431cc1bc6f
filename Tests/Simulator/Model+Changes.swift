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
        events += 1
        let now = now
        switch intervention {
        case .block(let seconds):
            change(account, limit) { ($0.blockedUntil, $0.isBlockedByHand) = (now + seconds * 1000, true) }
        case .unblock:
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
    ///
    /// - Returns: the limits that are more generous now, so that the blocks that they have set end.
    @discardableResult
    mutating func reload(_ new: [LimitPlan]) -> [String] {
        let relaxed = limits.filter { old in
            new.contains { $0.continues(old) && $0.isMoreGenerous(than: old) && !$0.keepsBlocks }
        }
        for (account, old) in accounts {
            let before = limits.first { $0.name == account.limit }
            guard let before, let limit = new.first(where: { $0.continues(before) }) else {
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
        let kept = Set(limits.filter { old in new.contains { $0.continues(old) } }.map(\.name))
        for id in connections.keys { connections[id]?.limits.formIntersection(kept) }
        for id in transactions.keys {
            for judged in transactions[id]?.judged.keys ?? [:].keys where !kept.contains(judged.account.limit) {
                transactions[id]?.judged[judged] = nil
            }
        }
        limits = new
        return relaxed.map(\.name)
    }

    /// Ends the blocks that a limit has set, not those of administrators.
    mutating func endBlocks(of limit: String) {
        let blocked = accounts.filter { account, state in
            account.limit == limit && !state.isBlockedByHand && state.blockedUntil.map { $0 > now } ?? false
        }
        for account in blocked.keys {
            accounts[account]?.blockedUntil = nil
            accounts[account]?.refused = []
        }
    }

    /// What a restart forgets: the policy connections, and which limits in shadow mode have logged a transaction.
    mutating func restart() {
        lastTransactions = [:]
        for id in transactions.keys { transactions[id]?.shadowed = [] }
    }

    // MARK: `most_keys`

    /// Whether the service may forget a key when there are too many.
    func mayForget(_ account: Account) -> Bool {
        guard let state = accounts[account] else { return false }
        let isBlockedByHand = state.isBlockedByHand && state.blockedUntil.map { $0 > now } ?? false
        return !isBlockedByHand && !(state.raised.map { $0.until > now } ?? false)
    }

    /// What the service compares when it looks for the key that is used least.
    func use(of account: Account) -> Int {
        let windows = accounts[account]?.windows.keys.map { used(account, in: $0) } ?? []
        return windows.reduce(refusedRequests(account), +)
    }

    /// What may be left when a key has been forgotten. "If the key was forgotten because there were more keys than
    /// `ledger.most_keys`, its counts are lost, and the end is charged in full."
    ///
    /// A key of which nothing counts any more is forgotten at any time, and messages stay charged. If that happened
    /// before the key was used again, messages from before stay charged. Whether it did does not show. If it happened
    /// before a reset, the reset may be forgotten with the key.
    func forgetting(_ account: Account) -> [Model] {
        guard let state = accounts[account] else { return [self] }
        let begins = use(of: account) > 0 ? state.begins : [.max]
        let resets = state.resetAt.map { [$0, nil] } ?? [nil]
        return begins.flatMap { begin in
            resets.map { resetAt in
                var model = self
                model.forget(account, usedSince: begin, resetAt: resetAt)
                return model
            }
        }
    }

    private mutating func forget(_ account: Account, usedSince begin: Int, resetAt: Int64?) {
        guard let state = accounts.removeValue(forKey: account) else { return }
        for (id, var transaction) in transactions where transaction.charges[account] != nil {
            if transaction.judgedLast[account].map({ $0 >= begin }) ?? false {
                transaction.charges[account] = nil
                transaction.order.removeAll { $0 == account }
            } else {
                transaction.charges[account]?.removeAll { charge in resetAt.map { charge.time <= $0 } ?? false }
            }
            transactions[id] = transaction
        }
        forgotten[account, default: [:]].merge(state.windows) { $0 + $1 }
    }

    /// Whether transactions were charged the same, and a reset has ended the same of it.
    func charged(_ transactions: [String], as other: Model) -> Bool {
        transactions.allSatisfy { charges(of: $0) == other.charges(of: $0) }
    }

    private func charges(of id: String) -> [Account: [Charge]]? {
        guard var transaction = transactions[id] else { return nil }
        forgetResets(in: &transaction)
        return transaction.charges
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
        for (account, windows) in forgotten {
            var remaining = windows
            for (window, charges) in windows { remaining[window] = charges.filter { counts($0.time, in: window) } }
            forgotten[account] = remaining
        }
    }
}
