// SPDX-License-Identifier: Apache-2.0
internal import Patterns

/// Every count, in one place: requests in, decisions out, the store behind.
///
/// A ledger is owned by one thread (an event loop). `decide` works in memory only and adds to the batch that is
/// waiting; `commit` hands the batch to the store. Whoever asked gets the answer only after that, so that a count that
/// was answered is a count that was kept.
///
///     beginTick -> prepare, prepare, ... -> fetch -> decide, decide, ... -> commit -> (answers go out) -> maintain
///
/// Requests are prepared in a group, because what is counted for a hundred thousand keys is far from the processor:
/// the memory that all of them need is asked for at once, and not waited for one by one.
///
/// A request is charged to all limits that apply or, where one of them refuses, to none.
package final class Ledger {
    package struct Settings: Equatable, Sendable {
        /// What a transaction that ended before DATA was charged is given back; right only where DATA or
        /// END-OF-MESSAGE is asked too.
        package var givesBackDropped = false
        /// Keys kept over all limits; beyond, the least used of a sample makes room.
        package var mostAccounts = 2_000_000
        package var mostTransactions = 262_144

        package init() {}
    }

    let store: any LedgerStore
    package weak var observer: (any LedgerObserver)?
    package internal(set) var limits: [LimitState] = []
    var settings: Settings
    var clock: LedgerClock
    private var tick: ClockAnchor
    let hashKey: SipHash.Key
    var transactions: TransactionTable
    var journal = JournalWriter()
    /// The last batch that was closed.
    var sequence: UInt64 = 0
    var lastAccountID: UInt64 = 0
    var lastLimitID: UInt64 = 0
    var accountCount = 0
    /// Some limit counts connections.
    var limitsConnections = false
    /// Where `policy_context` stands in a request, if some limit looks at it.
    var context: Int?
    /// Counts up with every reload: what tables say of a key is looked up again.
    var generation: UInt32 = 0
    var upkeep = Upkeep()
    private let scratch = MatchScratch()
    var key: [UInt8] = []
    /// Requests that wait for their decision, in the order in which they came.
    private var prepared: [Prepared] = []
    private var nextPrepared = 0
    /// Numbers the requests that are decided, over and over. Begins with one that no account has before the first.
    private var number: UInt32 = 1
    /// The limits that apply to the prepared requests, and where their accounts are.
    private var probes: [Probe] = []
    private var plan: [Step] = []
    /// Accounts of limits in shadow mode that would have refused the request.
    private var shadowed: [Account] = []

    private struct Prepared {
        let state: ProtocolState
        let transaction: UInt64
        /// The end of its probes; they begin where those of the request before end.
        let probesEnd: Int
    }

    private struct Probe {
        /// Not held: limits are not replaced while requests wait (`reload`).
        let limit: Unmanaged<LimitState>
        let hash: KeyHash
    }

    /// What one account gains or loses by a request.
    private struct Step {
        let account: Account
        var charge: UInt64 = 0
        var giveBack: UInt64 = 0
        /// The part that has to fit into a window at once (`CountUnit.Charge.indivisible`).
        var whole: UInt64 = 0

        var limit: LimitState { account.limit }
        var isOfConnection: Bool { account.limit.terms.limit.count.isOfConnection }
    }

    /// - Throws: what the store says where it can't be opened; nothing has been changed then.
    package init(
        limits: [Limit], settings: Settings, clocks: any SystemClocks, store: any LedgerStore
    ) throws(StoreError) {
        self.store = store
        self.settings = settings
        let recovery = try store.open()
        hashKey = recovery.hashKey
        clock = LedgerClock(clocks: clocks, resuming: recovery.lastBatch.flatMap(Self.anchor(of:)))
        tick = clock.anchor()
        transactions = TransactionTable(capacity: settings.mostTransactions)
        try register(limits, known: recovery.limits)
        let replay = Replay(ledger: self)
        try store.recover(into: replay)
        replay.finish()
        beginTick()
        giveUpSurplus(most: .max)
        for limit in self.limits { limit.accounts.forEach(noteFullness) }
        do throws(UpkeepFault) {
            try beginCheckpoint()
        } catch {
            throw error.storeError
        }
    }

    /// The time of this tick: all requests that are handled together happen at once.
    package var now: LedgerTime { tick.time }

    var wallTimeNow: Int64 { tick.reading.wall }

    /// Reads the clock; to be called before the first request of a tick.
    package func beginTick() {
        let before = now
        tick = clock.anchor()
        for limit in limits {
            // The machine slept.
            if now - before > limit.terms.mostUnused { limit.accounts.forEach { $0.expire(by: now) } }
            limit.terms.setTime(now)
        }
    }

    /// The time of something that the store has kept. It is not to come: where the clock is behind it, the clock is set.
    func settle(on time: LedgerTime) -> LedgerTime {
        guard time > now else { return time }
        clock.advance(to: time)
        tick = clock.anchor()
        for limit in limits { limit.terms.setTime(now) }
        return min(time, now)
    }

    /// Hands what was decided since the last call to the store.
    ///
    /// - Throws: where the store could not take it. The counts stay in memory and are saved by the next checkpoint.
    package func commit() throws(StoreError) {
        guard !journal.isEmpty else { return }
        sequence += 1
        defer { journal.removeAll() }
        try store.append(journal.content, sequence: sequence)
    }

    /// Lets go of what was decided since the last call: the store can't take it, and a checkpoint will.
    package func discardBatch() {
        journal.removeAll()
        upkeep.needsCheckpoint = true
    }

    /// Keeps what the store has held back (`durability: relaxed`).
    package func flush() throws(StoreError) {
        try store.flush()
    }

    // MARK: Deciding

    /// Finds out which limits apply to a request that `decide` will be asked about.
    package func prepare(_ request: Attributes) {
        if nextPrepared == prepared.count {
            prepared.removeAll(keepingCapacity: true)
            probes.removeAll(keepingCapacity: true)
            nextPrepared = 0
        }
        let state = ProtocolState(request.protocolState)
        probe(request, state)
        let transaction = transactionID(of: request, state)
        transactions.prefetch(transaction)
        prepared.append(Prepared(state: state, transaction: transaction, probesEnd: probes.count))
    }

    /// Brings what the prepared requests will be charged to near the processor.
    package func fetch() {
        let waiting = probes[probesStart...]
        for probe in waiting { probe.limit._withUnsafeGuaranteedRef { $0.accounts.prefetchAccount(probe.hash) } }
        for probe in waiting { probe.limit._withUnsafeGuaranteedRef { $0.accounts.prefetchWindows(probe.hash) } }
    }

    /// Where the probes of the request begin that is decided next.
    private var probesStart: Int { nextPrepared == 0 ? 0 : prepared[nextPrepared - 1].probesEnd }

    /// Requests wait to be decided.
    var isAsked: Bool { nextPrepared < prepared.count }

    /// Decides a request and charges it, in memory. The answer may go out after the next `commit`.
    ///
    /// - Precondition: requests are decided in the order in which they were prepared.
    package func decide(_ request: Attributes) -> Decision {
        let start = probesStart
        let prepared = prepared[nextPrepared]
        nextPrepared += 1
        let state = prepared.state
        let subject = subject(prepared.transaction, of: request, state)
        if let known = subject.transaction {
            known.lastSeen = now
            if known.hasAnswered(subject.request) {
                return Decision(action: known.refusal(of: subject.request), transaction: subject.id)
            }
        }
        let connection = limitsConnections ? self.connection(of: request, state) : nil
        if let refusal = connection?.refusal { return Decision(action: refusal, transaction: subject.id) }

        let settles = state == .data || state == .endOfMessage
        plan.removeAll(keepingCapacity: true)
        shadowed.removeAll(keepingCapacity: true)
        number &+= 1
        var refusal: Refusal?
        // Over a limit whose answer lets the request pass, and so charged all the same.
        var remark: Refusal?
        for index in start..<prepared.probesEnd {
            let probe = probes[index]
            let limit = probe.limit.takeUnretainedValue()
            if subject.recipient != 0, let known = subject.transaction,
                known.hasAnswered(Self.charge(of: subject.recipient, to: probe.hash))
            {
                continue
            }
            guard let step = step(of: limit, probe.hash, request, state, subject, connection) else { continue }
            step.account.request = number
            guard let found = judge(step) else {
                plan.append(step)
                continue
            }
            if limit.terms.limit.mode == .shadow {
                if step.giveBack > 0 { plan.append(step) }
                // What it said to a recipient it does not say once more of the whole message.
                if settles, subject.transaction?.shadowed.contains(where: { $0 === step.account }) ?? false { continue }
                _ = refuse(found, request)
                shadowed.append(step.account)
            } else if found.letsPass {
                remark = remark ?? found
                plan.append(step)
            } else {
                refusal = refusal ?? found
            }
        }
        let action = (refusal ?? remark).map { refuse($0, request) }
        if refusal != nil {
            plan.removeAll(keepingCapacity: true)
            if settles, let transaction = subject.transaction { planGiveBack(of: transaction) }
        } else if settles, let transaction = subject.transaction {
            planSettlement(of: transaction, request, state)
        }
        let isNewsOfTransaction = settles && !(subject.transaction?.isSettled ?? true)
        if !plan.isEmpty || action != nil || !shadowed.isEmpty || isNewsOfTransaction {
            record(subject, action: action, settles: settles)
            if let connection { record(connection, refusal: refusal, action: action) }
        }
        return Decision(action: action, transaction: subject.id)
    }

    /// The mail transaction that a request belongs to.
    private struct Subject {
        /// 0: none; VRFY, HELO and the like.
        var id: UInt64 = 0
        /// Tells this request from the others of the transaction; Postfix repeats one after a fault.
        var request: UInt64 = 0
        /// Tells this recipient from the others in whatever `policy_context`; 0 where that makes no difference.
        var recipient: UInt64 = 0
        var transaction: Transaction?
    }

    private func transactionID(of request: Attributes, _ state: ProtocolState) -> UInt64 {
        guard state.isMail, !request.instance.isEmpty else { return 0 }
        // `instance` is unique on one host only, and no request names its host.
        var transaction = SipHash(key: hashKey)
        transaction.combine(request.instance)
        transaction.combine(request.clientAddress)
        transaction.combine(request.sender)
        return transaction.finalize() | 1
    }

    private func subject(_ id: UInt64, of request: Attributes, _ state: ProtocolState) -> Subject {
        guard id != 0 else { return Subject() }
        var hash = SipHash(key: hashKey)
        hash.combine(UInt64(state.rawValue) << 56 | request.recipientCount << 40 ^ request.size)
        hash.combine(request.recipient)
        let known = hash.finalize() | 1
        var subject = Subject(id: id, request: known, transaction: transactions[id])
        if let context {
            // Each hook is another request: other limits may apply. Those that apply at both have charged the recipient already.
            var hash = SipHash(key: hashKey)
            hash.combine(known)
            hash.combine(request[context])
            subject.request = hash.finalize() | 1
            if state == .rcpt { subject.recipient = known }
        }
        return subject
    }

    /// Remembered like a request: an account was charged a recipient, for one `policy_context` or another.
    static func charge(of recipient: UInt64, to account: KeyHash) -> UInt64 {
        recipient ^ account.low | 1
    }

    /// Finds out which limits apply to a request.
    private func probe(_ request: Attributes, _ state: ProtocolState) {
        // At the end of a message with several recipients none of them is named.
        let isUnnamed = state.isMail && request.recipient.isEmpty
        for limit in limits where !(isUnnamed && limit.terms.isPerRecipient) {
            guard limit.terms.holds(request, scratch: scratch, value: &key) else { continue }
            let hash: KeyHash
            if let key = limit.terms.limit.key.asItStands(in: request) {
                hash = self.hash(of: key, of: limit)
            } else if limit.terms.limit.key.build(request, into: &key) {
                hash = self.hash(of: key, of: limit)
            } else {
                continue
            }
            limit.accounts.prefetchSlot(hash)
            probes.append(Probe(limit: .passUnretained(limit), hash: hash))
        }
    }

    /// What a limit that applies makes of a request; nil where there is nothing to charge or to refuse.
    private func step(
        of limit: LimitState, _ hash: KeyHash, _ request: Attributes, _ state: ProtocolState, _ subject: Subject,
        _ connection: Connection?
    ) -> Step? {
        let unit = limit.terms.limit.count
        let charge = unit.charge(in: state)
        let counts = charge != .nothing && (!unit.isOfConnection || connection?.isNew(to: limit) ?? false)
        guard let account = existingAccount(hash, of: limit) ?? (counts ? newAccount(hash, request, of: limit) : nil)
        else { return nil }
        if account.exception?.isExempt ?? false, account.blockedUntil(at: now) == nil { return nil }
        var step = Step(account: account)
        if counts {
            let charged = subject.transaction?.charged(to: account) ?? 0
            let total = charge.total(after: request, charged: charged)
            if total > charged { step.charge = total - charged } else { step.giveBack = charged - total }
            step.whole = charge.indivisible(ofTotal: total)
        }
        return step
    }

    private func newAccount(_ hash: KeyHash, _ request: Attributes, of limit: LimitState) -> Account? {
        guard limit.terms.limit.key.build(request, into: &key) else { return nil }
        return openAccount(hash, key: key, of: limit)
    }

    /// Why a step can't be taken.
    private struct Refusal {
        let account: Account
        let reason: RefusalReason
        let lane: Int
        let amount: UInt64
        let until: LedgerTime

        var answer: ActionTemplate {
            let limit = account.limit.limit
            return reason == .tooLarge ? limit.tooLarge : limit.over
        }

        var letsPass: Bool {
            reason == .tooLarge ? account.limit.terms.tooLargeLetsPass : account.limit.terms.overLetsPass
        }
    }

    private func judge(_ step: Step) -> Refusal? {
        let account = step.account
        if let until = account.blockedUntil(at: now) {
            return Refusal(account: account, reason: .blocked, lane: 0, amount: step.charge, until: until)
        }
        guard step.charge > 0 else { return nil }
        var worst: Refusal?
        for lane in 0..<account.limit.terms.refusedLane {
            let admitted = account.admitted(lane: lane, at: now)
            if account.used(lane: lane) &+ step.charge <= admitted { continue }
            guard step.whole <= admitted, let fitting = account.fitting(step.charge, lane: lane, at: now) else {
                return Refusal(account: account, reason: .tooLarge, lane: lane, amount: step.charge, until: now)
            }
            if worst.map({ fitting > $0.until }) ?? true {
                worst = Refusal(account: account, reason: .over, lane: lane, amount: step.charge, until: fitting)
            }
        }
        return worst
    }

    /// Whether the present request is judged with an account.
    func isInUse(_ account: Account) -> Bool {
        account.request == number
    }

    // MARK: Carrying out

    /// Keeps a refused try, and gives the answer.
    private func refuse(_ refusal: Refusal, _ request: Attributes) -> [UInt8] {
        let (account, limit) = (refusal.account, refusal.account.limit)
        limit.refusals += 1
        let isChargedAsRefused = limit.limit.countRefused && refusal.reason != .tooLarge && !refusal.letsPass
        let alsoCharged = isChargedAsRefused ? refusal.amount : 0
        account.addRefused(charging: alsoCharged)
        openBatch()
        journal.write(.refused)
        journal.write(account.id)
        journal.write(alsoCharged)
        noteChange(of: account)
        var blockedUntil: LedgerTime?
        if let block = limit.limit.block, refusal.reason != .blocked {
            let tries = account.refusedTries
            if limit.limit.mode == .shadow {
                // Told once, and not set: nobody wants it in force on the day the limit is.
                if tries == block.after { blockedUntil = now + block.milliseconds }
            } else if tries >= block.after {
                blockedUntil = now + block.milliseconds
                setBlock(of: account, until: blockedUntil, byHand: false)
            }
        }
        noteFullness(of: account)
        let event = LimitEvent(account: account, lane: refusal.lane, until: blockedUntil ?? refusal.until, time: now)
        let action = refusal.answer.render(event.value(of:))
        observer?.refused(event, because: refusal.reason, request, action: action)
        if blockedUntil != nil { observer?.blocked(event) }
        return action
    }

    /// A message that is refused whole is charged nothing: what its recipients were charged goes back.
    private func planGiveBack(of transaction: Transaction) {
        for charge in transaction.charges {
            plan.append(Step(account: charge.account, giveBack: transaction.charged(to: charge.account)))
        }
    }

    /// Settles accounts that were charged at RCPT, but which this request alone would not lead to.
    private func planSettlement(of transaction: Transaction, _ request: Attributes, _ state: ProtocolState) {
        for charge in transaction.charges where !isInUse(charge.account) {
            let limit = charge.account.limit
            let charged = transaction.charged(to: charge.account)
            let target: UInt64
            if limit.terms.isPerRecipient, !request.recipient.isEmpty {
                // One recipient is left, and it is not counted here: those that were have been rejected.
                target = 0
            } else if limit.limit.key.isPerRecipient {
                // Several are left, and nobody says which.
                target = charged
            } else {
                target = min(charged, limit.limit.count.charge(in: state).total(after: request, charged: charged))
            }
            if target < charged { plan.append(Step(account: charge.account, giveBack: charged - target)) }
        }
    }

    /// Charges the plan's mail steps, and keeps them and the answer with the transaction.
    private func record(_ subject: Subject, action: [UInt8]?, settles: Bool) {
        guard subject.id != 0 || plan.contains(where: { !$0.isOfConnection }) else { return }
        let transaction = subject.transaction ?? Transaction(id: subject.id, lastSeen: now)
        if subject.transaction == nil, subject.id != 0, let evicted = transactions.insert(transaction) {
            dropped(evicted)
        }
        if settles { transaction.isSettled = true }
        for account in shadowed { transaction.noteShadowed(account) }
        transaction.remember(subject.request, refusedWith: action)
        if subject.recipient != 0 {
            for step in plan where !step.isOfConnection {
                transaction.remember(Self.charge(of: subject.recipient, to: step.account.hash))
            }
            for account in shadowed { transaction.remember(Self.charge(of: subject.recipient, to: account.hash)) }
        }
        writeHead(of: transaction, request: subject.request, action: action, recipient: subject.recipient)
        apply(to: transaction, ofConnection: false)
    }

    /// Takes the steps of the plan that belong to a mail transaction or to a connection, and writes them down.
    private func apply(to transaction: Transaction, ofConnection: Bool) {
        for step in plan where step.isOfConnection == ofConnection {
            if step.charge > 0 {
                charge(step, transaction)
            } else if step.giveBack > 0 {
                giveBack(step.giveBack, to: step.account, transaction)
            }
        }
        journal.write(0)
    }

    private func writeHead(
        of transaction: Transaction, request: UInt64, action: [UInt8]?, recipient: UInt64 = 0, beginsAnew: Bool = false
    ) {
        openBatch()
        journal.write(.transaction)
        journal.write(hash: transaction.id)
        journal.write(hash: request)
        var flags: TransactionFlags = transaction.isSettled ? .settled : []
        if action != nil { flags.insert(.refused) }
        if recipient != 0 { flags.insert(.recipient) }
        if beginsAnew { flags.insert(.anew) }
        journal.write(flags.rawValue)
        if let action { journal.write(action) }
        if recipient != 0 { journal.write(hash: recipient) }
    }

    private func charge(_ step: Step, _ transaction: Transaction) {
        let account = step.account
        let limit = account.limit
        var nearLane: Int?
        var fullest = 0.0
        for lane in 0..<limit.terms.refusedLane {
            let used = account.windows.charge(step.charge, lane: lane, slot: limit.terms.slots[lane])
            let admitted = account.admitted(lane: lane, at: now)
            let fullness = Double(used) / Double(max(1, admitted))
            limit.notePeak(
                of: account, lane: lane, used: used, admitted: admitted, fullness: fullness, wallTime: wallTimeNow)
            fullest = max(fullest, fullness)
            if nearLane == nil, used &* 100 >= admitted &* limit.terms.limit.warnAt { nearLane = lane }
        }
        if let nearLane, !account.hasWarned {
            observer?.near(LimitEvent(account: account, lane: nearLane, until: now, time: now))
        }
        account.hasWarned = nearLane != nil
        limit.fullest.note(account, fullness: fullest, at: now)
        transaction.charges.add(step.charge, to: account, at: now)
        writeCharge(account, Int64(step.charge), at: now)
        noteChange(of: account)
    }

    private func giveBack(_ amount: UInt64, to account: Account, _ transaction: Transaction) {
        transaction.charges.change(account) { charge in
            charge.giveBack(amount) { taken, time in
                account.giveBack(taken, chargedAt: time)
                writeCharge(account, -Int64(taken), at: time)
            }
        }
        noteChange(of: account)
    }

    /// A charge (or, negative, what is given back) of a transaction entry; account 0 ends the entry.
    private func writeCharge(_ account: Account, _ amount: Int64, at time: LedgerTime) {
        journal.write(account.id)
        journal.write(signed: amount)
        journal.write(UInt64(now - time))
    }

    // MARK: Dropped transactions

    /// The client has gone on or left: what `id` was charged is given back where nothing of it was accepted.
    package func close(_ id: UInt64) {
        guard settings.givesBackDropped, let transaction = transactions[id] else { return }
        dropped(transaction)
    }

    /// Nothing of the transaction was accepted, and it comes again as another: all that it was charged is given back.
    package func withdraw(_ id: UInt64) {
        guard let transaction = transactions[id], transaction.isCharged else { return }
        giveBackAll(of: transaction)
    }

    func dropped(_ transaction: Transaction) {
        guard settings.givesBackDropped, !transaction.isSettled, transaction.isCharged else { return }
        giveBackAll(of: transaction)
    }

    private func giveBackAll(of transaction: Transaction) {
        writeHead(of: transaction, request: 0, action: nil)
        for account in transaction.charges.map(\.account) {
            giveBack(transaction.charged(to: account), to: account, transaction)
        }
        journal.write(0)
    }

    // MARK: Connections

    /// A client's connection, as told by its address and port (Postfix 3.0 and later send both).
    private struct Connection {
        let id: UInt64
        let record: Transaction?
        /// It has been counted already.
        let isCounted: Bool
        /// It was refused, and so is all that comes over it.
        let refusal: [UInt8]?
        /// Names its first mail transaction; `otherRequest` in any other request.
        let firstTransaction: UInt64

        /// Whether a limit has it still to count. Others count it at its first request, whatever that is; a limit that waits for
        /// one `policy_context` can't.
        func isNew(to limit: LimitState) -> Bool {
            guard isCounted else { return true }
            return limit.terms.looksAtContext && !(record?.charges.contains { $0.account.limit === limit } ?? false)
        }
    }

    private static let otherRequest: UInt64 = 1

    /// A repeated CONNECT within this time is Postfix asking again after a fault, and not a new connection.
    private static let repeatedConnect: Int64 = 110_000

    private func connection(of request: Attributes, _ state: ProtocolState) -> Connection? {
        guard !request.clientPort.isEmpty, !request.clientAddress.isEmpty else { return nil }
        var hash = SipHash(key: hashKey)
        hash.combine(request.clientAddress)
        hash.combine(request.clientPort)
        let id = hash.finalize() | 1
        let first = firstTransaction(of: request)
        guard let record = transactions[id] else {
            return Connection(id: id, record: nil, isCounted: false, refusal: nil, firstTransaction: first)
        }
        let age = now - record.lastSeen
        let isOver = age > (state == .connect ? Self.repeatedConnect : TransactionTable.settledLifetime)
        // A client may take the same port again at once; its transactions begin anew then.
        let known = record.latestRequest
        let beginsAnew = first != Self.otherRequest && known != Self.otherRequest && known != first
        if isOver || beginsAnew {
            record.refusals = []
            return Connection(id: id, record: record, isCounted: false, refusal: nil, firstTransaction: first)
        }
        if known == Self.otherRequest, first != known { record.remember(first, refusedWith: nil) }
        let refusal = record.refusals.first?.action
        if refusal == nil { record.lastSeen = now }
        return Connection(id: id, record: record, isCounted: true, refusal: refusal, firstTransaction: first)
    }

    /// The first transaction of an SMTP session has the sequence number 0 at the end of its `instance`.
    private func firstTransaction(of request: Attributes) -> UInt64 {
        let instance = request.instance
        guard instance.count > 2, instance.suffix(2).elementsEqual(".0".utf8) else { return Self.otherRequest }
        var hash = SipHash(key: hashKey)
        hash.combine(instance)
        return hash.finalize() | 2
    }

    /// Keeps that a connection was counted, or that a limit on connections refused it.
    private func record(_ connection: Connection, refusal: Refusal?, action: [UInt8]?) {
        let isRefused = refusal.map { $0.account.limit.limit.count.isOfConnection && $0.reason == .over } ?? false
        guard isRefused || plan.contains(where: { $0.isOfConnection && $0.charge > 0 }) else { return }
        let action = isRefused ? action : nil
        let record = connection.record ?? Transaction(id: connection.id, lastSeen: now)
        record.lastSeen = now
        record.isSettled = true
        if !connection.isCounted { record.charges = Charges() }
        if connection.record == nil, let evicted = transactions.insert(record) { dropped(evicted) }
        record.remember(connection.firstTransaction, refusedWith: action)
        writeHead(of: record, request: connection.firstTransaction, action: action, beginsAnew: !connection.isCounted)
        apply(to: record, ofConnection: true)
    }

    // MARK: The journal

    /// Every batch begins with the time at which everything in it happened.
    func openBatch() {
        guard journal.isEmpty else { return }
        journal.write(hash: tick.boot)
        journal.write(signed: tick.reading.sinceBoot)
        journal.write(signed: tick.reading.wall)
        journal.write(signed: tick.time.milliseconds)
    }

    static func anchor(of batch: [UInt8]) -> ClockAnchor? {
        batch.withUnsafeBytes { bytes in
            var reader = JournalReader(bytes)
            return try? readAnchor(&reader)
        }
    }

    static func readAnchor(_ reader: inout JournalReader) throws(JournalDamage) -> ClockAnchor {
        let boot = try reader.readHash()
        let reading = ClockReading(
            sinceBoot: try reader.readTime().milliseconds, wall: try reader.readTime().milliseconds)
        return ClockAnchor(boot: boot, reading: reading, time: try reader.readTime())
    }
}
