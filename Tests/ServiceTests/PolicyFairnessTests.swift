// SPDX-License-Identifier: Apache-2.0
import Glibc
import Loop
import NIOCore
import Policy
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

    /// Reads what a socket has received, and returns the number of bytes.
    private static func read(_ descriptor: Int32) -> Int {
        var bytes = [UInt8](repeating: 0, count: 8192)
        return max(0, recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT)))
    }

    /// A turn reads 64 connections. Of 100 pipelining connections, none is read three times before each was read once.
    @Test func everyConnectionIsReadBeforeOthersAreReadAgain() async throws {
        // No time passes: a connection whose turn was interrupted by another process counts as costly, and waits.
        try await RunningLedger.run(clock: SteppingClock().now) { ledger in
            let loop = ledger.loop
            let listener = PolicyListener(configuration: ledger.configuration, host: ledger.host, log: ledger.log)
            let clients = try await connect(100, to: listener, of: ledger)
            let bytes = Array(String(repeating: Self.request, count: 256).utf8)
            let sample = Sample()
            try await loop.submit {
                let decide = loop.endOfTurn
                var answered = clients.map { _ in 0 }
                loop.endOfTurn = {
                    decide()
                    for (number, client) in clients.enumerated() { answered[number] += Self.read(client) }
                    if answered.max()! > 2 * 448, answered.min()! == 0 { sample.isUnfair = true }
                    sample.isDone = answered.min()! == 256 * 14
                }
                for client in clients { #expect(write(client, bytes, bytes.count) == bytes.count) }
            }
            while !(try await loop.submit { sample.isDone }) {}
            let isUnfair = try await loop.submit { sample.isUnfair }
            #expect(!isUnfair)
            clients.forEach { close($0) }
            await listener.stop(by: .now())
        }
    }

    /// A turn that has taken its time decides one request of each connection, and leaves the rest to the next ones.
    @Test func aTurnDoesNotWaitForPipelinedRequests() async throws {
        try await RunningLedger.run(clock: SteppingClock.hasty.now) { ledger in
            let loop = ledger.loop
            let listener = PolicyListener(configuration: ledger.configuration, host: ledger.host, log: ledger.log)
            let clients = try await connect(3, to: listener, of: ledger)
            // More than one read of each, and part of a request.
            let bytes = Array(String(repeating: Self.request, count: 40).utf8)
            let sample = Sample()
            try await loop.submit {
                let decide = loop.endOfTurn
                var (answered, before) = (clients.map { _ in 0 }, clients.map { _ in 0 })
                loop.endOfTurn = {
                    decide()
                    for (number, client) in clients.enumerated() { answered[number] += Self.read(client) / 14 }
                    if zip(answered, before).contains(where: { $0 > $1 + 1 }) { sample.isUnfair = true }
                    before = answered
                    sample.isDone = answered.allSatisfy { $0 == 40 }
                }
                for client in clients { #expect(write(client, bytes, bytes.count) == bytes.count) }
            }
            while !(try await loop.submit { sample.isDone }) {}
            let isUnfair = try await loop.submit { sample.isUnfair }
            #expect(!isUnfair)
            clients.forEach { close($0) }
            await listener.stop(by: .now())
        }
    }

    private func connect(
        _ count: Int, to listener: PolicyListener, of ledger: RunningLedger
    ) async throws -> [Int32] {
        var inherited: [String: Int32] = [:]
        try await listener.listen(on: ledger.configuration.listen.policy, inherited: &inherited)
        let address = try SocketAddress(unixDomainSocketPath: "\(ledger.directory.path)/policy")
        let clients = try (0..<count).map { _ in
            let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            try #require(address.withSockAddr { Glibc.connect(client, $0, socklen_t($1)) } == 0)
            return client
        }
        while listener.openConnections < clients.count { _ = try await ledger.loop.submit { 0 } }
        return clients
    }
}
