// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
package import NIOCore

/// A connection's socket on a loop: reads and writes that do not wait, and what the loop is asked to tell of it. Belongs
/// to the loop, which watches it for reading at first.
package struct SocketStream {
    package enum Received {
        case bytes
        /// Nothing is there now.
        case nothing
        /// The peer has said all.
        case end
        case failure(Int32)
    }

    package let descriptor: Int32
    private let loop: SocketLoop
    private var interest = SocketLoop.Interest.reading

    package init(_ descriptor: Int32, _ loop: SocketLoop) {
        self.descriptor = descriptor
        self.loop = loop
    }

    /// A socket for a connection from or to `address`.
    package static func open(for address: SocketAddress) throws(IOError) -> Int32 {
        let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let descriptor = socket(Int32(address.protocol.rawValue), Int32(kind), 0)
        guard descriptor >= 0 else { throw IOError(errnoCode: errno, reason: "socket") }
        return descriptor
    }

    /// - Parameter receive: gives room for what has come, and is told how much that is; at least one byte where it is above 0.
    package func read(_ receive: ((UnsafeMutableRawBufferPointer) -> Int) -> Int) -> Received {
        let count = receive { room in
            let count = weir_recv(descriptor, room.baseAddress, room.count)
            return count < 0 ? -Int(errno) : count
        }
        switch count {
        case 1...: return .bytes
        case 0: return .end
        case -Int(EAGAIN), -Int(EINTR): return .nothing
        default: return .failure(Int32(-count))
        }
    }

    /// Sends from the front of `bytes` as much as the peer takes now.
    ///
    /// - Returns: how many went; nil where the connection is broken.
    package func send(_ bytes: inout ByteBuffer) -> Int? {
        let sent = bytes.withUnsafeReadableBytes { bytes in
            let sent = weir_send(descriptor, bytes.baseAddress, bytes.count)
            return sent < 0 ? -Int(errno) : sent
        }
        guard sent >= 0 || sent == -Int(EAGAIN) || sent == -Int(EINTR) else { return nil }
        bytes.moveReaderIndex(forwardBy: max(0, sent))
        return max(0, sent)
    }

    /// Whether nothing can be said to the peer any more. What the loop tells may be of before it was asked for something else.
    package var hasFailed: Bool {
        var query = pollfd(fd: descriptor, events: 0, revents: 0)
        return poll(&query, 1, 0) > 0
    }

    /// Wants of the loop what can be done next.
    package mutating func want(_ wanted: SocketLoop.Interest) {
        guard wanted != interest else { return }
        interest = wanted
        loop.change(descriptor, to: wanted)
    }

    /// Acknowledges what has come by TCP. A peer that writes in small pieces sends each after the acknowledgement of the
    /// last (Nagle): so that goes at once where no answer carries it. The kernel forgets it, and is told again.
    package func acknowledge() {
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_QUICKACK, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    package func close() { loop.close(descriptor) }
}
