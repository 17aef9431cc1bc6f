// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Glibc
import Loop
import Messages
import NIOCore
import NIOPosix
import Report
import Settings
import Testing
import Wire

/// Clients and next hops that say nothing, or too little at a time: with time-outs of milliseconds, each ends as it should.
@Suite struct FilterTimeoutsTests {
    private static let steps = ["", "EHLO", "MAIL", "RCPT", "DATA", "."]

    @Test(arguments: steps)
    func nextHopThatFallsSilent(step: String) async throws {
        var timeouts = FilterTimeouts(mode: .afterQueue)
        (timeouts.reply, timeouts.finalReply, timeouts.sweep) = (.milliseconds(50), .milliseconds(50), .milliseconds(5))
        try await withFilter(timeouts, silentAt: step) { client in
            let codes = client.converse([
                "EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA", "Subject: x\r\n\r\nx\r\n.",
            ])
            // 220 at first; the last word is a deferral, and nothing was taken for the message.
            #expect(codes.first == 220)
            #expect(codes.last.map { [421, 451].contains($0) } ?? false, "\(codes)")
            #expect(!codes.contains { 500..<600 ~= $0 }, "\(codes)")
        }
    }

    @Test func clientThatFallsSilent() async throws {
        var timeouts = FilterTimeouts(mode: .afterQueue)
        (timeouts.client, timeouts.sweep) = (.milliseconds(50), .milliseconds(5))
        for lines in [[], ["EHLO x"], ["EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA"]] {
            try await withFilter(timeouts, silentAt: nil) { client in
                var codes = client.converse(lines)
                while let code = client.reply() { codes.append(code) }
                #expect(codes.last == 421, "\(lines): \(codes)")
            }
        }
    }

    @Test func clientThatSendsAByteAtATime() async throws {
        var timeouts = FilterTimeouts(mode: .afterQueue)
        (timeouts.content, timeouts.linger, timeouts.sweep) = (.milliseconds(100), .milliseconds(20), .milliseconds(5))
        try await withFilter(timeouts, silentAt: nil) { client in
            #expect(
                client.converse(["EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA"]).last == 354)
            while client.send("x") { usleep(1000) }
            #expect(client.reply() == 421)
        }
    }

    private func withFilter(
        _ timeouts: FilterTimeouts, silentAt step: String?, _ body: @Sendable @escaping (Peer) -> Void
    ) async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let (own, hop) = (directory.appending(path: "filter").path, directory.appending(path: "hop").path)
        let server = NextHopServer(path: hop, silentAt: step)
        defer { server.stop() }
        let loop = try SocketLoop.start(named: "weir-content")
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        let rules = try ContentRules(ContentChecks())
        let log = EventLog(destination: .file(directory.appending(path: "log").path))
        let filter = FilterListener(
            .init(
                listen: .unix(path: own, mode: 0o600, group: nil), nextHop: .unix(path: hop, mode: 0o600, group: nil)),
            mostConnections: 10,
            bounds: ContentBounds(directory: directory.path, mostMemory: 1 << 20, mostSpool: 1 << 20),
            threads: threads, timeouts: timeouts, probes: ProbeBoard(), rules: { rules }, log: log)
        var inherited: [String: Int32] = [:]
        try await filter.listen(on: [loop], inherited: &inherited)
        // Blocking calls, on a thread of their own.
        await withCheckedContinuation { done in
            Thread.detachNewThread {
                body(Peer(connectedTo: own))
                done.resume()
            }
        }
        await filter.stop(by: .now())
        try await threads.shutdownGracefully()
        await loop.stop()
        log.flush()
    }
}

/// A blocking socket that speaks lines. One thread at a time uses it.
private final class Peer {
    private let descriptor: Int32
    private var received: [UInt8] = []

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
    }

    init(connectedTo path: String) {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let code = withAddress(path) { connect(descriptor, $0, $1) }
        precondition(code == 0, "can't connect to \(path)")
    }

    deinit { close(descriptor) }

    func send(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
    }

    /// nil at the end.
    func line() -> String? {
        while true {
            if let end = received.firstIndex(of: 0x0a) {
                defer { received.removeSubrange(...end) }
                return String(decoding: received[..<end], as: UTF8.self).trimmingCharacters(in: .newlines)
            }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return nil }
            received += buffer[..<count]
        }
    }

    /// The code of the next reply, nil at the end.
    func reply() -> Int? {
        while let line = line() {
            if line.dropFirst(3).first != "-" { return Int(line.prefix(3)) }
        }
        return nil
    }

    /// The greeting's code, then one for each line, as long as there are any.
    func converse(_ lines: [String]) -> [Int] {
        var codes: [Int] = []
        guard let greeting = reply() else { return codes }
        codes.append(greeting)
        for line in lines {
            guard send(line + "\r\n"), let code = reply() else { break }
            codes.append(code)
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

/// Takes mail, but says nothing any more from a certain command on.
private final class NextHopServer: Sendable {
    private let listener: Int32

    init(path: String, silentAt step: String?) {
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        precondition(withAddress(path) { bind(listener, $0, $1) } == 0 && listen(listener, 10) == 0)
        Thread.detachNewThread {
            while true {
                let descriptor = accept(listener, nil, nil)
                guard descriptor >= 0 else { return }
                Thread.detachNewThread { Self.serve(Peer(descriptor), silentAt: step) }
            }
        }
    }

    func stop() { shutdown(listener, Int32(SHUT_RDWR)) }

    private static func serve(_ peer: Peer, silentAt step: String?) {
        var isData = false
        func answer(_ word: String, _ reply: String) { if word != step { _ = peer.send(reply + "\r\n") } }
        answer("", "220 hop.example.org")
        while let line = peer.line() {
            let word = isData ? line : String(line.prefix { $0 != " " }).uppercased()
            if isData {
                guard line == "." else { continue }
                isData = false
            }
            answer(word, word == "DATA" ? "354 go" : "250 Ok")
            isData = word == "DATA"
        }
    }
}
