// SPDX-License-Identifier: Apache-2.0
import Engine
import Glibc
import Loop
import NIOCore
import Sharing
import Testing

/// The engine's side of the two connections, and what the messenger says of them.
private final class ScriptedEngine: EngineMessenger.Owner {
    private let directory: TemporaryDirectory
    private let listening: Int32
    private var ends: [Int32] = []
    private(set) var isOpen = false
    private(set) var faults: [String] = []

    init() throws {
        directory = try TemporaryDirectory()
        listening = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let address = try SocketAddress(unixDomainSocketPath: "\(directory.path)/engine")
        try #require(address.withSockAddr { bind(listening, $0, socklen_t($1)) } == 0)
        try #require(listen(listening, 2) == 0)
    }

    deinit { for end in ends + [listening] { close(end) } }

    var address: EngineAddress { EngineAddress(.unix(path: "\(directory.path)/engine")) }

    /// Accepts both connections, the listener's first, and answers what they begin with.
    func welcome(_ loop: SocketLoop) {
        ends = (0..<2).map { _ in accept(listening, nil, nil) }
        say("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", to: 0)
        say("+OK\r\n", to: 1)
        for _ in 1...100 where !isOpen { loop.step() }
    }

    func say(_ text: String, to end: Int) {
        #expect(write(ends[end], text, text.utf8.count) == text.utf8.count)
    }

    /// Takes what has arrived.
    func drain() {
        var bytes = [UInt8](repeating: 0, count: 4096)
        for end in ends { while recv(end, &bytes, bytes.count, Int32(MSG_DONTWAIT)) > 0 {} }
    }

    func messengerOpened() { isOpen = true }
    func messengerReceived(_ message: [UInt8], on channel: String) {}
    func messengerFailed(_ fault: EngineFault) { faults.append("\(fault)") }
}

struct EngineMessengerTests {
    private static func messenger(_ engine: ScriptedEngine, _ loop: SocketLoop) throws -> EngineMessenger {
        let login = EngineLogin(user: nil, password: nil, sentinelPassword: nil)
        let messenger = EngineMessenger(login, channels: ["c"], loop: loop, owner: engine)
        messenger.use(engine.address)
        engine.welcome(loop)
        try #require(engine.isOpen)
        return messenger
    }

    /// Each message makes the loop write, and look for a reply.
    @Test func aSilentEngineHasNotSentTooMuch() throws {
        let loop = try SocketLoop.stepped()
        let engine = try ScriptedEngine()
        let messenger = try Self.messenger(engine, loop)
        for _ in 1...1000 {
            messenger.publish([0x78], on: "c")
            loop.step()
            engine.drain()
        }
        #expect(engine.faults.isEmpty)
        messenger.use(nil)
    }

    @Test func aReplyWithoutEndIsAFault() throws {
        let loop = try SocketLoop.stepped()
        let engine = try ScriptedEngine()
        let messenger = try Self.messenger(engine, loop)
        messenger.publish([0x78], on: "c")
        engine.say("$100000000\r\n", to: 1)
        for _ in 1...1000 where engine.faults.isEmpty {
            engine.say("x", to: 1)
            loop.step()
        }
        #expect(engine.faults.count == 1)
        messenger.use(nil)
    }
}
