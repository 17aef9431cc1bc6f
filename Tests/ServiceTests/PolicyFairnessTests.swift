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

    /// Received bytes of a socket that were not read yet.
    private static func unread(_ descriptor: Int32) -> Int32 {
        var count: Int32 = 0
        return ioctl(descriptor, UInt(FIONREAD), &count) == 0 ? count : 0
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
                loop.endOfTurn = {
                    decide()
                    let answered = clients.map(Self.unread)
                    if answered.max()! > 2 * 448, answered.min()! == 0 { sample.isUnfair = true }
                    sample.isDone = answered.min()! == 256 * 14
                }
                for client in clients { #expect(write(client, bytes, bytes.count) == bytes.count) }
            }
            #expect(try await turns(of: loop) { sample.isDone })
            let isUnfair = try await loop.submit { sample.isUnfair }
            #expect(!isUnfair)
            clients.forEach { close($0) }
            await listener.stop(by: .now())
        }
    }

    /// A turn that has taken its time decides one request of each connection, and leaves the rest to the next ones. The
    /// client reads nothing meanwhile.
    @Test func aTurnDoesNotWaitForPipelinedRequests() async throws {
        try await RunningLedger.run(clock: SteppingClock.hasty.now) { ledger in
            let loop = ledger.loop
            let listener = PolicyListener(configuration: ledger.configuration, host: ledger.host, log: ledger.log)
            let clients = try await connect(3, to: listener, of: ledger)
            // More than one read of each, and part of a request.
            let bytes = Array(String(repeating: Self.request, count: 200).utf8)
            let sample = Sample()
            try await loop.submit {
                let decide = loop.endOfTurn
                var before = clients.map { _ in Int32(0) }
                loop.endOfTurn = {
                    decide()
                    let answered = clients.map { Self.unread($0) / 14 }
                    if zip(answered, before).contains(where: { $0 > $1 + 1 }) { sample.isUnfair = true }
                    before = answered
                    sample.isDone = answered.allSatisfy { $0 == 200 }
                }
                for client in clients { #expect(write(client, bytes, bytes.count) == bytes.count) }
            }
            #expect(try await turns(of: loop) { sample.isDone })
            let isUnfair = try await loop.submit { sample.isUnfair }
            #expect(!isUnfair)
            clients.forEach { close($0) }
            await listener.stop(by: .now())
        }
    }

    /// Whether `isDone` holds after some turns of the loop.
    private func turns(of loop: SocketLoop, until isDone: @escaping @Sendable () -> Bool) async throws -> Bool {
        for _ in 1...1_000_000 {
            if try await loop.submit(isDone) { return true }
        }
        return false
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
        try #require(try await turns(of: ledger.loop) { listener.openConnections == count })
        return clients
    }
}
