// SPDX-License-Identifier: Apache-2.0
internal import DequeModule

/// What a host must keep: it is in the host's own ledger before an answer or a call leaves.
package struct KeptState: Sendable {
    /// Open from the answer of the engine until `until`, by the host's clock.
    struct Grant {
        let until: Int64
        /// The pool that it was asked of.
        let pool: Int64
        var left: Int64
    }

    struct Account {
        /// Units that were used of the pool, and what refused requests count in it. Those of the share are in the
        /// host's own windows.
        var pool = SlotCounts()
        var grants: [Grant] = []
        /// Grows with each change that the engine must hear of. It knows of grants, and so of what is spent of them.
        var revision: Int64 = 0
        /// Whether the lane is in `SharedLedger.resting`.
        var isResting = false

        /// What grants have left that are of at most this pool.
        func left(at now: Int64, pool: Int64) -> Int64 {
            grants.reduce(0) { now < $1.until && $1.pool <= pool ? $0 + $1.left : $0 }
        }

        /// Takes up to `units` from these grants, and counts them.
        ///
        /// - Returns: the units that were taken.
        mutating func spend(_ units: Int64, at now: Int64, pool usable: Int64, slot: Int64) -> Int64 {
            var rest = units
            for index in grants.indices where now < grants[index].until && grants[index].pool <= usable {
                let taken = min(rest, grants[index].left)
                grants[index].left -= taken
                rest -= taken
                if rest == 0 { break }
            }
            if rest < units { pool.charge(units - rest, slot: slot) }
            return units - rest
        }
    }

    package let mark: UInt64
    package internal(set) var epoch: Int64 = 0
    package internal(set) var epochID = ""
    package internal(set) var connection: Int64 = 0
    /// The terms that hold, and those that shall; nil if this ledger has never seen any settled.
    package internal(set) var settled: Terms?
    package internal(set) var pending: [Terms] = []
    var accounts: [Lane: Account] = [:]
    package internal(set) var changes = SharedChanges()

    package init(mark: UInt64) { self.mark = mark }

    /// All terms that may still hold on some host.
    package var active: [Terms] { (settled.map { [$0] } ?? []) + pending }
}

/// One host's part of limits that several hosts share through an engine (Valkey or Redis).
///
/// N is divided: each host may use its share without asking, and the engine grants the rest, the pool, for short times.
/// No interval of a window's length admits more than N over all hosts, whatever fails. `SharingRules` names what makes
/// it so.
///
///             connect            hello             completes
///     closed ────────> greeting ──────> registering ────────> ready
///        ^                 │ late, clone, no answer │            │
///        └─────────────────┴────────────────────────┴────────────┘
///
/// The machine has no socket, clock or thread. `now` is in milliseconds and follows CLOCK_BOOTTIME. After a reboot, it
/// goes on from the last time that was kept, by as much as the wall clock says that the machine was down. If that is
/// too little, what was used counts for longer, and slots may be later than `now`. The caller stores `kept` before it
/// sends an answer or a call. One call is open at a time.
package struct SharedLedger: Sendable {
    enum Dialogue: Equatable { case closed, greeting, registering, ready, clone }

    struct Waiting {
        let request: SharedRequest
        /// What was used of the share in the lane of each demand when the request came. What earlier requests are
        /// granted later is not part of it.
        let shareUsed: [Int64]
        let deadline: Int64
    }

    /// The call that has no answer yet.
    struct Open {
        let asked: Int64
        /// The validity that the engine was told. A reload may change `timing` meanwhile.
        let validity: Int64
        var lanes: [(lane: Lane, revision: Int64, pool: Int64)] = []
        var changes = 0
        var terms: String?
        var completes = false
        /// The requests below this number waited when the call was made.
        var waiting = 0
    }

    package let name: String
    /// A reload may change it.
    package var timing: Timing
    let rules: SharingRules
    package internal(set) var kept: KeptState
    var dialogue = Dialogue.closed
    var open: Open?
    var lastCall: Int64 = .min / 2
    /// The number of the latest call on this connection.
    package internal(set) var callNumber: Int64 = 0
    /// Requests that wait for the engine, in the order in which they came.
    var waiting: [Waiting] = []
    /// Lanes of whose pool the engine counts more than what was used, or less, in this epoch.
    var unreported = LaneQueue()
    /// The grants that may be open, by their ends.
    var grantEnds: Deque<(until: Int64, lane: Lane)> = []
    /// Lanes of which only what was used is left, by window: each with the last slot that was used then.
    var resting: [Int64: Deque<(slot: Int64, lane: Lane)>] = [:]
    /// What waiting requests need, by lane.
    var waitingUnits: [Lane: Int64] = [:]
    /// Lanes whose pools have changed since `takeUnsaved`, each with the first slot that has.
    var changed: [Lane: Int64] = [:]
    /// Whether something else in `kept` has.
    var hasChanged = true
    /// Whether the engine has more changes to tell.
    var isBehind = false
    /// Whether another ledger with this name has called the engine a moment ago. That one has the share.
    var isSecond = false
    /// The terms, if one version holds everywhere. `divisor` is a thousand times the number of hosts.
    private(set) var plain: Plain?

    struct Plain {
        let limits: UInt64
        /// The share of this host.
        let thousandths: UInt64
        let divisor: UInt64
        let terms: Terms
    }

    package init(name: String, kept: KeptState, timing: Timing, rules: SharingRules = .all) {
        self.name = name
        self.kept = kept
        self.timing = timing
        self.rules = rules
        self.kept.changes.tellAgain()
        markUnreported()
        noteTerms()
    }

    /// After a start of the machine: the time since the last kept one is unknown, so grants are over.
    package mutating func endGrants() {
        guard rules.contains(.endAtReboot) else { return }
        for grant in grantEnds {
            kept.accounts[grant.lane]?.grants.removeAll()
            kept.accounts[grant.lane]?.revision += 1
        }
        grantEnds = []
    }

    /// Whether requests that need more than the share can wait for the engine now.
    package var canAsk: Bool { dialogue == .ready && kept.settled != nil }
    /// Whether one version of the terms holds on all hosts.
    package var isSettled: Bool { plain != nil }
    package var hasWaiting: Bool { !waiting.isEmpty }
    /// When the first of the waiting requests must be decided; nil if none waits.
    package var nextDeadline: Int64? { waiting.first?.deadline }

    /// To be called when the terms or `isSecond` have changed.
    mutating func noteTerms() {
        hasChanged = true
        plain = nil
        guard !isSecond, kept.pending.isEmpty, let terms = kept.settled else { return }
        let isMember = terms.hosts.contains(name)
        plain = Plain(
            limits: terms.limits, thousandths: isMember ? UInt64(terms.share) : 0,
            divisor: 1000 * UInt64(max(terms.hosts.count, 1)), terms: terms)
    }

    package var isReady: Bool { dialogue == .ready }
    package var isClosed: Bool { dialogue == .closed }
    package var isClone: Bool { dialogue == .clone }
    package var hasOpenCall: Bool { open != nil }

    mutating func markUnreported() {
        let used = kept.accounts.filter { !$0.value.pool.entries.isEmpty || !$0.value.grants.isEmpty }
        unreported = LaneQueue(used.keys.sorted())
        let open = used.flatMap { lane, account in account.grants.map { (until: $0.until, lane: lane) } }
        grantEnds = Deque(open.sorted { ($0.until, $0.lane) < ($1.until, $1.lane) })
    }
}

// MARK: Deciding

/// What a request needs: all of it or nothing.
package struct SharedRequest: Sendable {
    package struct Demand: Sendable {
        package let lane: Lane
        package let units: Int64
        /// N under each of the limits' versions that may hold (`Terms.limits`). Under any other, it is 0.
        package let most: [(limits: UInt64, units: Int64)]
        /// The same without a raise by an administrator: what is divided into shares (`SharingRules.fixedShares`).
        package let usual: [(limits: UInt64, units: Int64)]
        /// What counts in the host's own window of the lane, share and pool together.
        package let own: [SlotCounts.Slot]

        /// - Parameter usual: nil if there is no raise.
        package init(
            lane: Lane, units: Int64, most: [(limits: UInt64, units: Int64)],
            usual: [(limits: UInt64, units: Int64)]? = nil, own: [SlotCounts.Slot]
        ) {
            self.lane = lane
            self.units = units
            self.most = most
            self.usual = usual ?? most
            self.own = own
        }
    }

    package let number: Int
    package let demands: [Demand]

    package init(number: Int, demands: [Demand]) {
        self.number = number
        self.demands = demands
    }
}

package enum SharedDecision: Sendable {
    /// The caller charges the request with `charge`, before it decides another.
    case admitted
    case refused
    /// The engine is asked. The number comes back from `receive`, `refuseOverdue` or `disconnect`, and the request is
    /// then decided for the last time.
    case waits
}

extension SharedLedger {
    /// - Parameter isLast: whether the request has waited already. It does not wait again.
    package mutating func decide(_ request: SharedRequest, isLast: Bool = false, at now: Int64) -> SharedDecision {
        // Nobody overtakes a request that waits for the same lane.
        let fits = request.demands.allSatisfy { demand in
            let queued = isLast ? 0 : waitingUnits[demand.lane] ?? 0
            return missing(demand.units + queued, demand, at: now) <= 0
        }
        if fits { return .admitted }
        guard !isLast, canAsk, request.demands.allSatisfy({ $0.units <= share($0) + pool($0) })
        else { return .refused }
        let used = request.demands.map { shareUsed($0) }
        waiting.append(Waiting(request: request, shareUsed: used, deadline: now + timing.timeout))
        for demand in request.demands { waitingUnits[demand.lane, default: 0] += demand.units }
        return .waits
    }

    /// Charges a demand, first to grants, because they end soon, and then to the share. The caller counts it in its own
    /// window.
    ///
    /// - Returns: the units that the engine has granted.
    @discardableResult
    package mutating func charge(_ demand: SharedRequest.Demand, at now: Int64) -> Int64 {
        spend(demand.units, of: demand.lane, pool: usablePool(demand), at: now)
    }

    private mutating func spend(_ units: Int64, of lane: Lane, pool: Int64, at now: Int64) -> Int64 {
        let slot = lane.slot(at: now)
        let spent = kept.accounts[lane]?.spend(units, at: now, pool: pool, slot: slot) ?? 0
        guard spent > 0 else { return 0 }
        noteChange(of: lane, from: slot)
        return spent
    }

    /// Counts a refused request in the lane's pool, without a grant: who keeps trying anywhere stays refused on all
    /// hosts. The caller counts it in its own window as well, and so in its share.
    package mutating func chargeRefused(_ units: Int64, to lane: Lane, at now: Int64) {
        guard rules.contains(.tellRefused) else { return }
        let slot = lane.slot(at: now)
        kept.accounts[lane, default: KeptState.Account()].pool.chargeRefused(units, slot: slot)
        mustReport(lane, from: slot)
    }

    /// Frees what was charged in a slot, as far as it still counts.
    package mutating func giveBack(_ units: Int64, to lane: Lane, slot: Int64) {
        guard let given = kept.accounts[lane]?.pool.giveBack(units, slot: slot), given > 0 else { return }
        mustReport(lane, from: slot)
    }

    /// Forgets what this host has used of these lanes' pools: a reset. The engine hears of it after the reset itself.
    package mutating func forget(_ lanes: [Lane]) {
        for lane in lanes where kept.accounts[lane] != nil {
            kept.accounts[lane]?.pool = SlotCounts()
            mustReport(lane, from: .min)
        }
    }

    private mutating func mustReport(_ lane: Lane, from slot: Int64) {
        kept.accounts[lane]?.revision += 1
        unreported.insert(lane)
        noteChange(of: lane, from: slot)
    }

    /// What the lane's pool has in this slot and in later ones must be stored.
    mutating func noteChange(of lane: Lane, from slot: Int64) {
        changed[lane] = min(changed[lane] ?? slot, slot)
    }

    /// A change to a key, made on this host: the other hosts will get it.
    ///
    /// - Parameter wall: the wall clock in milliseconds since 1970.
    package mutating func change(
        _ subject: SharedChange.Subject, to value: String, until: Int64, author: SharedChange.Author, wall: Int64
    ) {
        kept.changes.make(subject, value: value, until: until, author: author, mark: kept.mark, wall: wall)
    }

    /// The requests that have waited too long. They are decided for the last time.
    package mutating func refuseOverdue(at now: Int64) -> [Int] {
        takeWaiting(waiting.prefix { $0.deadline <= now }.count)
    }

    /// Removes the first waiting requests.
    mutating func takeWaiting(_ count: Int) -> [Int] {
        guard count > 0 else { return [] }
        let taken = waiting.prefix(count).map(\.request)
        waiting.removeFirst(count)
        for demand in taken.lazy.flatMap(\.demands) {
            let left = (waitingUnits[demand.lane] ?? 0) - demand.units
            waitingUnits[demand.lane] = left > 0 ? left : nil
        }
        return taken.map(\.number)
    }

    // MARK: Shares

    /// What the host may use without asking, if one version of the terms holds everywhere and it is that of `most`; nil
    /// otherwise. Quick: every request asks this.
    package func share(of most: Most) -> UInt64? {
        guard let plain, plain.limits == most.limits else { return nil }
        return UInt64(most.divided) &* plain.thousandths / plain.divisor
    }

    /// Whether a request waits for units of this lane. Nobody overtakes it.
    package func isAwaited(_ lane: Lane) -> Bool { waitingUnits[lane] != nil }

    /// N of a lane, and what is divided into shares of it (`SharedRequest.Demand.usual`).
    package struct Most {
        let limits: UInt64
        let units: Int64
        let divided: Int64

        package init(limits: UInt64, units: Int64, divided: Int64) {
            self.limits = limits
            self.units = units
            self.divided = divided
        }
    }

    /// Whether open grants hold `units`, if one version of the terms holds everywhere and it is that of `most`.
    package func grantsHold(_ units: Int64, of lane: Lane, _ most: Most, at now: Int64) -> Bool {
        guard let pool = usablePool(of: most), let account = kept.accounts[lane] else { return false }
        return account.left(at: now, pool: pool) >= units
    }

    /// Charges `units` to grants, if those hold all of them (`grantsHold`).
    ///
    /// - Returns: whether they did.
    package mutating func spendGrants(_ units: Int64, of lane: Lane, _ most: Most, at now: Int64) -> Bool {
        guard grantsHold(units, of: lane, most, at: now), let pool = usablePool(of: most) else { return false }
        return spend(units, of: lane, pool: pool, at: now) == units
    }

    private func usablePool(of most: Most) -> Int64? {
        guard let plain, plain.limits == most.limits else { return nil }
        return rules.contains(.ownPool) ? plain.terms.pool(of: most.units, divided: most.divided) : .max
    }

    package func share(_ demand: SharedRequest.Demand) -> Int64 {
        kept.settled == nil || isSecond ? 0 : smallest(demand) { $0.share(of: name, in: $2) }
    }

    package func pool(_ demand: SharedRequest.Demand) -> Int64 {
        kept.settled == nil ? 0 : smallest(demand) { $0.pool(of: $1, divided: $2) }
    }

    private func smallest(
        _ demand: SharedRequest.Demand, _ part: (Terms, _ most: Int64, _ divided: Int64) -> Int64
    ) -> Int64 {
        let terms = rules.contains(.smallerTerms) ? kept.active : Array(kept.active.suffix(1))
        return terms.map { terms in
            func units(_ all: [(limits: UInt64, units: Int64)]) -> Int64 {
                all.first { $0.limits == terms.limits }?.units ?? 0
            }
            let most = units(demand.most)
            return part(terms, most, rules.contains(.fixedShares) ? min(most, units(demand.usual)) : most)
        }.min() ?? 0
    }

    /// What was used of the share: what counts in the host's own window and was not granted.
    private func shareUsed(_ demand: SharedRequest.Demand) -> Int64 {
        let pool = kept.accounts[demand.lane]?.pool.entries ?? []
        var (used, index): (Int64, Int) = (0, 0)
        for slot in demand.own {
            while index < pool.count, pool[index].number < slot.number { index += 1 }
            let granted = index < pool.count && pool[index].number == slot.number ? pool[index].units : 0
            used += max(0, slot.units - granted)
        }
        return used
    }

    /// What is missing in the lane for `units`; 0 or less if nothing is.
    ///
    /// - Parameter shareUsed: what was used of the share; nil if the demand has just been made.
    func missing(
        _ units: Int64, _ demand: SharedRequest.Demand, shareUsed: Int64? = nil, at now: Int64
    ) -> Int64 {
        let share = share(demand)
        let shareLeft = share > 0 ? max(0, share - (shareUsed ?? self.shareUsed(demand))) : 0
        return units - shareLeft - (kept.accounts[demand.lane]?.left(at: now, pool: usablePool(demand)) ?? 0)
    }

    private func usablePool(_ demand: SharedRequest.Demand) -> Int64 {
        rules.contains(.ownPool) ? pool(demand) : .max
    }
}
