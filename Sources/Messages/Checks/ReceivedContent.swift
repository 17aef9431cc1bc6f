// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore
package import NIOPosix
internal import Synchronization

/// The content of one message as it comes in: in memory while it is small and there is room, else in a spool file that
/// has no name, so that nothing is left of it whatever happens. Belongs to one loop; the disk is another thread's.
package final class ReceivedContent {
    package enum Failure: Equatable {
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
    private let home: Home

    /// Runs a task on the loop that the content belongs to.
    package typealias Home = @Sendable (_ task: @escaping @Sendable () -> Void) -> Void

    /// All of the content, or where it is spooled what was not written yet. What comes next is appended.
    package var buffer = ByteBuffer()
    /// Bytes of `buffer` that `takeNew` has given.
    private var seen = 0
    private var most = Int.max
    private var file: SpoolFile?
    /// Bytes in the spool file.
    private var spooled = 0
    private var memory = 0
    private(set) var count = 0
    package private(set) var failure: Failure?
    /// The disk is at work: nothing may be appended.
    private(set) var isWriting = false

    package init(bounds: ContentBounds, threads: NIOThreadPool, home: @escaping Home) {
        self.bounds = bounds
        self.threads = threads
        self.home = home
    }

    deinit { reset() }

    /// - Parameter most: bytes that the next hop takes.
    package func begin(most: Int) {
        reset()
        self.most = most
        buffer.clear(minimumCapacity: 8 << 10)
    }

    /// Gives everything back; the spool file goes once nothing reads or writes it.
    package func reset() {
        bounds.giveBack(memory: memory)
        (memory, spooled, count, seen, file, failure) = (0, 0, 0, 0, nil, nil)
        buffer = ByteBuffer()
    }

    var isSpooled: Bool { file != nil }

    /// Shows what was appended since the last time.
    package func takeNew(_ body: (UnsafeRawBufferPointer) -> Void) {
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
    /// - Parameters:
    ///   - isEnd: no more content comes.
    ///   - whenWritten: called once the disk has it, where that has to be waited for.
    /// - Returns: whether it has to be.
    package func settle(isEnd: Bool, whenWritten: @escaping () -> Void) -> Bool {
        guard failure == nil else {
            drop()
            return false
        }
        if file == nil {
            guard !fitsMemory() else { return false }
            openSpool()
        }
        guard let file else {
            drop()
            return false
        }
        guard buffer.readableBytes >= Self.pieceSize || isEnd && buffer.readableBytes > 0 else { return false }
        return writePiece(to: file, whenWritten)
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
        // A moment of the loop, as against the write(2)s of content.
        let descriptor = open(bounds.directory, Self.temporaryFile | O_RDWR | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return fail("can't make a spool file in \(bounds.directory)", errno) }
        file = SpoolFile(descriptor, bounds)
    }

    private func writePiece(to file: SpoolFile, _ whenWritten: @escaping () -> Void) -> Bool {
        let piece = buffer
        guard file.take(piece.readableBytes) else {
            failure = .noRoom("the spool is full")
            drop()
            return false
        }
        buffer = ByteBuffer()
        seen = 0
        bounds.giveBack(memory: memory)
        memory = 0
        isWriting = true
        let offset = spooled
        spooled += piece.readableBytes
        atDisk {
            file.write(piece, at: offset)
        } then: { [self] code in
            isWriting = false
            let code = code ?? ECANCELED
            if code != 0 { fail("can't write to a spool file in \(bounds.directory)", code) }
            whenWritten()
        }
        return true
    }

    /// - Parameter then: called at home; with nil where the service has no threads for the disk any more.
    private func atDisk<Outcome: Sendable>(
        _ work: @escaping @Sendable () -> Outcome, then: @escaping (Outcome?) -> Void
    ) {
        let errand = Errand(then)
        threads.submit { [home] state in
            let outcome: Outcome? = if case .active = state { work() } else { nil }
            home { errand.take()?(outcome) }
        }
    }

    private func fail(_ what: String, _ code: Int32) {
        failure = .noRoom("\(what): \(String(cString: strerror(code)))")
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

/// What goes on at home once the disk is done. Sendable, unchecked: only made and taken on the content's loop, and empty
/// by the time another thread may be the last to hold it.
private final class Errand<Outcome>: @unchecked Sendable {
    private var then: ((Outcome?) -> Void)?

    init(_ then: @escaping (Outcome?) -> Void) { self.then = then }

    func take() -> ((Outcome?) -> Void)? {
        defer { then = nil }
        return then
    }
}

/// A file without a name, and what it takes of the bound of all. Whoever reads or writes it holds it: a descriptor that
/// is closed meanwhile may be another message's file by then.
private final class SpoolFile: Sendable {
    private let descriptor: Int32
    private let bounds: ContentBounds
    private let taken = Atomic(0)

    init(_ descriptor: Int32, _ bounds: ContentBounds) {
        self.descriptor = descriptor
        self.bounds = bounds
    }

    deinit {
        close(descriptor)
        bounds.giveBack(spool: taken.load(ordering: .relaxed))
    }

    /// Takes room for so many bytes more.
    func take(_ count: Int) -> Bool {
        guard bounds.takeSpool(count) else { return false }
        taken.add(count, ordering: .relaxed)
        return true
    }

    /// 0, or the error.
    func write(_ piece: ByteBuffer, at offset: Int) -> Int32 {
        defer { withExtendedLifetime(self) {} }
        return piece.withUnsafeReadableBytes { bytes in
            var written = 0
            while written < bytes.count {
                let count = pwrite(
                    descriptor, bytes.baseAddress! + written, bytes.count - written, off_t(offset + written))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return count == 0 ? EIO : errno }
                written += count
            }
            return 0
        }
    }

    func read(_ range: Range<Int>) throws(IOError) -> ByteBuffer {
        defer { withExtendedLifetime(self) {} }
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
