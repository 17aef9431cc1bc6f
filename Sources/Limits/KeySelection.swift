// SPDX-License-Identifier: Apache-2.0

/// The keys that an administrator means.
package struct KeySelection: Sendable {
    package enum State: Equatable, Sendable {
        case any
        /// Something counts for the key, or it is blocked.
        case used
        case blocked
        /// Blocked, not by an administrator, and before the ledger had this generation.
        case blockedByLimit(before: UInt32)
        case raised
        /// At least this part of some window is used.
        case filled(percent: UInt64)
    }

    /// Only this limit.
    package var limit: String?
    package var pattern: KeyPattern?
    package var state: State

    package init(limit: String?, pattern: KeyPattern?, state: State) {
        self.limit = limit
        self.pattern = pattern
        self.state = state
    }

    fileprivate func contains(_ account: Account, at time: LedgerTime) -> Bool {
        let exception = account.exception
        let isInState =
            switch state {
            case .any: true
            case .used: !account.isEmpty || exception?.blocks(at: time) ?? false
            case .blocked: exception?.blocks(at: time) ?? false
            case .blockedByLimit(let generation):
                exception.map {
                    $0.blocks(at: time) && !$0.isBlockedByHand && $0.blockGeneration < generation
                } ?? false
            case .raised: exception?.raises(at: time) ?? false
            case .filled(let percent):
                (0..<account.limit.terms.refusedLane).contains { lane in
                    let used = account.used(lane: lane)
                    return used > 0 && used &* 100 >= account.admitted(lane: lane, at: time) &* percent
                }
            }
        return isInState && pattern?.matches(account.key) ?? true
    }
}

extension KeySelection {
    /// - Parameters:
    ///   - state: `blocked`, `raised`, a percentage that is used at least of some window, or nil for any.
    ///   - match: a shell pattern.
    /// - Throws: `SelectionFault`.
    package init(state: String?, limit: String?, match: String?) throws(SelectionFault) {
        try self.init(limit: limit, match: match, state: Self.state(state))
    }

    /// - Parameter match: a shell pattern.
    /// - Throws: `SelectionFault`.
    package init(limit: String?, match: String?, state: State) throws(SelectionFault) {
        let pattern = match.flatMap { KeyPattern($0) }
        if let match, pattern == nil {
            throw SelectionFault(
                description: "'\(match)' is not a shell pattern of at most \(KeyPattern.longest) bytes")
        }
        self.init(limit: limit, pattern: pattern, state: state)
    }

    private static func state(_ text: String?) throws(SelectionFault) -> State {
        switch text {
        case nil: return .any
        case "blocked": return .blocked
        case "raised": return .raised
        case let text?:
            guard let percent = UInt64(text), 1...1000 ~= percent else {
                throw SelectionFault(description: "state must be blocked, raised, or a percentage from 1 to 1000")
            }
            return .filled(percent: percent)
        }
    }
}

/// A selection that is none.
package struct SelectionFault: Error, CustomStringConvertible {
    package let description: String
}

/// Looks for the accounts of a selection a piece at a time. Requests are decided between the pieces.
package struct SelectionWalk {
    /// The walk is of no use to another one.
    fileprivate weak var ledger: Ledger?
    fileprivate let selection: KeySelection
    /// The limits that are not searched yet. A limit that a reload removes has no accounts.
    fileprivate var limits: ArraySlice<LimitState>
    fileprivate var position = AccountTable.Walk()
    /// What was found. Some of these accounts may have left memory since.
    package fileprivate(set) var found: [Account] = []

    /// The accounts that were found since the last call.
    package mutating func takeFound() -> [Account] {
        defer { found.removeAll() }
        return found
    }
}

extension Ledger {
    package func selectionWalk(_ selection: KeySelection) throws(AdministrationFault) -> SelectionWalk {
        SelectionWalk(ledger: self, selection: selection, limits: try limits(named: selection.limit)[...])
    }

    package func selectionWalk(_ state: KeySelection.State, in limits: [LimitState]) -> SelectionWalk {
        let selection = KeySelection(limit: nil, pattern: nil, state: state)
        return SelectionWalk(ledger: self, selection: selection, limits: limits[...])
    }

    /// Continues the walk by at most some `steps`, as `AccountTable.advance` counts them.
    ///
    /// - Returns: false at the end of the walk.
    /// - Throws: `walkEnded` if the walk began in another ledger, whose accounts are not those of this one.
    package func advance(_ walk: inout SelectionWalk, steps: Int) throws(AdministrationFault) -> Bool {
        owner.check()
        guard walk.ledger === self else { throw .walkEnded }
        guard let limit = walk.limits.first else { return false }
        var current = walk.position
        walk.position = AccountTable.Walk()
        let hasMore = limit.accounts.advance(&current, steps: steps) { account in
            if walk.selection.contains(account, at: now) { walk.found.append(account) }
        }
        if !hasMore { walk.limits.removeFirst() }
        walk.position = hasMore ? current : AccountTable.Walk()
        return !walk.limits.isEmpty
    }

    /// Carries out an intervention on accounts that a walk of this ledger has found. Those that have left memory since
    /// are left out. The next `commit` writes it to the store.
    ///
    /// - Returns: the accounts that have changed.
    package func intervene(
        _ intervention: Intervention, on accounts: some Sequence<Account>, foundBy walk: SelectionWalk,
        by author: ChangeAuthor
    ) throws(AdministrationFault) -> [Account] {
        owner.check()
        guard walk.ledger === self else { throw .walkEnded }
        let present = accounts.filter { !$0.isRemoved }
        for account in present { carryOut(intervention, to: account, by: author) }
        return present
    }
}
