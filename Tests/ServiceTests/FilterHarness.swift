// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Filter
import Foundation
import Glibc
import Loop
import Messages
import NIOCore
import NIOPosix
import Report
import Settings
import Synchronization
import Wire

/// A filter with its own loop, between the test's clients and a scripted next hop, on UNIX sockets.
struct RunningFilter {
    let filter: FilterListener
    let hop: ScriptedNextHop
    let loop: SocketLoop
    private let path: String
    private let log: EventLog
    private let logPath: String
    /// One thread, so that work is done in the order in which it was given.
    private let disk: NIOThreadPool

    /// - Parameters:
    ///   - header: header checks, as a PCRE table.
    ///   - attachment: rules for attachments, as a PCRE table.
    ///   - hop: the script of each connection to the next hop; the last one holds for all further ones.
    ///   - client: what clients speak.
    ///   - nextHop: what the next hop speaks.
    ///   - mode: whose timeouts apply.
    ///   - memory: for messages; with 0, all go to the spool.
    ///   - clock: for the shares of the loop's turns.
    ///   - stops: `body` stops the filter.
    static func run(
        header: String = "", attachment: String = "", hop scripts: [ScriptedNextHop.Script] = [[:]],
        client: SMTPServerSession.Variant = .smtp, nextHop: SMTPServerSession.Variant = .smtp,
        mode: Configuration.FilterListener.Mode = .afterQueue, memory: Int = 1 << 20,
        timeouts change: (inout FilterTimeouts) -> Void = { _ in },
        clock: (@Sendable () -> NIODeadline)? = nil, stops: Bool = false,
        _ body: (RunningFilter) async throws -> Void
    ) async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(at: directory) }
        let (own, next) = (directory.appending(path: "filter").path, directory.appending(path: "hop").path)
        let rules = try rules([(\.header, header), (\.attachment, attachment)], in: directory)
        let hop = ScriptedNextHop(path: next, scripts)
        defer { hop.stop() }
        let loop = try SocketLoop.start(named: "weir-content", clock: clock)
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        var timeouts = timeouts(mode)
        change(&timeouts)
        let logPath = directory.appending(path: "log").path
        let log = EventLog(destination: .file(logPath))
        var settings = Configuration.FilterListener(
            listen: .unix(path: own, mode: 0o600, group: nil),
            nextHop: .init(.unix(path: next, mode: 0o600, group: nil), nextHop))
        settings.variant = client
        settings.mode = mode
        let filter = FilterListener(
            settings, mostConnections: 10,
            bounds: ContentBounds(directory: directory.path, mostMemory: memory, mostSpool: 64 << 20),
            threads: threads, lookupThreads: threads, timeouts: timeouts, probes: ProbeBoard(), rules: { rules },
            log: log)
        var inherited: [String: Int32] = [:]
        try await filter.listen(on: [loop], inherited: &inherited)
        var failure: (any Error)?
        do {
            try await body(
                RunningFilter(
                    filter: filter, hop: hop, loop: loop, path: own, log: log, logPath: logPath, disk: threads))
        } catch {
            failure = error
        }
        if !stops { await filter.stop(by: .now()) }
        try await threads.shutdownGracefully()
        await loop.stop()
        log.flush()
        if let failure { throw failure }
    }

    private static func temporaryDirectory() throws -> URL {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        return directory
    }

    private static func rules(
        _ tables: [(list: WritableKeyPath<CheckTables, [String]>, text: String)], in directory: URL
    ) throws -> ContentRules {
        var checks = ContentChecks()
        for (number, table) in tables.enumerated() where !table.text.isEmpty {
            let file = directory.appending(path: "\(number).pcre")
            try table.text.write(to: file, atomically: true, encoding: .utf8)
            checks.tables[keyPath: table.list] = ["pcre:\(file.path)"]
        }
        return try ContentRules(checks)
    }

    private static func timeouts(_ mode: Configuration.FilterListener.Mode) -> FilterTimeouts {
        var timeouts = FilterTimeouts(mode: mode)
        // Time passes only when a test calls `pass`.
        timeouts.sweep = .hours(24)
        // A turn of the loop may take seconds of real time.
        (timeouts.idle, timeouts.capabilities) = (.hours(24), .hours(24))
        return timeouts
    }

    func connect() -> Peer { Peer(connectedTo: path) }

    /// Whether the log has this text.
    func logged(_ text: String) -> Bool {
        log.flush()
        return (try? String(contentsOfFile: logPath, encoding: .utf8))?.contains(text) ?? false
    }

    /// Returns after a turn of the loop: the filter has read what was sent before.
    func settle() async throws { await filter.sweep(at: .now()) }

    /// Lets `time` pass for the filter.
    func pass(_ time: TimeAmount) async throws { await filter.sweep(at: .now() + time) }

    /// Gives the disk work that lasts until it is released.
    func holdDisk() -> HeldDisk { HeldDisk(disk) }

    /// Returns once the disk has done all work that was given to it before, and the filter knows.
    func waitForDisk() async throws {
        try await disk.runIfActive {}
        try await settle()
    }
}

/// A disk that does nothing.
struct HeldDisk {
    private let begun = DispatchSemaphore(value: 0)
    private let end = DispatchSemaphore(value: 0)

    fileprivate init(_ disk: NIOThreadPool) {
        disk.submit { [begun, end] _ in
            begun.signal()
            end.wait()
        }
    }

    /// Returns once all earlier work is done.
    func waitUntilBegun() { begun.wait() }
    func release() { end.signal() }
}

/// A blocking socket that speaks lines. One thread at a time uses it.
final class Peer {
    private let descriptor: Int32
    private var received: [UInt8] = []

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        // A reply that never comes fails the test instead of holding it up. The limit is long because tests run in
        // parallel: an `await` of the other side may take a minute.
        var limit = timeval(tv_sec: 600, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    convenience init(connectedTo path: String) {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let code = withAddress(path) { Glibc.connect(descriptor, $0, $1) }
        precondition(code == 0, "can't connect to \(path)")
        self.init(descriptor)
    }

    deinit { close(descriptor) }

    @discardableResult
    func send(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            sent += count
        }
        return true
    }

    /// Sends no more.
    func shutDown() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Whether nothing has come, not even the end.
    var isSilent: Bool {
        var query = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return received.isEmpty && poll(&query, 1, 0) == 0
    }

    /// nil at the end.
    func line() -> String? {
        while true {
            if let end = received.firstIndex(of: 0x0a) {
                defer { received.removeSubrange(...end) }
                return String(decoding: received[..<end], as: UTF8.self).trimmingCharacters(in: .newlines)
            }
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return nil }
            received += buffer[..<count]
        }
    }

    /// The last line of the next reply, nil at the end.
    func reply() -> String? {
        while let line = line() {
            if line.dropFirst(3).first != "-" { return line }
        }
        return nil
    }

    /// The codes of all replies up to the end.
    func codes() -> [Int] {
        var codes: [Int] = []
        while let reply = reply() { codes.append(Int(reply.prefix(3))!) }
        return codes
    }

    /// The greeting's code, then one for each line, as long as there are any.
    func converse(_ lines: [String]) -> [Int] {
        guard let greeting = reply() else { return [] }
        return [Int(greeting.prefix(3))!] + go(lines)
    }

    /// A code for each line, as long as there are any.
    func go(_ lines: [String]) -> [Int] {
        var codes: [Int] = []
        for line in lines {
            guard send(line + "\r\n"), let reply = reply() else { break }
            codes.append(Int(reply.prefix(3))!)
        }
        return codes
    }
}

private func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    return withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
}

/// A next hop that accepts mail, except where its scripts say otherwise.
final class ScriptedNextHop: Sendable {
    enum Reply: Sendable {
        case text(String)
        /// Closes the connection.
        case close
        /// Stops replying, but keeps the connection open.
        case silence
        /// Says this when the test lets it.
        case held(String)
    }

    /// Replies by the first word of a command. "" is the greeting, "." the final dot, "content" its first line; in LMTP
    /// ".1" is the reply to the final dot for the first recipient that was accepted, and so on, or ".b@example.com".
    typealias Script = [String: Reply]

    struct Message: Equatable, Sendable {
        var envelope: [String]
        var content: String
    }

    private struct State {
        /// The sockets of all connections.
        var descriptors: [Int32] = []
        var messages: [Message] = []
        var commands: [String] = []
    }

    private let listener: Int32
    private let state = Mutex(State())
    private let silent = DispatchSemaphore(value: 0)
    private let released = DispatchSemaphore(value: 0)
    private let spoken = DispatchSemaphore(value: 0)

    init(path: String, _ scripts: [Script]) {
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        precondition(withAddress(path) { bind(listener, $0, $1) } == 0 && listen(listener, 100) == 0)
        Thread.detachNewThread { [self] in
            while true {
                let descriptor = accept(listener, nil, nil)
                guard descriptor >= 0 else { return }
                let number = state.withLock { state in
                    defer { state.descriptors.append(descriptor) }
                    return state.descriptors.count
                }
                Thread.detachNewThread { self.serve(Peer(descriptor), scripts[min(number, scripts.count - 1)]) }
            }
        }
    }

    func stop() { shutdown(listener, Int32(SHUT_RDWR)) }

    /// All accepted messages, in order.
    var messages: [Message] { state.withLock { $0.messages } }
    var commands: [String] { state.withLock { $0.commands } }
    var connections: Int { state.withLock { $0.descriptors.count } }

    /// Closes an open connection: the one with this number, from 0.
    func drop(connection number: Int) { shutdown(state.withLock { $0.descriptors[number] }, Int32(SHUT_RDWR)) }

    /// Returns once a script has come to `silence` or to `held`.
    func waitForSilence() -> Bool { silent.wait(timeout: .now() + 600) == .success }

    /// Sends a `held` reply, and returns once it is sent.
    func release() {
        released.signal()
        spoken.wait()
    }

    /// - Returns: the reply; nil if the connection is closed.
    private func answer(_ word: String, _ script: Script, _ usual: String, _ peer: Peer) -> String? {
        switch script[word] ?? .text(usual) {
        case .text(let text): return say(text, word, peer)
        case .held(let text):
            silent.signal()
            released.wait()
            defer { spoken.signal() }
            return say(text, word, peer)
        case .close: return nil
        case .silence:
            silent.signal()
            while peer.line() != nil {}
            return nil
        }
    }

    private func say(_ text: String, _ word: String, _ peer: Peer) -> String? {
        // Sent by `takeContent` and `takeForEach`, once the message is recorded.
        if word.hasPrefix("."), text.hasPrefix("2") { return text }
        return peer.send(text + "\r\n") ? text : nil
    }

    private func serve(_ peer: Peer, _ script: Script) {
        guard answer("", script, "220 hop.example.org", peer) != nil else { return }
        var (envelope, isLMTP) = ([String](), false)
        while let line = peer.line() {
            let word = String(line.prefix { $0 != " " }).uppercased()
            state.withLock { $0.commands.append(line) }
            if ["MAIL", "RSET"].contains(word) { envelope = [] }
            if ["MAIL", "RCPT"].contains(word) { envelope.append(line) }
            let greets = word == "EHLO" || word == "LHLO"
            let usual = word == "DATA" ? "354 go" : greets ? "250-hop.example.org\r\n250 PIPELINING" : "250 Ok"
            if word == "LHLO" { isLMTP = true }
            if word == "RCPT", script[line] != nil {
                guard let reply = answer(line, script, "", peer) else { return }
                if !reply.hasPrefix("2") { envelope.removeLast() }
                continue
            }
            guard let reply = answer(word, script, usual, peer) else { return }
            if word == "QUIT" { return }
            guard word == "DATA", reply.hasPrefix("354") else { continue }
            guard takeContent(envelope, peer, script, isLMTP) else { return }
        }
    }

    private func takeContent(_ envelope: [String], _ peer: Peer, _ script: Script, _ isLMTP: Bool) -> Bool {
        var content = ""
        while let line = peer.line() {
            if line == ".", isLMTP { return takeForEach(Message(envelope: envelope, content: content), peer, script) }
            if line == "." {
                guard let reply = answer(".", script, "250 2.0.0 Ok: queued", peer) else { return false }
                guard reply.hasPrefix("2") else { return true }
                // The message is recorded before the reply is sent.
                state.withLock { $0.messages.append(Message(envelope: envelope, content: content)) }
                return peer.send(reply + "\r\n")
            }
            if content.isEmpty, case .close? = script["content"] { return false }
            content += line + "\n"
        }
        return false
    }

    /// Notes a message for each recipient whose reply is yes.
    private func takeForEach(_ message: Message, _ peer: Peer, _ script: Script) -> Bool {
        for (index, recipient) in message.envelope.dropFirst().enumerated() {
            let address = "." + recipient.dropFirst("RCPT TO:<".count).prefix { $0 != ">" }
            let word = script[address] == nil ? ".\(index + 1)" : address
            guard let reply = answer(word, script, "250 2.1.5 Ok", peer) else { return false }
            guard reply.hasPrefix("2") else { continue }
            let envelope = [message.envelope[0], recipient]
            state.withLock { $0.messages.append(Message(envelope: envelope, content: message.content)) }
            guard peer.send(reply + "\r\n") else { return false }
        }
        return true
    }
}
