// SPDX-License-Identifier: Apache-2.0

/// The reference model: what docs/limits.md says, in the plainest code, written without a look at the service's own.
///
/// Every charge is kept with its time, and counted anew for each question.
struct Model {
    struct Account: Hashable {
        var limit: String
        var key: String
    }

    struct Charge: Equatable {
        /// The same in all windows, and in the transaction that was charged.
        var id: Int
        var time: Int64
        var amount: Int
        /// `amount` before anything was given back.
        var charged: Int
    }

    struct State {
        /// What counts, by the length of the window.
        var windows: [Int64: [Charge]] = [:]
        /// When requests were refused. They count in a window as long as the longest.
        var refused: [Int64] = []
        var refusedWindow: Int64 = 0
        var blockedUntil: Int64?
        var isBlockedByHand = false
        var raised: (rates: [PlannedRate], until: Int64)?
        var resetAt: Int64?
        /// The numbers of the events at which the key was used after nothing had counted, the oldest first. In between,
        /// the service may have forgotten it, as it forgets every key of which nothing counts.
        var begins: [Int] = []
    }

    struct Transaction {
        /// Oldest first.
        var charges: [Account: [Charge]] = [:]
        /// The accounts, in the order in which they were charged first.
        var order: [Account] = []
        /// Answers by request; nil for DUNNO.
        var answers: [Request: String?] = [:]
        var shadowed: Set<Account> = []
        /// The limits that have judged a recipient, if limits look at `policy_context`; whether they charged it.
        var judged: [Judged: Bool] = [:]
        var isSettled = false
        /// The event at which a limit looked last at what it had charged.
        var judgedLast: [Account: Int] = [:]

        func charged(to account: Account) -> Int { charges[account]?.reduce(0) { $0 + $1.amount } ?? 0 }
    }

    struct Judged: Hashable {
        var request: Request
        var account: Account
    }

    /// A client's connection, by address and port.
    struct Connection {
        var isCounted = false
        /// The limits that have charged it, as far as they still know.
        var limits: Set<String> = []
        /// The answer to all its requests.
        var refusal: String?
    }

    var now: Int64
    /// When the simulation kept this state.
    var noted: Int64 = 0
    var limits: [LimitPlan]
    var givesBackDropped: Bool
    var accounts: [Account: State] = [:]
    var transactions: [String: Transaction] = [:]
    var connections: [String: Connection] = [:]
    /// What the service has forgotten of keys, by the length of the window.
    var forgotten: [Account: [Int64: [Charge]]] = [:]
    /// The transaction that each policy connection asked about last.
    var lastTransactions: [Int: String] = [:]
    private var charges = 0
    /// Counts requests and changes by administrators.
    var events = 0

    init(now: Int64, limits: [LimitPlan], givesBackDropped: Bool) {
        self.now = now
        self.limits = limits
        self.givesBackDropped = givesBackDropped
    }

    // MARK: Windows

    /// A window consists of 60 slots. The current slot and the 60 before it count.
    static func slot(_ time: Int64, of window: Int64) -> Int64 { time * 60 / window }

    func counts(_ time: Int64, in window: Int64) -> Bool {
        Self.slot(now, of: window) - Self.slot(time, of: window) <= 60
    }

    func used(_ account: Account, in window: Int64) -> Int {
        accounts[account]?.windows[window]?.reduce(0) { $0 + (counts($1.time, in: window) ? $1.amount : 0) } ?? 0
    }

    /// What counts now, and did at another time.
    func used(_ account: Account, in window: Int64, at time: Int64) -> Int {
        var earlier = self
        earlier.now = time
        let charges = accounts[account]?.windows[window] ?? []
        return charges.reduce(0) {
            $0 + (counts($1.time, in: window) && earlier.counts($1.time, in: window) ? $1.amount : 0)
        }
    }

    /// What was charged, whether or not it was given back or forgotten.
    func charged(to account: Account, in window: Int64) -> Int {
        let charges = (accounts[account]?.windows[window] ?? []) + (forgotten[account]?[window] ?? [])
        return charges.reduce(0) { $0 + (counts($1.time, in: window) ? $1.charged : 0) }
    }

    /// What was charged and not given back, whether or not the key was forgotten since.
    func kept(by account: Account, in window: Int64) -> Int {
        let charges = (accounts[account]?.windows[window] ?? []) + (forgotten[account]?[window] ?? [])
        return charges.reduce(0) { $0 + (counts($1.time, in: window) ? $1.amount : 0) }
    }

    func refusedRequests(_ account: Account) -> Int {
        guard let state = accounts[account] else { return 0 }
        return state.refused.count { counts($0, in: state.refusedWindow) }
    }

    func admitted(_ account: Account, by limit: LimitPlan, in rate: PlannedRate) -> Int {
        if let raised = accounts[account]?.raised, raised.until > now,
            let other = raised.rates.first(where: { $0.window == rate.window })
        {
            return other.count
        }
        let overrides = limit.overrides.first { $0.key == account.key }?.rates
        return overrides?.first { $0.window == rate.window }?.count ?? rate.count
    }

    func block(_ account: Account, by limit: LimitPlan) -> Int64? {
        guard let state = accounts[account], let until = state.blockedUntil, until > now else { return nil }
        return limit.exempt.contains(account.key) && !state.isBlockedByHand ? nil : until
    }

    /// When `amount` more will fit, if nothing else arrives.
    func room(for amount: Int, in window: Int64, under admitted: Int, of account: Account) -> Int64 {
        var used = used(account, in: window)
        let charges = (accounts[account]?.windows[window] ?? []).filter { counts($0.time, in: window) }
        var until = now
        for charge in charges.sorted(by: { $0.time < $1.time }) where used + amount > admitted {
            used -= charge.amount
            // The first millisecond at which the slot is older than 60 slots.
            until = ((Self.slot(charge.time, of: window) + 61) * window + 59) / 60
        }
        return until
    }

    // MARK: Charges

    /// When the last of the charges was made that still count at a time.
    func lastCharge(countingAt time: Int64) -> Int64? {
        var later = self
        later.now = time
        return accounts.values.flatMap(\.windows).compactMap { window, charges in
            charges.last { later.counts($0.time, in: window) }?.time
        }.max()
    }

    mutating func charge(_ amount: Int, to account: Account, _ limit: LimitPlan) -> Charge {
        charges += 1
        let charge = Charge(id: charges, time: now, amount: amount, charged: amount)
        change(account, limit) { state in
            for rate in limit.rates { state.windows[rate.window, default: []].append(charge) }
        }
        return charge
    }

    /// Takes charges of a transaction back, oldest first.
    mutating func giveBack(_ amount: Int, to account: Account, in transaction: inout Transaction) {
        var left = amount
        var parts = transaction.charges[account] ?? []
        for index in parts.indices where left > 0 {
            let part = min(left, parts[index].amount)
            parts[index].amount -= part
            left -= part
            for window in accounts[account]?.windows.keys.sorted() ?? [] {
                guard let place = accounts[account]?.windows[window]?.firstIndex(where: { $0.id == parts[index].id })
                else { continue }
                accounts[account]?.windows[window]?[place].amount -= part
            }
        }
        transaction.charges[account] = parts.filter { $0.amount > 0 }
    }

    mutating func giveBackAll(of transaction: inout Transaction) {
        for account in transaction.order {
            giveBack(transaction.charged(to: account), to: account, in: &transaction)
        }
    }

    mutating func change(_ account: Account, _ limit: LimitPlan, _ body: (inout State) -> Void) {
        var state = accounts[account] ?? State(refusedWindow: limit.longestWindow)
        if state.begins.last != events, use(of: account) == 0 { state.begins.append(events) }
        body(&state)
        accounts[account] = state
    }
}
