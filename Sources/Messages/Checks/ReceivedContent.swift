// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
package import Loop
package import NIOCore
package import NIOPosix
internal import Synchronization

/// The content of one message: in memory while it is small and there is room, else in a spool file. The file has no
/// name, so a crash leaves nothing behind. Belongs to one loop; disk threads read and write the file.
package final class ReceivedContent {
    package enum Failure: Equatable {
        /// Larger than the next hop accepts.
        case tooLarge
        /// The bound of all messages is reached, or the disk is full.
        case noRoom(String)
    }

    /// The memory of one message, in bytes; larger messages are spooled.
    private static let mostInMemory = 256 << 10
    /// The size of one write to the spool file.
    private static let pieceSize = 64 << 10
    /// The granularity of accounting for memory.
    private static let step = 16 << 10

    private static let threadsHaveEnded = "can't write to a spool file: the service stops"

    private let bounds: ContentBounds
    private let threads: NIOThreadPool
    private let loop: SocketLoop

    /// All content, or if it is spooled the part that is not written yet. New content is appended.
    package var buffer = ByteBuffer()
    /// Bytes of `buffer` that `withNewBytes` has returned.
    private var seen = 0
    private var most = Int.max
    private var file: SpoolFile?
    /// Bytes in the spool file.
    private var spooled = 0
    private var memory = 0
    private(set) var count = 0
    package private(set) var failure: Failure?
    /// Whether a write is in progress. Until it is done, nothing may be appended.
    private(set) var isWriting = false
    /// When the read or write in progress began; nil while the disk is idle.
    private(set) var atDiskSince: NIODeadline?
    /// The duration of earlier reads and writes of this message.
    private(set) var timeAtDisk = TimeAmount.zero
    /// Counts reads and writes. One for an earlier message may end during one for the next message.
    private var diskWork = 0

    package init(bounds: ContentBounds, threads: NIOThreadPool, loop: SocketLoop) {
        self.bounds = bounds
        self.threads = threads
        self.loop = loop
    }

    deinit { reset() }

    /// - Parameter most: the bytes that the next hop accepts.
    package func begin(most: Int) {
        reset()
        self.most = most
        buffer.clear(minimumCapacity: 8 << 10)
    }

    /// Releases everything. The spool file is closed after a read or write in progress.
    package func reset() {
        bounds.release(memory: memory)
        (memory, spooled, count, seen, file, failure) = (0, 0, 0, 0, nil, nil)
        (atDiskSince, timeAtDisk) = (nil, .zero)
        diskWork += 1
        buffer = ByteBuffer()
    }

    var isSpooled: Bool { file != nil }

    /// Passes on what was appended since the last call.
    package func withNewBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        guard buffer.readableBytes > seen else { return }
        count += buffer.readableBytes - seen
        if count > most { failure = failure ?? .tooLarge }
        if failure == nil {
            buffer.withUnsafeReadableBytes { body(UnsafeRawBufferPointer(rebasing: $0[seen...])) }
        }
        seen = buffer.readableBytes
    }

    /// After content was appended: decides between memory and spool, and starts a write if enough is waiting.
    ///
    /// - Parameters:
    ///   - isEnd: whether the content is complete.
    ///   - whenWritten: called after the write, if there is one to wait for.
    /// - Returns: whether the caller must wait for `whenWritten`.
    package func spoolIfNeeded(isEnd: Bool, whenWritten: @escaping () -> Void) -> Bool {
        guard failure == nil else {
            drop()
            return false
        }
        if file == nil {
            guard !fitsMemory() else { return false }
            file = SpoolFile(bounds, threads)
        }
        guard let file else { return false }
        guard buffer.readableBytes >= Self.pieceSize || isEnd && buffer.readableBytes > 0 else { return false }
        return writePiece(to: file, whenWritten)
    }

    private func drop() {
        buffer.clear()
        seen = 0
        bounds.release(memory: memory)
        memory = 0
    }

    private func fitsMemory() -> Bool {
        guard buffer.readableBytes <= Self.mostInMemory else { return false }
        guard buffer.readableBytes > memory else { return true }
        let more = (buffer.readableBytes - memory + Self.step - 1) / Self.step * Self.step
        guard bounds.reserveMemory(more) else { return false }
        memory += more
        return true
    }

    private func writePiece(to file: SpoolFile, _ whenWritten: @escaping () -> Void) -> Bool {
        let piece = buffer
        guard file.reserve(piece.readableBytes) else {
            failure = .noRoom("the spool is full")
            drop()
            return false
        }
        buffer = ByteBuffer()
        seen = 0
        bounds.release(memory: memory)
        memory = 0
        isWriting = true
        let offset = spooled
        spooled += piece.readableBytes
        atDisk {
            file.write(piece, at: offset)
        } then: { [self] outcome in
            isWriting = false
            if let fault = outcome ?? Self.threadsHaveEnded { failure = .noRoom(fault) }
            killPoint("spool-written")
            whenWritten()
        }
        return true
    }

    /// - Parameter then: called on the loop; with nil if the disk threads have ended.
    private func atDisk<Outcome: Sendable>(
        _ work: @escaping @Sendable () -> Outcome, then: @escaping (Outcome?) -> Void
    ) {
        let since = NIODeadline.now()
        diskWork += 1
        atDiskSince = since
        let callback = LoopCallback<Outcome?>(loop) { [self, diskWork] outcome in
            if diskWork == self.diskWork {
                atDiskSince = nil
                timeAtDisk = timeAtDisk + (.now() - since)
            }
            then(outcome)
        }
        threads.submit { state in
            let outcome: Outcome? = if case .active = state { work() } else { nil }
            callback.call(outcome)
        }
    }

    /// Reads from the spool file.
    func read(_ range: Range<Int>, then: @escaping (Result<ByteBuffer, IOError>) -> Void) {
        guard let file else { preconditionFailure("content that is in memory") }
        atDisk { () -> Result<ByteBuffer, IOError> in
            Result { () throws(IOError) in try file.read(range) }
        } then: { outcome in
            then(outcome ?? .failure(IOError(errnoCode: ECANCELED, reason: "pread")))
        }
    }
}

/// A file without a name, with its part of the common bound. Each read or write retains it: a closed descriptor could
/// be another message's file by then. Opening and closing may wait for the disk, so they are done by disk threads.
private final class SpoolFile: Sendable {
    /// -1 before the first write.
    private let descriptor = Atomic<Int32>(-1)
    private let bounds: ContentBounds
    private let threads: NIOThreadPool
    private let reserved = Atomic(0)

    /// O_TMPFILE, a macro that Swift does not import (asm-generic/fcntl.h).
    private static let temporaryFile = 0o20000000 | O_DIRECTORY

    init(_ bounds: ContentBounds, _ threads: NIOThreadPool) {
        self.bounds = bounds
        self.threads = threads
    }

    deinit {
        let descriptor = descriptor.load(ordering: .relaxed)
        if descriptor >= 0 { threads.submit { _ in close(descriptor) } }
        bounds.release(spool: reserved.load(ordering: .relaxed))
    }

    /// Reserves room for more bytes; false if the spool is full.
    func reserve(_ count: Int) -> Bool {
        guard bounds.reserveSpool(count) else { return false }
        reserved.add(count, ordering: .relaxed)
        return true
    }

    /// One write at a time; the first opens the file.
    ///
    /// - Returns: what failed, if anything did.
    func write(_ piece: ByteBuffer, at offset: Int) -> String? {
        defer { withExtendedLifetime(self) {} }
        if descriptor.load(ordering: .relaxed) < 0 {
            let opened = open(bounds.directory, Self.temporaryFile | O_RDWR | O_CLOEXEC, 0o600)
            guard opened >= 0 else { return fault("create", errno) }
            descriptor.store(opened, ordering: .relaxed)
        }
        let descriptor = descriptor.load(ordering: .relaxed)
        return piece.withUnsafeReadableBytes { bytes in
            var written = 0
            while written < bytes.count {
                let count = pwrite(
                    descriptor, bytes.baseAddress! + written, bytes.count - written, off_t(offset + written))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return fault("write to", count == 0 ? EIO : errno) }
                written += count
            }
            return nil
        }
    }

    private func fault(_ action: String, _ code: Int32) -> String {
        "can't \(action) a spool file in \(bounds.directory): \(String(cString: strerror(code)))"
    }

    func read(_ range: Range<Int>) throws(IOError) -> ByteBuffer {
        defer { withExtendedLifetime(self) {} }
        let descriptor = descriptor.load(ordering: .relaxed)
        var bytes = ByteBuffer()
        var code: Int32 = 0
        bytes.writeWithUnsafeMutableBytes(minimumWritableBytes: range.count) { pointer in
            var read = 0
            while read < range.count, code == 0 {
                let count = pread(
                    descriptor, pointer.baseAddress! + read, range.count - read, off_t(range.lowerBound + read))
                if count > 0 { read += count } else if count == 0 || errno != EINTR { code = count == 0 ? EIO : errno }
            }
            return read
        }
        guard code == 0 else { throw IOError(errnoCode: code, reason: "pread") }
        return bytes
    }
}
