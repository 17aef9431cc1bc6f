// SPDX-License-Identifier: Apache-2.0
internal import DequeModule

/// Lanes in the order in which they were added, each once. The order is the same in each run, unlike that of a set.
package struct LaneQueue: Sendable {
    /// Lanes that were removed are still in here, until they come first or are too many.
    private var queue = Deque<(lane: Lane, place: Int)>()
    private var places: [Lane: Int] = [:]
    private var nextPlace = 0

    package init(_ lanes: [Lane] = []) {
        for lane in lanes { insert(lane) }
    }

    package var count: Int { places.count }

    /// Lanes in memory, with those that were removed: at most twice `count`, and 64 more.
    package var size: Int { queue.count }

    package mutating func insert(_ lane: Lane) {
        guard places[lane] == nil else { return }
        places[lane] = nextPlace
        queue.append((lane, nextPlace))
        nextPlace += 1
    }

    package mutating func remove(_ lane: Lane) {
        guard places.removeValue(forKey: lane) != nil else { return }
        while let (lane, place) = queue.first, places[lane] != place { queue.removeFirst() }
        // The first lane may stay for as long as the engine is slow.
        if size > 2 * count + 64 { queue.removeAll { places[$0.lane] != $0.place } }
    }

    /// The first lanes that `isWanted`, at most `most`.
    package func oldest(_ most: Int, where isWanted: (Lane) -> Bool) -> [Lane] {
        var lanes: [Lane] = []
        var entries = queue.makeIterator()
        while lanes.count < most, let (lane, place) = entries.next() {
            if places[lane] == place, isWanted(lane) { lanes.append(lane) }
        }
        return lanes
    }

    /// Whether all lanes are among these, of which `others` has only lanes of the queue and none of `some`.
    package func isCovered(by others: [Lane], _ some: some Collection<Lane>) -> Bool {
        others.count + some.count { places[$0] != nil } == places.count
    }
}
