// SPDX-License-Identifier: Apache-2.0

/// The journal entries since the last commit: an anchor (boot, clock readings, ledger time), then the entries.
///
/// Everything in a batch happened at the time of its anchor. The first entry writes it.
struct JournalBatch: ~Copyable {
    private var writer = JournalWriter()

    var isEmpty: Bool { writer.isEmpty }
    /// Valid until the next change.
    var content: UnsafeRawBufferPointer { writer.content }

    mutating func removeAll() {
        writer.removeAll()
    }

    // MARK: The anchor

    /// Writes the anchor if the batch is empty.
    mutating func begin(at tick: ClockAnchor) {
        guard writer.isEmpty else { return }
        writer.write(hash: tick.boot)
        writer.write(signed: tick.reading.sinceBoot)
        writer.write(signed: tick.reading.wall)
        writer.write(signed: tick.time.milliseconds)
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

    // MARK: Entries about one account

    mutating func appendOpened(_ account: Account, at tick: ClockAnchor) {
        begin(.account, of: account, at: tick)
        writer.write(account.limit.storedID)
        writer.write(account.key)
    }

    mutating func appendRefused(_ account: Account, charged: UInt64, at tick: ClockAnchor) {
        begin(.refused, of: account, at: tick)
        writer.write(charged)
    }

    /// - Parameter until: nil ends a block.
    mutating func appendBlock(_ account: Account, until: LedgerTime?, byHand: Bool, at tick: ClockAnchor) {
        begin(.blocked, of: account, at: tick)
        writer.write(signed: until?.milliseconds ?? 0)
        writer.write(byHand ? 1 : 0)
    }

    mutating func appendRaise(_ account: Account, _ rates: [Rate], until: LedgerTime, at tick: ClockAnchor) {
        begin(.raised, of: account, at: tick)
        writer.write(signed: until.milliseconds)
        writer.write(rates)
    }

    mutating func appendReset(_ account: Account, at tick: ClockAnchor) {
        begin(.reset, of: account, at: tick)
    }

    private mutating func begin(_ entry: JournalEntry, of account: Account, at tick: ClockAnchor) {
        begin(at: tick)
        writer.write(entry)
        writer.write(account.id)
    }

    // MARK: Transactions

    /// Begins the entry of a mail transaction or a connection. `appendCharge` follows any number of times, then
    /// `endTransaction`.
    ///
    /// - Parameters:
    ///   - request: the hash of the request that was answered; 0 if none was.
    ///   - action: the answer, if it was not DUNNO.
    ///   - recipient: see `RequestIdentity.recipientHash`.
    ///   - isNewConnection: the charges of an earlier connection with the same address and port end.
    mutating func beginTransaction(
        _ transaction: Transaction, request: UInt64, action: [UInt8]?, recipient: UInt64 = 0,
        isNewConnection: Bool = false, at tick: ClockAnchor
    ) {
        begin(at: tick)
        writer.write(.transaction)
        writer.write(hash: transaction.id)
        writer.write(hash: request)
        var flags: TransactionFlags = transaction.isSettled ? .settled : []
        if action != nil { flags.insert(.refused) }
        if recipient != 0 { flags.insert(.recipient) }
        if isNewConnection { flags.insert(.newConnection) }
        writer.write(flags.rawValue)
        if let action { writer.write(action) }
        if recipient != 0 { writer.write(hash: recipient) }
    }

    /// - Parameters:
    ///   - amount: negative if it is given back.
    ///   - age: milliseconds since it was charged.
    mutating func appendCharge(_ amount: Int64, to account: Account, age: Int64) {
        writer.write(account.id)
        writer.write(signed: amount)
        writer.write(UInt64(age))
    }

    /// Account 0 ends the entry.
    mutating func endTransaction() {
        writer.write(0)
    }
}
