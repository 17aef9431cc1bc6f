// SPDX-License-Identifier: Apache-2.0

/// A transaction as a checkpoint holds it.
///
///     id, last seen, 1 if settled
///     requests, then the hash of each
///     refusals, then for each: request hash, action
///     charges, then for each: account, amount, time
extension JournalWriter {
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

extension LedgerRecovery {
    /// Reads what follows a transaction's id and time. It replaces an older copy: a crash during a checkpoint leaves
    /// two.
    func readContent(of transaction: Transaction, _ reader: inout JournalReader) throws(JournalDamage) {
        transaction.isSettled = try reader.read() == 1
        transaction.forgetRequests()
        for _ in 0..<(try reader.read()) { transaction.remember(try reader.readHash(), refusedWith: nil) }
        transaction.refusals = []
        for _ in 0..<(try reader.read()) {
            transaction.refusals.append((request: try reader.readHash(), action: try reader.readField()))
        }
        transaction.charges = Charges()
        for _ in 0..<(try reader.read()) {
            let account = account(try reader.read())
            let amount = try reader.readAmount()
            let time = ledger.catchUp(to: try reader.readTime())
            if let account, amount > 0 { transaction.charges.add(amount, to: account, at: time) }
        }
    }
}
