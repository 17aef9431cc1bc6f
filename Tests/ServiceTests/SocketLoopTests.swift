// SPDX-License-Identifier: Apache-2.0
import Glibc
import Loop
import NIOCore
import Testing

/// The events on the loop, in order. Only the loop writes it.
private final class Diary: @unchecked Sendable {
    var entries: [String] = []
}

private final class Reader: SocketLoop.Socket {
    private let descriptor: Int32
    private let note: (String) -> Void

    init(_ descriptor: Int32, _ note: @escaping (String) -> Void) {
        self.descriptor = descriptor
        self.note = note
    }

    func isReady() {
        var bytes = [UInt8](repeating: 0, count: 16)
        let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        note("read \(String(decoding: bytes.prefix(max(0, count)), as: UTF8.self))")
    }
}

/// Belongs to the loop.
private final class Witness {
    private let diary: Diary
    private let loop: SocketLoop

    init(_ diary: Diary, _ loop: SocketLoop) {
        self.diary = diary
        self.loop = loop
    }

    deinit {
        loop.preconditionInLoop()
        diary.entries.append("released")
    }
}

@Suite("A loop of sockets")
struct SocketLoopTests {
    private let diary = Diary()

    private func pair() -> (Int32, Int32) {
        var ends: [Int32] = [0, 0]
        socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
        return (ends[0], ends[1])
    }

    /// Expects that nothing happens for a few turns.
    private func expectNothing(of loop: SocketLoop) async throws {
        for _ in 1...3 {
            let entries = try await loop.submit { [diary] in diary.entries }
            #expect(entries.isEmpty)
        }
    }

    /// The diary, after so many turns of the loop that `isComplete` holds. Each task takes a turn.
    private func entries(of loop: SocketLoop, _ isComplete: ([String]) -> Bool) async throws -> [String] {
        for _ in 1...1000 {
            let entries = try await loop.submit { [diary] in diary.entries }
            if isComplete(entries) { return entries }
        }
        let entries = try await loop.submit { [diary] in diary.entries }
        #expect(isComplete(entries), "\(entries)")
        return entries
    }

    @Test("Tasks run in order, before the end of their turn")
    func tasks() async throws {
        let loop = try SocketLoop.start(named: "test")
        try await loop.submit { [diary] in
            loop.preconditionInLoop()
            loop.endOfTurn = { if diary.entries.last != "end" { diary.entries.append("end") } }
            for number in 1...3 { loop.execute { diary.entries.append("task \(number)") } }
        }
        // The next turn has begun, so everything in the previous one is done.
        let entries = try await loop.submit { [diary] in diary.entries }
        #expect(entries.filter { $0 != "end" } == ["task 1", "task 2", "task 3"])
        #expect(entries.first == "end")
        await loop.stop()
    }

    @Test("The error of a task is thrown to the caller of submit")
    func fault() async throws {
        let loop = try SocketLoop.start(named: "test")
        await #expect(throws: CancellationError.self) { try await loop.submit { throw CancellationError() } }
        await loop.stop()
    }

    @Test("All ready sockets are read in one turn, once each; a closed socket is not read")
    func sockets() async throws {
        let loop = try SocketLoop.start(named: "test")
        let (ours, theirs) = pair()
        let (other, peer) = pair()
        // Both are ready in the next turn.
        try await loop.submit { [diary] in
            write(theirs, "a", 1)
            write(peer, "b", 1)
            try loop.watch(ours, for: .reading, Reader(ours) { diary.entries.append($0) })
            try loop.watch(other, for: .reading, Reader(other) { diary.entries.append($0) })
            loop.endOfTurn = { diary.entries.append("end") }
        }
        let entries = try await self.entries(of: loop) { entries in
            entries.filter { $0.hasPrefix("read") }.count >= 2
        }
        let first = try #require(entries.firstIndex { $0.hasPrefix("read") })
        #expect(entries[first + 1].hasPrefix("read"))
        #expect(entries.filter { $0.hasPrefix("read") }.sorted() == ["read a", "read b"])
        try await loop.submit { [diary] in
            loop.close(ours)
            write(peer, "c", 1)
            diary.entries = []
        }
        _ = try await self.entries(of: loop) { $0.contains("read c") }
        close(theirs)
        close(peer)
        await loop.stop()
    }

    @Test("A socket without interest gets no events")
    func interest() async throws {
        let loop = try SocketLoop.start(named: "test")
        let (ours, theirs) = pair()
        try await loop.submit { [diary] in
            try loop.watch(ours, for: .nothing, Reader(ours) { diary.entries.append($0) })
            write(theirs, "a", 1)
        }
        try await expectNothing(of: loop)
        try await loop.submit { loop.change(ours, to: .reading) }
        _ = try await entries(of: loop) { $0 == ["read a"] }
        try await loop.submit { loop.close(ours) }
        close(theirs)
        await loop.stop()
    }

    @Test("A descriptor that epoll can't watch is refused, and the loop continues")
    func refused() async throws {
        let loop = try SocketLoop.start(named: "test")
        let file = open("/dev/null", O_RDONLY)
        await #expect(throws: IOError.self) {
            try await loop.submit { try loop.watch(file, for: .reading, Reader(file) { _ in }) }
        }
        close(file)
        #expect(try await loop.submit { 1 } == 1)
        await loop.stop()
    }

    @Test("An unwatched socket gets no events, stays open, and can be watched again")
    func unwatched() async throws {
        let loop = try SocketLoop.start(named: "test")
        let (ours, theirs) = pair()
        try await loop.submit { [diary] in
            try loop.watch(ours, for: .accepting, Reader(ours) { diary.entries.append($0) })
            loop.unwatch(ours)
            write(theirs, "a", 1)
        }
        try await expectNothing(of: loop)
        try await loop.submit { [diary] in
            try loop.watch(ours, for: .accepting, Reader(ours) { diary.entries.append($0) })
        }
        _ = try await entries(of: loop) { $0 == ["read a"] }
        try await loop.submit { loop.close(ours) }
        close(theirs)
        await loop.stop()
    }

    @Test("What a callback holds is released on the loop, though another thread still has the callback")
    func callbackIsReleasedOnTheLoop() async throws {
        let loop = try SocketLoop.start(named: "test")
        let callback = try await loop.submit { [diary] in
            let witness = Witness(diary, loop)
            return LoopCallback<Int>(loop) { diary.entries.append("\(type(of: witness)) \($0)") }
        }
        callback.call(1)
        let entries = try await loop.submit { [diary] in diary.entries }
        #expect(entries == ["Witness 1", "released"])
        withExtendedLifetime(callback) {}
        await loop.stop()
    }

    @Test("Timers run in the order of their deadlines, and repeat until they return false")
    func timers() async throws {
        let loop = try SocketLoop.start(named: "test")
        let entries = try await withCheckedThrowingContinuation { (asked: CheckedContinuation<[String], any Error>) in
            loop.execute { [diary] in
                loop.schedule(in: .nanoseconds(0)) { diary.entries.append("late") }
                loop.schedule(in: .hours(-2)) { diary.entries.append("first") }
                loop.schedule(in: .hours(-1)) { diary.entries.append("second") }
                var rounds = 0
                loop.schedule(every: .milliseconds(5)) {
                    rounds += 1
                    diary.entries.append("round \(rounds)")
                    if rounds == 2 { asked.resume(returning: diary.entries) }
                    return rounds < 2
                }
            }
        }
        #expect(entries == ["first", "second", "late", "round 1", "round 2"])
        await loop.stop()
    }
}
