// SPDX-License-Identifier: Apache-2.0

/// What a request will charge and give back if no limit refuses it. Reused for each request, so it seldom allocates.
struct Plan {
    /// The change to one account. At most one of `charge` and `giveBack` is not 0.
    struct Step {
        let account: Account
        var charge: UInt64 = 0
        var giveBack: UInt64 = 0
        /// The part that must fit into a window at once (`CountUnit.Charge.indivisible`).
        var whole: UInt64 = 0

        var isOfConnection: Bool { account.limit.terms.limit.count.isOfConnection }
    }

    var steps: [Step] = []
    /// Accounts of limits in shadow mode that would have refused the request.
    var shadowed: [Account] = []
    /// Whether a limit applies that neither charges nor reports anything: one on connections that has counted this one,
    /// even if its key is forgotten by now, or one in shadow mode that has reported the message before.
    var hasSilentLimit = false

    var isEmpty: Bool { steps.isEmpty && shadowed.isEmpty && !hasSilentLimit }

    mutating func removeAll() {
        hasSilentLimit = false
        steps.removeAll(keepingCapacity: true)
        shadowed.removeAll(keepingCapacity: true)
    }
}

/// A limit that a request would exceed, or whose key is blocked.
struct Violation {
    let account: Account
    let reason: RefusalReason
    let lane: Int
    let amount: UInt64
    /// When there is room for the request, or when the block ends.
    let until: LedgerTime

    func because(_ reason: RefusalReason) -> Violation {
        Violation(account: account, reason: reason, lane: lane, amount: amount, until: until)
    }

    var answer: ActionTemplate { account.limit.limit.answer(to: reason) }

    /// Whether the answer of the limit lets the request pass all the same (PREPEND, WARN and the like).
    var letsPass: Bool {
        switch reason {
        case .over, .noEngine: account.limit.terms.overLetsPass
        case .tooLarge: account.limit.terms.tooLargeLetsPass
        case .blocked: account.limit.terms.blockOverLetsPass
        }
    }

    /// Whether shadow mode keeps the limit from giving its answer. A block by hand holds all the same.
    var isShadowed: Bool {
        account.limit.terms.limit.mode == .shadow && !(reason == .blocked && account.isBlockedByHand)
    }
}

/// The first violations of a request, in the order of the limits.
struct Violations {
    /// The violation of a limit that refuses the request.
    var refusing: Violation?
    /// The violation of a limit whose answer lets the request pass. The request is charged to it.
    var passing: Violation?
}
