// SPDX-License-Identifier: Apache-2.0
import LoadGenerator
import NIOCore
import NIOEmbedded
import Testing

/// A load on a simulated clock; the test gives the answers of the peer.
private final class Scene {
    let loop = EmbeddedEventLoop()
    var options = LoadOptions()
    var mix = PolicyMix()
    /// The number of next connects that fail.
    var refuses = false
    /// The maximum number of connections.
    var mostChannels = Int.max
    /// The open connections, in the order of their connects.
    private(set) var channels: [EmbeddedChannel] = []
    private(set) var progress: [LoadProgress] = []
    private var run: LoadRun<PolicyTraffic>!
    private var outcome: Result<LoadReport, any Error>?

    func start() throws {
        run = LoadRun(
            on: loop, target: .unix(path: "/policy"), options: options,
            traffic: try PolicyTraffic(mix, firstInstance: PolicyDialogueTests.firstInstance),
            connect: { [unowned self] connection in
                if refuses || channels.count == mostChannels {
                    return loop.makeFailedFuture(IOError(errnoCode: 111, reason: "connect"))
                }
                let channel = EmbeddedChannel(handler: connection, loop: loop)
                do {
                    try channel.connect(to: SocketAddress(unixDomainSocketPath: "/policy")).wait()
                    try connection.connected(channel)
                    channels.append(channel)
                    return loop.makeSucceededVoidFuture()
                } catch {
                    return loop.makeFailedFuture(error)
                }
            },
            progress: { [unowned self] in progress.append($0) })
        run.start().assumeIsolated().whenComplete { self.outcome = $0 }
        loop.run()
    }

    func interrupt() { run.interrupt() }

    func advance(_ time: TimeAmount) { loop.advanceTime(by: time) }

    /// The bytes received on a connection since the last call.
    func requests(on index: Int = 0) throws -> [String] {
        var requests: [String] = []
        while let buffer = try channels[index].readOutbound(as: ByteBuffer.self) {
            requests.append(String(buffer: buffer))
        }
        return requests
    }

    func answer(_ text: String = "action=DUNNO\n\n", on index: Int = 0) throws {
        try channels[index].writeInbound(ByteBuffer(string: text))
        loop.run()
    }

    func drop(_ index: Int = 0) {
        channels.remove(at: index).pipeline.fireChannelInactive()
        loop.run()
    }

    var isOver: Bool { outcome != nil }

    func report() throws -> LoadReport { try #require(outcome).get() }
}

@Suite struct LoadRunTests {
    @Test func `closed loop: the next request follows the answer, up to the count`() throws {
        let scene = Scene()
        scene.options.connections = 2
        scene.options.count = 5
        try scene.start()
        for _ in 0..<2 {
            #expect(try scene.requests(on: 0).count == 1)
            #expect(try scene.requests(on: 1).count == 1)
            scene.advance(.milliseconds(3))
            try scene.answer(on: 0)
            try scene.answer(on: 1)
        }
        #expect(!scene.isOver)
        #expect(try scene.requests(on: 0).count == 1)
        #expect(try scene.requests(on: 1).isEmpty)
        try scene.answer("action=DEFER later\n\n", on: 0)
        let report = try scene.report()
        #expect(report.endedBy == .count)
        #expect(report.answered == 5)
        #expect(report.actions == ["DUNNO": 4, "DEFER": 1])
        #expect(report.refusals == 1)
        #expect(report.unanswered == 0)
        #expect(abs(report.latency.p50 - 3000) < 3)
        #expect(report.seconds == 0.006)
    }

    @Test func `the report counts the connections that succeeded`() throws {
        let scene = Scene()
        scene.options.connections = 5
        scene.options.count = 2
        scene.mostChannels = 2
        try scene.start()
        try scene.answer(on: 0)
        try scene.answer(on: 1)
        let report = try scene.report()
        #expect(report.endedBy == .count)
        #expect(report.connections == 2)
        #expect(report.errors.refused == 3)
    }

    @Test func `open loop: a stall delays every request that was due meanwhile`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.pace = .steady(rate: 100, for: .seconds(60))
        scene.options.duration = .milliseconds(95)
        try scene.start()
        // Due at 0, 10, ... 90 ms; the first answer takes 50 ms, the others are immediate.
        scene.advance(.milliseconds(50))
        for _ in 0..<6 {
            #expect(try scene.requests().count == 1)
            try scene.answer()
        }
        #expect(try scene.requests().isEmpty)
        for _ in 0..<4 {
            scene.advance(.milliseconds(10))
            #expect(try scene.requests().count == 1)
            try scene.answer()
        }
        scene.advance(.milliseconds(5))
        let report = try scene.report()
        #expect(report.endedBy == .duration)
        #expect(report.answered == 10)
        #expect(report.unsent == 0)
        // 50, 40, 30, 20, 10, 0 ms of the stall, then 0 four times.
        #expect(abs(report.latency.max - 50_000) < 50)
        #expect(abs(report.latency.mean - 15_000) < 50)
    }

    @Test func `open loop: reports requests that were due and never sent`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.pace = .steady(rate: 100, for: .seconds(60))
        scene.options.duration = .milliseconds(100)
        try scene.start()
        scene.advance(.milliseconds(100))
        #expect(!scene.isOver)
        try scene.answer()
        let report = try scene.report()
        #expect(report.answered == 1)
        #expect(report.unsent == 9)
    }

    /// A busy loop may notice late that the duration is over.
    @Test func `open loop: nothing is due after the duration`() {
        var schedule = ArrivalSchedule(
            start: .uptimeNanoseconds(0), pace: .steady(rate: 100, for: .seconds(60)), duration: .milliseconds(95))
        while schedule.popDue(at: .uptimeNanoseconds(200_000_000)) != nil {}
        #expect(schedule.issued == 10)
    }

    @Test func `open loop: arrivals do not drift`() {
        var schedule = ArrivalSchedule(
            start: .uptimeNanoseconds(0), pace: .steady(rate: 3000, for: .seconds(1)), duration: .hours(1))
        for number in 0..<30_000 {
            #expect(schedule.popDue(at: schedule.next) != nil)
            #expect(schedule.issued == number + 1)
        }
        #expect(schedule.next == .uptimeNanoseconds(10_000_000_000))
        #expect(schedule.popDue(at: .uptimeNanoseconds(9_999_999_999)) == nil)
    }

    @Test func `a lost connection ends its request, and the last one ends the load`() throws {
        let scene = Scene()
        scene.options.connections = 2
        try scene.start()
        scene.drop(1)
        #expect(!scene.isOver)
        try scene.answer(on: 0)
        scene.drop(0)
        let report = try scene.report()
        #expect(report.endedBy == .lost)
        #expect(report.errors.closed == 2)
        #expect(report.answered == 1)
        #expect(report.unanswered == 2)
    }

    @Test func `with reconnect, the same request is sent again after a second`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.count = 1
        scene.options.reconnect = true
        try scene.start()
        let first = try scene.requests()
        scene.refuses = true
        scene.drop()
        scene.advance(.seconds(1))
        scene.advance(.milliseconds(999))
        scene.refuses = false
        #expect(scene.channels.isEmpty)
        scene.advance(.milliseconds(1))
        #expect(try scene.requests() == first)
        try scene.answer()
        let report = try scene.report()
        #expect(report.answered == 1)
        #expect(report.resent == 1)
        #expect(report.errors.closed == 1)
        #expect(report.errors.refused == 1)
        #expect(report.unanswered == 0)
        #expect(abs(report.latency.max - 2_000_000) < 2000)
    }

    @Test func `a missing answer closes the connection`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.timeout = .seconds(2)
        try scene.start()
        scene.advance(.milliseconds(1999))
        #expect(!scene.isOver)
        scene.advance(.milliseconds(100))
        let report = try scene.report()
        #expect(report.endedBy == .lost)
        #expect(report.errors.timeout == 1)
        #expect(report.unanswered == 1)
    }

    @Test(arguments: ["rubbish\n\n", "action=\n\n", "action=DUNNO\n\naction=DUNNO\n\n"])
    func `a malformed reply ends the connection`(reply: String) throws {
        let scene = Scene()
        scene.options.connections = 1
        try scene.start()
        try scene.answer(reply)
        let report = try scene.report()
        #expect(report.errors.malformed == 1)
        #expect(report.answered == 0)
        #expect(report.lastError?.hasPrefix("malformed reply: ") == true)
    }

    @Test func `open loop: a lost idle connection is used again only after the reconnect`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.pace = .steady(rate: 2, for: .seconds(60))
        scene.options.reconnect = true
        try scene.start()
        _ = try scene.requests()
        try scene.answer()
        scene.drop()
        // The request due at 500 ms waits for the reconnect after a second, as does the one due then.
        scene.advance(.milliseconds(999))
        #expect(scene.channels.isEmpty)
        scene.advance(.milliseconds(1))
        #expect(try scene.requests().count == 1)
        try scene.answer()
        #expect(try scene.requests().count == 1)
        try scene.answer()
        #expect(try scene.requests().isEmpty)
        scene.interrupt()
        let report = try scene.report()
        #expect(report.answered == 3)
        #expect(report.resent == 0)
        #expect(abs(report.latency.max - 500_000) < 500)
    }

    @Test func `an unexpected reply closes the connection`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.pace = .steady(rate: 1, for: .seconds(60))
        scene.mix.recipients = 2
        try scene.start()
        try scene.answer()
        try scene.answer()
        let report = try scene.report()
        #expect(report.errors.malformed == 1)
        #expect(report.answered == 1)
    }

    @Test func `a reply may arrive in pieces`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.count = 1
        try scene.start()
        for byte in "action=DUNNO\n\n" {
            #expect(!scene.isOver)
            try scene.answer(String(byte))
        }
        #expect(try scene.report().actions == ["DUNNO": 1])
    }

    @Test func `a target that refuses every connect is unreachable`() throws {
        let scene = Scene()
        scene.options.connections = 3
        scene.refuses = true
        try scene.start()
        #expect(throws: LoadError.unreachable(target: "unix:/policy", reason: "Connection refused")) {
            try scene.report()
        }
    }

    @Test func `an interrupt reports the figures so far`() throws {
        let scene = Scene()
        scene.options.connections = 1
        try scene.start()
        scene.advance(.seconds(1))
        try scene.answer()
        scene.interrupt()
        let report = try scene.report()
        #expect(report.endedBy == .interrupted)
        #expect(report.answered == 1)
        #expect(report.unanswered == 1)
        #expect(report.answeredPerSecond == 1)
    }

    @Test func `reports each second separately`() throws {
        let scene = Scene()
        scene.options.connections = 1
        scene.options.duration = .seconds(3)
        try scene.start()
        for _ in 0..<4 {
            scene.advance(.milliseconds(500))
            try scene.answer()
        }
        scene.advance(.milliseconds(500))
        #expect(scene.progress.map(\.elapsedSeconds) == [1, 2])
        #expect(scene.progress.map(\.answered) == [1, 2])
        // The last second ends with the load, before its timer.
        scene.advance(.milliseconds(450))
        scene.interrupt()
        let report = try scene.report()
        #expect(report.series.map(\.elapsedSeconds) == [1, 2, 3])
        #expect(report.series.map(\.answered) == [1, 2, 1])
    }

    @Test func `the wait for an answer that never comes is not measured`() throws {
        let scene = Scene()
        scene.options.connections = 2
        scene.options.duration = .seconds(2)
        scene.options.timeout = .seconds(8)
        try scene.start()
        for _ in 0..<4 {
            scene.advance(.milliseconds(400))
            try scene.answer(on: 0)
        }
        scene.advance(.milliseconds(500))
        try scene.answer(on: 0)
        scene.advance(.seconds(10))
        let report = try scene.report()
        #expect(report.endedBy == .duration)
        #expect(report.answered == 5)
        #expect(report.unanswered == 1)
        #expect(report.errors.timeout == 1)
        #expect(abs(report.seconds - 2.1) < 0.001)
        #expect(abs(report.answeredPerSecond - 5 / 2.1) < 0.001)
    }
}
