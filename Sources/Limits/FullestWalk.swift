// SPDX-License-Identifier: Apache-2.0

/// Lists the fullest accounts a piece at a time. Requests are decided between the pieces.
///
/// Bounds: it measures what the limits keep in `FullestAccounts`, or what is added, and of that holds at most `most`
/// accounts in a heap.
/// The arrays of accounts are shared with the limits until these change them.
package struct FullestWalk {
    private typealias Measured = (fullness: Double, refused: UInt64, account: Account)

    private let most: Int
    private let withHistory: Bool
    /// The lists of the limits whose accounts are not measured yet.
    private var lists: [[Account]]
    /// The position in the last of `lists`.
    private var position = 0
    /// A heap with the least full account first.
    private var heap: [Measured] = []
    /// How the keys of the heap stand, the least full first.
    private var standings: [Standing] = []
    /// How many accounts were measured so far.
    package private(set) var measured = 0

    /// The cost of a standing, where that of measuring an account is 1.
    package static let stepsPerStanding = 16

    fileprivate init(most: Int, withHistory: Bool, lists: [[Account]]) {
        self.most = most
        self.withHistory = withHistory
        self.lists = lists
        heap.reserveCapacity(min(most, FullestAccounts.most))
    }

    /// How many standings were made so far.
    package var made: Int { standings.count }

    /// Fullest first, once the walk has ended.
    package var result: [Standing] { standings.reversed() }

    fileprivate mutating func advance(in ledger: Ledger, steps: Int) -> Bool {
        var left = steps
        while let list = lists.last {
            guard left > 0 else { return true }
            left -= 1
            guard position < list.count else {
                lists.removeLast()
                position = 0
                continue
            }
            measure(list[position], at: ledger.now)
            position += 1
        }
        while left >= Self.stepsPerStanding, let least = heap.first {
            left -= Self.stepsPerStanding
            removeFirst()
            // It may have left memory between the pieces.
            if !least.account.isRemoved {
                standings.append(ledger.standing(of: least.account, withHistory: withHistory))
            }
        }
        return !heap.isEmpty
    }

    private mutating func measure(_ account: Account, at time: LedgerTime) {
        measured += 1
        guard !account.isRemoved, let fullness = account.fullness(at: time) else { return }
        add(account, fullness)
    }

    /// Takes an account, idle ones too, that another walk has found.
    package mutating func add(_ account: Account, at time: LedgerTime) {
        add(account, account.fullness(at: time) ?? 0)
    }

    private mutating func add(_ account: Account, _ fullness: Double) {
        let measured = (fullness, account.refusedTries, account)
        if heap.count < most {
            heap.append(measured)
            siftUp(from: heap.count - 1)
        } else if let least = heap.first, Self.isLess(least, measured) {
            heap[0] = measured
            siftDown()
        }
    }

    /// Among accounts that are equally full, the one with more refused requests comes first in the list, then the older
    /// one.
    private static func isLess(_ one: Measured, _ other: Measured) -> Bool {
        (one.fullness, one.refused, other.account.id) < (other.fullness, other.refused, one.account.id)
    }

    private mutating func removeFirst() {
        let last = heap.removeLast()
        guard !heap.isEmpty else { return }
        heap[0] = last
        siftDown()
    }

    private mutating func siftUp(from start: Int) {
        var child = start
        while child > 0, case let parent = (child - 1) / 2, Self.isLess(heap[child], heap[parent]) {
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func siftDown() {
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count {
                if Self.isLess(heap[child], heap[least]) { least = child }
            }
            guard least != parent else { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}

extension Ledger {
    /// The most standings that a walk can return.
    package static var mostFullest: Int { FullestAccounts.most }

    /// Begins to list the `most` fullest accounts.
    ///
    /// - Parameter name: considers this limit only, if not nil.
    package func fullestWalk(
        _ most: Int, limit name: String?, withHistory: Bool = false
    ) throws(AdministrationFault) -> FullestWalk {
        FullestWalk(most: most, withHistory: withHistory, lists: try limits(named: name).map(\.fullest.all))
    }

    /// Begins a list of the `most` fullest accounts of those that will be added.
    package func fullestWalk(ofAdded most: Int) -> FullestWalk {
        FullestWalk(most: most, withHistory: false, lists: [])
    }

    /// Continues a walk by at most `steps`: one for each account that is measured, `FullestWalk.stepsPerStanding` for
    /// each standing.
    ///
    /// - Returns: false at the end of the walk.
    package func advance(_ walk: inout FullestWalk, steps: Int) -> Bool {
        owner.check()
        return walk.advance(in: self, steps: steps)
    }
}
