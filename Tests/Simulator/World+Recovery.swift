// SPDX-License-Identifier: Apache-2.0
import Glibc
import Limits
import SimulatedMachine

/// Restarts, and what may be lost over them.
extension World {
    func restart() throws(Failure) {
        tell("stop")
        // The service closes the policy connections. The transactions go on with the next process.
        service?.stop()
        closePolicyConnections()
        if !isDead {
            _ = service.take()
            if !isUncertain, !powerLossIsPossible, scenario.kind != .errors { history = [model] }
        }
        try recover()
    }

    /// After a stop, a kill or a loss of power: starts the service, and compares its counts with what it may have.
    func recover() throws(Failure) {
        asking = []
        let isReboot = powerLoss != nil
        let (bootBefore, timeBefore) = (clocks.boot, model.now)
        if service != nil, !isDead {
            service?.stop()
            closePolicyConnections()
            _ = service.take()
        }
        sim_advance(1)
        try boot()
        for index in sessions.indices {
            sessions[index].descriptor = -1
            sessions[index].isWaiting = false
            if isReboot { renewSession(index) }
        }
        synchronize()
        if clocks.boot != bootBefore || scenario.kind == .damage { try noteReboot() } else { try checkTime() }
        for index in history.indices {
            history[index].now = model.now
            history[index].restart()
        }
        if isUncertain || isReboot && isLossy || !newWindows.isEmpty || scenario.mostKeys != nil {
            try checkBounds(since: timeBefore)
            startAnew()
        } else {
            try findState(among: history.suffix(clocks.boot == bootBefore ? leftByKill : history.count).indices)
        }
    }

    // MARK: Files

    func inode(of name: String) -> UInt? {
        var status = stat()
        return stat("\(folder)/ledger/\(name)", &status) == 0 ? status.st_ino : nil
    }

    /// After a start: a file that is damaged was set aside, and no other.
    func checkFiles() throws(Failure) {
        let aside = Simulation.names(in: folder + "/ledger").filter { $0.contains(".damaged-") }
        if let first = aside.first, scenario.kind == .kills {
            throw Failure(kind: .files, message: "\(first): a file was set aside, and none was damaged")
        }
        guard let ledgerFile, inode(of: "ledger.sqlite") != ledgerFile else { return }
        if !aside.contains(where: { inode(of: $0) == ledgerFile }) {
            throw Failure(kind: .files, message: "ledger.sqlite was replaced, and not set aside")
        }
    }

    private func checkTime() throws(Failure) {
        guard let time = service?.time, time != model.now, scenario.kind != .damage else { return }
        throw Failure(kind: .time, message: "the ledger's time is \(time - model.now) ms ahead")
    }

    /// Across a reboot, the wall clock tells how long the machine was off. What it was set by before the last batch was
    /// written has no effect. If it was set back by more than has passed since, no time has passed.
    private func noteReboot() throws(Failure) {
        guard let time = service?.time else { return }
        defer {
            noteSteps(followedBy: time - model.now)
            drift += time - model.now
            synchronize()
        }
        // Without a journal, the ledger's time begins with the wall clock's.
        let wall = SimulatedClocks.wallAtStart + sim_now() + clocks.stepped
        var offsets = steps.reversed().reduce(into: [0 as Int64]) { $0.append($0[$0.count - 1] + $1.change) }
        if isLossy { offsets.append(wall - model.now) }
        // Without a journal, it is not before the slot of the last charge that a row holds.
        let earliest = (history.first?.lastCharge(countingAt: model.now) ?? 0) - Generator.longestSlot
        if offsets.contains(time - model.now) || scenario.kind == .damage { return }
        if offsets.contains(where: { $0 < 0 }), (earliest...model.now).contains(time) { return }
        throw Failure(kind: .time, message: "after a reboot, the ledger's time is \(time - model.now) ms ahead")
    }

    /// A start writes a batch. If the power fails again before the disk has it, the next start reads the one from
    /// before the steps once more.
    ///
    /// - Parameter change: what the ledger's time has made of them. The next start may see it taken back.
    private func noteSteps(followedBy change: Int64) {
        guard isLossy else { return steps = [] }
        let until = sim_now() + Self.writeback
        steps = steps.map { ($0.change, min($0.until, until)) } + [(-change, until)]
    }

    /// Whether a loss of power may lose what was answered.
    var isLossy: Bool { scenario.kind == .damage || scenario.durability != "power" }

    /// Finds the newest state in the history that the service has.
    private func findState(among possible: Range<Int>) throws(Failure) {
        for index in possible.reversed() where difference(from: history[index]) == nil {
            models = [history[index]]
            renewSessions(thatDifferIn: history[possible.lowerBound..<index].filter { difference(from: $0) == nil })
            renewJudgedSessions()
            // A loss of power may still take back what a kill has left.
            if powerLossIsPossible { history.removeSubrange((index + 1)...) } else { history = [model] }
            leftByKill = 1
            return
        }
        let newest = history.last.flatMap(difference) ?? ""
        let oldest = difference(from: history[possible.lowerBound]) ?? ""
        throw Failure(
            kind: .counts,
            message: "after the restart, the counts are those of no moment that they may be of.\n"
                + "Against the newest: \(newest)\nAgainst the oldest of \(possible.count): \(oldest)")
    }

    /// A limit that has charged nothing for a recipient may judge it again in another context. Its clients give up.
    private func renewJudgedSessions() {
        for index in sessions.indices {
            guard let transaction = sessions[index].last?.transaction else { continue }
            if model.transactions[transaction]?.judged.values.contains(false) ?? false { renewSession(index) }
        }
    }

    /// Where the counts do not tell which requests the service remembers, or what it has charged for them, their
    /// clients give up.
    private func renewSessions(thatDifferIn others: [Model]) {
        for index in sessions.indices {
            guard let transaction = sessions[index].last?.transaction else { continue }
            let answers = model.transactions[transaction]?.answers
            let differs = others.contains {
                $0.transactions[transaction]?.answers != answers || !$0.charged([transaction], as: model)
            }
            if differs { renewSession(index) }
        }
    }

    /// Checks that no key has more than it was charged, or less than what no failure may take.
    ///
    /// - Parameter before: when the service was last seen. What had expired by then may be gone, also if time was lost
    ///   and has gone back.
    private func checkBounds(since before: Int64) throws(Failure) {
        guard let service, let newest = history.last else { return }
        for account in Set(newest.accounts.keys).union(newest.forgotten.keys) {
            guard let limit = newest.limits.first(where: { $0.name == account.limit }) else { continue }
            let standing = service.standing(account)
            let windows = newest.accounts[account]?.windows ?? [:]
            for (lane, rate) in limit.rates.enumerated() where !newWindows.contains("\(limit.name) \(rate.window)") {
                let used = standing.map { Int($0.usages[lane].used) } ?? 0
                let charges = (windows[rate.window] ?? []).filter { newest.counts($0.time, in: rate.window) }
                // The disk has lost nothing where keys are forgotten, so what was given back stays so.
                let forgets = scenario.mostKeys != nil
                let sums = history.map {
                    forgets ? $0.kept(by: account, in: rate.window) : $0.charged(to: account, in: rate.window)
                }
                let most = sums.max() ?? 0
                let given = charges.reduce(0) { $0 + $1.charged - $1.amount }
                if used > most, !mayBeFlipped {
                    throw Failure(
                        kind: .surplus,
                        message: "\(account) has \(used) in \(rate.text), but was charged \(most) at most")
                }
                if scenario.kind == .damage || scenario.mostKeys != nil { continue }
                let counting = history.map { $0.used(account, in: rate.window, at: before) }.min() ?? 0
                let least = counting - given
                if used < least {
                    throw Failure(kind: .loss, message: "\(account) has \(used) in \(rate.text); \(least) were safe")
                }
            }
        }
    }

    /// The state is known within bounds only: goes on with keys that nobody has used.
    private func startAnew() {
        generation += 1
        isUncertain = false
        mayBeFlipped = false
        newWindows = []
        models = [
            Model(
                now: model.now, limits: scenario.configurations[configuration],
                givesBackDropped: scenario.givesBackDropped)
        ]
        for index in sessions.indices { renewSession(index) }
        history = [model]
        leftByKill = 1
        keys = service?.keys ?? 0
    }

    // MARK: Comparing

    /// Compares all keys with the model.
    func look() throws(Failure) {
        synchronize()
        clean()
        if let difference = difference(from: model) { throw Failure(kind: .counts, message: difference) }
        try checkTime()
    }

    /// The first key that stands differently.
    private func difference(from model: Model) -> String? {
        let accounts = model.accounts.keys.sorted { ($0.limit, $0.key) < ($1.limit, $1.key) }
        for account in accounts {
            guard let limit = model.limits.first(where: { $0.name == account.limit }) else { continue }
            if let difference = difference(of: account, limit, model) {
                return "key \(account.key) of \(account.limit): \(difference)"
            }
        }
        return nil
    }

    /// Where a key does not stand as the model says; nil if it does.
    func difference(of account: Model.Account, _ limit: LimitPlan, _ model: Model) -> String? {
        let standing = service?.standing(account)
        for (lane, rate) in limit.rates.enumerated() {
            let expected = slots(of: account, rate, model)
            let actual =
                standing?.usages[lane].history?.map { Int($0) } ?? Array(repeating: 0, count: expected.count)
            if actual != expected {
                return "\(rate.text) has \(Self.text(actual)), expected \(Self.text(expected))"
            }
        }
        let refused = Int(standing?.refusedTries ?? 0)
        if refused != model.refusedRequests(account) {
            return "\(refused) refused requests, expected \(model.refusedRequests(account))"
        }
        let block = standing?.blockedUntil?.milliseconds
        if block != model.block(account, by: limit) {
            return "blocked until \(block ?? 0), expected \(model.block(account, by: limit) ?? 0)"
        }
        let raised = model.accounts[account]?.raised.flatMap { $0.until > model.now ? $0.until : nil }
        if standing?.raisedUntil?.milliseconds != raised {
            return "raised until \(standing?.raisedUntil?.milliseconds ?? 0), expected \(raised ?? 0)"
        }
        return nil
    }

    /// What counts in each slot of a window, oldest first.
    private func slots(of account: Model.Account, _ rate: PlannedRate, _ model: Model) -> [Int] {
        var slots = Array(repeating: 0, count: 61)
        for charge in model.accounts[account]?.windows[rate.window] ?? [] {
            // A state of which the service has lost a part may be later than the present.
            if charge.time > model.now { return [charge.amount] }
            let age = Model.slot(model.now, of: rate.window) - Model.slot(charge.time, of: rate.window)
            if 0...60 ~= age { slots[60 - Int(age)] += charge.amount }
        }
        return slots
    }

    private static func text(_ slots: [Int]) -> String {
        let used = slots.enumerated().filter { $0.element > 0 }.map { "\($0.element) (\(60 - $0.offset) slots ago)" }
        return used.isEmpty ? "nothing" : used.joined(separator: ", ")
    }
}
