// SPDX-License-Identifier: Apache-2.0
package import Sharing

/// Changes to keys of shared limits: they hold on all hosts.
extension Ledger {
    private static let (byHand, byLimit) = ("hand", "limit")

    // MARK: Telling others

    func tellOthers(of intervention: Intervention, to account: Account, by author: ChangeAuthor) {
        guard account.limit.terms.isShared, let shared else { return }
        func tell(_ kind: SharedChange.Kind, _ value: String, until: LedgerTime) {
            switch author {
            case .everywhere(let user, let reason):
                let author = SharedChange.Author(host: shared.name, user: user, reason: reason)
                shared.tell(kind, of: account, value, until: until, by: author, wall: wallTimeNow)
            case .here:
                guard kind != .reset, shared.hasTold(kind, of: account) else { return }
                let author = SharedChange.Author(host: shared.name)
                shared.tell(kind, of: account, value, until: until, by: author, wall: wallTimeNow)
            }
        }
        switch intervention {
        case .reset:
            tell(.reset, "", until: now)
            // Others may know of a block that this host does not know yet.
            tell(.block, "", until: now)
        case .raise(let rates, let until): tell(.raise, Self.text(of: rates), until: until)
        case .unraise: tell(.raise, "", until: now)
        case .block(let until): tell(.block, Self.byHand, until: until)
        case .unblock: tell(.block, "", until: now)
        }
    }

    /// A limit has blocked a key by itself.
    func tellOthers(ofBlock account: Account, until: LedgerTime) {
        guard account.limit.terms.isShared, let shared else { return }
        let author = SharedChange.Author(host: shared.name)
        shared.tell(.block, of: account, Self.byLimit, until: until, by: author, wall: wallTimeNow)
    }

    private static func text(of rates: [Rate]) -> String {
        rates.map { "\($0.count)/\($0.window.milliseconds)" }.joined(separator: " ")
    }

    // MARK: Learning from others

    /// Carries out what other hosts have changed. The next `commit` writes it to the store.
    ///
    /// - Returns: the changes that this host's limits know of.
    package func adopt(_ changes: [SharedChange]) -> [SharedChange] {
        owner.check()
        return changes.filter { change in
            guard let limit = limit(of: change) else { return false }
            adopt(change, limit)
            return true
        }
    }

    /// Carries out again what holds, except resets: after a start, whose last run may have ended between the writes to
    /// its files, and after a reload, which may have brought a limit.
    package func adoptAll() {
        owner.check()
        for change in shared?.ledger.kept.changes.all ?? [] where change.subject.kind != .reset {
            if let limit = limit(of: change), !holds(change, limit) { adopt(change, limit) }
        }
    }

    /// The limit of a change, if the key can be one of it here. The hosts may have different configurations.
    private func limit(of change: SharedChange) -> LimitState? {
        let (name, key) = (change.subject.limit, change.subject.key)
        guard let limit = limits.first(where: { $0.limit.name == name }), limit.terms.isShared,
            limit.limit.key.canonical(key) == key || existingAccount(key: key, of: limit) != nil
        else { return nil }
        return limit
    }

    private func holds(_ change: SharedChange, _ limit: LimitState) -> Bool {
        let until = LedgerTime(milliseconds: change.until)
        let exception = existingAccount(key: change.subject.key, of: limit)?.exception
        let present = change.subject.kind == .block ? exception?.blockedUntil : exception?.raised?.until
        return change.value.isEmpty || until <= now ? (present ?? now) <= now : present == until
    }

    private func adopt(_ change: SharedChange, _ limit: LimitState) {
        let (key, until) = (change.subject.key, LedgerTime(milliseconds: change.until))
        let hash = hash(of: key, of: limit)
        let isOver = change.value.isEmpty || until <= now
        let rates = isOver ? [] : Self.rates(change, of: limit)
        // It raises windows that this host's limit does not have.
        if change.subject.kind == .raise, !isOver, rates.isEmpty { return }
        if change.subject.kind == .reset { shared?.forget(key, of: limit) }
        if change.subject.kind != .block { shared?.warnings.forget(hash, before: change.version.number) }
        guard let account = existingAccount(hash, of: limit) ?? (isOver ? nil : openAccount(hash, key: key, of: limit))
        else { return }
        switch change.subject.kind {
        case .reset:
            journal.appendReset(account, at: tick)
            account.reset(at: now)
        case .block where isOver: setBlock(of: account, until: nil, byHand: true)
        case .block:
            let isByHand = change.value == Self.byHand
            // A limit that only says what it would do blocks nothing by itself.
            if isByHand || limit.limit.mode == .enforce { setBlock(of: account, until: until, byHand: isByHand) }
        case .raise:
            account.setRaised(rates, until: isOver ? now : until)
            journal.appendRaise(account, rates, until: isOver ? now : until, at: tick)
        }
        noteChange(of: account)
        noteFullness(of: account)
    }

    /// The rates of a raise, one for each window that the limit has.
    private static func rates(_ change: SharedChange, of limit: LimitState) -> [Rate] {
        guard change.subject.kind == .raise else { return [] }
        let told = rates(change.value)
        return limit.limit.rates.compactMap { own in told.first { $0.window == own.window } }
    }

    private static func rates(_ text: String) -> [Rate] {
        text.split(separator: " ").compactMap { word in
            let parts = word.split(separator: "/")
            guard parts.count == 2, let count = UInt64(parts[0]), count <= SlidingWindows.largestAmount,
                let window = Int64(parts[1]), Window.allowed.contains(window)
            else { return nil }
            return Rate(count: count, window: Window(milliseconds: window))
        }
    }
}
