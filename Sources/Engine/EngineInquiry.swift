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
    package convenience init(_ address: EngineAddress, _ login: EngineLogin) throws(EngineFault) {
        let address = try Self.resolved(address, login)
        try self.init(address.place)
        try run([login.command, ["SELECT", String(address.database)]])
    }

    /// The primary, if Sentinel knows where the engine is. The first server of Sentinel that answers is asked.
    package static func resolved(_ address: EngineAddress, _ login: EngineLogin) throws(EngineFault) -> EngineAddress {
        guard case .sentinel(let servers, let name, _) = address.place else { return address }
        var last: EngineFault?
        for server in servers {
            do throws(EngineFault) {
                let sentinel = try EngineInquiry(.inet(server))
                try sentinel.run([login.sentinelCommand])
                let reply = try sentinel.ask(EngineReply.primaryCommand(name))
                return EngineAddress(.inet(try reply.primary(of: address)), database: address.database)
            } catch {
                last = EngineFault(ofSentinel: server, error)
            }
        }
        throw last ?? .strange
    }

    private init(_ place: EngineAddress.Place) throws(EngineFault) {
        // libhiredis writes without MSG_NOSIGNAL.
        signal(SIGPIPE, SIG_IGN)
        let time = timeval(tv_sec: Int(Self.patience.components.seconds), tv_usec: 0)
        let made: UnsafeMutablePointer<redisContext>? =
            switch place {
            case .inet(let server): redisConnectWithTimeout(server.host, Int32(server.port), time)
            case .unix(let path): redisConnectUnixWithTimeout(path, time)
            case .sentinel: nil
            }
        guard let made else { throw EngineFault(.unreachable, "out of memory") }
        context = made
        try check(made.pointee.err)
        redisSetTimeout(made, time)
        weir_bound_arrays(made.pointee.reader, EngineConnection.mostElements)
    }

    private func run(_ commands: [[String]?]) throws(EngineFault) {
        for case let command? in commands {
            if case .failure(let text) = try ask(command) { throw EngineFault(reply: text, to: command.first) }
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
        try check(withEngineArguments(words.map(\.utf8)) { redisAppendCommandArgv(context, $0, $1, $2) })
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
    init(_ reply: redisReply) {
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

// MARK: Sentinel

extension EngineReply {
    static func primaryCommand(_ name: String) -> [String] { ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name] }

    /// The server that Sentinel names.
    func primary(of address: EngineAddress) throws(EngineFault) -> EngineAddress.Server {
        guard case .sentinel(_, let name, let expected) = address.place else { throw .strange }
        switch self {
        case .nothing: throw EngineFault(.other, "it knows no group \(name), the name at the end of shared.engine")
        case .failure(let text): throw EngineFault(reply: text)
        case .list(let parts):
            guard parts.count == 2, let host = parts[0].text, let port = parts[1].text.flatMap({ Int($0) }) else {
                throw .strange
            }
            return try Self.checked(host, port, expected)
        case .text, .number: throw .strange
        }
    }

    private static func checked(
        _ host: String, _ port: Int, _ expected: Int
    ) throws(EngineFault) -> EngineAddress.Server {
        var binary = in6_addr()
        guard inet_pton(AF_INET, host, &binary) == 1 || inet_pton(AF_INET6, host, &binary) == 1 else {
            throw EngineFault(
                .other,
                "it names the primary \(EngineFault.printable(host)), not an IP address: set announce-hostnames no")
        }
        guard port == expected else {
            throw EngineFault(
                .other,
                "it names port \(port) of the primary, but Weir may connect to port \(expected) only: append "
                    + "?port=\(port) to shared.engine")
        }
        return EngineAddress.Server(host: host, port: port)
    }
}
