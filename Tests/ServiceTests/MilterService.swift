// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Limits
import Loop
import Messages
import NIOCore
import Policy
import Report
import Settings

/// A milter with its loops, its ledger and a UNIX socket, as `weir serve` runs it. Its clock stands still.
final class MilterService: Sendable {
    let directory: TemporaryDirectory
    let host: LedgerHost
    let alerts: Alerts
    let probes = ProbeBoard()
    private let loop: SocketLoop
    private let content: ContentService
    private let log: EventLog

    private struct StoppedClocks: SystemClocks {
        let boot: UInt64 = 1
        func read() -> ClockReading { ClockReading(sinceBoot: 5_000_000, wall: 1_790_000_000_000) }
    }

    /// - Parameter clock: for the shares of the turns of the milter's loops.
    init(
        _ yaml: String = "", header: [String] = [], body: [String] = [],
        clock: (@Sendable () -> NIODeadline)? = nil
    ) async throws {
        directory = try TemporaryDirectory()
        try directory.write(header, to: "header.pcre")
        try directory.write(body, to: "body.pcre")
        let path = directory.path
        let text = """
            listen: { policy: "inet:127.0.0.1:10040", milter: "unix:\(path)/milter" }
            ledger: { store: "sqlite:\(path)/ledger.sqlite" }
            filter: { spool: "\(path)", most_memory: 1, most_spool: 2 }
            checks: { header: [ "pcre:\(path)/header.pcre" ], body: [ "pcre:\(path)/body.pcre" ], cache: "\(path)" }
            \(yaml)

            """
        let outcome = try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml").get()
        log = EventLog(destination: .file("\(path)/log"))
        alerts = Alerts(
            outcome.configuration.alerts, starter: .init(control: -1),
            advice: AlertAdvice(configurationPath: Configuration.defaultPath, outcome.configuration),
            log: log)
        let loop = try SocketLoop.start(named: "weir-ledger")
        self.loop = loop
        let host = LedgerHost(
            configuration: outcome.configuration, loop: loop, clocks: StoppedClocks(), log: log, alerts: alerts,
            probes: probes)
        self.host = host
        try await loop.submit { host.start() }
        await host.firstOpening()
        content = ContentService(outcome.configuration, rules: outcome.rules, host: host, log: log)!
        var inherited: [String: Int32] = [:]
        try await content.listen(inherited: &inherited, clock: clock)
    }

    func connect(actions: UInt32 = 0x1ff, options: UInt32 = 0x1f_ffff) throws -> MilterClient {
        let client = try MilterClient("\(directory.path)/milter")
        client.send(MilterClient.negotiation(actions: actions, options: options))
        guard client.reply()?.first == "O" else { throw MilterClient.Failure() }
        return client
    }

    /// What was logged so far.
    var logged: String {
        log.flush()
        return (try? String(contentsOfFile: "\(directory.path)/log", encoding: .utf8)) ?? ""
    }

    func stopContent() async {
        await content.stop(by: .now() + .seconds(60))
        await content.end(within: .seconds(60))
    }

    func stop() async throws {
        await stopContent()
        try await stopLedger()
    }

    func stopLedger() async throws {
        let host = host
        try await loop.submit { host.stop(by: .now() + .seconds(60)) }
        await loop.stop()
        log.flush()
    }
}

/// An MTA's side of a milter connection.
final class MilterClient {
    struct Failure: Error {}

    private let descriptor: Int32
    private var buffer: [UInt8] = []

    init(_ path: String) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        var timeout = timeval(tv_sec: 600, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        guard code == 0 else { throw Failure() }
    }

    deinit { close(descriptor) }

    static func packet(_ command: Character, _ payload: [UInt8]) -> [UInt8] {
        var packet = bytes(of: UInt32(payload.count + 1))
        packet.append(command.asciiValue!)
        return packet + payload
    }

    static func packet(_ command: Character, _ payload: String = "") -> [UInt8] { packet(command, Array(payload.utf8)) }

    static func negotiation(actions: UInt32 = 0x1ff, options: UInt32 = 0x1f_ffff) -> [UInt8] {
        var payload = bytes(of: 6)
        payload += bytes(of: actions)
        payload += bytes(of: options)
        return packet("O", payload)
    }

    /// In network byte order.
    private static func bytes(of number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }

    /// - Parameter port: 0 for mail from sendmail(1).
    static func connection(_ address: String = "192.0.2.1", port: UInt16 = 40000) -> [UInt8] {
        var payload = Array("client.example.org\u{0}4".utf8)
        payload += [UInt8(port >> 8), UInt8(port & 0xff)]
        payload += Array("\(address)\u{0}".utf8)
        return packet("C", payload)
    }

    /// Gives up if the service has closed the connection.
    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { return }
            rest = rest.dropFirst(sent)
        }
    }

    func send(_ command: Character, _ payload: String = "") { send(Self.packet(command, payload)) }

    /// Sends a packet if the service reads; false if it has read nothing for half a second.
    func sendIfRead(_ bytes: [UInt8]) -> Bool {
        var query = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        guard poll(&query, 1, 500) == 1 else { return false }
        send(bytes)
        return true
    }

    func sendBody(_ body: [UInt8]) {
        for start in stride(from: 0, to: body.count, by: 65_535) {
            send(Self.packet("B", Array(body[start..<min(body.count, start + 65_535)])))
        }
    }

    /// The next reply, with `|` for NUL; nil if the service has closed the connection.
    func reply() -> String? {
        guard let packet = nextPacket() else { return nil }
        return Self.text(packet)
    }

    private static func text(_ packet: [UInt8]) -> String {
        let payload = String(decoding: packet.dropFirst(), as: UTF8.self).replacing("\u{0}", with: "|")
        let command = String(Character(UnicodeScalar(packet[0])))
        return payload.isEmpty ? command : "\(command) \(payload)"
    }

    func replies(_ count: Int) -> [String] { (0..<count).compactMap { _ in reply() } }

    /// Replies up to the last one about the message; the pieces of a new body apart.
    func conclusion() -> (replies: [String], body: [UInt8]) {
        var (replies, body) = ([String](), [UInt8]())
        while let packet = nextPacket() {
            if packet[0] == UInt8(ascii: "b") {
                body += packet.dropFirst()
                continue
            }
            replies.append(Self.text(packet))
            if "cdty".utf8.contains(packet[0]) { break }
        }
        return (replies, body)
    }

    private func nextPacket() -> [UInt8]? {
        while buffer.count < 4 || buffer.count < 4 + length {
            var bytes = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count > 0 else { return nil }
            buffer += bytes.prefix(count)
        }
        defer { buffer.removeFirst(4 + length) }
        return Array(buffer[4..<4 + length])
    }

    private var length: Int {
        var length = 0
        for byte in buffer.prefix(4) { length = length << 8 | Int(byte) }
        return length
    }

    /// Says that nothing more is sent, and waits until the service has closed the connection.
    func disconnect() {
        shutdown(descriptor, Int32(SHUT_WR))
        while reply() != nil {}
    }

    // MARK: Messages

    func mail(_ sender: String = "a@example.org", _ recipients: [String] = ["b@example.com"], login: String = "") {
        let authentication = login.isEmpty ? "" : "{auth_authen}\u{0}\(login)\u{0}"
        send("D", "Mi\u{0}4ABC\u{0}\(authentication)")
        send("M", "<\(sender)>\u{0}")
        for recipient in recipients { send("R", "<\(recipient)>\u{0}") }
    }

    /// Headers, body and end; what the service says about the message.
    func content(_ headers: [String], _ body: [UInt8] = []) -> (replies: [String], body: [UInt8]) {
        for header in headers {
            let parts = header.split(separator: ":", maxSplits: 1)
            send("L", "\(parts[0])\u{0}\(parts[1])\u{0}")
        }
        sendBody(body)
        send("E")
        return conclusion()
    }
}
