// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
package import NIOCore

/// The socket of a connection on a loop: non-blocking reads and writes, and the events that the loop watches for, which
/// are those of reading at first. Belongs to the loop.
package struct SocketStream {
    package enum Received {
        case bytes
        /// Nothing to read now.
        case nothing
        /// The peer has shut down its side.
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

    /// A non-blocking socket of the family of `address`.
    package static func open(for address: SocketAddress) throws(IOError) -> Int32 {
        let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let descriptor = socket(Int32(address.protocol.rawValue), Int32(kind), 0)
        guard descriptor >= 0 else { throw IOError(errnoCode: errno, reason: "socket") }
        return descriptor
    }

    /// - Parameter receive: calls its argument with a buffer to read into, of at least one byte. The result is the
    ///   number of bytes read, 0 or less if there were none.
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

    /// Sends as much of `bytes` as the socket accepts now, and removes it from the front.
    ///
    /// - Returns: the number of bytes sent; nil if the connection is broken.
    package func send(_ bytes: inout ByteBuffer) -> Int? {
        let sent = bytes.withUnsafeReadableBytes { bytes in
            let sent = weir_send(descriptor, bytes.baseAddress, bytes.count)
            return sent < 0 ? -Int(errno) : sent
        }
        guard sent >= 0 || sent == -Int(EAGAIN) || sent == -Int(EINTR) else { return nil }
        bytes.moveReaderIndex(forwardBy: max(0, sent))
        return max(0, sent)
    }

    /// Whether the connection is broken. An event of the loop may be older than the last change of what it watches for.
    package var hasFailed: Bool {
        var query = pollfd(fd: descriptor, events: 0, revents: 0)
        return poll(&query, 1, 0) > 0
    }

    /// Changes the events that the loop watches for.
    package mutating func want(_ wanted: SocketLoop.Interest) {
        guard wanted != interest else { return }
        interest = wanted
        loop.change(descriptor, to: wanted)
    }

    /// Sends a TCP acknowledgement now (TCP_QUICKACK). A peer that writes small pieces under Nagle's algorithm waits
    /// for it before each piece. The kernel resets the option, so this is called after each read that is not answered.
    package func acknowledge() {
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_QUICKACK, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    package func close() { loop.close(descriptor) }
}
