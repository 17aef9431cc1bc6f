// SPDX-License-Identifier: Apache-2.0
import Loop
import Policy
import Testing

/// What the walks have done, in order; only the loop writes it.
private final class Pieces: @unchecked Sendable {
    var done: [String] = []
}

@Suite struct WalkQueueTests {
    /// A walk of so many pieces.
    private func walk(_ name: String, _ count: Int, _ pieces: Pieces) -> () -> Bool {
        var left = count
        return {
            pieces.done.append(name)
            left -= 1
            return left > 0
        }
    }

    @Test func oneAfterTheOtherAndOnePieceAtATime() async throws {
        let loop = try SocketLoop.start(named: "test")
        let pieces = Pieces()
        let (taken, atOnce) = try await loop.submit {
            let queue = WalkQueue(loop, mostWaiting: 2)
            let taken = ["a", "b", "c", "d"].map { queue.submit(walk($0, $0 == "b" ? 2 : 1, pieces)) }
            return (taken, pieces.done)
        }
        // The first one has ended, but it waits for the pause like the others.
        #expect(taken == [true, true, true, true])
        #expect(atOnce == ["a"])
        while try await loop.submit({ pieces.done.count }) < 5 {}
        #expect(try await loop.submit { pieces.done } == ["a", "b", "b", "c", "d"])
        await loop.stop()
    }

    @Test func noMoreWaitThanAreAllowed() async throws {
        let loop = try SocketLoop.start(named: "test")
        let pieces = Pieces()
        let taken = try await loop.submit {
            let queue = WalkQueue(loop, mostWaiting: 1)
            return ["a", "b", "c"].map { queue.submit(walk($0, 2, pieces)) }
        }
        #expect(taken == [true, true, false])
        while try await loop.submit({ pieces.done.count }) < 4 {}
        #expect(try await loop.submit { pieces.done } == ["a", "a", "b", "b"])
        await loop.stop()
    }
}
