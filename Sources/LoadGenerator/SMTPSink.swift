// SPDX-License-Identifier: Apache-2.0
import Glibc
package import NIOCore
import NIOPosix

/// An SMTP server that accepts all mail and passes it to `Arrivals`.
package struct SMTPSink: Sendable {
    private let channel: any Channel

    /// - Throws: if the address can't be bound.
    package static func start(
        on eventLoop: any EventLoop, address: SocketAddress, arrivals: NIOLoopBound<Arrivals>
    ) -> EventLoopFuture<SMTPSink> {
        ServerBootstrap(group: eventLoop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: 4096)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 65_536))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(SMTPSinkConnection(arrivals.value))
                }
            }
            .bind(to: address)
            .map(SMTPSink.init)
    }

    package func close() -> EventLoopFuture<Void> { channel.close() }
}

/// One session: accepts every command.
private final class SMTPSinkConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let arrivals: Arrivals
    private var input = ByteBuffer()
    private var replies = ByteBuffer()
    private var envelope = Envelope()
    private var content: [UInt8] = []
    private var isInContent = false
    private var isClosing = false

    private static let longestLine = 65_536
    private static let largestMessage = 256 << 20

    init(_ arrivals: Arrivals) {
        self.arrivals = arrivals
    }

    func channelActive(context: ChannelHandlerContext) {
        replies.writeStaticString("220 sink ESMTP\r\n")
        flush(context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if input.readableBytes == 0 {
            input = unwrapInboundIn(data)
        } else {
            input.writeImmutableBuffer(unwrapInboundIn(data))
        }
        input.readWithUnsafeReadableBytes { handleLines($0) }
        let isOversized = input.readableBytes > Self.longestLine || content.count > Self.largestMessage
        flush(context)
        if isClosing || isOversized { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    private func flush(_ context: ChannelHandlerContext) {
        guard replies.readableBytes > 0 else { return }
        context.writeAndFlush(wrapOutboundOut(replies), promise: nil)
        replies.clear()
    }

    /// - Returns: the number of bytes consumed.
    private func handleLines(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let base = bytes.baseAddress else { return 0 }
        var start = 0
        while start < bytes.count, let found = memchr(base + start, 0x0a, bytes.count - start) {
            let end = found - UnsafeMutableRawPointer(mutating: base) + 1
            let line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            if isInContent { handleContent(line) } else { handleCommand(line) }
            start = end
        }
        return start
    }

    private func handleContent(_ line: UnsafeRawBufferPointer) {
        guard line[0] == UInt8(ascii: ".") else { return content.append(contentsOf: line) }
        guard line.count == 3, line[1] == UInt8(ascii: "\r") else {
            return content.append(contentsOf: line.dropFirst())
        }
        isInContent = false
        content.withUnsafeBytes { arrivals.arrived($0, envelope) }
        content.removeAll(keepingCapacity: content.capacity <= 1 << 20)
        replies.writeStaticString("250 2.0.0 accepted\r\n")
    }

    private func handleCommand(_ line: UnsafeRawBufferPointer) {
        let word = String(decoding: line.prefix { $0 > 0x20 }, as: UTF8.self).uppercased()
        switch word {
        case "EHLO":
            replies.writeStaticString(
                "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n")
        case "MAIL":
            envelope = Envelope(sender: Self.path(in: line))
            replies.writeStaticString("250 2.1.0 ok\r\n")
        case "RCPT":
            envelope.recipients.append(Self.path(in: line))
            replies.writeStaticString("250 2.1.5 ok\r\n")
        case "DATA":
            isInContent = true
            replies.writeStaticString("354 go on\r\n")
        case "QUIT":
            isClosing = true
            replies.writeStaticString("221 2.0.0 bye\r\n")
        default: replies.writeStaticString("250 2.0.0 ok\r\n")
        }
    }

    /// The address between the angle brackets.
    private static func path(in line: UnsafeRawBufferPointer) -> [UInt8] {
        Array(line.drop { $0 != UInt8(ascii: "<") }.dropFirst().prefix { $0 != UInt8(ascii: ">") })
    }
}
