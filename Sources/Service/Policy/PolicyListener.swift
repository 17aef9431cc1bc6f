// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
package import NIOCore
internal import NIOPosix
internal import Wire

/// The policy server (SMTPD_POLICY_README): Postfix asks, the ledger decides.
///
/// Security: a client is a Postfix process. It gets no say but the attributes of its requests; the most it can do is
/// to charge keys of its own choice. A request is at most 64 KiB and 512 attributes, and must come within 100 s; bytes
/// that are no request end that one connection. Connections are bounded in number, and kept open for as long as their
/// clients like, because Postfix takes a second to notice one that was closed.
///
/// Sendable, unchecked: all state belongs to the host's event loop, on which every connection runs.
package final class PolicyListener: @unchecked Sendable {
    let host: LedgerHost
    private let log: EventLog
    private var mostConnections: Int
    private var connections: [ObjectIdentifier: PolicyConnection] = [:]
    private var channels: [any Channel] = []
    private var isStopping = false
    package private(set) var counters = Counters()

    package struct Counters: Sendable {
        package var accepted: UInt64 = 0
        package var refusedConnections: UInt64 = 0
        package var malformed: UInt64 = 0
        package var tooSlow: UInt64 = 0
        package var droppedMidRequest: UInt64 = 0
    }

    /// Postfix waits 100 s for an answer (smtpd_policy_service_timeout); it sends a request in one piece.
    private static let requestTimeout: TimeAmount = .seconds(100)
    private static let sweepInterval: TimeAmount = .seconds(5)
    /// Holds a request of Postfix whole; each open connection keeps one such buffer.
    private static let readBuffer = 4096

    package init(configuration: Configuration, host: LedgerHost, log: EventLog) {
        self.host = host
        self.log = log
        mostConnections = configuration.listen.policyConnections
    }

    package func reload(_ configuration: Configuration) {
        host.eventLoop.preconditionInEventLoop()
        mostConnections = configuration.listen.policyConnections
    }

    /// Starts to listen; on an already bound socket where the service manager has passed one.
    ///
    /// - Parameter inherited: sockets by their addresses; those that are used are taken out.
    /// - Throws: `ListenerFailure`.
    package func listen(on endpoints: [Configuration.Endpoint], inherited: inout [String: Int32]) async throws {
        let bootstrap = ServerBootstrap.accepting(on: host.eventLoop)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readBuffer))
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(PolicyConnection(listener: self))
                }
            }
        for endpoint in endpoints {
            let channel = try await bootstrap.listen(on: endpoint, key: "listen.policy", inherited: &inherited)
            try await host.eventLoop.submit { [self] in channels.append(channel) }.get()
        }
        host.eventLoop.scheduleRepeatedTask(initialDelay: Self.sweepInterval, delay: Self.sweepInterval) { [weak self] task in
            guard let self, !isStopping else { return task.cancel() }
            closeSlow()
        }
    }

    /// Stops listening, lets requests that have begun be answered, and closes all connections by `deadline`.
    package func stop(by deadline: NIODeadline) async {
        for channel in channels { try? await channel.close().get() }
        try? await host.eventLoop.submit { [self] in isStopping = true }.get()
        while NIODeadline.now() < deadline {
            let left = try? await host.eventLoop.submit { [self] in
                for connection in connections.values where connection.isIdle { connection.close() }
                return connections.count
            }.get()
            if left ?? 0 == 0 { return }
            try? await Task.sleep(for: .milliseconds(10))
        }
        try? await host.eventLoop.submit { [self] in connections.values.forEach { $0.close() } }.get()
    }

    package var openConnections: Int { connections.count }

    // MARK: Told by connections

    func opened(_ connection: PolicyConnection, _ context: ChannelHandlerContext) {
        guard connections.count < mostConnections, !isStopping else {
            counters.refusedConnections += 1
            log.complain(.tooManyConnections, "more than \(mostConnections) policy connections (listen.policy_connections)")
            context.close(promise: nil)
            return
        }
        counters.accepted += 1
        connections[ObjectIdentifier(connection)] = connection
    }

    func closed(_ connection: PolicyConnection, midRequest: Bool) {
        connections[ObjectIdentifier(connection)] = nil
        if midRequest { counters.droppedMidRequest += 1 }
    }

    func refused(_ fault: PolicyRequestFault, from context: ChannelHandlerContext) {
        counters.malformed += 1
        let peer = context.remoteAddress?.description ?? "a policy client"
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

/// A listener can't be opened.
struct ListenerFailure: Error, CustomStringConvertible {
    let key: String
    let endpoint: Configuration.Endpoint
    let cause: any Error

    var description: String {
        let reason = (cause as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(cause)"
        return "can't listen on \(endpoint) (\(key)): \(reason)"
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
