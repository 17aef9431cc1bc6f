// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
internal import Limits
internal import Loop
internal import NIOCore
internal import Report
internal import Wire

/// One policy client, an smtpd(8) process: parses its requests, and sends one reply for each.
final class PolicyConnection: ReceivedConnection, LedgerHost.Client {
    static var stage: ProbeStage { .policy }

    private let descriptor: Int32
    private let listener: PolicyListener
    private var isOpen = true
    /// The last turn of the loop that read the connection, or had no room for that.
    private var lastTurn: UInt64 = 0
    /// What this turn of the loop has read, from the beginning of a request. The bytes are in the listener's buffer.
    private var fresh = UnsafeRawBufferPointer(start: nil, count: 0)
    /// The incomplete request of earlier turns. While there is one, new bytes are appended to it and `fresh` is empty.
    private var kept: [UInt8] = []
    /// Bytes that were searched for the end of the request.
    private var searched = 0
    /// The length of the request that waits for its decision; 0 without one.
    private var requestLength = 0
    /// Whether the request waits for the engine.
    private var isSuspended = false
    /// The client has closed its side while the request waits. It gets its answer, and then the connection is closed.
    private var isHalfClosed = false
    /// Whether the received bytes wait for the next turn of the loop.
    private var isInterrupted = false
    /// The values of the request, by the index of their names.
    private var ranges: [Range<Int>] = []
    private var partialSince: NIODeadline?
    /// Sent when the batch is committed.
    private var replies = Replies.none
    /// Bytes that the client has not read yet. Until it has, nothing is read from it.
    private var unsent: [UInt8] = []
    private var transaction: UInt64 = 0
    /// The client sent something that is not a request. Earlier requests are answered, then the connection is closed.
    private var isClosing = false

    /// Most replies are the same and need no memory.
    private enum Replies {
        case none, dunno
        case bytes([UInt8])
    }

    /// Bytes that a client may send while a request waits for the engine.
    private static let mostAhead = 256 << 10

    private static let dunno = Array("action=DUNNO\n\n".utf8)

    init(descriptor: Int32, listener: PolicyListener) {
        self.descriptor = descriptor
        self.listener = listener
    }

    func isReady() {
        guard unsent.isEmpty else { return sendRest() }
        guard isInterrupted else {
            // Nothing more is expected of a client that has closed its side, so it is gone.
            return isHalfClosed ? close() : read()
        }
        (isInterrupted, isHalfClosed) = (false, false)
        listener.host.loop.change(descriptor, to: .reading)
        findRequest()
    }

    private func read() {
        let loop = listener.host.loop
        // Once per turn, even if epoll reports a connection that the loop has called first.
        guard lastTurn != loop.turn else { return }
        lastTurn = loop.turn
        let room = listener.room()
        // epoll reports busy connections in the same order in every turn, so those at the end would never be read.
        guard !room.isEmpty else { return loop.callFirst(descriptor) }
        let count = weir_recv(descriptor, room.baseAddress, room.count)
        guard count > 0 else {
            // 0: the client has closed its side. All complete requests are answered, or wait for the engine.
            if count == 0, isSuspended { return waitForAnswer() }
            if count == 0 || (errno != EAGAIN && errno != EINTR) { close() }
            return
        }
        guard !isClosing else { return }
        let bytes = listener.commit(count, of: room)
        if kept.isEmpty { fresh = bytes } else { kept += bytes }
        guard requestLength == 0 else {
            // A request waits for its decision. Postfix sends the next one only after that.
            if kept.count > Self.mostAhead { close() }
            return
        }
        findRequest()
    }

    private func waitForAnswer() {
        isHalfClosed = true
        listener.host.loop.change(descriptor, to: .nothing)
    }

    private func withReceived<T>(
        _ body: (UnsafeRawBufferPointer) throws(PolicyRequestFault) -> T
    ) throws(PolicyRequestFault) -> T {
        if kept.isEmpty { return try body(fresh) }
        let outcome = kept.withUnsafeBytes { bytes in Result { () throws(PolicyRequestFault) in try body(bytes) } }
        return try outcome.get()
    }

    /// Submits the request at the front of the received bytes when it is complete.
    private func findRequest() {
        do throws(PolicyRequestFault) {
            requestLength = try withReceived { bytes throws(PolicyRequestFault) in
                guard !bytes.isEmpty else { return 0 }
                return try listener.host.parser.parse(bytes, searched: &searched, ranges: &ranges) ?? 0
            }
        } catch {
            isClosing = true
            partialSince = nil
            listener.refused(error, from: peer)
            if case .none = replies { close() }
            return
        }
        if requestLength > 0 {
            partialSince = nil
            if let capture = listener.host.capture { try? withReceived { capture.append($0[..<requestLength]) } }
            if !listener.host.milterCharges.isEmpty { withRequest(listener.host.takeOver) }
            listener.host.submit(self)
        } else {
            keepRest()
            if !kept.isEmpty { partialSince = partialSince ?? .now() }
        }
    }

    /// Copies bytes that are for a later turn, because the listener's buffer is reused in the next one.
    private func keepRest() {
        guard !fresh.isEmpty else { return }
        kept = Array(fresh)
        fresh = UnsafeRawBufferPointer(start: nil, count: 0)
    }

    /// Leaves what was received to the next turn.
    private func interrupt() {
        keepRest()
        isInterrupted = true
        continueInNextTurn()
    }

    private func continueInNextTurn() {
        listener.host.loop.change(descriptor, to: .nothing)
        listener.host.loop.callAgain(descriptor)
    }

    func withRequest(_ body: (Attributes) -> Void) {
        try? withReceived { bytes in
            ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
        }
    }

    /// An smtpd process serves one client after the other, so a new transaction ends the last one, and its charge must
    /// not stand in the way of the new one. VRFY and others belong to no transaction and may come in the middle of one.
    func willBeDecided(in next: UInt64) {
        if next != 0, next != transaction { closeTransaction() }
    }

    /// Nobody waits for the engine's answer any more.
    var isGone: Bool { isSuspended && !isOpen }

    /// Copies what was read, because the listener's buffer is reused in the next turn.
    func suspended() {
        isSuspended = true
        if !fresh.isEmpty { kept = Array(fresh) }
        fresh = UnsafeRawBufferPointer(start: nil, count: 0)
    }

    func decided(_ decision: Decision) {
        if listener.host.keepsSessions { withRequest { listener.host.sessions.note($0) } }
        if kept.isEmpty {
            fresh = UnsafeRawBufferPointer(rebasing: fresh[requestLength...])
        } else {
            kept.removeFirst(requestLength)
        }
        requestLength = 0
        isSuspended = false
        searched = 0
        if decision.transaction != 0 { transaction = decision.transaction }
        guard isOpen else { return closeTransaction() }
        reply(decision.action)
        let hasMore = !kept.isEmpty || !fresh.isEmpty
        if hasMore, listener.host.loop.isTurnOver { interrupt() } else { findRequest() }
    }

    private func reply(_ action: [UInt8]?) {
        var bytes: [UInt8]
        switch (replies, action) {
        case (.none, nil): return replies = .dunno
        case (.none, _): bytes = []
        case (.dunno, _): bytes = Self.dunno
        case (.bytes(let earlier), _): bytes = earlier
        }
        replies = .none
        bytes.appendPolicyReply(action: action ?? Array("DUNNO".utf8))
        replies = .bytes(bytes)
    }

    private func closeTransaction() {
        if transaction != 0 { listener.host.close(transaction) }
        transaction = 0
    }

    func committed() {
        guard isOpen else { return }
        switch replies {
        case .none: return
        case .dunno: send(Self.dunno)
        case .bytes(let bytes): send(bytes)
        }
        replies = .none
        if unsent.isEmpty, isDone { close() }
    }

    /// Whether the connection is closed once all replies are sent.
    private var isDone: Bool { isClosing || (isHalfClosed && requestLength == 0 && !isInterrupted) }

    private func send(_ bytes: [UInt8]) {
        guard unsent.isEmpty else { return unsent += bytes }
        let sent = weir_send(descriptor, bytes, bytes.count)
        guard sent != bytes.count else { return }
        guard sent >= 0 || errno == EAGAIN || errno == EINTR else { return close() }
        unsent = Array(bytes.dropFirst(max(0, sent)))
        listener.host.loop.change(descriptor, to: .writing)
    }

    private func sendRest() {
        let rest = unsent
        unsent = []
        send(rest)
        guard isOpen, unsent.isEmpty else { return }
        if isDone { return close() }
        if isInterrupted { return continueInNextTurn() }
        listener.host.loop.change(descriptor, to: isHalfClosed ? .nothing : .reading)
    }

    /// Closes the connection, even in the middle of a request.
    private func close() {
        guard isOpen else { return }
        isOpen = false
        let (descriptor, listener) = (descriptor, listener)
        listener.closed(descriptor, midRequest: partialSince != nil)
        // When the service stops, the transaction continues with the next process.
        if requestLength == 0 || isSuspended, !listener.isStopping { closeTransaction() }
        listener.host.loop.close(descriptor)
    }

    // MARK: ReceivedConnection

    func begin() {}

    func closeIfIdle() {
        if isIdle { close() }
    }

    func closeAtStop() { close() }

    func checkTime(_ now: NIODeadline) {
        guard let partialSince, now - partialSince > PolicyListener.requestTimeout else { return }
        listener.timedOut()
        close()
    }

    private var peer: String { SocketAddress(ofPeerOf: descriptor)?.text ?? "a policy client" }

    /// Whether closing would lose no part of a request.
    private var isIdle: Bool {
        guard case .none = replies else { return false }
        return kept.isEmpty && unsent.isEmpty && requestLength == 0
    }
}
