// SPDX-License-Identifier: Apache-2.0

extension SharedLedger {
    /// At most this many lanes per call: the engine serves nobody else meanwhile.
    private static let batch = 100

    /// What an answer leads to.
    package struct Outcome: Sendable {
        /// The requests that the answer was for. They are decided for the last time.
        package var answered: [Int] = []
        /// Changes of other hosts, which the caller carries out before it decides a request.
        package var changes: [SharedChange] = []
        /// The connection must be closed. The host may connect again.
        package var hangsUp = false
    }

    // MARK: Terms

    /// The terms of the configuration. They hold when every host of the old and the new ones has confirmed them.
    package mutating func configure(_ terms: Terms) {
        if kept.active.last != terms || (kept.settled == nil && kept.pending.isEmpty) { kept.pending.append(terms) }
        noteTerms()
    }

    /// Takes note of what the engine says was settled last.
    private mutating func learn(settled text: String, sent: String?) {
        guard !text.isEmpty, text != kept.settled?.text || !kept.pending.isEmpty, let terms = Terms(text: text)
        else { return }
        defer { noteTerms() }
        if text == sent, let index = kept.pending.firstIndex(of: terms) {
            // Terms that were configured since the call are still pending.
            kept.settled = terms
            kept.pending.removeSubrange(...index)
        } else if kept.settled == nil {
            // A new host: it obeys what holds for the others, if it knows their limits.
            guard kept.pending.last?.limits == terms.limits else { return }
            kept.settled = terms
            if kept.pending.last == terms { kept.pending.removeAll() }
        } else if !kept.active.contains(terms), kept.active.contains(where: { $0.limits == terms.limits }) {
            kept.pending.insert(terms, at: 0)
        }
    }

    // MARK: Calls

    /// The first call on a new connection. `run` is the server's run id, which the caller has read on it.
    package mutating func connect(run: String, at now: Int64) -> Call {
        kept.connection += 1
        hasChanged = true
        callNumber = 0
        dialogue = .greeting
        open = Open(asked: now)
        lastCall = now
        return .hello(
            Call.Hello(
                known: rules.contains(.noWayBack) ? kept.epoch : 0, knownID: kept.epochID, run: run, mark: kept.mark,
                connection: kept.connection))
    }

    /// The connection is gone, or the caller has lost patience with it.
    ///
    /// - Returns: the requests that waited. They are decided for the last time.
    package mutating func disconnect() -> [Int] {
        dialogue = .closed
        open = nil
        return takeWaiting(waiting.count)
    }

    /// The next call, if one is due. To be asked for at the end of each turn, and after each heartbeat.
    package mutating func nextCall(at now: Int64) -> Call? {
        guard open == nil, dialogue == .registering || dialogue == .ready else { return nil }
        endOverdueGrants(at: now)
        let mustCall = dialogue == .registering || !waiting.isEmpty || !kept.changes.untold.isEmpty || isBehind
        guard mustCall || now - lastCall >= timing.heartbeat else { return nil }
        let tellsAll = kept.changes.untold.count <= timing.changesPerCall || !rules.contains(.changesFirst)
        let asks = dialogue == .ready && tellsAll ? self.asks(at: now) : [:]
        let lanes = asks.keys.sorted() + unreported.subtracting(asks.keys).sorted()
        let sent = tellsAll ? lanes.prefix(max(Self.batch, asks.count)) : []
        let newest = kept.active.last?.text ?? ""
        var open = Open(asked: now)
        open.terms = newest
        open.completes = sent.count == lanes.count && tellsAll
        open.waiting = tellsAll ? (waiting.last?.request.number ?? -1) + 1 : 0
        open.lanes = sent.map { ($0, kept.accounts[$0]?.revision ?? 0, asks[$0]?.pool ?? 0) }
        open.changes = min(kept.changes.untold.count, timing.changesPerCall)
        self.open = open
        lastCall = now
        callNumber += 1
        let matter = rules.contains(.waitForTerms) && kept.active.count > 1 ? timing.termsMatter : 0
        return .exchange(
            Call.Exchange(
                host: name, mark: kept.mark, connection: kept.connection, number: callNumber,
                epoch: kept.epoch, epochID: kept.epochID, completes: open.completes, terms: newest,
                obeyed: kept.settled == nil ? [] : kept.active.map(\.text),
                hosts: Set(kept.active.flatMap(\.hosts)).sorted(), termsMatter: matter, hidden: timing.hidden,
                position: kept.changes.position, mostNews: Int64(timing.changesPerCall),
                changes: kept.changes.next(open.changes, at: now),
                lanes: sent.map { report($0, asks[$0], at: now) }))
    }

    /// What the waiting requests need, by lane.
    private func asks(at now: Int64) -> [Lane: (need: Int64, pool: Int64)] {
        var units: [Lane: (units: Int64, demand: SharedRequest.Demand)] = [:]
        for request in waiting {
            for demand in request.request.demands {
                // The latest of them has seen all that was charged before.
                units[demand.lane] = ((units[demand.lane]?.units ?? 0) + demand.units, demand)
            }
        }
        return units.compactMapValues { wanted in
            let need = missing(wanted.units, wanted.demand, at: now)
            return need > 0 ? (need, pool(wanted.demand)) : nil
        }
    }

    /// All that this host has in the lane's pool. It replaces what the engine has.
    private mutating func report(_ lane: Lane, _ ask: (need: Int64, pool: Int64)?, at now: Int64) -> Call.LaneReport {
        var account = kept.accounts[lane] ?? KeptState.Account()
        account.pool.expire(at: lane.slot(at: now))
        store(account, lane)
        var rows = account.pool.entries.map { entry in
            // As young as a unit in this slot can be.
            let end = (entry.number + 1) * lane.window / SlotCounts.slots
            return Call.Row(age: Timing.atMost(max(0, now - end - 1)), units: entry.units)
        }
        if rules.contains(.registerGrants) {
            for grant in account.grants where grant.until > now && grant.left > 0 {
                let left = rules.contains(.stopEarly) ? grant.until - now : grant.until - now - timing.validity
                rows.append(Call.Row(age: -Timing.atLeast(left), units: grant.left))
            }
        }
        // A lane that is used fast gets what it will use while the grant is valid, so that it asks less often.
        let recent = lane.slot(at: now - timing.validity)
        let pace = account.pool.entries.reduce(0) { $1.number >= recent ? $0 + $1.units : $0 }
        let (need, pool) = ask ?? (0, 0)
        return Call.LaneReport(
            lane: lane, pool: pool, need: need, want: need > 0 ? need + pace : 0, validity: timing.validity, rows: rows)
    }

    private mutating func endOverdueGrants(at now: Int64) {
        for lane in granted.sorted() {
            guard var account = kept.accounts[lane] else { continue }
            let before = account.grants.count
            account.grants.removeAll { $0.until <= now || $0.left == 0 }
            if account.grants.isEmpty { granted.remove(lane) }
            guard account.grants.count < before else { continue }
            account.revision += 1
            unreported.insert(lane)
            store(account, lane)
        }
    }

    // MARK: Answers

    /// The answer to the open call. The caller drops answers of connections that it has given up.
    package mutating func receive(_ answer: Answer, at now: Int64) -> Outcome {
        guard let call = open else { return Outcome() }
        open = nil
        switch answer {
        case .hello(let epoch, let id, let settled):
            guard epoch >= kept.epoch || !rules.contains(.noWayBack) else { return hangUp() }
            if epoch != kept.epoch || id != kept.epochID {
                markUnreported()
                if rules.contains(.tellAgain) { kept.changes.tellAgain() } else { kept.changes.position = 0 }
            }
            isBehind = false
            (kept.epoch, kept.epochID) = (epoch, id)
            hasChanged = true
            // A new host uses its share once the engine has told that no other has its name.
            if kept.settled == nil { isSecond = true }
            learn(settled: settled, sent: nil)
            dialogue = .registering
            return Outcome()
        case .late: return hangUp()
        case .clone:
            var outcome = hangUp()
            outcome.hangsUp = true
            dialogue = .clone
            // It has learned its terms a moment ago, and has never used them.
            if isSecond, let terms = kept.active.last { (kept.settled, kept.pending) = (nil, [terms]) }
            isSecond = true
            noteTerms()
            return outcome
        case .exchanged(_, let settled, let granted, let news):
            take(granted, of: call, at: now)
            let changes = take(news, of: call, at: now)
            if isSecond {
                isSecond = false
                noteTerms()
            }
            learn(settled: settled, sent: call.terms)
            if call.completes, !isBehind { dialogue = .ready }
            let answered = takeWaiting(waiting.prefix { $0.request.number < call.waiting }.count)
            return Outcome(answered: answered, changes: changes)
        }
    }

    private mutating func hangUp() -> Outcome {
        Outcome(answered: disconnect(), hangsUp: true)
    }

    private mutating func take(_ news: SharedChanges.News, of call: Open, at now: Int64) -> [SharedChange] {
        kept.changes.told(call.changes)
        let changes = news.changes.compactMap { position, told in
            kept.changes.take(told, position: position, at: now, rules: rules)
        }
        kept.changes.position = news.position
        kept.changes.prune(stable: news.stable, at: now, rules: rules)
        isBehind = news.changes.count >= timing.changesPerCall
        return changes
    }

    private mutating func take(_ granted: [Int64], of call: Open, at now: Int64) {
        // What was used since is covered by the grants that the call named.
        for ((lane, revision, pool), units) in zip(call.lanes, granted) {
            guard var account = kept.accounts[lane] else { continue }
            if account.revision == revision { unreported.remove(lane) }
            let until =
                rules.contains(.stopEarly)
                ? call.asked + Timing.atMost(timing.validity) : now + 2 * timing.validity
            if units > 0, until > now {
                account.grants.append(KeptState.Grant(until: until, pool: pool, left: units))
                account.revision += 1
                self.granted.insert(lane)
            } else if units > 0 {
                unreported.insert(lane)
            }
            let isEmpty = account.pool.entries.isEmpty && account.grants.isEmpty && units == 0
            store(isEmpty ? nil : account, lane)
        }
    }
}
