// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Loop
import NIOCore
import Policy
import Report
import Settings
import Testing

/// Sendable, unchecked: only the loop uses it.
private final class Sample: @unchecked Sendable {
    var isUnfair = false
    var isDone = false
}

@Suite struct PolicyFairnessTests {
    /// 128 bytes: one read gets 32 requests, whose answers have 448 bytes.
    private static let request: String = {
        let start = "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=1\nsender=a@example.org\nhelo_name="
        return start + String(repeating: "x", count: 126 - start.utf8.count) + "\n\n"
    }()

    /// Received bytes of a socket that were not read yet.
    private static func unread(_ descriptor: Int32) -> Int32 {
        var count: Int32 = 0
        return ioctl(descriptor, UInt(FIONREAD), &count) == 0 ? count : 0
    }

    /// A turn reads 64 connections. Of 100 pipelining connections, none is read three times before each was read once.
    @Test func everyConnectionIsReadBeforeOthersAreReadAgain() async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let text = """
            listen: { policy: "unix:\(directory.path)/policy" }
            ledger: { store: "sqlite:\(directory.path)/ledger.sqlite", durability: relaxed }
            limits: [ { name: senders, key: sender, rates: [ 1M/1h ] } ]
            """
        let configuration = try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml").get().configuration
        let log = EventLog(destination: .file(directory.appending(path: "log").path))
        let loop = try SocketLoop.start(named: "weir-ledger")
        let host = LedgerHost(
            configuration: configuration, loop: loop, clocks: MachineClocks(), log: log,
            alerts: Alerts(configuration.alerts, starter: .init(control: -1), log: log), probes: ProbeBoard())
        try await loop.submit { host.start() }
        #expect(await host.firstOpening())
        let listener = PolicyListener(configuration: configuration, host: host, log: log)
        var inherited: [String: Int32] = [:]
        try await listener.listen(on: configuration.listen.policy, inherited: &inherited)
        let address = try SocketAddress(unixDomainSocketPath: "\(directory.path)/policy")
        let clients = try (0..<100).map { _ in
            let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            try #require(address.withSockAddr { connect(client, $0, socklen_t($1)) } == 0)
            return client
        }
        while listener.openConnections < clients.count { _ = try await loop.submit { 0 } }
        let bytes = Array(String(repeating: Self.request, count: 256).utf8)
        let sample = Sample()
        try await loop.submit {
            let decide = loop.endOfTurn
            loop.endOfTurn = {
                decide()
                let answered = clients.map(Self.unread)
                if answered.max()! > 2 * 448, answered.min()! == 0 { sample.isUnfair = true }
                sample.isDone = answered.min()! == 256 * 14
            }
            for client in clients { #expect(write(client, bytes, bytes.count) == bytes.count) }
        }
        while !(try await loop.submit { sample.isDone }) {}
        #expect(!(try await loop.submit { sample.isUnfair }))
        clients.forEach { close($0) }
        await listener.stop(by: .now())
        try await loop.submit { host.stop(by: .now() + .seconds(10)) }
        await loop.stop()
        log.flush()
    }
}
