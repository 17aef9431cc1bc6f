// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Glibc
import NIOCore
import Report
import Settings
import Testing
import Wire

/// The error messages of `AdminClient`.
@Suite struct AdminClientTests {
    private let path = "/tmp/weir-test-\(UInt64.random(in: 0 ... .max))"

    private func failure(
        of configuration: Configuration, timeout: TimeAmount = .minutes(10)
    ) async -> AdminClient.Failure? {
        do {
            _ = try await AdminClient(configuration, timeout: timeout).fullest(10, limit: "nosuch")
            return nil
        } catch {
            return error as? AdminClient.Failure
        }
    }

    private var overSocket: Configuration {
        var configuration = Configuration()
        configuration.listen.admin = .unix(path: path, mode: 0o600, group: nil)
        return configuration
    }

    @Test func `nobody listens`() async throws {
        let failure = try #require(await failure(of: overSocket))
        #expect(failure.kind == .unreachable)
        #expect(failure.description == "unix:\(path) is unreachable: No such file or directory\(Self.hint)")
        var configuration = Configuration()
        configuration.listen.admin = .inet(host: "127.0.0.1", port: 1)
        #expect(
            await self.failure(of: configuration)?.description
                == "inet:127.0.0.1:1 is unreachable: Connection refused\(Self.hint)")
    }

    private static let hint = "; if listen.admin has changed, restart the service"

    @Test func `no answer`() async throws {
        let server = Server(path: path)
        defer { server.stop() }
        let failure = try #require(await failure(of: overSocket, timeout: .milliseconds(50)))
        #expect(failure.kind == .unreachable)
        #expect(failure.description.contains("no answer from"))
    }

    /// A service of an earlier version knows no hosts. Any other error is no reason to think so.
    @Test(arguments: [(404, true), (401, false), (500, false), (503, false)])
    func `only an earlier version has no hosts`(status: Int, isEarlier: Bool) async throws {
        let server = Server(path: path)
        defer { server.stop() }
        server.answer("HTTP/1.1 \(status) X\r\nContent-Length: 0\r\n\r\n")
        let client = AdminClient(overSocket, timeout: .minutes(10))
        if isEarlier {
            #expect(try await client.hosts() == nil)
        } else {
            await #expect(throws: AdminClient.Failure.self) { try await client.hosts() }
        }
    }

    @Test(arguments: [
        #"{"error":"there is no limit nosuch (there are a, b)"}"#, "there is no limit nosuch (there are a, b)\n",
    ])
    func `an error response of the service is shown`(body: String) async throws {
        let server = Server(path: path)
        defer { server.stop() }
        server.answer("HTTP/1.1 404 Not Found\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        let failure = try #require(await failure(of: overSocket))
        #expect(failure.kind == .refused)
        #expect(failure.description == "there is no limit nosuch (there are a, b)")
    }

    @Test func `an answer that is not Weir's`() async throws {
        let server = Server(path: path)
        defer { server.stop() }
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        #expect(await failure(of: overSocket)?.kind == .unreachable)
    }

    @Test func `an unreadable token`() async throws {
        let server = Server(path: nil)
        defer { server.stop() }
        server.answer("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        var configuration = Configuration()
        configuration.listen.admin = .inet(host: "127.0.0.1", port: server.port)
        configuration.ledger.store = .sqlite(path: "\(path)/ledger.sqlite")
        let failure = try #require(await failure(of: configuration))
        #expect(failure.kind == .notPermitted)
        #expect(
            failure.description
                == "can't read \(path)/admin-token: No such file or directory: restart the service to make a new one")
    }

    @Test func `a wrong token`() async throws {
        let server = Server(path: nil)
        defer { server.stop() }
        server.answer(
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 23\r\n\r\n{\"error\":\"wrong token\"}")
        let directory = try TemporaryDirectory()
        try directory.write([String(repeating: "a", count: 64)], to: "admin-token")
        var configuration = Configuration()
        configuration.listen.admin = .inet(host: "127.0.0.1", port: server.port)
        configuration.ledger.store = .sqlite(path: "\(directory.path)/ledger.sqlite")
        let failure = try #require(await failure(of: configuration))
        #expect(failure.kind == .notPermitted)
        #expect(
            failure.description.hasPrefix(
                "the token in \(directory.path)/admin-token is not that of the running service"))
    }
}

/// A listening socket. It accepts a connection only in `answer`.
private final class Server: Sendable {
    private let descriptor: Int32
    private let path: String?

    /// - Parameter path: the path of the socket, or nil for a free port on loopback.
    init(path: String?) {
        self.path = path
        descriptor = socket(path == nil ? AF_INET : AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var code: Int32
        if let path {
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            code = withUnsafeBytes(of: &address) {
                bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
            }
        } else {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
            code = withUnsafeBytes(of: &address) {
                bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
            }
        }
        if code == 0 { code = listen(descriptor, 5) }
        precondition(code == 0)
    }

    var port: Int {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutableBytes(of: &address) {
            _ = getsockname(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
        }
        return Int(UInt16(bigEndian: address.sin_port))
    }

    /// Answers the next client's request, whatever it is, with `text`.
    func answer(_ text: String) {
        let descriptor = descriptor
        Thread.detachNewThread {
            let client = accept(descriptor, nil, nil)
            var request = [UInt8](repeating: 0, count: 65_536)
            _ = read(client, &request, request.count)
            _ = Array(text.utf8).withUnsafeBytes { send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            close(client)
        }
    }

    func stop() {
        close(descriptor)
        if let path { unlink(path) }
    }
}
