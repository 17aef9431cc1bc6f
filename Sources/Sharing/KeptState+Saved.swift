// SPDX-License-Identifier: Apache-2.0

extension KeptState {
    /// What a start needs of a host's state, beside what it has used of pools. Open grants are not kept: after a start
    /// they are over, and the host reports only what it has used of them.
    package struct Saved: Equatable, Sendable {
        package let mark: UInt64
        package let epoch: Int64
        package let epochID: String
        package let connection: Int64
        package let settled: String?
        package let pending: [String]

        package init(
            mark: UInt64, epoch: Int64, epochID: String, connection: Int64, settled: String?, pending: [String]
        ) {
            self.mark = mark
            self.epoch = epoch
            self.epochID = epochID
            self.connection = connection
            self.settled = settled
            self.pending = pending
        }
    }

    /// What counts in a lane's pool; no slots if nothing does any more.
    package struct Pool: Sendable {
        package let lane: Lane
        package let slots: [SlotCounts.Slot]

        package init(lane: Lane, slots: [SlotCounts.Slot]) {
            self.lane = lane
            self.slots = slots
        }
    }

    /// - Parameter changes: those that hold on all hosts.
    package init(
        _ saved: Saved, pools: [Pool], changes: [SharedChange] = [],
        numbers: SharedChanges.Numbers = SharedChanges.Numbers()
    ) {
        self.init(mark: saved.mark)
        self.changes = SharedChanges(changes, numbers)
        (epoch, epochID, connection) = (saved.epoch, saved.epochID, saved.connection)
        settled = saved.settled.flatMap { Terms(text: $0) }
        pending = saved.pending.compactMap { Terms(text: $0) }
        for pool in pools {
            var account = Account()
            for slot in pool.slots.sorted(by: { $0.number < $1.number }) {
                if slot.units > 0 { account.pool.charge(slot.units, slot: slot.number) }
                if slot.refused > 0 { account.pool.chargeRefused(slot.refused, slot: slot.number) }
            }
            accounts[pool.lane] = account
        }
    }

    var saved: Saved {
        Saved(
            mark: mark, epoch: epoch, epochID: epochID, connection: connection, settled: settled?.text,
            pending: pending.map(\.text))
    }
}

extension SharedLedger {
    /// Whether a host has used any pool, so that charges given back may have been of one.
    package var usesPools: Bool { !kept.accounts.isEmpty }

    /// What was used of a lane's pool, and what refused requests count in it, oldest first.
    package func used(ofPool lane: Lane) -> [SlotCounts.Slot] { kept.accounts[lane]?.pool.entries ?? [] }

    /// Makes the next `takeUnsaved` return everything, after a failure to store `unsaved`.
    package mutating func storeAll(_ unsaved: Unsaved) {
        hasChanged = true
        for lane in kept.accounts.keys { changed[lane] = .min }
        for pool in unsaved.pools { changed[pool.lane] = .min }
        kept.changes.touchAll(unsaved.changes?.removed ?? [])
    }

    /// What must be stored.
    package struct Unsaved: Sendable {
        /// nil: as it was.
        package let state: KeptState.Saved?
        package let pools: [PoolChange]
        /// nil: as they were.
        package let changes: SharedChanges.Unsaved?

        package init(state: KeptState.Saved?, pools: [PoolChange], changes: SharedChanges.Unsaved?) {
            self.state = state
            self.pools = pools
            self.changes = changes
        }
    }

    /// What a lane's pool has in a slot and in later ones.
    package struct PoolChange: Sendable {
        package let lane: Lane
        package let first: Int64
        package let slots: ArraySlice<SlotCounts.Slot>

        package init(lane: Lane, first: Int64, slots: ArraySlice<SlotCounts.Slot>) {
            self.lane = lane
            self.first = first
            self.slots = slots
        }
    }

    /// What has changed since the last call and must be stored; nil if nothing has.
    package mutating func takeUnsaved() -> Unsaved? {
        let changes = kept.changes.takeUnsaved()
        guard hasChanged || !changed.isEmpty || changes != nil else { return nil }
        defer {
            hasChanged = false
            changed.removeAll(keepingCapacity: true)
        }
        let pools = changed.map { lane, first in
            let slots = used(ofPool: lane)
            let kept = slots.lastIndex { $0.number < first }.map { $0 + 1 } ?? 0
            return PoolChange(lane: lane, first: first, slots: slots[kept...])
        }
        return Unsaved(state: hasChanged ? kept.saved : nil, pools: pools, changes: changes)
    }
}
