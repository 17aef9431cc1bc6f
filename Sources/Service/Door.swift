// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
internal import NIOCore

/// A socket that clients connect to, at one of the loops that accept them. Belongs to that loop.
final class Door: SocketLoop.Socket {
    let descriptor: Int32
    private let loop: SocketLoop
    private let clients: String
    private let log: EventLog
    private let accepted: (Int32) -> Void
    private var isOpen = false
    private var isPausing = false

    /// Accepted in one turn; few, so that loops which share the socket share the clients.
    private static let most = 8
    /// After a client could not be accepted, mostly because descriptors have run out: it would be told again at once.
    private static let pause: TimeAmount = .seconds(1)
    private static let backlog: Int32 = 4096
    /// Nobody is left in the queue, or who was is gone (accept(2)).
    private static let passing = [
        EAGAIN, EINTR, ECONNABORTED, EPROTO, ENOPROTOOPT, ENETDOWN, EHOSTDOWN, ENONET, EHOSTUNREACH, ENETUNREACH,
        EOPNOTSUPP,
    ]

    /// - Parameters:
    ///   - descriptor: listens already.
    ///   - clients: what those who come are called in the log.
    ///   - accepted: takes a client's socket, which does not block, and closes it.
    init(_ descriptor: Int32, _ loop: SocketLoop, clients: String, log: EventLog, accepted: @escaping (Int32) -> Void) {
        self.descriptor = descriptor
        self.loop = loop
        self.clients = clients
        self.log = log
        self.accepted = accepted
    }

    static func listen(_ descriptor: Int32) throws(IOError) {
        guard Glibc.listen(descriptor, backlog) == 0 else { throw IOError(errnoCode: errno, reason: "listen") }
    }

    func open() throws(IOError) {
        try loop.watch(descriptor, for: .accepting, self)
        isOpen = true
    }

    /// Nobody comes in any more by this loop. The socket stays open.
    func shut() {
        guard isOpen else { return }
        isOpen = false
        if !isPausing { loop.unwatch(descriptor) }
    }

    func isReady() {
        for _ in 0..<Self.most {
            let client = accept4(descriptor, nil, nil, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
            guard client < 0 else {
                accepted(client)
                continue
            }
            if !Self.passing.contains(errno) { takeBreath() }
            return
        }
    }

    private func takeBreath() {
        log.complain(.tooManyConnections, "can't accept \(clients): \(String(cString: strerror(errno)))")
        loop.unwatch(descriptor)
        isPausing = true
        goOnLater()
    }

    private func goOnLater() {
        loop.schedule(in: Self.pause) { [self] in
            guard isOpen else { return }
            do {
                try loop.watch(descriptor, for: .accepting, self)
                isPausing = false
            } catch {
                goOnLater()
            }
        }
    }
}
