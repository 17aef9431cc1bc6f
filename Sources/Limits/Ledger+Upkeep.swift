// SPDX-License-Identifier: Apache-2.0

extension Ledger {
    /// Does a part of the work between answers: about `slots` rows of a checkpoint, and a quarter as many table slots
    /// swept for idle accounts. Call it after `commit`. What it gives back is committed when it returns.
    ///
    /// - Returns: an error of the store. After a checkpoint that failed the next waits a second, and twice as long
    ///   after each further failure, up to a minute.
    package func maintain(slots: Int) -> UpkeepFault? {
        owner.check()
        // First, while the batch is empty: a row holds the effects of whole batches only.
        let fault = continueCheckpoint(slots: slots)
        removeIdle(slots: max(1, slots / 4))
        evictSurplus(most: slots / 32)
        for _ in 0..<max(1, slots / 16) {
            let expired = transactions.popExpired(at: now, attempts: 16, mayReorder: upkeep.phase != .saving)
            guard let expired else { break }
            drop(expired)
        }
        // All of a batch happens at one time, and the next request comes later.
        do throws(StoreError) { try commit() } catch { return .journal(error) }
        return fault
    }

    private func removeIdle(slots: Int) {
        sweepSlots(slots) { account in
            if let fullness = account.fullness(at: now) {
                account.limit.fullest.note(account, fullness: fullness, at: now)
            } else if !account.isBlockedOrRaised(at: now), !account.mayEndCharges(at: now) {
                upkeep.idle.append(account)
            }
        }
        for account in upkeep.idle { remove(account) }
        upkeep.idle.removeAll(keepingCapacity: true)
    }

    /// Visits the next slots of the limits' tables, and starts over after the last.
    func sweepSlots(_ slots: Int, _ body: (Account) -> Void) {
        guard !limits.isEmpty else { return }
        if upkeep.sweepLimit >= limits.count { upkeep.sweepLimit = 0 }
        // A copy: `body` may change `upkeep`.
        var cursor = upkeep.sweepCursor
        let limit = limits[upkeep.sweepLimit]
        if limit.accounts.visit(from: &cursor, slots: slots, body) {
            upkeep.sweepCursor = cursor
        } else {
            limit.fullest.relax(at: now)
            upkeep.sweepCursor = AccountTable.Cursor()
            upkeep.sweepLimit += 1
        }
    }
}
