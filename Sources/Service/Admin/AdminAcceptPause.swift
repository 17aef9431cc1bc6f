// SPDX-License-Identifier: Apache-2.0
internal import Loop
internal import NIOCore
internal import Report

/// Stops accepting for a second if `accept` fails, mostly for want of descriptors.
///
/// SwiftNIO's own `AcceptBackoffHandler` does not stop the second time: a failed `accept` leaves the read pending, and
/// epoll reports the waiting client without end.
final class AdminAcceptPause: ChannelInboundHandler {
    typealias InboundIn = any Channel

    private let log: EventLog
    private var isPausing = false

    private static let pause: TimeAmount = .seconds(1)

    init(_ log: EventLog) {
        self.log = log
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let options = context.channel.syncOptions
        // Only a change from true to false takes the socket out of epoll.
        try? options?.setOption(.autoRead, value: true)
        try? options?.setOption(.autoRead, value: false)
        guard !isPausing else { return }
        isPausing = true
        log.complain(
            .tooManyAdminConnections,
            "can't accept connections to the admin listener: \(error.systemReason); trying again in a second")
        context.eventLoop.assumeIsolated().scheduleTask(in: Self.pause) {
            self.isPausing = false
            try? options?.setOption(.autoRead, value: true)
        }
    }
}
