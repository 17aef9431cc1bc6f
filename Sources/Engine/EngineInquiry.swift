// SPDX-License-Identifier: Apache-2.0
internal import CHiredis
internal import Glibc
package import Sharing

/// A connection to the engine for commands and the doctor, which may wait for it. The service has `EngineConnection`.
package final class EngineInquiry {
    /// For connecting and for each answer.
    private static let patience: Duration = .seconds(3)

    private let context: UnsafeMutablePointer<redisContext>

    /// Connects, and logs in.
    package init(_ address: EngineAddress, _ login: EngineConnection.Login?) throws(EngineFault) {
        let time = timeval(tv_sec: Int(Self.patience.components.seconds), tv_usec: 0)
        let made =
            switch address.place {
            case .inet(let host, let port): redisConnectWithTimeout(host, Int32(port), time)
            case .unix(let path): redisConnectUnixWithTimeout(path, time)
            }
        guard let made else { throw EngineFault(.unreachable, "out of memory") }
        context = made
        try check(made.pointee.err)
        redisSetTimeout(made, time)
        weir_bound_arrays(made.pointee.reader, EngineConnection.mostElements)
        for command in [login?.command, ["SELECT", String(address.database)]].compactMap({ $0 }) {
            if case .failure(let text) = try ask(command) { throw EngineFault(reply: text) }
        }
    }

    deinit { redisFree(context) }

    private func check(_ code: Int32) throws(EngineFault) {
        guard code != REDIS_OK else { return }
        let isLate = context.pointee.err == REDIS_ERR_IO && (errno == EAGAIN || errno == ETIMEDOUT)
        throw isLate ? Self.silent : EngineFault(error: context)
    }

    private static let silent = EngineFault(
        silent: "it has not answered for \(patience.components.seconds) s: is it overloaded, or no Redis?")

    package func ask(_ words: [String]) throws(EngineFault) -> EngineReply {
        try send(words)
        let deadline = ContinuousClock.now + Self.patience
        for _ in 0..<EngineConnection.mostReadsOfReply {
            var reply: UnsafeMutableRawPointer?
            guard redisReaderGetReply(context.pointee.reader, &reply) == REDIS_OK else {
                throw context.pointee.reader.pointee.err == REDIS_ERR_OOM ? .tooLong : .strange
            }
            if let reply {
                defer { freeReplyObject(reply) }
                return EngineReply(reply.assumingMemoryBound(to: redisReply.self).pointee)
            }
            guard ContinuousClock.now < deadline else { throw Self.silent }
            try check(redisBufferRead(context))
        }
        throw .tooLong
    }

    private func send(_ words: [String]) throws(EngineFault) {
        let copies = words.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        var pointers = copies.map { UnsafePointer<CChar>($0) }
        let lengths = words.map(\.utf8.count)
        try check(redisAppendCommandArgv(context, Int32(words.count), &pointers, lengths))
        var isWritten: Int32 = 0
        while isWritten == 0 { try check(redisBufferWrite(context, &isWritten)) }
    }
}

/// An answer to any command.
package enum EngineReply: Equatable, Sendable {
    case text(String)
    case number(Int64)
    case list([EngineReply])
    case nothing
    /// An error reply.
    case failure(String)

    /// libhiredis bounds the depth.
    fileprivate init(_ reply: redisReply) {
        let text = reply.str.map {
            String(decoding: UnsafeRawBufferPointer(start: $0, count: Int(reply.len)), as: UTF8.self)
        }
        switch reply.type {
        case REDIS_REPLY_ERROR: self = .failure(text ?? "")
        case REDIS_REPLY_INTEGER: self = .number(reply.integer)
        case REDIS_REPLY_ARRAY:
            self = .list((0..<Int(reply.elements)).compactMap { reply.element[$0].map { EngineReply($0.pointee) } })
        default: self = text.map { .text($0) } ?? .nothing
        }
    }

    var text: String? {
        guard case .text(let text) = self else { return nil }
        return text
    }
}
