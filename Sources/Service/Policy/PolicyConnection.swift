// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import NIOCore
internal import Wire

/// One policy client (an smtpd process): feeds its bytes to the parser, and sends one reply for each request.
final class PolicyConnection: ChannelInboundHandler, LedgerHost.Client {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let listener: PolicyListener
    private var context: ChannelHandlerContext?
    /// What has come and is not answered yet, from the beginning of a request.
    private var received: ByteBuffer?
    /// How much of it has been searched for the end of the request.
    private var searched = 0
    /// The length of the request that waits to be decided; 0: none does.
    private var requestLength = 0
    /// Its values, by the index of their names.
    private var ranges: [Range<Int>] = []
    private(set) var partialSince: NIODeadline?
    /// Replies that go out when the batch is kept.
    private var replies: ByteBuffer?
    private var transaction: UInt64 = 0
    /// Something came that is no request: what came before is answered, and that is all.
    private var isClosing = false
    /// The client has shut down its side; what it has asked is answered.
    private var isInputClosed = false

    private static let dunno: ByteBuffer = {
        var buffer = ByteBuffer()
        buffer.writePolicyReply(action: "DUNNO".utf8)
        return buffer
    }()

    init(listener: PolicyListener) {
        self.listener = listener
    }

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        listener.opened(self, context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.context = nil
        listener.closed(self, midRequest: partialSince != nil)
        if requestLength == 0 { closeTransaction() }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if received == nil {
            received = bytes
        } else {
            received?.writeBuffer(&bytes)
        }
        if requestLength == 0, !isClosing { findRequest() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case ChannelEvent.inputClosed = event else { return context.fireUserInboundEventTriggered(event) }
        isInputClosed = true
        if requestLength == 0, replies == nil { close() }
    }

    /// A client that does not read its answers is not read from either.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        context.channel.setOption(.autoRead, value: context.channel.isWritable).assumeIsolated().whenFailure { _ in
            context.close(promise: nil)
        }
    }

    /// Hands the request at the front of what has come to the host, once its end has come.
    private func findRequest() {
        do {
            requestLength = try parse() ?? 0
        } catch {
            isClosing = true
            partialSince = nil
            if let context { listener.refused(error, from: context) }
            if replies == nil { close() }
            return
        }
        if requestLength > 0 {
            partialSince = nil
            if let capture = listener.host.capture, let received { capture.append(received.readableBytesView.prefix(requestLength)) }
            listener.host.submit(self)
        } else if received?.readableBytes ?? 0 > 0 {
            received?.discardReadBytes()
            partialSince = partialSince ?? .now()
        } else {
            received = nil
        }
    }

    private func parse() throws(PolicyRequestFault) -> Int? {
        let outcome = received?.withUnsafeReadableBytes { bytes in
            Result { () throws(PolicyRequestFault) -> Int? in
                guard !bytes.isEmpty else { return nil }
                return try listener.host.parser.parse(bytes, searched: &searched, ranges: &ranges)
            }
        }
        return try outcome?.get()
    }

    func withRequest(_ body: (Attributes) -> Void) {
        received?.withUnsafeReadableBytes { bytes in
            ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
        }
    }

    func take(_ decision: Decision) {
        if listener.host.keepsSessions { withRequest { listener.host.sessions.note($0) } }
        received?.moveReaderIndex(forwardBy: requestLength)
        requestLength = 0
        searched = 0
        // One smtpd process serves one client after the other: another transaction means that the last one is over.
        if transaction != decision.transaction { closeTransaction() }
        transaction = decision.transaction
        guard context != nil else { return closeTransaction() }
        if replies == nil, decision.action == nil {
            replies = Self.dunno
        } else {
            var buffer = replies.take() ?? ByteBuffer()
            if let action = decision.action {
                buffer.writePolicyReply(action: action)
            } else {
                buffer.writePolicyReply(action: "DUNNO".utf8)
            }
            replies = buffer
        }
        findRequest()
    }

    private func closeTransaction() {
        if transaction != 0 { listener.host.close(transaction) }
        transaction = 0
    }

    func release() {
        guard let replies = replies.take(), let context else { return }
        guard isClosing || isInputClosed else {
            return context.writeAndFlush(wrapOutboundOut(replies), promise: nil)
        }
        context.writeAndFlush(wrapOutboundOut(replies)).assumeIsolated().whenComplete { _ in context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Resets and time-outs of the peer; what matters of them shows in channelInactive.
        context.close(promise: nil)
    }

    /// Ends a request that has been coming for too long, or a connection at the end of the service.
    func close() {
        context?.close(promise: nil)
    }

    /// Nothing of a request has come that would be lost.
    var isIdle: Bool { received == nil && replies == nil }
}
