// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Wire

/// One connection to the next hop, from the first address to the end: a state machine that knows no socket, clock, log
/// or pool. `NextHopConnection` feeds it events and carries out the actions that it returns. The SMTP syntax is
/// `SMTPClientSession`'s.
///
///       next address
///          +---+
///          |   v    received            ready, for the capabilities only
///        connecting --------> greeting ---------------------------------> idle
///          |   ^                  |
///     full |   | pauseOver        | ready, for a transaction
///          v   |                  v
///         pausing              envelope
///
///             acquired         DATA asked             354         finalDotSent
///        idle -------> envelope --------> dataAsked --------> data ----------> finalDot
///         ^ ^           |    ^               |                                  |   |
///         | |     reset |    +---------------+                           detach |   | reply
///         | |           v      any other reply                                  |   v
///         | +------- clearing <-------------------------------------------------+  answered
///         |  RSET or the final dot is answered                                      |
///         +-------------------------------------------------------------------------+
///                                           release
///
///     any state -- quit (QUIT is sent without waiting for its reply), a fault, a timeout --> closed
///
/// Reset for each message: the state, which begins at `envelope`. Kept for the connection: the number of addresses.
package struct NextHopDialogue: ~Copyable {
    package enum Purpose {
        /// To answer a client's EHLO. There is no transaction yet.
        case capabilities
        case transaction
    }

    /// Why the connection ends, and what this says about the next hop.
    package struct Ending: Equatable {
        package enum Kind: Equatable {
            /// It never was ready.
            case unreachable
            /// Weir gave the connection up before it was ready.
            case withdrawn
            /// It had been ready.
            case lost
        }

        package let kind: Kind
        package let failure: SMTPFailure
    }

    package enum ConnectAction: Equatable {
        /// Connect to the address with this number.
        case open(Int)
        /// The backlog of a UNIX socket is full. Try again in a moment.
        case pause
        /// Close the connection for this reason; a caller in the middle of other work closes it afterwards.
        case end(SMTPFailure)
        case ignore
    }

    package enum ReadyAction: Equatable {
        /// No transaction needs it.
        case keep
        case tellOwner
        case ignore
    }

    package enum ReplyAction: Equatable {
        case tellOwner
        /// All commands are answered: the next transaction may use the connection.
        case keep
        /// All commands are answered, but the connection is out of step or the next hop refused RSET.
        case quit
        case end(SMTPFailure)
        case ignore
    }

    package enum LeaveAction: Equatable {
        /// Send RSET.
        case reset
        case keep
        case quit
        case end(Ending)
        case ignore
    }

    /// What the connection waits for, which decides the timeout.
    package enum Awaited: Equatable {
        case connection, reply, finalReply
    }

    /// The reply that a connection without an owner still expects.
    private enum Unheard {
        case reset, finalReply
    }

    private enum State {
        /// To the address with this number.
        case connecting(Int, Purpose)
        case pausing(Int, Purpose)
        /// The peer has sent something, but EHLO, HELO or LHLO is not answered.
        case greeting(Purpose)
        /// Without an owner; the pool keeps it.
        case idle
        case envelope
        case dataAsked
        /// After 354: content is sent.
        case data
        case finalDot
        /// The reply to the final dot came; the owner releases the connection.
        case answered
        case clearing(Unheard)
        case closed
    }

    private var state: State
    private let addresses: Int

    /// - Parameter addresses: how many can be tried, in turn.
    package init(addresses: Int, for purpose: Purpose) {
        self.addresses = addresses
        state = .connecting(0, purpose)
    }

    package var isClosed: Bool {
        switch state {
        case .closed: true
        case .connecting, .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing:
            false
        }
    }

    /// Whether the next hop has answered EHLO.
    package var isReady: Bool {
        switch state {
        case .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing: true
        case .connecting, .pausing, .greeting, .closed: false
        }
    }

    package var awaited: Awaited {
        switch state {
        case .connecting, .pausing: .connection
        case .greeting, .idle, .envelope, .dataAsked, .data, .answered, .clearing(.reset), .closed: .reply
        case .finalDot, .clearing(.finalReply): .finalReply
        }
    }

    // MARK: Connecting

    package mutating func begin() -> ConnectAction {
        switch state {
        case .connecting(0, _): addresses > 0 ? .open(0) : .end(Self.cannotConnect(EADDRNOTAVAIL))
        case .connecting, .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing,
            .closed:
            .ignore
        }
    }

    /// connect(2) failed at once.
    package mutating func connectFailed(_ code: Int32) -> ConnectAction {
        switch state {
        case .connecting(let address, let purpose) where code == EAGAIN:
            state = .pausing(address, purpose)
            return .pause
        case .connecting(let address, let purpose): return next(after: address, purpose, code)
        case .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing, .closed:
            return .ignore
        }
    }

    package mutating func pauseOver() -> ConnectAction {
        switch state {
        case .pausing(let address, let purpose):
            state = .connecting(address, purpose)
            return .open(address)
        case .connecting, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing, .closed:
            return .ignore
        }
    }

    private mutating func next(after address: Int, _ purpose: Purpose, _ code: Int32) -> ConnectAction {
        guard address + 1 < addresses else { return .end(Self.cannotConnect(code)) }
        state = .connecting(address + 1, purpose)
        return .open(address + 1)
    }

    private static func cannotConnect(_ code: Int32) -> SMTPFailure {
        .unreachable("can't connect: \(String(cString: strerror(code)))")
    }

    // MARK: What came

    /// The peer has sent something.
    package mutating func received() {
        switch state {
        case .connecting(_, let purpose): state = .greeting(purpose)
        case .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing, .closed: break
        }
    }

    /// Reading failed, which before the first byte means that the connection was not made.
    package mutating func readFailed(_ code: Int32) -> ConnectAction {
        switch state {
        case .connecting(let address, let purpose): next(after: address, purpose, code)
        case .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing:
            .end(.lost(String(cString: strerror(code))))
        case .closed: .ignore
        }
    }

    /// EHLO, HELO or LHLO is answered.
    package mutating func ready() -> ReadyAction {
        switch state {
        case .greeting(.capabilities):
            state = .idle
            return .keep
        case .greeting(.transaction):
            state = .envelope
            return .tellOwner
        case .connecting, .pausing, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing, .closed:
            return .ignore
        }
    }

    /// - Parameters:
    ///   - isSending: whether bytes still wait to be sent.
    ///   - isIdle: everything that was asked has been answered.
    package mutating func replied(
        _ command: SMTPClientSession.Command, _ reply: SMTPReply, isSending: Bool, isIdle: Bool
    ) -> ReplyAction {
        switch state {
        case .envelope, .data, .answered: return .tellOwner
        case .dataAsked:
            if command == .data { state = reply.code == 354 ? .data : .envelope }
            return .tellOwner
        case .finalDot where command == .endOfData && reply.isPositive && isSending,
            .clearing where command == .endOfData && isSending:
            return .end(Self.early(reply))
        case .finalDot:
            // To LMTP, the last of several replies.
            if command == .endOfData, isIdle { state = .answered }
            return .tellOwner
        case .clearing:
            if command == .endOfData || command == .reset, reply.isPositive, isIdle {
                state = .idle
                return .keep
            }
            return command == .reset || isIdle ? .quit : .ignore
        case .connecting, .pausing, .greeting, .idle, .closed: return .ignore
        }
    }

    private static func early(_ reply: SMTPReply) -> SMTPFailure {
        .lost("replied before the end of the message (\(reply.text))")
    }

    // MARK: The owner

    /// The pool gives the connection to a transaction.
    package mutating func acquired() {
        switch state {
        case .idle: state = .envelope
        case .connecting, .pausing, .greeting, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing, .closed:
            break
        }
    }

    package mutating func asked(_ command: SMTPClientSession.Command) {
        switch state {
        case .envelope where command == .data: state = .dataAsked
        case .connecting, .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing,
            .closed:
            break
        }
    }

    /// The last of the content is on its way, with the final dot.
    package mutating func finalDotSent() {
        switch state {
        case .data: state = .finalDot
        case .connecting, .pausing, .greeting, .idle, .envelope, .dataAsked, .finalDot, .answered, .clearing, .closed:
            break
        }
    }

    /// The owner drops the transaction.
    package mutating func reset() -> LeaveAction {
        switch state {
        case .envelope, .answered:
            state = .clearing(.reset)
            return .reset
        case .connecting, .pausing, .greeting, .dataAsked, .data, .finalDot: return disconnect()
        case .idle, .clearing, .closed: return .ignore
        }
    }

    /// The owner drops the transaction where RSET can't.
    package mutating func disconnect() -> LeaveAction {
        withdraw("the transaction was dropped").map { .end($0) } ?? .ignore
    }

    /// The owner no longer waits for the final reply.
    package mutating func detach() {
        switch state {
        case .finalDot: state = .clearing(.finalReply)
        case .connecting, .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .answered, .clearing, .closed: break
        }
    }

    /// The transaction is complete.
    ///
    /// - Parameters:
    ///   - isInStep: everything that was asked has been answered, and nothing else.
    ///   - isSending: the next hop refused the message before its end. It would read the rest as commands, or later
    ///     commands as content, so nothing more may be sent on this connection.
    package mutating func release(isInStep: Bool, isSending: Bool) -> LeaveAction {
        switch state {
        case .answered where isSending: return disconnect()
        case .answered where isInStep:
            state = .idle
            return .keep
        case .answered: return .quit
        case .connecting, .pausing, .greeting, .idle, .envelope, .dataAsked, .data, .finalDot, .clearing, .closed:
            return .ignore
        }
    }

    // MARK: The end

    /// The service closes the connection, which is no fault of the next hop.
    ///
    /// - Returns: nil if it was already closed, as for all methods below.
    package mutating func withdraw(_ cause: String) -> Ending? {
        guard let ending = close(.lost(cause)) else { return nil }
        return ending.kind == .lost ? ending : Ending(kind: .withdrawn, failure: ending.failure)
    }

    package mutating func peerClosed() -> Ending? {
        close(isReady ? .lost("lost connection") : .unreachable("closed the connection at once"))
    }

    /// - Parameter isConnected: the peer is there, but has sent nothing yet.
    package mutating func timedOut(isConnected: Bool) -> Ending? {
        switch state {
        case .connecting where !isConnected, .pausing: close(Self.cannotConnect(ETIMEDOUT))
        case .connecting, .greeting: close(.unreachable("no greeting in time"))
        case .idle, .envelope, .dataAsked, .data, .finalDot, .answered, .clearing, .closed:
            close(.lost("no reply in time"))
        }
    }

    /// The next hop refuses the connection, or EHLO, or closes while nothing is asked.
    package mutating func refused(_ reply: SMTPReply) -> Ending? {
        // The operator's servers speak for themselves, but mail must not bounce because of how they are set up.
        let text = "refused with \(reply.text)"
        return close(
            SMTPFailure(text, reply.isTransient ? reply : SMTPReply(421, "4.3.0 Error: refused by the next hop")))
    }

    package mutating func close(_ failure: SMTPFailure) -> Ending? {
        guard !isClosed else { return nil }
        defer { state = .closed }
        return Ending(kind: isReady ? .lost : .unreachable, failure: failure)
    }
}
