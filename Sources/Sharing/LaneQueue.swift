// SPDX-License-Identifier: Apache-2.0

/// Elements of which the first is removed. Both ends are quick.
struct Deque<Element: Sendable>: Sendable, Sequence {
    private var elements: [Element]
    private var start = 0

    init(_ elements: [Element] = []) { self.elements = elements }

    var first: Element? { start < elements.count ? elements[start] : nil }

    mutating func append(_ element: Element) { elements.append(element) }

    mutating func removeFirst() {
        start += 1
        guard start > 64, start * 2 > elements.count else { return }
        elements.removeFirst(start)
        start = 0
    }

    func makeIterator() -> ArraySlice<Element>.Iterator { elements[start...].makeIterator() }
}

/// Lanes in the order in which they were added, each once. The order is the same in each run, unlike that of a set.
struct LaneQueue: Sendable {
    /// Lanes that were removed are still in here, until they come first.
    private var queue = Deque<(lane: Lane, place: Int)>()
    private var places: [Lane: Int] = [:]
    private var nextPlace = 0

    init(_ lanes: [Lane] = []) {
        for lane in lanes { insert(lane) }
    }

    var count: Int { places.count }

    mutating func insert(_ lane: Lane) {
        guard places[lane] == nil else { return }
        places[lane] = nextPlace
        queue.append((lane, nextPlace))
        nextPlace += 1
    }

    mutating func remove(_ lane: Lane) {
        guard places.removeValue(forKey: lane) != nil else { return }
        while let (lane, place) = queue.first, places[lane] != place { queue.removeFirst() }
    }

    /// The first lanes that `isWanted`, at most `most`.
    func oldest(_ most: Int, where isWanted: (Lane) -> Bool) -> [Lane] {
        var lanes: [Lane] = []
        var entries = queue.makeIterator()
        while lanes.count < most, let (lane, place) = entries.next() {
            if places[lane] == place, isWanted(lane) { lanes.append(lane) }
        }
        return lanes
    }

    /// Whether all lanes are among these, of which `others` has only lanes of the queue and none of `some`.
    func isCovered(by others: [Lane], _ some: some Collection<Lane>) -> Bool {
        others.count + some.count { places[$0] != nil } == places.count
    }
}
