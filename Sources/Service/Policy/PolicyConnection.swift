// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import NIOCore
internal import Wire

/// One policy client (an smtpd process): feeds its bytes to the parser, and sends one reply for each request.
final class PolicyConnection: ChannelInboundHandler, LedgerHost.Awaiting {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let listener: PolicyListener
    private var context: ChannelHandlerContext?
    /// The beginning of a request whose end has not come yet.
    private var partial: ByteBuffer?
    private var searched = 0
    private(set) var partialSince: NIODeadline?
    /// Replies that go out when the batch is kept.
    private var replies: ByteBuffer?
    private var transaction: UInt64 = 0

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
        replies = nil
        listener.closed(self, midRequest: partial != nil)
        if transaction != 0 { listener.host.close(transaction) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        if var earlier = partial.take() {
            earlier.writeBuffer(&buffer)
            buffer = earlier
        }
        do {
            while buffer.readableBytes > 0, try answerNext(&buffer) {}
        } catch {
            listener.refused(error, from: context)
            context.close(promise: nil)
            return
        }
        if buffer.readableBytes > 0 {
            buffer.discardReadBytes()
            partial = buffer
            partialSince = partialSince ?? .now()
        } else {
            partialSince = nil
        }
    }

    /// Decides the request at the front of the buffer; false where its end has not come yet.
    private func answerNext(_ buffer: inout ByteBuffer) throws(PolicyRequestFault) -> Bool {
        let outcome = buffer.withUnsafeReadableBytes { bytes in
            Result { () throws(PolicyRequestFault) -> Int? in
                guard let length = try listener.parser.parse(bytes, searched: &searched) else { return nil }
                listener.parser.ranges.withUnsafeBufferPointer { ranges in
                    answer(Attributes(bytes: bytes, ranges: ranges))
                }
                return length
            }
        }
        guard let length = try outcome.get() else { return false }
        buffer.moveReaderIndex(forwardBy: length)
        searched = 0
        return true
    }

    private func answer(_ request: Attributes) {
        let decision = listener.host.decide(request, for: self, isAwaiting: replies != nil)
        // One smtpd process serves one client after the other: another transaction means that the last one is over.
        if transaction != 0, transaction != decision.transaction { listener.host.close(transaction) }
        transaction = decision.transaction
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
    }

    func release() {
        guard let replies = replies.take() else { return }
        context?.writeAndFlush(wrapOutboundOut(replies), promise: nil)
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
    var isIdle: Bool { partial == nil && replies == nil }
}
