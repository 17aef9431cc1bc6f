// SPDX-License-Identifier: Apache-2.0

/// The content of an account's row: each window with its slots, then the account's exception.
///
///     lanes, then for each: window, slots, then for each: slot (difference to the one before), amount
///     blocked until (0: not), 1 if by hand
///     0, 0 (a raise, as earlier versions wrote it: until, a count for each window)
///     only if reset or raised: reset at (0: never), raised until, rates
extension JournalWriter {
    /// An account that has left memory is written if nothing counted any more. Its windows may not be the limit's now.
    mutating func write(_ account: Account) {
        let (lanes, slots) = (account.limit.terms.lanes, account.limit.terms.slots)
        write(UInt64(lanes.count))
        for lane in lanes.indices {
            write(UInt64(lanes[lane].milliseconds))
            var count: UInt64 = 0
            if !account.isRemoved { account.windows.forEachSlot(lane: lane, slot: slots[lane]) { _, _ in count += 1 } }
            write(count)
            guard count > 0 else { continue }
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
}

extension LedgerRecovery {
    func readContent(of account: Account, _ reader: inout JournalReader) throws(JournalDamage) {
        let windows = try readWindows(of: account, &reader)
        let blockedUntil = try reader.readTime()
        let byHand = try reader.read() == 1
        if blockedUntil.milliseconds != 0 { account.setBlock(until: blockedUntil, byHand: byHand) }
        let raisedUntil = try reader.readTime()
        let counts = try reader.readCounts()
        let lanes = account.limit.terms.lanes
        account.setRaised(
            zip(counts, windows).compactMap { count, milliseconds in
                lanes.first { UInt64($0.milliseconds) == milliseconds }.map { Rate(count: count, window: $0) }
            }, until: raisedUntil)
        guard !reader.isAtEnd else { return }
        let resetAt = ledger.catchUp(to: try reader.readTime())
        if resetAt.milliseconds != 0 { account.makeException().resetAt = resetAt }
        let until = try reader.readTime()
        account.setRaised(try reader.readRates(), until: until)
    }

    /// Restores the windows that the limit still has.
    ///
    /// - Returns: the lengths of all stored windows but the one of refused requests, in milliseconds.
    private func readWindows(
        of account: Account, _ reader: inout JournalReader
    ) throws(JournalDamage) -> [UInt64] {
        let lanes = account.limit.terms.lanes
        let stored = try reader.read()
        // A bit for each lane that has been restored.
        var restored: UInt64 = 0
        var windows: [UInt64] = []
        for storedLane in 0..<stored {
            let milliseconds = try reader.read()
            let isRefusedLane = storedLane == stored - 1
            if !isRefusedLane { windows.append(milliseconds) }
            let candidates = isRefusedLane ? lanes.count - 1..<lanes.count : 0..<lanes.count - 1
            let lane = candidates.first { UInt64(lanes[$0].milliseconds) == milliseconds && restored & 1 << $0 == 0 }
            if let lane { restored |= 1 << lane }
            try readSlots(of: account, lane: lane, &reader)
        }
        return windows
    }

    /// - Parameter lane: nil if the limit has no such window any more.
    private func readSlots(
        of account: Account, lane: Int?, _ reader: inout JournalReader
    ) throws(JournalDamage) {
        let count = try reader.read()
        guard count <= UInt64(Window.slots) + 1 else { throw JournalDamage(offset: reader.offset) }
        let window = lane.map { account.limit.terms.lanes[$0] }
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
                _ = ledger.catchUp(to: window.start(ofSlot: slot))
                present = window.slot(at: ledger.now)
                // Removes what has expired meanwhile.
                _ = account.windows.used(lane: lane, slot: present)
            }
            if 0...Window.slots ~= present &- slot { account.windows.restore(amount, slot: slot, lane: lane) }
        }
    }
}

extension JournalReader {
    /// The counts of a raise as earlier versions wrote it.
    mutating func readCounts() throws(JournalDamage) -> [UInt64] {
        let count = try read()
        guard count <= 1000 else { throw JournalDamage(offset: offset) }
        var counts: [UInt64] = []
        for _ in 0..<count { counts.append(try readAmount()) }
        return counts
    }

    mutating func readRates() throws(JournalDamage) -> [Rate] {
        let count = try read()
        guard count <= 1000 else { throw JournalDamage(offset: offset) }
        var rates: [Rate] = []
        for _ in 0..<count {
            let window = try read()
            guard let window = Int64(exactly: window), Window.allowed.contains(window) else {
                throw JournalDamage(offset: offset)
            }
            rates.append(Rate(count: try readAmount(), window: Window(milliseconds: window)))
        }
        return rates
    }
}
