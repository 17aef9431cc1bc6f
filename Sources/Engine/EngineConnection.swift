// SPDX-License-Identifier: Apache-2.0
internal import CHiredis
internal import Glibc
package import Loop
internal import NIOCore
package import Sharing

/// A connection to the engine: libhiredis parses and writes, and the loop owns the socket's events.
///
///     connect -> AUTH -> SELECT -> INFO -> FUNCTION LOAD -> opened -> call, answer, call, answer, ...
///
/// Sentinel is asked by a connection of its own:
///
///     connect -> AUTH -> SENTINEL GET-MASTER-ADDR-BY-NAME -> found
///
/// One command is open at a time. The first fault ends the connection. Belongs to the loop.
package final class EngineConnection: SocketLoop.Socket {
    package protocol Owner: AnyObject {
        /// - Parameters:
        ///   - run: identifies the server since it was started or promoted.
        ///   - eviction: `maxmemory-policy`, if the server may evict Weir's keys.
        func engineOpened(run: String, version: String, eviction: String?)
        func engineAnswered(_ answer: Answer)
        /// Sentinel has named the primary. The connection is closed.
        func engineFound(_ primary: EngineAddress.Server)
        /// The connection is closed. The owner makes a new one.
        func engineFailed(_ fault: EngineFault)
    }

    private let loop: SocketLoop
    private let address: EngineAddress
    private let login: EngineLogin
    /// The hash tag of all keys.
    private let group: String
    private weak var owner: (any Owner)?
    /// nil when closed. Owned by libhiredis from `open` to the call of its hook `cleanup`.
    private var context: UnsafeMutablePointer<redisAsyncContext>?
    private var descriptor: Int32 = -1
    private var isWatched = false
    private var wantsRead = false
    private var wantsWrite = false
    /// Reads since the last reply, of at most 16 KiB each.
    private var readsOfReply = 0
    private var steps: [Step] = []
    private var run = ""
    private var version = ""
    private var eviction: String?
    private var open: Call?

    static let mostReadsOfReply = 256
    /// Nothing in Weir's library answers with more strings, not even at 100,000 waiting requests.
    static let mostElements = 200_000
    /// Bytes of a text. INFO has some 10,000.
    private static let longestText = 65_536

    private enum Step {
        case authenticate, findPrimary, select, identify, load, call
    }

    package init(
        _ address: EngineAddress, _ login: EngineLogin, group: String, loop: SocketLoop, owner: any Owner
    ) {
        self.address = address
        self.login = login
        self.group = group
        self.loop = loop
        self.owner = owner
    }

    /// Begins to connect. Call it once.
    package func connect() {
        loop.assertInLoop()
        let authenticate = login.command == nil ? [] : [Step.authenticate]
        steps = authenticate + [.select, .identify, .load]
        switch address.place {
        case .inet(let server): begin(redisAsyncConnect(server.host, Int32(server.port)))
        case .unix(let path): begin(redisAsyncConnectUnix(path))
        case .sentinel(let servers, _, _):
            steps = (login.sentinelCommand == nil ? [] : [.authenticate]) + [.findPrimary]
            begin(redisAsyncConnect(servers[0].host, Int32(servers[0].port)))
        }
    }

    private func begin(_ made: UnsafeMutablePointer<redisAsyncContext>?) {
        guard let made else { return fail(EngineFault(.unreachable, "out of memory")) }
        guard made.pointee.err == 0 else {
            let fault = Self.fault(of: made)
            redisAsyncFree(made)
            return fail(fault)
        }
        context = made
        descriptor = Int32(made.pointee.c.fd)
        made.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        attach(made)
        weir_bound_arrays(made.pointee.c.reader, Self.mostElements)
        redisAsyncSetConnectCallback(made) { EngineConnection.lose($0, $1) }
        redisAsyncSetDisconnectCallback(made) { EngineConnection.lose($0, $1) }
        next()
    }

    /// Sends a call. The answer comes to the owner.
    package func send(_ call: Call) {
        open = call
        steps = [.call]
        next()
    }

    /// Ends the connection. The owner gets no more calls.
    package func close() {
        owner = nil
        guard let context else { return }
        self.context = nil
        redisAsyncFree(context)
    }

    private func fail(_ fault: EngineFault) {
        let owner = owner
        close()
        if case .sentinel(let servers, _, _) = address.place {
            owner?.engineFailed(EngineFault(ofSentinel: servers[0], fault))
        } else {
            owner?.engineFailed(fault)
        }
    }

    /// libhiredis could not connect, or has lost the connection. It frees the context itself.
    private static func lose(_ context: UnsafePointer<redisAsyncContext>?, _ status: Int32) {
        guard let context, status != REDIS_OK else { return }
        let connection = of(context.pointee.data)
        connection.context = nil
        connection.fail(fault(of: context))
    }

    private static func of(_ data: UnsafeMutableRawPointer?) -> EngineConnection {
        Unmanaged<EngineConnection>.fromOpaque(data!).takeUnretainedValue()
    }

    private static func fault(of context: UnsafePointer<redisAsyncContext>) -> EngineFault {
        // In the callback of a connection that failed, only the inner context has the error.
        EngineFault(error: UnsafeRawPointer(context).assumingMemoryBound(to: redisContext.self))
    }

    // MARK: Events

    private func attach(_ context: UnsafeMutablePointer<redisAsyncContext>) {
        context.pointee.ev.data = Unmanaged.passUnretained(self).toOpaque()
        context.pointee.ev.addRead = { EngineConnection.of($0).watch(read: true) }
        context.pointee.ev.delRead = { EngineConnection.of($0).watch(read: false) }
        context.pointee.ev.addWrite = { EngineConnection.of($0).watch(write: true) }
        context.pointee.ev.delWrite = { EngineConnection.of($0).watch(write: false) }
        context.pointee.ev.cleanup = { EngineConnection.of($0).cleanUp() }
    }

    private func watch(read: Bool? = nil, write: Bool? = nil) {
        wantsRead = read ?? wantsRead
        wantsWrite = write ?? wantsWrite
        let interest: SocketLoop.Interest =
            switch (wantsRead, wantsWrite) {
            case (true, true): .readingAndWriting
            case (true, false): .reading
            case (false, true): .writing
            case (false, false): .nothing
            }
        if isWatched { return loop.change(descriptor, to: interest) }
        // Without memory for it, the connection is silent, and its owner gives it up.
        isWatched = (try? loop.watch(descriptor, for: interest, self)) != nil
    }

    /// libhiredis is about to close the socket and to free the context.
    private func cleanUp() {
        context = nil
        if isWatched { loop.unwatch(descriptor) }
        isWatched = false
    }

    package func isReady() {
        // Replies may close the connection, and the loop may hold the last reference.
        withExtendedLifetime(self) {
            if wantsWrite, let context { redisAsyncHandleWrite(context) }
            guard wantsRead, let context else { return }
            // libhiredis aborts the process at a reply to no command.
            if steps.isEmpty, weir_has_input(descriptor) != 0 { return fail(.strange) }
            readsOfReply += 1
            redisAsyncHandleRead(context)
            if readsOfReply > Self.mostReadsOfReply, self.context != nil {
                fail(.tooLong)
            }
        }
    }

    // MARK: Commands

    private func next() {
        guard let step = steps.first else { return }
        switch step {
        case .authenticate: send((isSentinel ? login.sentinelCommand : login.command) ?? [])
        case .findPrimary:
            if case .sentinel(_, let name, _) = address.place { send(EngineReply.primaryCommand(name)) }
        case .select: send(["SELECT", String(address.database)])
        case .identify: send(["INFO"])
        case .load: send(["FUNCTION", "LOAD", String(decoding: EngineLibrary.source, as: UTF8.self)])
        case .call:
            guard let open else { return }
            let (function, keys, arguments) = open.arguments(group: group)
            send(["FCALL", function, String(keys.count)] + keys + arguments)
        }
    }

    private func send(_ words: [String]) {
        guard let context else { return }
        let code = withEngineArguments(words.map(\.utf8)) { count, arguments, lengths in
            redisAsyncCommandArgv(
                context, { context, reply, _ in EngineConnection.take(context, reply) }, nil, count, arguments, lengths)
        }
        if code != REDIS_OK { fail(EngineFault(.unreachable, "the connection is closing")) }
    }

    /// A reply; nil if the connection ends before one.
    private static func take(_ context: UnsafeMutablePointer<redisAsyncContext>?, _ reply: UnsafeMutableRawPointer?) {
        guard let context, let reply else { return }
        let connection = of(context.pointee.data)
        guard connection.context != nil else { return }
        connection.readsOfReply = 0
        // One command is open at a time, so this is a second reply (`isReady`).
        if let reader = context.pointee.c.reader, reader.pointee.pos < reader.pointee.len {
            return connection.fail(.strange)
        }
        connection.take(reply.assumingMemoryBound(to: redisReply.self).pointee)
    }

    private func take(_ reply: redisReply) {
        guard let step = steps.first else { return fail(.strange) }
        // Reading more would hold up the requests that Postfix waits for.
        guard reply.len <= Self.longestText else { return fail(.tooLong) }
        let text = Self.text(reply)
        if reply.type == REDIS_REPLY_ERROR {
            let text = text ?? ""
            // The function of this version, which another host has loaded.
            guard step == .load, text.contains("already exists") else {
                return fail(EngineFault(reply: text, to: step == .authenticate ? "AUTH" : nil))
            }
        }
        steps.removeFirst()
        switch step {
        case .authenticate, .select:
            guard reply.type == REDIS_REPLY_STATUS else { return fail(.strange) }
        case .findPrimary: return found(EngineReply(reply))
        case .identify:
            guard let text, identify(text) else { return }
        case .load: return opened()
        case .call: return answered(reply)
        }
        next()
    }

    private static func text(_ reply: redisReply) -> String? {
        guard let text = reply.str else { return nil }
        return String(decoding: UnsafeRawBufferPointer(start: text, count: Int(reply.len)), as: UTF8.self)
    }

    /// Reads what INFO says of the server.
    ///
    /// - Returns: false after a fault.
    private func identify(_ text: String) -> Bool {
        guard let info = EngineInfo(text) else {
            fail(.strange)
            return false
        }
        if let fault = info.fault {
            fail(fault)
            return false
        }
        run = info.run
        version = info.version
        eviction = info.eviction.flatMap { $0.isPossible ? $0.policy : nil }
        return true
    }

    private var isSentinel: Bool {
        if case .sentinel = address.place { true } else { false }
    }

    private func found(_ reply: EngineReply) {
        do throws(EngineFault) {
            let primary = try reply.primary(of: address)
            let owner = owner
            close()
            owner?.engineFound(primary)
        } catch {
            fail(error)
        }
    }

    private func opened() {
        owner?.engineOpened(run: run, version: version, eviction: eviction)
    }

    private func answered(_ reply: redisReply) {
        guard let call = open.take(), reply.type == REDIS_REPLY_ARRAY, let elements = reply.element else {
            return fail(.strange)
        }
        var words: [String] = []
        for index in 0..<Int(reply.elements) {
            guard let element = elements[index]?.pointee, let word = Self.text(element),
                word.utf8.count <= Self.longestText
            else { return fail(.strange) }
            words.append(word)
        }
        guard let answer = Answer(reply: words, to: call) else { return fail(.strange) }
        owner?.engineAnswered(answer)
    }
}
