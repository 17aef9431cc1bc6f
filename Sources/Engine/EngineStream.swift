// SPDX-License-Identifier: Apache-2.0
internal import CHiredis
internal import Glibc
internal import Loop
internal import NIOCore
internal import Sharing

/// A connection to the engine on which replies and messages of channels come in any number. libhiredis parses and
/// writes. Its interface for event loops is left out here: it aborts the process at a message that is none.
///
/// Belongs to the loop.
final class EngineStream: SocketLoop.Socket {
    private let loop: SocketLoop
    private let received: (EngineReply) -> Void
    /// The connection is closed, for this reason.
    private let failed: (EngineFault) -> Void
    /// nil when closed.
    private var context: UnsafeMutablePointer<redisContext>?
    private var descriptor: Int32 = -1
    /// Bytes since the kernel has last taken all of them.
    private var unsent = 0
    private var isWriting = false
    /// Reads that brought something, since the last reply, of at most 16 KiB each.
    private var reads = 0

    private static let mostUnsent = 16 << 20

    init(loop: SocketLoop, received: @escaping (EngineReply) -> Void, failed: @escaping (EngineFault) -> Void) {
        self.loop = loop
        self.received = received
        self.failed = failed
    }

    /// Begins to connect, and keeps what is sent until then.
    ///
    /// - Parameter place: a server, not Sentinel.
    func connect(to place: EngineAddress.Place) {
        loop.assertInLoop()
        let made: UnsafeMutablePointer<redisContext>? =
            switch place {
            case .inet(let server): redisConnectNonBlock(server.host, Int32(server.port))
            case .unix(let path): redisConnectUnixNonBlock(path)
            case .sentinel: nil
            }
        guard let made else { return failed(EngineFault(.unreachable, "out of memory")) }
        guard made.pointee.err == 0 else {
            let fault = EngineFault(error: made)
            redisFree(made)
            return failed(fault)
        }
        weir_bound_arrays(made.pointee.reader, EngineConnection.mostElements)
        // A firewall may forget a silent connection. Without this, no end ever learns of it.
        if case .inet = place { redisEnableKeepAlive(made) }
        descriptor = Int32(made.pointee.fd)
        guard (try? loop.watch(descriptor, for: .readingAndWriting, self)) != nil else {
            redisFree(made)
            return failed(EngineFault(.unreachable, "out of memory"))
        }
        isWriting = true
        context = made
    }

    /// No more calls follow.
    func close() {
        guard let context else { return }
        self.context = nil
        loop.unwatch(descriptor)
        redisFree(context)
    }

    private func fail(_ fault: EngineFault) {
        guard context != nil else { return }
        close()
        failed(fault)
    }

    /// - Parameter words: a command and its arguments.
    func send(_ words: [[UInt8]]) {
        guard let context else { return }
        let code = withEngineArguments(words) { redisAppendCommandArgv(context, $0, $1, $2) }
        unsent += words.reduce(0) { $0 + $1.count }
        guard code == REDIS_OK else { return fail(EngineFault(error: context)) }
        guard unsent <= Self.mostUnsent else {
            return fail(EngineFault(silent: "it does not take what hosts tell each other: is it overloaded?"))
        }
        // The loop calls when the kernel takes more.
        guard !isWriting else { return }
        isWriting = true
        loop.change(descriptor, to: .readingAndWriting)
    }

    func isReady() {
        // A reply may close the connection, and the loop may hold the last reference.
        withExtendedLifetime(self) {
            if isWriting { write() }
            read()
        }
    }

    private func write() {
        guard let context else { return }
        var isDone: Int32 = 0
        guard redisBufferWrite(context, &isDone) == REDIS_OK else { return fail(EngineFault(error: context)) }
        guard isDone != 0 else { return }
        (unsent, isWriting) = (0, false)
        loop.change(descriptor, to: .reading)
    }

    private func read() {
        guard let context else { return }
        let before = context.pointee.reader.pointee.len
        guard redisBufferRead(context) == REDIS_OK else { return fail(EngineFault(error: context)) }
        if context.pointee.reader.pointee.len > before { reads += 1 }
        while self.context != nil {
            var reply: UnsafeMutableRawPointer?
            guard redisReaderGetReply(context.pointee.reader, &reply) == REDIS_OK else {
                return fail(context.pointee.reader.pointee.err == REDIS_ERR_OOM ? .tooLong : .strange)
            }
            guard let reply else { break }
            defer { freeReplyObject(reply) }
            reads = 0
            received(EngineReply(reply.assumingMemoryBound(to: redisReply.self).pointee))
        }
        if reads > EngineConnection.mostReadsOfReply { fail(.tooLong) }
    }
}
