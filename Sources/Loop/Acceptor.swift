// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
internal import NIOCore

/// Accepts the clients of one listening socket on one loop. Several loops may share the socket. Belongs to its loop.
final class Acceptor: SocketLoop.Socket {
    private enum State {
        case closed, watching
        /// `accept` has failed, mostly for want of descriptors. The loop would report the socket again at once.
        case pausing
    }

    private let descriptor: Int32
    private let loop: SocketLoop
    /// Takes the system's reason why a client could not be accepted.
    private let failed: (String) -> Void
    private let accepted: (Int32) -> Void
    private var state = State.closed

    /// Clients accepted per turn. A small number spreads the clients over the loops that share the socket.
    private static let mostPerTurn = 8
    private static let pause: TimeAmount = .seconds(1)
    /// The backlog is empty, or the client has disconnected (accept(2)).
    private static let transientErrors = [
        EAGAIN, EINTR, ECONNABORTED, EPROTO, ENOPROTOOPT, ENETDOWN, EHOSTDOWN, ENONET, EHOSTUNREACH, ENETUNREACH,
        EOPNOTSUPP,
    ]

    /// - Parameters:
    ///   - descriptor: a socket that listens already.
    ///   - accepted: takes ownership of a client's socket, which does not block.
    init(
        _ descriptor: Int32, _ loop: SocketLoop, failed: @escaping (String) -> Void,
        accepted: @escaping (Int32) -> Void
    ) {
        self.descriptor = descriptor
        self.loop = loop
        self.failed = failed
        self.accepted = accepted
    }

    func start() throws(IOError) {
        try loop.watch(descriptor, for: .accepting, self)
        state = .watching
    }

    /// Accepts no further clients on this loop. The socket stays open.
    func stop() {
        if case .watching = state { loop.unwatch(descriptor) }
        state = .closed
    }

    func isReady() {
        for _ in 0..<Self.mostPerTurn {
            let client = accept4(descriptor, nil, nil, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
            guard client < 0 else {
                accepted(client)
                continue
            }
            if !Self.transientErrors.contains(errno) { pause() }
            return
        }
    }

    private func pause() {
        failed(String(cString: strerror(errno)))
        loop.unwatch(descriptor)
        state = .pausing
        resumeLater()
    }

    private func resumeLater() {
        loop.schedule(in: Self.pause) { [self] in
            guard case .pausing = state else { return }
            do throws(IOError) { try start() } catch { resumeLater() }
        }
    }
}
