// SPDX-License-Identifier: Apache-2.0
import Glibc
import Loop
import Messages
import NIOCore
import Synchronization
import Testing

/// A clock for the shares of a loop's turns. Each reading takes `step`, and a test can let more time pass.
final class SteppingClock: Sendable {
    private let time = Atomic<UInt64>(1)
    private let step: UInt64

    init(step: TimeAmount = .zero) { self.step = UInt64(step.nanoseconds) }

    @Sendable func now() -> NIODeadline { .uptimeNanoseconds(time.add(step, ordering: .relaxed).newValue) }

    func pass(_ duration: TimeAmount) { time.add(UInt64(duration.nanoseconds), ordering: .relaxed) }

    /// So slow that every socket has used up its share when it asks.
    static var hasty: SteppingClock { SteppingClock(step: .milliseconds(10)) }
}

/// Always ready, and takes `cost` each time.
private final class BusySocket: SocketLoop.Socket {
    let descriptor: Int32
    private let peer: Int32
    private let clock: SteppingClock
    private let note: () -> Void
    var cost: TimeAmount
    var after: () -> Void = {}

    init(_ cost: TimeAmount, _ clock: SteppingClock, _ note: @escaping () -> Void) {
        var ends: [Int32] = [0, 0]
        socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
        write(ends[1], "x", 1)
        descriptor = ends[0]
        peer = ends[1]
        self.cost = cost
        self.clock = clock
        self.note = note
    }

    deinit { Glibc.close(peer) }

    func isReady() {
        note()
        clock.pass(cost)
        after()
    }
}

@Suite struct LoopFairnessTests {
    private final class Turns {
        var entries = ""
    }

    private static let costly = TimeAmount.milliseconds(1)

    /// Costly sockets take turns, after all others.
    @Test func costlySocketsComeLast() throws {
        let clock = SteppingClock()
        let loop = try SocketLoop.stepped(clock: clock.now)
        let turns = Turns()
        let sockets = ["a", "b", "c", "q"].map { name in
            BusySocket(name == "q" ? .zero : Self.costly, clock) { turns.entries += name }
        }
        for socket in sockets { try loop.watch(socket.descriptor, for: .reading, socket) }
        func turn() -> String {
            turns.entries = ""
            loop.step()
            return turns.entries
        }
        // In the first turn they become suspects, in the second they are found to be costly.
        #expect((1...2).map { _ in turn() } == ["abcq", "abcq"])
        #expect((1...6).map { _ in turn() } == ["qa", "qb", "qc", "qa", "qb", "qc"])

        // A socket that costs little again is soon treated like the others.
        sockets[0].cost = .zero
        for _ in 1...40 { _ = turn() }
        #expect((1...4).map { _ in Set(turn()) }.allSatisfy { $0.isSuperset(of: "aq") })

        // A new socket with the descriptor of a costly one is not costly.
        let old = sockets[1].descriptor
        loop.unwatch(old)
        try loop.watch(old, for: .reading, sockets[1])
        #expect(turn().prefix(3).contains("b"))
        for socket in sockets { loop.close(socket.descriptor) }
    }

    /// The thread loses its processor each time it has answered `q`: other sockets are not served before it for that.
    @Test func lostProcessorTimeCostsNothing() throws {
        #expect(try turns { _ in .zero } == "qaqaqaqaqaqa")
    }

    /// The kernel may handle packets of others in the thread's time.
    @Test func oneCostlyTurnCostsNothing() throws {
        #expect(try turns { $0 == 3 ? .microseconds(600) : .zero } == "qaqaqaqaqaqa")
    }

    /// Six turns of a costly socket, `a`, and of `q`, which takes as long, but little of the processor.
    ///
    /// - Parameter cost: what `q` takes of it in a turn.
    private func turns(_ cost: @escaping (_ turn: Int) -> TimeAmount) throws -> String {
        let (clock, processor) = (SteppingClock(), SteppingClock())
        let loop = try SocketLoop.stepped(clock: clock.now, processorTime: processor.now)
        var (turn, entries) = (0, "")
        let busy = BusySocket(Self.costly, clock) { entries += "a" }
        let quiet = BusySocket(Self.costly, clock) { entries += "q" }
        busy.after = { processor.pass(Self.costly) }
        quiet.after = { processor.pass(cost(turn)) }
        try loop.watch(busy.descriptor, for: .reading, busy)
        try loop.watch(quiet.descriptor, for: .reading, quiet)
        for _ in 1...3 { loop.step() }
        entries = ""
        for number in 1...6 {
            turn = number
            loop.step()
        }
        for socket in [busy, quiet] { loop.close(socket.descriptor) }
        return entries
    }

    /// Sockets that take their share and have more to do come after those that are done, however little the share is.
    @Test func socketsWithMoreToDoComeLast() throws {
        let clock = SteppingClock()
        let loop = try SocketLoop.stepped(clock: clock.now)
        var turn = ""
        let names = ["a", "b", "c", "q"]
        let sockets = names.map { name in
            BusySocket(.microseconds(name == "q" ? 1 : 40), clock) { turn += name }
        }
        for socket in sockets.dropLast() { socket.after = { loop.callAgain(socket.descriptor) } }
        for socket in sockets { try loop.watch(socket.descriptor, for: .reading, socket) }
        loop.step()
        #expect(turn == "abcq")
        for _ in 1...6 {
            turn = ""
            loop.step()
            #expect(turn.first == "q")
            #expect(turn.sorted() == ["a", "b", "c", "q"])
        }
        for socket in sockets { loop.close(socket.descriptor) }
    }

    /// A socket for which a turn had no room comes first in the next turn. It is not costly for that.
    @Test func socketsWithoutRoomComeFirst() throws {
        let clock = SteppingClock()
        let loop = try SocketLoop.stepped(clock: clock.now)
        var turn = ""
        let sockets = ["a", "b", "q"].map { name in BusySocket(.microseconds(1), clock) { turn += name } }
        for socket in sockets { try loop.watch(socket.descriptor, for: .reading, socket) }
        sockets[2].after = { loop.callFirst(sockets[2].descriptor) }
        loop.step()
        #expect(turn == "abq")
        sockets[2].after = {}
        turn = ""
        loop.step()
        // epoll reports it, too.
        #expect(turn == "qabq")
        turn = ""
        loop.step()
        #expect(turn == "abq")
        for socket in sockets { loop.close(socket.descriptor) }
    }

    /// The next hop's socket may bring the client's dialogue so much that the client has more to do.
    @Test func workLeftToAnotherSocketIsNotItsOwn() throws {
        let clock = SteppingClock()
        let loop = try SocketLoop.stepped(clock: clock.now)
        var turn = ""
        let sockets = ["a", "q", "b"].map { name in BusySocket(.microseconds(1), clock) { turn += name } }
        sockets[0].after = { loop.callAgain(sockets[2].descriptor) }
        for socket in sockets.dropLast() { try loop.watch(socket.descriptor, for: .reading, socket) }
        try loop.watch(sockets[2].descriptor, for: .nothing, sockets[2])
        loop.step()
        #expect(turn == "aq")
        for _ in 1...6 {
            turn = ""
            loop.step()
            #expect(turn == "aqb")
        }
        for socket in sockets { loop.close(socket.descriptor) }
    }

    /// Tasks of other threads run in their order until the turn is over. Sockets are handled in each turn.
    @Test func tasksShareTurns() throws {
        let clock = SteppingClock()
        let loop = try SocketLoop.stepped(clock: clock.now)
        let ran = Mutex("")
        func run() -> String {
            ran.withLock { $0 = "" }
            loop.step()
            return ran.withLock(\.self)
        }
        let quiet = BusySocket(.zero, clock) { ran.withLock { $0 += "q" } }
        try loop.watch(quiet.descriptor, for: .reading, quiet)
        for number in 1...5 {
            loop.execute {
                ran.withLock { $0 += "\(number)" }
                clock.pass(.microseconds(300))
                if number == 1 { loop.execute { ran.withLock { $0 += "6" } } }
            }
        }
        #expect((1...4).map { _ in run() } == ["12q", "34q", "56q", "q"])
        loop.close(quiet.descriptor)
    }

    /// The more sockets are ready, the less each of them reads in a turn.
    @Test(arguments: [(1, 65_536), (4, 65_536), (16, 16_384), (100, 4_096)])
    func readsAreShared(sockets: Int, size: Int) throws {
        let clock = SteppingClock()
        let loop = try SocketLoop.stepped(clock: clock.now)
        var sizes: Set<Int> = []
        let all = (0..<sockets).map { _ in BusySocket(.zero, clock) { sizes.insert(loop.readSize(65_536)) } }
        for socket in all { try loop.watch(socket.descriptor, for: .reading, socket) }
        loop.step()
        #expect(sizes == [size])
        for socket in all { loop.close(socket.descriptor) }
    }

    /// A filter that has time for one command in each turn answers the same, also if the client sends no more.
    @Test(arguments: [0, 1 << 20])
    func filterInterruptedAfterEachCommand(memory: Int) async throws {
        try await RunningFilter.run(memory: memory, clock: SteppingClock.hasty.now) { running in
            let client = running.connect()
            let first = try await running.loop.submit { running.loop.turn }
            client.send(
                "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
                    + String(repeating: "NOOP\r\n", count: 100)
                    + "DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nMAIL FROM:<c@example.org>\r\nRSET\r\nNOOP\r\nQUIT\r\n")
            client.shutDown()
            let noops = [Int](repeating: 250, count: 100)
            #expect(client.codes() == [220, 250, 250, 250] + noops + [354, 250, 250, 250, 250, 221])
            #expect(running.hop.messages.map(\.content) == ["Subject: x\n\nx\n"])
            let last = try await running.loop.submit { running.loop.turn }
            #expect(last - first > 100)
        }
    }

    /// A milter that has time for one packet in each turn answers the same.
    @Test func milterInterruptedAfterEachPacket() async throws {
        let (usual, hasty) = (try await milterReplies(nil), try await milterReplies(SteppingClock.hasty.now))
        #expect(usual == hasty)
        #expect(usual.filter { $0 == "y 550 5.7.1 no|" }.count == 2)
        #expect(usual.contains("y 554 5.7.1 over|"))
    }

    private func milterReplies(_ clock: (@Sendable () -> NIODeadline)?) async throws -> [String] {
        let service = try await MilterService(
            "limits: [ { name: login, key: sasl_username, rates: [ 1/1h ], over: \"REJECT 5.7.1 over\" } ]",
            header: ["/^Subject: reject/ REJECT no"], clock: clock)
        let client = try service.connect(options: 0)
        var bytes = MilterClient.connection()
        bytes += MilterClient.packet("H", "client.example.org\0")
        for _ in 1...2 {
            for _ in 1...50 { bytes += MilterClient.packet("D", "Mi\u{0}4ABC\u{0}{auth_authen}\u{0}login\u{0}") }
            bytes += MilterClient.packet("M", "<a@example.org>\0")
            bytes += MilterClient.packet("R", "<b@example.com>\0")
            bytes += MilterClient.packet("R", "<c@example.com>\0")
            bytes += MilterClient.packet("L", "Subject\0reject\0")
            bytes += MilterClient.packet("N")
            bytes += MilterClient.packet("B", "x\r\n")
            bytes += MilterClient.packet("E")
        }
        client.send(bytes)
        // One for each packet but those of macros.
        let replies = client.replies(16)
        try await service.stop()
        return replies
    }
}
