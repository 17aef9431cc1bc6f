// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import NIOCore
internal import NIOPosix

/// The content of one message as it comes in: in memory while it is small and there is room, else in a spool file that
/// has no name, so that nothing is left of it whatever happens. Belongs to one event loop; the disk is another thread's.
final class ReceivedContent {
    enum Failure: Equatable {
        /// Larger than the next hop takes.
        case tooLarge
        /// The bound of all messages together, or the disk.
        case noRoom(String)
    }

    /// A message may take so much memory.
    private static let mostInMemory = 256 << 10
    /// What has been spooled goes to the disk in pieces of this size.
    private static let pieceSize = 64 << 10
    /// Memory is accounted for in steps.
    private static let step = 16 << 10

    /// O_TMPFILE, a macro that Swift does not import (asm-generic/fcntl.h).
    private static let temporaryFile = 0o20000000 | O_DIRECTORY

    private let bounds: ContentBounds
    private let threads: NIOThreadPool
    private let eventLoop: any EventLoop

    /// All of the content, or where it is spooled what was not written yet. What comes next is appended.
    var buffer = ByteBuffer()
    /// Bytes of `buffer` that `takeNew` has given.
    private var seen = 0
    private var most = Int.max
    private var descriptor: Int32 = -1
    /// Bytes in the spool file.
    private var spooled = 0
    private var memory = 0
    private var spoolTaken = 0
    private(set) var count = 0
    private(set) var failure: Failure?
    /// The disk is at work: nothing may be appended.
    private(set) var isWriting = false

    init(bounds: ContentBounds, threads: NIOThreadPool, eventLoop: any EventLoop) {
        self.bounds = bounds
        self.threads = threads
        self.eventLoop = eventLoop
    }

    deinit { reset() }

    /// - Parameter most: bytes that the next hop takes.
    func begin(most: Int) {
        reset()
        self.most = most
        buffer.clear(minimumCapacity: 8 << 10)
    }

    /// Gives everything back.
    func reset() {
        bounds.giveBack(memory: memory)
        bounds.giveBack(spool: spoolTaken)
        if descriptor >= 0 { close(descriptor) }
        (memory, spoolTaken, spooled, count, seen, descriptor, failure) = (0, 0, 0, 0, 0, -1, nil)
        buffer = ByteBuffer()
    }

    var isSpooled: Bool { descriptor >= 0 }

    /// Shows what was appended since the last time.
    func takeNew(_ body: (UnsafeRawBufferPointer) -> Void) {
        guard buffer.readableBytes > seen else { return }
        count += buffer.readableBytes - seen
        if count > most { failure = failure ?? .tooLarge }
        if failure == nil {
            buffer.withUnsafeReadableBytes { body(UnsafeRawBufferPointer(rebasing: $0[seen...])) }
        }
        seen = buffer.readableBytes
    }

    /// Makes room after content was appended.
    ///
    /// - Parameter isEnd: no more content comes.
    /// - Returns: nil where nothing has to be waited for.
    func settle(isEnd: Bool) -> EventLoopFuture<Void>? {
        guard failure == nil else {
            drop()
            return nil
        }
        if !isSpooled {
            guard !fitsMemory() else { return nil }
            openSpool()
        }
        guard failure == nil else {
            drop()
            return nil
        }
        guard buffer.readableBytes >= Self.pieceSize || isEnd && buffer.readableBytes > 0 else { return nil }
        return writePiece()
    }

    private func drop() {
        buffer.clear()
        seen = 0
        bounds.giveBack(memory: memory)
        memory = 0
    }

    private func fitsMemory() -> Bool {
        guard buffer.readableBytes <= Self.mostInMemory else { return false }
        guard buffer.readableBytes > memory else { return true }
        let more = (buffer.readableBytes - memory + Self.step - 1) / Self.step * Self.step
        guard bounds.takeMemory(more) else { return false }
        memory += more
        return true
    }

    private func openSpool() {
        // A file that never had a name; a moment of the event loop, as against the write(2)s of content.
        descriptor = open(bounds.directory, Self.temporaryFile | O_RDWR | O_CLOEXEC, 0o600)
        if descriptor < 0 { fail("can't make a spool file in \(bounds.directory)", errno) }
    }

    private func writePiece() -> EventLoopFuture<Void>? {
        let piece = buffer
        guard bounds.takeSpool(piece.readableBytes) else {
            failure = .noRoom("the spool is full")
            drop()
            return nil
        }
        spoolTaken += piece.readableBytes
        buffer = ByteBuffer()
        seen = 0
        bounds.giveBack(memory: memory)
        memory = 0
        isWriting = true
        let (descriptor, offset) = (descriptor, spooled)
        spooled += piece.readableBytes
        return threads.runIfActive(eventLoop: eventLoop) { Self.write(piece, to: descriptor, at: offset) }
            .assumeIsolated().map { [self] code in
                isWriting = false
                if code != 0 { fail("can't write to a spool file in \(bounds.directory)", code) }
            }.nonisolated()
    }

    private func fail(_ what: String, _ code: Int32) {
        failure = .noRoom("\(what): \(String(cString: strerror(code)))")
    }

    /// 0, or the error.
    private static func write(_ piece: ByteBuffer, to descriptor: Int32, at offset: Int) -> Int32 {
        piece.withUnsafeReadableBytes { bytes in
            var written = 0
            while written < bytes.count {
                let count = pwrite(descriptor, bytes.baseAddress! + written, bytes.count - written, off_t(offset + written))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return count == 0 ? EIO : errno }
                written += count
            }
            return 0
        }
    }

    /// Reads from the spool file.
    func read(_ range: Range<Int>) -> EventLoopFuture<ByteBuffer> {
        let descriptor = descriptor
        return threads.runIfActive(eventLoop: eventLoop) {
            var bytes = ByteBuffer()
            try bytes.writeWithUnsafeMutableBytes(minimumWritableBytes: range.count) { pointer in
                var read = 0
                while read < range.count {
                    let count = pread(descriptor, pointer.baseAddress! + read, range.count - read, off_t(range.lowerBound + read))
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { throw IOError(errnoCode: count == 0 ? EIO : errno, reason: "pread") }
                    read += count
                }
                return read
            }
            return bytes
        }
    }
}
