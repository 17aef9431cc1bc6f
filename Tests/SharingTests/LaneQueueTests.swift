// SPDX-License-Identifier: Apache-2.0
import Sharing
import Testing

struct LaneQueueTests {
    private static func lanes(_ keys: UInt64...) -> [Lane] { keys.map { Lane(key: $0, window: 1000) } }

    @Test func lanesComeInTheOrderInWhichTheyWereAddedLast() {
        var queue = LaneQueue(Self.lanes(3, 1, 2))
        queue.insert(Self.lanes(3)[0])
        #expect(queue.oldest(9) { _ in true } == Self.lanes(3, 1, 2))
        queue.remove(Self.lanes(3)[0])
        queue.insert(Self.lanes(3)[0])
        #expect(queue.oldest(9) { _ in true } == Self.lanes(1, 2, 3))
        #expect(queue.oldest(2) { $0.key != 1 } == Self.lanes(2, 3))
        #expect(queue.count == 3)
    }

    @Test func itIsCoveredByAllItsLanes() {
        let queue = LaneQueue(Self.lanes(1, 2))
        #expect(queue.isCovered(by: Self.lanes(1), Self.lanes(2, 5)))
        #expect(!queue.isCovered(by: Self.lanes(1), Self.lanes(5)))
    }

    @Test func manyComeAndGo() {
        var queue = LaneQueue()
        for key: UInt64 in 0..<1000 {
            queue.insert(Self.lanes(key)[0])
            if key >= 10 { queue.remove(Self.lanes(key - 10)[0]) }
        }
        #expect(queue.oldest(99) { _ in true }.map(\.key) == Array(990..<1000))
    }

    @Test func lanesThatWereRemovedTakeNoMemoryBehindOneThatStays() {
        var queue = LaneQueue(Self.lanes(0, 1))
        for key: UInt64 in 2..<10_000 {
            queue.insert(Self.lanes(key)[0])
            queue.remove(Self.lanes(key)[0])
            #expect(queue.size <= 2 * queue.count + 64)
        }
        #expect(queue.oldest(9) { _ in true } == Self.lanes(0, 1))
    }
}
