// SPDX-License-Identifier: Apache-2.0
internal import DequeModule

extension SharedLedger {
    /// At most this many lanes per call: the engine serves nobody else meanwhile.
    private static let batch = 100
    /// A lane that asks gets this part of its pool, if so much is free.
    private static let leastPart: Int64 = 64
    /// At most this many lanes of each window with each call: more than a call usually adds.
    private static let mostForgotten = 200

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
        open = Open(asked: now, validity: timing.validity)
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
        // The engine may have granted what was asked for.
        for lane in open?.lanes ?? [] { unreported.insert(lane.lane) }
        open = nil
        return takeWaiting(waiting.count)
    }

    /// The next call, if one is due. To be asked for at the end of each turn, and after each heartbeat.
    package mutating func nextCall(at now: Int64) -> Call? {
        guard open == nil, dialogue == .registering || dialogue == .ready else { return nil }
        endOverdueGrants(at: now)
        forgetUnused(at: now)
        let mustCall = dialogue == .registering || !waiting.isEmpty || !kept.changes.untold.isEmpty || isBehind
        let pause = unreported.count >= Self.batch ? timing.heartbeat / 10 : timing.heartbeat
        guard mustCall || now - lastCall >= pause else { return nil }
        let tellsAll = kept.changes.untold.count <= timing.changesPerCall || !rules.contains(.changesFirst)
        let asks = dialogue == .ready && tellsAll ? self.asks(at: now) : Asks()
        let others = unreported.oldest(max(Self.batch - asks.lanes.count, 0)) { asks.byLane[$0] == nil }
        let sent = tellsAll ? asks.lanes + others : []
        let newest = kept.active.last?.text ?? ""
        var open = Open(asked: now, validity: timing.validity)
        open.terms = newest
        open.completes = tellsAll && unreported.isCovered(by: others, asks.byLane.keys)
        open.waiting = tellsAll ? (waiting.last?.request.number ?? -1) + 1 : 0
        open.lanes = sent.map { ($0, kept.accounts[$0]?.revision ?? 0, asks.byLane[$0]?.pool ?? 0) }
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
                lanes: sent.map { report($0, asks.byLane[$0], at: now) }))
    }

    /// What the waiting requests need.
    private struct Asks {
        /// In the order in which the requests came.
        var lanes: [Lane] = []
        var byLane: [Lane: (need: Int64, pool: Int64)] = [:]
    }

    private func asks(at now: Int64) -> Asks {
        var asks = Asks()
        // The latest request for a lane has seen all that was charged before.
        for waiting in waiting.reversed() {
            for (demand, used) in zip(waiting.request.demands, waiting.shareUsed)
            where asks.byLane[demand.lane] == nil {
                let need = missing(waitingUnits[demand.lane] ?? 0, demand, shareUsed: used, at: now)
                asks.byLane[demand.lane] = (need, pool(demand))
                if need > 0 { asks.lanes.append(demand.lane) }
            }
        }
        asks.lanes.reverse()
        asks.byLane = asks.byLane.filter { $0.value.need > 0 }
        return asks
    }

    /// All that this host has in the lane's pool. It replaces what the engine has.
    private mutating func report(_ lane: Lane, _ ask: (need: Int64, pool: Int64)?, at now: Int64) -> Call.LaneReport {
        expire(lane, at: now)
        let account = kept.accounts[lane] ?? KeptState.Account()
        var rows = account.pool.entries.map { entry in
            // As young as a unit in this slot can be.
            let end = (entry.number + 1) * lane.window / SlotCounts.slots
            return Call.Row(age: Timing.atMost(max(0, now - end - 1)), units: entry.units + entry.refused)
        }
        if rules.contains(.registerGrants) {
            for grant in account.grants where grant.until > now && grant.left > 0 {
                let left = rules.contains(.stopEarly) ? grant.until - now : grant.until - now - timing.validity
                rows.append(Call.Row(age: -Timing.atLeast(left), units: grant.left))
            }
        }
        let (need, pool) = ask ?? (0, 0)
        // A lane that is used fast gets what it will use while the grant is valid, so that it asks less often. Any
        // other gets a small part of the pool, so that not every request of a large limit asks.
        let recent = lane.slot(at: now - timing.validity)
        let pace = account.pool.entries.reduce(0) { $1.number >= recent ? $0 + $1.units : $0 }
        let want = need > 0 ? need + max(pace, pool / Self.leastPart) : 0
        return Call.LaneReport(lane: lane, pool: pool, need: need, want: want, validity: timing.validity, rows: rows)
    }

    /// Drops what counts no more in the lane's pool.
    private mutating func expire(_ lane: Lane, at now: Int64) {
        guard let isUnused = kept.accounts[lane]?.pool.entries.isEmpty else {
            kept.accounts[lane] = KeptState.Account()
            return
        }
        kept.accounts[lane]?.pool.expire(at: lane.slot(at: now))
        if !isUnused, kept.accounts[lane]?.pool.entries.isEmpty ?? true { noteChange(of: lane, from: .min) }
    }

    private mutating func endOverdueGrants(at now: Int64) {
        while let (until, lane) = grantEnds.first, until <= now {
            grantEnds.removeFirst()
            kept.accounts[lane]?.grants.removeAll { $0.until <= now }
            kept.accounts[lane]?.revision += 1
            unreported.insert(lane)
        }
    }

    /// Only what was used is left in a lane that the engine has been told of: it is forgotten when that counts no more.
    private mutating func rest(_ lane: Lane) {
        guard let account = kept.accounts[lane], account.grants.isEmpty, !account.isResting,
            let last = account.pool.entries.last?.number
        else { return }
        kept.accounts[lane]?.isResting = true
        resting[lane.window, default: []].append((last, lane))
    }

    /// Forgets lanes in which nothing counts any more, a few at a time.
    private mutating func forgetUnused(at now: Int64) {
        for window in Array(resting.keys) {
            var left = Self.mostForgotten
            while left > 0, let (slot, lane) = resting[window]?.first, slot < lane.slot(at: now) - SlotCounts.held {
                resting[window]?.removeFirst()
                left -= 1
                kept.accounts[lane]?.isResting = false
                guard let account = kept.accounts[lane], account.grants.isEmpty else { continue }
                if let last = account.pool.entries.last?.number, last > slot {
                    rest(lane)
                } else {
                    kept.accounts[lane] = nil
                    noteChange(of: lane, from: .min)
                }
            }
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
            let outcome = hangUp()
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
            guard let known = kept.accounts[lane] else { continue }
            if known.revision == revision { unreported.remove(lane) }
            let until =
                rules.contains(.stopEarly) ? call.asked + Timing.atMost(call.validity) : now + 2 * call.validity
            if units > 0, until > now {
                kept.accounts[lane]?.grants.removeAll { $0.left == 0 || $0.until <= now }
                kept.accounts[lane]?.grants.append(KeptState.Grant(until: until, pool: pool, left: units))
                grantEnds.append((until, lane))
            } else if units > 0 {
                unreported.insert(lane)
            } else if known.pool.entries.isEmpty, known.grants.isEmpty {
                kept.accounts[lane] = nil
            } else {
                rest(lane)
            }
        }
    }
}
