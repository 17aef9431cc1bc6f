// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
package import NIOCore
internal import Wire

/// The policy server (SMTPD_POLICY_README): Postfix asks, the ledger decides.
///
/// Security: a client is a Postfix process. It gets no say but the attributes of its requests; the most it can do is
/// to charge keys of its own choice. A request is at most 64 KiB and 512 attributes, and must come within 100 s; bytes
/// that are no request end that one connection. Connections are bounded in number, and kept open for as long as their
/// clients like, because Postfix takes a second to notice one that was closed.
///
/// Sendable, unchecked: all state belongs to the host's loop, on which every connection runs; `input` is written by it alone.
package final class PolicyListener: @unchecked Sendable {
    let host: LedgerHost
    private let log: EventLog
    private var mostConnections: Int
    /// By descriptor.
    private var connections: [Int32: PolicyConnection] = [:]
    private var doors: [Door] = []
    private(set) var isStopping = false
    package private(set) var counters = Counters()
    /// What a turn of the loop reads, of all connections one behind the other.
    private let input = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 8)
    private var inputUsed = 0
    private var inputTurn: UInt64 = 0

    package struct Counters: Sendable {
        package var refusedConnections: UInt64 = 0
        package var malformed: UInt64 = 0
        package var tooSlow: UInt64 = 0
        package var droppedMidRequest: UInt64 = 0
    }

    /// Postfix waits 100 s for an answer (smtpd_policy_service_timeout); it sends a request in one piece.
    private static let requestTimeout: TimeAmount = .seconds(100)
    private static let sweepInterval: TimeAmount = .seconds(5)
    /// Read of one connection in one turn: a request of Postfix whole.
    private static let mostRead = 4096

    package init(configuration: Configuration, host: LedgerHost, log: EventLog) {
        self.host = host
        self.log = log
        mostConnections = configuration.listen.policyConnections
    }

    deinit {
        input.deallocate()
    }

    package func reload(_ configuration: Configuration) {
        host.loop.preconditionInLoop()
        mostConnections = configuration.listen.policyConnections
    }

    /// Starts to listen; on an already bound socket where the service manager has passed one.
    ///
    /// - Parameter inherited: sockets by their addresses; those that are used are taken out.
    /// - Throws: `ListenerFailure`.
    package func listen(on endpoints: [Configuration.Endpoint], inherited: inout [String: Int32]) async throws {
        for endpoint in endpoints {
            let descriptor = try ListeningSocket.open(at: endpoint, key: "listen.policy", inherited: &inherited)
            do {
                try Door.listen(descriptor)
                try await host.loop.submit { [self] in
                    let door = Door(descriptor, host.loop, clients: "policy connections", log: log, accepted: accepted)
                    try door.open()
                    doors.append(door)
                }
            } catch {
                throw ListenerFailure(key: "listen.policy", endpoint: endpoint, cause: error)
            }
        }
        try await host.loop.submit { [self] in
            host.loop.schedule(every: Self.sweepInterval) { [self] in
                closeSlow()
                return !isStopping
            }
        }
    }

    /// Stops listening, lets requests that have begun be answered, and closes all connections by `deadline`.
    package func stop(by deadline: NIODeadline) async {
        try? await host.loop.submit { [self] in
            isStopping = true
            for door in doors {
                door.shut()
                Glibc.close(door.descriptor)
            }
            doors = []
        }
        while NIODeadline.now() < deadline {
            let left = try? await host.loop.submit { [self] in
                for connection in connections.values where connection.isIdle { connection.close() }
                return connections.count
            }
            if left ?? 0 == 0 { return }
            try? await Task.sleep(for: .milliseconds(10))
        }
        try? await host.loop.submit { [self] in for connection in connections.values { connection.close() } }
    }

    package var openConnections: Int { connections.count }

    // MARK: Accepting

    private func accepted(_ descriptor: Int32) {
        guard connections.count < mostConnections, !isStopping else {
            counters.refusedConnections += 1
            log.complain(
                .tooManyConnections, "more than \(mostConnections) policy connections (listen.policy_connections)")
            Glibc.close(descriptor)
            return
        }
        let connection = PolicyConnection(descriptor: descriptor, listener: self)
        do {
            try host.loop.watch(descriptor, for: .reading, connection)
            connections[descriptor] = connection
        } catch {
            counters.refusedConnections += 1
            log.complain(.tooManyConnections, "can't take a policy connection: \(error.systemReason)")
            Glibc.close(descriptor)
        }
    }

    // MARK: Asked and told by connections

    /// Where a connection may read to; empty where this turn has read enough.
    var room: UnsafeMutableRawBufferPointer {
        if inputTurn != host.loop.turn { (inputTurn, inputUsed) = (host.loop.turn, 0) }
        guard inputUsed + Self.mostRead <= input.count else {
            return UnsafeMutableRawBufferPointer(start: nil, count: 0)
        }
        return UnsafeMutableRawBufferPointer(rebasing: input[inputUsed..<inputUsed + Self.mostRead])
    }

    /// What was read stays where it is until the end of the turn.
    func take(_ count: Int, of room: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer {
        inputUsed += count
        return UnsafeRawBufferPointer(rebasing: room[..<count])
    }

    func closed(_ descriptor: Int32, midRequest: Bool) {
        connections[descriptor] = nil
        if midRequest { counters.droppedMidRequest += 1 }
    }

    func refused(_ fault: PolicyRequestFault, from peer: String) {
        counters.malformed += 1
        log.complain(.malformedRequest, "closed the connection of \(peer): \(fault.text)")
    }

    private func closeSlow() {
        let now = NIODeadline.now()
        for connection in connections.values {
            guard let since = connection.partialSince, now - since > Self.requestTimeout else { continue }
            counters.tooSlow += 1
            log.complain(.slowRequest, "closed a policy connection: a request did not end within 100 s")
            connection.close()
        }
    }
}

extension PolicyRequestFault {
    var text: String {
        switch self {
        case .tooLong: "a request of more than \(PolicyRequestParser.longest) bytes"
        case .tooManyAttributes: "a request of more than \(PolicyRequestParser.mostAttributes) attributes"
        case .noEqualsSign: "a line without '=' in a request"
        case .nul: "a NUL byte in a request"
        case .notPolicy: "a request that does not say request=smtpd_access_policy"
        }
    }
}
