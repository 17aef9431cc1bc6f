// SPDX-License-Identifier: Apache-2.0
package import NIOCore
import NIOPosix

/// One connection of a load, including its reconnects: passes bytes to its dialogue and reports answers and losses to
/// the run. Bound to the run's event loop.
package final class LoadConnection<Traffic: LoadTraffic>: ChannelInboundHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    /// An operation without an answer yet.
    struct Outstanding {
        /// When it was due; latency is measured from here.
        let due: NIODeadline
        var sent: NIODeadline
    }

    // The run owns its connections; the caller that waits for its report keeps the run alive.
    private unowned let run: LoadRun<Traffic>
    private var dialogue: Traffic.Dialogue
    /// Nil while not connected.
    private var context: ChannelHandlerContext?
    private var input = ByteBuffer()
    private var output = ByteBuffer()
    private(set) var outstanding: Outstanding?
    /// Whether it has ever been connected.
    private(set) var wasConnected = false

    init(run: LoadRun<Traffic>, dialogue: Traffic.Dialogue) {
        self.run = run
        self.dialogue = dialogue
    }

    var isConnected: Bool { context != nil }

    /// Called with a connected channel that has this connection as its handler.
    package func connected(_ channel: any Channel) throws {
        input.clear()
        dialogue.connected()
        context = try channel.pipeline.syncOperations.context(handler: self)
        wasConnected = true
    }

    /// Starts the operation that was due at `due`.
    func begin(due: NIODeadline, now: NIODeadline) {
        outstanding = Outstanding(due: due, sent: now)
        send()
    }

    /// Sends the outstanding operation again.
    func resend(now: NIODeadline) {
        outstanding?.sent = now
        send()
    }

    /// Closes the connection without reporting it as lost.
    func close() {
        let context = self.context
        self.context = nil
        context?.close(promise: nil)
    }

    /// Gives up the outstanding operation.
    func abandon() {
        outstanding = nil
    }

    private func send() {
        output.clear()
        dialogue.begin(into: &output, at: run.elapsed)
        write()
    }

    private func write() {
        guard output.readableBytes > 0 else { return }
        context?.writeAndFlush(wrapOutboundOut(output), promise: nil)
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard context === self.context else { return }
        if input.readableBytes == 0 {
            input = unwrapInboundIn(data)
        } else {
            input.writeImmutableBuffer(unwrapInboundIn(data))
        }
        do {
            output.clear()
            switch try dialogue.receive(&input, into: &output, at: run.elapsed) {
            case .wait:
                write()
            case .answered:
                write()
                guard let due = outstanding?.due else { return }
                outstanding = nil
                run.answered(by: self, due: due)
            }
        } catch {
            close()
            run.lost(self, error is SessionRefused ? \.refused : \.malformed, reason: error.reason)
        }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        guard context === self.context else { return }
        self.context = nil
        run.lost(self, \.closed, reason: "connection closed by the peer")
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard context === self.context else { return }
        close()
        run.lost(self, \.closed, reason: error.reason)
    }
}

extension LoadConnection {
    /// Opens a channel for this connection.
    func connect(to address: SocketAddress, on eventLoop: any EventLoop, timeout: TimeAmount) -> EventLoopFuture<Void> {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(bound.value) }
            }
            .connect(to: address)
            .flatMapThrowing { try bound.value.connected($0) }
    }
}
