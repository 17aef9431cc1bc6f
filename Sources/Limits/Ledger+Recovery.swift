// SPDX-License-Identifier: Apache-2.0

extension JournalWriter {
    /// The content of an account's row: each window with its slots, then what sets the key apart.
    mutating func write(_ account: Account) {
        let (lanes, slots) = (account.limit.terms.lanes, account.limit.terms.slots)
        write(UInt64(lanes.count))
        for lane in lanes.indices {
            write(UInt64(lanes[lane].milliseconds))
            var count: UInt64 = 0
            account.windows.forEachSlot(lane: lane, slot: slots[lane]) { _, _ in count += 1 }
            write(count)
            var previous: Int64 = 0
            account.windows.forEachSlot(lane: lane, slot: slots[lane]) { slot, amount in
                write(signed: slot - previous)
                write(amount)
                previous = slot
            }
        }
        let exception = account.exception
        write(signed: exception?.blockedUntil?.milliseconds ?? 0)
        write(exception?.isBlockedByHand ?? false ? 1 : 0)
        // Once a time until which it was raised, and a count for each rate.
        write(signed: 0)
        write(0)
        guard let exception, exception.resetAt != nil || exception.raised != nil else { return }
        write(signed: exception.resetAt?.milliseconds ?? 0)
        write(signed: exception.raised?.until.milliseconds ?? 0)
        write(exception.raised?.rates ?? [])
    }

    mutating func write(_ rates: [Rate]) {
        write(UInt64(rates.count))
        for rate in rates {
            write(UInt64(rate.window.milliseconds))
            write(rate.count)
        }
    }

    mutating func write(_ transaction: Transaction) {
        write(hash: transaction.id)
        write(signed: transaction.lastSeen.milliseconds)
        write(transaction.isSettled ? 1 : 0)
        write(UInt64(transaction.requestCount))
        transaction.forEachRequest { write(hash: $0) }
        write(UInt64(transaction.refusals.count))
        for refusal in transaction.refusals {
            write(hash: refusal.request)
            write(refusal.action)
        }
        var parts: UInt64 = 0
        transaction.charges.visit { $0.forEachPart { _, _ in parts += 1 } }
        write(parts)
        transaction.charges.visit { charge in
            charge.forEachPart { amount, time in
                write(charge.account.id)
                write(amount)
                write(signed: time.milliseconds)
            }
        }
    }
}

/// Puts a ledger together again from what its store has kept.
final class Replay: RecoverySink {
    private let ledger: Ledger
    private let limits: [UInt64: LimitState]
    /// From rows, in the order of their ids.
    private var stored: [Account] = []
    /// Opened since, as the journal tells.
    private var opened: [UInt64: Account] = [:]
    /// When the accounts that batches have changed were looked at last.
    private var expiredBy = LedgerTime(milliseconds: 0)
    private let mostUnused: Int64

    init(ledger: Ledger) {
        self.ledger = ledger
        limits = Dictionary(uniqueKeysWithValues: ledger.limits.map { ($0.storedID, $0) })
        mostUnused = ledger.limits.reduce(.max) { min($0, $1.terms.mostUnused) }
    }

    /// Comes from the time of the last batch to the present.
    func finish() {
        expire(by: ledger.now)
    }

    /// What a row holds is of its own time, and needs this only once a batch has changed it.
    private func expire(by time: LedgerTime) {
        for account in ledger.upkeep.dirty { account.expire(by: time) }
        expiredBy = time
    }

    /// Ids and sequences are counted up from 1, and never come here.
    private static let largestNumber: UInt64 = 1 << 62

    func recover(account row: AccountRow) throws(JournalDamage) {
        guard row.id <= Self.largestNumber, row.sequence <= Self.largestNumber else { throw JournalDamage(offset: 0) }
        ledger.lastAccountID = max(ledger.lastAccountID, row.id)
        guard let limit = limits[row.limit] else {
            ledger.upkeep.removed.append(row.id)
            return
        }
        let account = open(id: row.id, key: row.key, limit: limit)
        stored.append(account)
        account.isStored = true
        account.savedSequence = row.sequence
        ledger.sequence = max(ledger.sequence, row.sequence)
        let outcome = row.content.withUnsafeBytes { bytes in
            Result { () throws(JournalDamage) in
                var reader = JournalReader(bytes)
                try restore(account, from: &reader)
            }
        }
        try outcome.get()
    }

    func recover(transactions content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        guard sequence <= Self.largestNumber else { throw JournalDamage(offset: 0) }
        var reader = JournalReader(content)
        while !reader.isAtEnd {
            let id = try reader.readHash()
            guard id != 0 else { throw JournalDamage(offset: reader.offset) }
            let lastSeen = ledger.settle(on: try reader.readTime())
            let transaction = transaction(id, lastSeen: lastSeen)
            transaction.lastSeen = lastSeen
            transaction.savedSequence = sequence
            transaction.isSettled = try reader.read() == 1
            for _ in 0..<(try reader.read()) { transaction.remember(try reader.readHash(), refusedWith: nil) }
            transaction.refusals = []
            for _ in 0..<(try reader.read()) {
                transaction.refusals.append((request: try reader.readHash(), action: try reader.readField()))
            }
            transaction.charges = Charges()
            for _ in 0..<(try reader.read()) {
                let account = account(try reader.read())
                let amount = try reader.readAmount()
                let time = ledger.settle(on: try reader.readTime())
                if let account, amount > 0 { transaction.charges.add(amount, to: account, at: time) }
            }
        }
    }

    func recover(batch content: UnsafeRawBufferPointer, sequence: UInt64) throws(JournalDamage) {
        guard sequence <= Self.largestNumber else { throw JournalDamage(offset: 0) }
        var reader = JournalReader(content)
        let time = ledger.settle(on: try Ledger.readAnchor(&reader).time)
        ledger.sequence = max(ledger.sequence, sequence)
        if time - expiredBy > mostUnused { expire(by: time) }
        // What the batch did, it did at its own time.
        for limit in limits.values { limit.terms.setTime(time) }
        while !reader.isAtEnd {
            switch try reader.readEntry() {
            case .account: try recoverAccount(&reader)
            case .transaction: try recoverTransaction(&reader, sequence, time)
            case .refused:
                let account = try readAccount(&reader, changedBy: sequence)
                let charged = try reader.readAmount()
                account?.addRefused(charging: charged)
            case .blocked:
                let account = try readAccount(&reader, changedBy: sequence)
                let until = try reader.readTime()
                let byHand = try reader.read() == 1
                account?.setBlock(until: until.milliseconds == 0 ? nil : until, byHand: byHand)
            case .raisedCounts:
                let account = try readAccount(&reader, changedBy: sequence)
                let until = try reader.readTime()
                let counts = try readCounts(&reader)
                if let windows = account?.limit.limit.rates.map(\.window), windows.count == counts.count {
                    account?.setRaised(zip(counts, windows).map(Rate.init), until: until)
                }
            case .raised:
                let account = try readAccount(&reader, changedBy: sequence)
                let until = try reader.readTime()
                let rates = try readRates(&reader)
                account?.setRaised(rates, until: until)
            case .reset:
                try readAccount(&reader, changedBy: sequence)?.reset(at: time)
            }
        }
    }

    private func recoverAccount(_ reader: inout JournalReader) throws(JournalDamage) {
        let id = try reader.read()
        let limit = limits[try reader.read()]
        let key = try reader.readField()
        guard id <= Self.largestNumber else { throw JournalDamage(offset: reader.offset) }
        ledger.lastAccountID = max(ledger.lastAccountID, id)
        guard let limit, account(id) == nil else { return }
        // A row tells of the key's later life, under another id.
        if let later = limit.accounts.find(ledger.hash(of: key, of: limit)), later.id > id { return }
        let account = open(id: id, key: key, limit: limit)
        opened[id] = account
        // The piece of journal that tells of it goes with the next checkpoint, and it may be charged after that.
        ledger.noteChange(of: account)
    }

    private func recoverTransaction(
        _ reader: inout JournalReader, _ sequence: UInt64, _ time: LedgerTime
    ) throws(JournalDamage) {
        let id = try reader.readHash()
        let request = try reader.readHash()
        let flags = TransactionFlags(rawValue: try reader.read())
        let action = flags.contains(.refused) ? try reader.readField() : nil
        let recipient = flags.contains(.recipient) ? try reader.readHash() : 0
        var transaction: Transaction?
        if id != 0 {
            let known = self.transaction(id, lastSeen: time)
            if known.savedSequence < sequence {
                transaction = known
                known.lastSeen = time
                known.isSettled = flags.contains(.settled)
                if flags.contains(.anew) { (known.charges, known.refusals) = (Charges(), []) }
                if request != 0 { known.remember(request, refusedWith: action) }
            }
        }
        while case let accountID = try reader.read(), accountID != 0 {
            let amount = try reader.readSigned()
            let age = try reader.read()
            guard amount.magnitude <= SlidingWindows.largestAmount, age <= UInt64(time.milliseconds) else {
                throw JournalDamage(offset: reader.offset)
            }
            let chargedAt = time + -Int64(age)
            guard let account = account(accountID) else { continue }
            let appliesToAccount = account.savedSequence < sequence
            if appliesToAccount { ledger.noteChange(of: account) }
            if amount > 0 {
                if appliesToAccount { account.charge(UInt64(amount)) }
                transaction?.charges.add(UInt64(amount), to: account, at: time)
                if recipient != 0 { transaction?.remember(Ledger.charge(of: recipient, to: account.hash)) }
            } else {
                let given = amount.magnitude
                if appliesToAccount { account.giveBack(given, chargedAt: chargedAt) }
                transaction?.takeBack(given, from: account)
            }
        }
    }

    private func readAccount(
        _ reader: inout JournalReader, changedBy sequence: UInt64
    ) throws(JournalDamage) -> Account? {
        guard let account = account(try reader.read()), account.savedSequence < sequence else { return nil }
        ledger.noteChange(of: account)
        return account
    }

    private func readCounts(_ reader: inout JournalReader) throws(JournalDamage) -> [UInt64] {
        let count = try reader.read()
        guard count <= 1000 else { throw JournalDamage(offset: reader.offset) }
        var counts: [UInt64] = []
        for _ in 0..<count { counts.append(try reader.readAmount()) }
        return counts
    }

    private func readRates(_ reader: inout JournalReader) throws(JournalDamage) -> [Rate] {
        let count = try reader.read()
        guard count <= 1000 else { throw JournalDamage(offset: reader.offset) }
        var rates: [Rate] = []
        for _ in 0..<count {
            let window = try reader.read()
            guard let window = Int64(exactly: window), Window.allowed.contains(window) else {
                throw JournalDamage(offset: reader.offset)
            }
            rates.append(Rate(count: try reader.readAmount(), window: Window(milliseconds: window)))
        }
        return rates
    }

    private func open(id: UInt64, key: [UInt8], limit: LimitState) -> Account {
        let hash = ledger.hash(of: key, of: limit)
        if let earlier = limit.accounts.find(hash) {
            // The key came back under a new id after it had been idle.
            ledger.remove(earlier)
        }
        let account = Account(id: id, key: key, hash: hash, limit: limit)
        account.generation = .max
        ledger.adopt(account)
        return account
    }

    private func account(_ id: UInt64) -> Account? {
        guard let last = stored.last, id <= last.id else { return opened[id] }
        var (low, high) = (0, stored.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if stored[middle].id < id { low = middle + 1 } else { high = middle }
        }
        return stored[low].id == id ? stored[low] : opened[id]
    }

    private func transaction(_ id: UInt64, lastSeen: LedgerTime) -> Transaction {
        if let known = ledger.transactions[id] { return known }
        let transaction = Transaction(id: id, lastSeen: lastSeen)
        _ = ledger.transactions.insert(transaction)
        return transaction
    }

    private func restore(_ account: Account, from reader: inout JournalReader) throws(JournalDamage) {
        let lanes = account.limit.terms.lanes
        let stored = try reader.read()
        // A bit for each lane that has its counts.
        var restored: UInt64 = 0
        var windows: [UInt64] = []
        for storedLane in 0..<stored {
            let milliseconds = try reader.read()
            let isRefusedLane = storedLane == stored - 1
            if !isRefusedLane { windows.append(milliseconds) }
            let candidates = isRefusedLane ? lanes.count - 1..<lanes.count : 0..<lanes.count - 1
            let lane = candidates.first { UInt64(lanes[$0].milliseconds) == milliseconds && restored & 1 << $0 == 0 }
            if let lane { restored |= 1 << lane }
            let count = try reader.read()
            guard count <= UInt64(Window.slots) + 1 else { throw JournalDamage(offset: reader.offset) }
            let window = lane.map { lanes[$0] }
            var present = window?.slot(at: ledger.now) ?? 0
            var slot: Int64 = 0
            var latest = Int64.min
            for _ in 0..<count {
                slot &+= try reader.readSigned()
                let amount = try reader.readAmount()
                guard let lane, let window, slot > latest else { continue }
                latest = slot
                if slot > present {
                    guard slot <= window.slot(at: .largest) else { throw JournalDamage(offset: reader.offset) }
                    _ = ledger.settle(on: window.start(ofSlot: slot))
                    present = window.slot(at: ledger.now)
                }
                if 0...Window.slots ~= present &- slot { account.windows.restore(amount, slot: slot, lane: lane) }
            }
        }
        let blockedUntil = try reader.readTime()
        let byHand = try reader.read() == 1
        if blockedUntil.milliseconds != 0 { account.setBlock(until: blockedUntil, byHand: byHand) }
        let raisedUntil = try reader.readTime()
        let counts = try readCounts(&reader)
        account.setRaised(
            zip(counts, windows).compactMap { count, milliseconds in
                lanes.first { UInt64($0.milliseconds) == milliseconds }.map { Rate(count: count, window: $0) }
            }, until: raisedUntil)
        guard !reader.isAtEnd else { return }
        let resetAt = ledger.settle(on: try reader.readTime())
        if resetAt.milliseconds != 0 { account.makeException().resetAt = resetAt }
        let until = try reader.readTime()
        account.setRaised(try readRates(&reader), until: until)
    }
}
