// SPDX-License-Identifier: Apache-2.0

/// What a host must keep: it is in the host's own ledger before an answer or a call leaves.
package struct KeptState: Sendable {
    /// Open from the answer of the engine until `until`, by the host's clock.
    struct Grant {
        let until: Int64
        var left: Int64
    }

    struct Account {
        /// What was used of the host's share, and of the pool.
        var share = SlotCounts()
        var pool = SlotCounts()
        var grants: [Grant] = []
        /// Grows with each change to `pool` and `grants`.
        var revision: Int64 = 0

        func left(at now: Int64) -> Int64 {
            grants.reduce(0) { now < $1.until ? $0 + $1.left : $0 }
        }

        /// Takes units from the grants.
        mutating func spend(_ units: Int64, at now: Int64) {
            var rest = units
            for index in grants.indices where now < grants[index].until {
                let taken = min(rest, grants[index].left)
                grants[index].left -= taken
                rest -= taken
            }
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

    package init(mark: UInt64) { self.mark = mark }

    /// All terms that may still hold on some host.
    package var active: [Terms] { (settled.map { [$0] } ?? []) + pending }
}

/// One host's part of limits that several hosts share through an engine (Valkey or Redis). Nothing in the service uses
/// this yet: it is the foundation, tested by a simulator.
///
/// N is divided: each host may use its share without asking, and the engine grants the rest, the pool, for short times.
/// No interval of a window's length admits more than N over all hosts, whatever fails. `Rules` names what makes it so.
///
///             connect            hello             completes
///     closed ────────> greeting ──────> registering ────────> ready
///        ^                 │ late, clone, no answer │            │
///        └─────────────────┴────────────────────────┴────────────┘
///
/// The machine has no socket, clock or thread. `now` is CLOCK_BOOTTIME in milliseconds; after a reboot it goes on from
/// the last time that was kept. The caller stores `kept` before it sends an answer or a call. One call is open at a
/// time.
package struct SharedLedger: Sendable {
    enum Dialogue: Equatable { case closed, greeting, registering, ready, clone }

    struct Waiting {
        let request: SharedRequest
        let deadline: Int64
    }

    /// The call that has no answer yet.
    struct Open {
        let asked: Int64
        var lanes: [(lane: Lane, revision: Int64)] = []
        var terms: String?
        var completes = false
        /// The requests below this number waited when the call was made.
        var waiting = 0
    }

    package let name: String
    package let timing: Timing
    let rules: Rules
    package internal(set) var kept: KeptState
    var dialogue = Dialogue.closed
    var open: Open?
    var lastCall: Int64 = .min / 2
    /// The number of the latest call on this connection.
    package internal(set) var callNumber: Int64 = 0
    /// In the order in which they came.
    var waiting: [Waiting] = []
    /// Lanes whose pool differs from what the engine has been told in this epoch, and lanes with grants.
    var unreported: Set<Lane> = []
    var granted: Set<Lane> = []

    package init(name: String, kept: KeptState, timing: Timing, rules: Rules = .all) {
        self.name = name
        self.kept = kept
        self.timing = timing
        self.rules = rules
        markUnreported()
    }

    /// After a start of the machine: the time since the last kept one is unknown, so grants are over.
    package mutating func endGrants() {
        guard rules.contains(.endAtReboot) else { return }
        for lane in granted {
            kept.accounts[lane]?.grants.removeAll()
            kept.accounts[lane]?.revision += 1
        }
        granted.removeAll()
    }

    package var isReady: Bool { dialogue == .ready }
    package var isClosed: Bool { dialogue == .closed }
    package var isClone: Bool { dialogue == .clone }
    package var hasOpenCall: Bool { open != nil }

    mutating func markUnreported() {
        unreported = Set(kept.accounts.filter { !$0.value.pool.entries.isEmpty || !$0.value.grants.isEmpty }.keys)
        granted = Set(kept.accounts.filter { !$0.value.grants.isEmpty }.keys)
    }
}

// MARK: Deciding

/// What a request needs: all of it or nothing.
package struct SharedRequest: Sendable {
    package struct Demand: Sendable {
        package let lane: Lane
        package let units: Int64
        /// N under each of the limits' versions that may hold (`Terms.limits`).
        package let most: [(limits: UInt64, units: Int64)]

        package init(lane: Lane, units: Int64, most: [(limits: UInt64, units: Int64)]) {
            self.lane = lane
            self.units = units
            self.most = most
        }
    }

    package let number: Int
    package let demands: [Demand]

    package init(number: Int, demands: [Demand]) {
        self.number = number
        self.demands = demands
    }
}

/// What a request was charged, for giving it back.
package struct SharedCharge: Sendable {
    struct Part {
        let lane: Lane
        let shareSlot: Int64
        let share: Int64
        let poolSlot: Int64
        let pool: Int64
    }

    var parts: [Part] = []

    /// Units that the engine has granted.
    package var ofPool: Int64 { parts.reduce(0) { $0 + $1.pool } }
}

package enum SharedDecision: Sendable {
    case admitted(SharedCharge)
    case refused
    /// The engine is asked. The decision comes from `receive` or `refuseOverdue`.
    case waits
}

extension SharedLedger {
    package mutating func decide(_ request: SharedRequest, at now: Int64) -> SharedDecision {
        if let charge = charge(request, at: now) { return .admitted(charge) }
        guard dialogue == .ready, kept.settled != nil, request.demands.allSatisfy({ $0.units <= share($0) + pool($0) })
        else { return .refused }
        waiting.append(Waiting(request: request, deadline: now + timing.timeout))
        return .waits
    }

    /// The requests that have waited too long. They are refused.
    package mutating func refuseOverdue(at now: Int64) -> [Int] {
        let overdue = waiting.prefix { $0.deadline <= now }.map(\.request.number)
        waiting.removeFirst(overdue.count)
        return overdue
    }

    /// Frees what a request was charged, as far as it still counts.
    package mutating func giveBack(_ charge: SharedCharge) {
        for part in charge.parts {
            guard var account = kept.accounts[part.lane] else { continue }
            _ = account.share.giveBack(part.share, slot: part.shareSlot)
            if account.pool.giveBack(part.pool, slot: part.poolSlot) > 0 {
                account.revision += 1
                unreported.insert(part.lane)
            }
            kept.accounts[part.lane] = account
        }
    }

    func share(_ demand: SharedRequest.Demand) -> Int64 {
        kept.settled == nil ? 0 : smallest(demand) { $0.share(of: name, in: $1) }
    }

    func pool(_ demand: SharedRequest.Demand) -> Int64 {
        kept.settled == nil ? 0 : smallest(demand) { $0.pool(of: $1) }
    }

    private func smallest(_ demand: SharedRequest.Demand, _ part: (Terms, Int64) -> Int64) -> Int64 {
        let terms = rules.contains(.smallerTerms) ? kept.active : Array(kept.active.suffix(1))
        let parts = terms.compactMap { terms in
            demand.most.first { $0.limits == terms.limits }.map { part(terms, $0.units) }
        }
        return parts.min() ?? 0
    }

    /// What is missing in the lane for `units`; 0 or less if nothing is.
    func missing(_ units: Int64, _ demand: SharedRequest.Demand, at now: Int64) -> Int64 {
        var account = kept.accounts[demand.lane] ?? KeptState.Account()
        account.share.expire(at: demand.lane.slot(at: now))
        return units - max(0, share(demand) - account.share.total) - account.left(at: now)
    }

    /// Charges all demands, first to the share and then to grants. If one of them lacks room, charges nothing and
    /// returns nil.
    private mutating func charge(_ request: SharedRequest, at now: Int64) -> SharedCharge? {
        guard request.demands.allSatisfy({ missing($0.units, $0, at: now) <= 0 }) else { return nil }
        var charge = SharedCharge()
        for demand in request.demands {
            let slot = demand.lane.slot(at: now)
            var account = kept.accounts[demand.lane] ?? KeptState.Account()
            account.share.expire(at: slot)
            let own = min(demand.units, max(0, share(demand) - account.share.total))
            if own > 0 { account.share.charge(own, slot: slot) }
            let granted = demand.units - own
            if granted > 0 {
                account.spend(granted, at: now)
                account.pool.charge(granted, slot: slot)
                account.revision += 1
                unreported.insert(demand.lane)
            }
            charge.parts.append(
                SharedCharge.Part(
                    lane: demand.lane, shareSlot: account.share.entries.last?.number ?? slot, share: own,
                    poolSlot: account.pool.entries.last?.number ?? slot, pool: granted))
            kept.accounts[demand.lane] = account
        }
        return charge
    }

    /// Decides the requests that waited when the answered call was made.
    mutating func decideWaiting(_ count: Int, at now: Int64) -> [(number: Int, decision: SharedDecision)] {
        let asked = waiting.prefix { $0.request.number < count }.map(\.request)
        waiting.removeFirst(asked.count)
        return asked.map { request in
            (request.number, charge(request, at: now).map { .admitted($0) } ?? .refused)
        }
    }
}
