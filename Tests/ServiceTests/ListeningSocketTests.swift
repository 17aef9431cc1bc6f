// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Loop
import NIOCore
import Testing
import Wire

@Suite struct ListeningSocketTests {
    /// A socket whose options or file can't be set is closed.
    @Test func aFailureClosesTheSocket() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/policy"
        func sockets() throws -> String {
            let file = try FileHandle(forReadingFrom: URL(filePath: "/proc/net/unix"))
            return String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
        }
        var inherited: [String: Int32] = [:]
        let group = "no-such-group"
        #expect(throws: ListenerFailure.self) {
            try ListeningSocket.open(at: .unix(path: path, mode: 0o600, group: group), key: "", inherited: &inherited)
        }
        #expect(try !sockets().contains(path))
        let open = try ListeningSocket.open(
            at: .unix(path: path, mode: 0o600, group: nil), key: "", inherited: &inherited)
        #expect(try sockets().contains(path))
        close(open)
    }

    /// systemd's socket is in use, but Weir knows it under another address.
    @Test func aPassedSocketWithAnotherAddressIsNamed() throws {
        var none: [String: Int32] = [:]
        let first = try ListeningSocket.open(at: .inet(host: "127.0.0.1", port: 0), key: "", inherited: &none)
        defer { close(first) }
        #expect(listen(first, 1) == 0)
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let code = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(first, $0, &length) }
        }
        try #require(code == 0)
        let port = Int(UInt16(bigEndian: address.sin_port))
        func failure(_ inherited: [String]) -> String? {
            var inherited = Dictionary(uniqueKeysWithValues: inherited.map { ($0, first) })
            let failure = #expect(throws: ListenerFailure.self) {
                try ListeningSocket.open(
                    at: .inet(host: "localhost", port: port), key: "listen.policy", inherited: &inherited)
            }
            return failure?.description
        }
        let start = "can't listen on inet:localhost:\(port) (listen.policy): Address already in use"
        #expect(failure(["inet:127.0.0.1:1\(port)", "unix:/run/weir:\(port)"]) == start)
        #expect(
            failure(["inet:127.0.0.1:\(port)"])
                == "\(start); the service manager has passed inet:127.0.0.1:\(port): listen.policy must name it in the "
                + "same way")
    }

    /// The kernel must not keep megabytes for each client that does not read.
    @Test func whatTheKernelKeepsIsBounded() throws {
        var inherited: [String: Int32] = [:]
        let listening = try ListeningSocket.open(at: .inet(host: "127.0.0.1", port: 0), key: "", inherited: &inherited)
        defer { close(listening) }
        #expect(listen(listening, 1) == 0)
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(client) }
        try ListeningSocket.set(SO_RCVBUF, at: SOL_SOCKET, of: client, to: 4096)
        let code = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                getsockname(listening, $0, &length) + connect(client, $0, length)
            }
        }
        #expect(code == 0)
        let accepted = accept(listening, nil, nil)
        defer { close(accepted) }
        let reply = [UInt8](repeating: 0, count: 1_000)
        var kept = 0
        while kept < 1 << 20 {
            let sent = send(accepted, reply, reply.count, Int32(MSG_DONTWAIT))
            guard sent > 0 else { break }
            kept += sent
        }
        #expect(kept < 256 << 10)
    }
}
