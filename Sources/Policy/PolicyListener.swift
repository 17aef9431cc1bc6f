// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
internal import Loop
package import NIOCore
package import Report
package import Settings
package import Wire

/// The policy server (SMTPD_POLICY_README): Postfix asks, the ledger decides.
///
/// Security: a client is a Postfix process. The most that it can do is to charge keys of its choice. A request has at
/// most 64 KiB and 512 attributes, and must be complete within 100 s. Bytes that are not a request end that one
/// connection. The number of connections is bounded. Idle ones stay open, because Postfix takes a second to notice a
/// closed one. Each connection is read at most once per turn of the loop, and those that a turn could not read come
/// first in the next: a client that sends without pause delays the others by one turn.
///
/// Sendable, unchecked: all state belongs to the host's loop, on which every connection runs. Only that loop writes
/// `input`.
package final class PolicyListener: @unchecked Sendable {
    let host: LedgerHost
    private let log: EventLog
    private let reception: Reception
    private let desk: Reception.Desk
    private var counted = PolicyFaults()
    /// The bytes that all connections read in one turn of the loop, one after the other.
    private let input = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 8)
    private var inputUsed = 0
    private var inputTurn: UInt64 = 0

    /// Postfix waits 100 s for an answer (smtpd_policy_service_timeout). It sends a request in one piece.
    static let requestTimeout: TimeAmount = .seconds(100)
    private static let sweepInterval: TimeAmount = .seconds(5)
    /// Bytes read from one connection in one turn: a whole request of Postfix.
    private static let mostRead = 4096

    package init(configuration: Configuration, host: LedgerHost, log: EventLog) {
        self.host = host
        self.log = log
        reception = Reception(
            .init(key: "listen.policy", clients: "policy connections", bound: "listen.policy_connections"),
            most: configuration.listen.policyConnections,
            complain: { [log] text in log.complain(.tooManyConnections, text) })
        desk = reception.addDesk(on: host.loop, sweepInterval: Self.sweepInterval)
        desk.admit = { [unowned self] client, _, isOverBound in
            isOverBound ? nil : PolicyConnection(descriptor: client, listener: self)
        }
    }

    deinit {
        input.deallocate()
    }

    package func reload(_ configuration: Configuration) {
        reception.mostConnections = configuration.listen.policyConnections
    }

    /// Starts to listen.
    ///
    /// - Parameter inherited: sockets by address; those that are used are removed.
    /// - Throws: `ListenerFailure`.
    package func listen(on endpoints: [Endpoint], inherited: inout [String: Int32]) async throws {
        try await reception.listen(at: endpoints, inherited: &inherited)
    }

    /// Stops listening, answers requests that have begun, and closes all connections by `deadline`.
    package func stop(by deadline: NIODeadline) async { await reception.stop(by: deadline) }

    package var openConnections: Int { reception.openConnections }

    package var faults: PolicyFaults {
        var faults = counted
        faults.refusedConnections = reception.refusedConnections
        return faults
    }

    var isStopping: Bool { desk.isStopping }

    // MARK: For connections

    /// A buffer for one read of a connection; empty if this turn has read enough.
    func room() -> UnsafeMutableRawBufferPointer {
        if inputTurn != host.loop.turn { (inputTurn, inputUsed) = (host.loop.turn, 0) }
        guard inputUsed + Self.mostRead <= input.count else {
            return UnsafeMutableRawBufferPointer(start: nil, count: 0)
        }
        return UnsafeMutableRawBufferPointer(rebasing: input[inputUsed..<inputUsed + Self.mostRead])
    }

    /// Keeps the first `count` bytes of `room` until the end of the turn.
    func commit(_ count: Int, of room: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer {
        inputUsed += count
        return UnsafeRawBufferPointer(rebasing: room[..<count])
    }

    func closed(_ descriptor: Int32, midRequest: Bool) {
        desk.closed(descriptor)
        if midRequest { counted.droppedMidRequest += 1 }
    }

    func refused(_ fault: PolicyRequestFault, from peer: String) {
        counted.malformed += 1
        log.complain(.malformedRequest, "closed the connection of \(peer): \(fault.text)")
    }

    func timedOut() {
        counted.tooSlow += 1
        log.complain(.slowRequest, "closed a policy connection: a request was incomplete after 100 s")
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
