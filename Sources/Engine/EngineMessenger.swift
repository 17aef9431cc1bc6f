// SPDX-License-Identifier: Apache-2.0
package import Loop
internal import NIOCore
package import Sharing

/// Carries messages between the hosts, through channels of the engine (SUBSCRIBE, PUBLISH), and claims names for a time
/// (SET NX). The engine stores no message.
///
/// A connection that listens to channels takes no other command, so there are two: one listens, the other speaks. Both
/// are made again while the engine is in use. Belongs to the loop.
package final class EngineMessenger {
    package protocol Owner: AnyObject {
        /// Both connections are open: messages come from now on.
        func messengerOpened()
        func messengerReceived(_ message: [UInt8], on channel: String)
        /// Nothing is carried until `messengerOpened`. It tries again by itself.
        func messengerFailed(_ fault: EngineFault)
    }

    private let loop: SocketLoop
    private let login: EngineLogin
    private let channels: [String]
    private weak var owner: (any Owner)?
    /// The server that is in use; nil while none is.
    private var address: EngineAddress?
    private var listener: EngineStream?
    private var speaker: EngineStream?
    /// Channels that the listener waits for.
    private var missing = 0
    /// What takes the next replies to the speaker.
    private var takers: [(EngineReply) -> Void] = []
    private var isLoggedIn = false
    /// Whether the next reply to the listener is that to AUTH.
    private var isListenerLoggingIn = false
    package private(set) var isOpen = false
    /// Counts the attempts to connect, so that a timer of an earlier one does nothing.
    private var attempts = 0
    /// After the next failure. A user without the rights would otherwise fill the engine's log of them.
    private var pause = EngineMessenger.shortestPause

    private static let patience: TimeAmount = .seconds(3)
    private static let shortestPause: TimeAmount = .seconds(1)
    private static let longestPause: TimeAmount = .seconds(60)
    /// Commands whose reply has not come.
    private static let mostWaiting = 10_000

    /// - Parameter channels: to listen to.
    package init(_ login: EngineLogin, channels: [String], loop: SocketLoop, owner: any Owner) {
        self.login = login
        self.channels = channels
        self.loop = loop
        self.owner = owner
    }

    /// Begins to use a server, or another one.
    ///
    /// - Parameter address: not of Sentinel; nil ends the use.
    package func use(_ address: EngineAddress?) {
        loop.assertInLoop()
        close()
        self.address = address
        pause = Self.shortestPause
        open()
    }

    private func close() {
        listener?.close()
        speaker?.close()
        (listener, speaker, isOpen, isLoggedIn, missing) = (nil, nil, false, false, channels.count)
        attempts += 1
        let waiting = takers
        takers = []
        for taker in waiting { taker(.nothing) }
    }

    private func open() {
        guard let address else { return }
        let attempt = attempts
        loop.schedule(in: Self.patience) { [weak self] in
            guard let self, attempt == attempts, !isOpen else { return }
            fail(EngineFault(silent: "it does not answer: is it overloaded?"))
        }
        let listener = stream { $0.listened($1) }
        let speaker = stream { $0.spoke($1) }
        (self.listener, self.speaker) = (listener, speaker)
        listener.connect(to: address.place)
        // A fault of the first one has closed both.
        guard attempt == attempts else { return }
        speaker.connect(to: address.place)
        guard attempt == attempts else { return }
        isListenerLoggingIn = login.command != nil
        if let words = login.command {
            listener.send(words.map { Array($0.utf8) })
            command(words, then: { _ in })
        }
        listener.send((["SUBSCRIBE"] + channels).map { Array($0.utf8) })
        command(["SELECT", String(address.database)]) { messenger in
            messenger.isLoggedIn = true
            messenger.openIfComplete()
        }
    }

    private func stream(_ received: @escaping (EngineMessenger, EngineReply) -> Void) -> EngineStream {
        EngineStream(
            loop: loop, received: { [weak self] in if let self { received(self, $0) } },
            failed: { [weak self] in self?.fail($0) })
    }

    /// Sends a command of the login, whose error ends the connection.
    private func command(_ words: [String], then done: @escaping (EngineMessenger) -> Void) {
        send(words.map { Array($0.utf8) }) { [weak self] reply in
            guard let self else { return }
            switch reply {
            case .failure(let text): fail(EngineFault(reply: text, to: words.first))
            case .text: done(self)
            case .number, .list: fail(.strange)
            // The connection has ended.
            case .nothing: break
            }
        }
    }

    private func openIfComplete() {
        guard missing == 0, isLoggedIn, !isOpen else { return }
        isOpen = true
        pause = Self.shortestPause
        owner?.messengerOpened()
    }

    private func fail(_ fault: EngineFault) {
        close()
        let attempt = attempts
        loop.schedule(in: pause) { [weak self] in
            guard let self, attempt == attempts else { return }
            open()
        }
        pause = min(pause * 2, Self.longestPause)
        owner?.messengerFailed(fault)
    }

    // MARK: Replies

    private func listened(_ reply: EngineReply) {
        let isLogin = isListenerLoggingIn
        isListenerLoggingIn = false
        switch reply {
        case .failure(let text): fail(EngineFault(reply: text, to: isLogin ? "AUTH" : nil))
        case .text("OK") where isLogin: break
        case .list(let parts):
            switch parts.first?.text {
            case "subscribe":
                missing -= 1
                openIfComplete()
            case "message":
                guard parts.count == 3, let channel = parts[1].text, let message = parts[2].text else {
                    return fail(.strange)
                }
                owner?.messengerReceived(Array(message.utf8), on: channel)
            default: fail(.strange)
            }
        case .text, .number, .nothing: fail(.strange)
        }
    }

    private func spoke(_ reply: EngineReply) {
        guard !takers.isEmpty else { return fail(.strange) }
        takers.removeFirst()(reply)
    }

    private func send(_ words: [[UInt8]], _ taker: @escaping (EngineReply) -> Void) {
        guard takers.count < Self.mostWaiting else { return taker(.nothing) }
        takers.append(taker)
        speaker?.send(words)
    }

    // MARK: Messages

    /// Sends a message to all that listen to a channel. Without a connection, nobody gets it.
    package func publish(_ message: [UInt8], on channel: String) {
        loop.assertInLoop()
        guard isOpen else { return }
        send([Array("PUBLISH".utf8), Array(channel.utf8), message]) { [weak self] reply in
            if case .failure(let text) = reply { self?.fail(EngineFault(reply: text)) }
        }
    }

    /// Claims a name for a time, unless another host has it. A claim of this host from before a restart is its own.
    ///
    /// - Parameter done: gets whether this host has it now; nil if the engine can't tell. The fault says why, if the
    ///   engine has refused the command.
    package func claim(
        _ key: String, by host: String, milliseconds: Int64, _ done: @escaping (Bool?, EngineFault?) -> Void
    ) {
        loop.assertInLoop()
        guard isOpen else { return done(nil, nil) }
        let words = ["SET", key, host, "NX", "GET", "PX", String(milliseconds)]
        send(words.map { Array($0.utf8) }) { [weak self] reply in
            switch reply {
            // Nobody had it; also at the end of the connection, which is closed then.
            case .nothing: done(self?.isOpen == true ? true : nil, nil)
            case .text(let owner): done(owner == host, nil)
            case .failure(let text): done(nil, EngineFault(reply: text))
            case .number, .list: done(nil, nil)
            }
        }
    }
}
