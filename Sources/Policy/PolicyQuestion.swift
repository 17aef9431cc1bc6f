// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Loop
internal import NIOCore
internal import Report
internal import Synchronization
internal import Wire

/// A policy request that a milter puts to the ledger from another loop.
package struct PolicyQuestion: Sendable {
    /// `protocol_state` of the request.
    package enum State: String, Sendable {
        case recipient = "RCPT"
        case endOfMessage = "END-OF-MESSAGE"
    }

    package var state: State
    /// `name=value` lines of all attributes but state, instance and sender.
    package var attributes: [UInt8]
    /// The reverse-path in its internal form (see `EnvelopeAddress`).
    package var sender: ArraySlice<UInt8>
    /// The milter's own `instance` for the message.
    package var instance: [UInt8]
    /// The same message in the policy server, once found there.
    package var transaction: PolicySessions.Transaction?
    /// The key of the SMTP session; nil if Postfix can't have asked the policy server about it.
    package var session: [UInt8]?

    package init(
        state: State, attributes: [UInt8], sender: ArraySlice<UInt8>, instance: [UInt8],
        transaction: PolicySessions.Transaction?, session: [UInt8]?
    ) {
        self.state = state
        self.attributes = attributes
        self.sender = sender
        self.instance = instance
        self.transaction = transaction
        self.session = session
    }
}

package enum PolicyAnswer: Sendable {
    /// The policy server has charged the message already.
    case isCharged(PolicySessions.Transaction)
    /// A nil action lets the message pass. The transaction is 0 if nothing was charged.
    case decision(AccessAction?, transaction: UInt64)
}

extension LedgerHost {
    /// Asks from another loop; `answer` is called on the ledger's loop.
    package func ask(_ question: PolicyQuestion, _ answer: @escaping @Sendable (PolicyAnswer) -> Void) -> OpenQuestion {
        let open = OpenQuestion(question, answer)
        handOver(.ask(open))
        return open
    }

    /// Forgets a question whose client is gone. If it is not decided yet, it charges nothing. Its `answer` is not
    /// called.
    package func cancel(_ question: OpenQuestion) {
        question.cancel()
        milterQueue.withLock { $0.remove(question) }
    }

    /// The message was aborted. The MTA waits for no reply to that, so the policy server may know the client's next
    /// message already.
    package func abandon(_ question: PolicyQuestion) {
        guard question.session != nil, question.transaction != nil else { return }
        handOver(.abandon(question))
    }

    /// Has the ledger's loop withdraw what a message was charged.
    package func requestWithdrawal(of transaction: UInt64) { handOver(.withdraw(transaction)) }

    /// What milters have handed over and the loop has not seen yet.
    package var milterBacklog: Int { milterQueue.withLock { $0.count } }

    private func handOver(_ entry: MilterQueue.Entry) {
        guard milterQueue.withLock({ $0.append(entry) }) else { return }
        loop.execute { [self] in
            for entry in milterQueue.withLock({ $0.drain() }) { carryOut(entry) }
        }
    }

    private func carryOut(_ entry: MilterQueue.Entry) {
        switch entry {
        case .ask(let open): consider(open)
        case .abandon(let question):
            guard let session = question.session, let transaction = question.transaction else { return }
            if sessions.transaction(session, sender: transaction.sender[...]) == transaction {
                sessions.forget(session)
            }
        case .withdraw(let transaction): withdraw(transaction)
        }
    }

    /// The policy server charges a message that a milter has charged: gives the milter's charge back. Limits per
    /// recipient stay charged, unless the policy server knows the only recipient: it can't charge them again.
    func takeOver(_ request: Attributes) {
        guard let transaction = milterCharges.take(request) else { return }
        let state = ProtocolState(request.protocolState)
        let isWhole = (state == .data || state == .endOfMessage) && !request.recipient.isEmpty
        withdraw(transaction, keepsPerRecipient: !isWhole)
    }

    private func consider(_ open: OpenQuestion) {
        guard !open.isCancelled else { return }
        var question = open.question
        if question.state == .recipient, question.transaction == nil, let session = question.session,
            let known = sessions.transaction(session, sender: question.sender), !known.isComplete
        {
            return open.resolve(.isCharged(known))
        }
        if question.state == .endOfMessage, let session = question.session {
            // The policy server may have been asked since the last recipient.
            question.transaction = sessions.transaction(session, sender: question.sender) ?? question.transaction
            sessions.forget(session)
            milterCharges.forget(session)
        }
        guard let query = PendingQuestion(open, question, of: self) else {
            return open.resolve(.decision(nil, transaction: 0))
        }
        submit(query)
    }
}

/// An open question as a client of the ledger. Belongs to the ledger's loop.
private final class PendingQuestion: LedgerHost.Client {
    static var stage: ProbeStage { .milter }

    private let request: [UInt8]
    private var ranges: [Range<Int>] = []
    private let open: OpenQuestion
    private let question: PolicyQuestion
    private unowned let host: LedgerHost
    private var decision: Decision?

    /// nil if the request is too long for the parser.
    ///
    /// - Parameter question: that of `open`, with what the policy server has charged meanwhile.
    init?(_ open: OpenQuestion, _ question: PolicyQuestion, of host: LedgerHost) {
        self.open = open
        self.question = question
        self.host = host
        var request: [UInt8] = []
        request.reserveCapacity(question.attributes.count + 512)
        request.appendAttribute("request", "smtpd_access_policy".utf8)
        request.appendAttribute("protocol_state", question.state.rawValue.utf8)
        request += question.attributes
        request.appendAttribute("instance", question.transaction?.instance ?? question.instance)
        request.appendAttribute("sender", address: question.transaction?.sender[...] ?? question.sender)
        request.append(UInt8(ascii: "\n"))
        self.request = request
        var searched = 0
        guard (try? request.withUnsafeBytes({ try host.parser.parse($0, searched: &searched, ranges: &ranges) })) != nil
        else { return nil }
    }

    func withRequest(_ body: (Attributes) -> Void) {
        request.withUnsafeBytes { bytes in
            ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
        }
    }

    var isGone: Bool { open.isCancelled }

    func decided(_ decision: Decision) {
        self.decision = decision
        guard question.state == .recipient, question.transaction == nil, let session = question.session else { return }
        host.milterCharges.note(session, sender: question.sender, transaction: decision.transaction)
    }

    func committed() {
        guard let decision else { return }
        open.resolve(.decision(decision.action.map { AccessAction($0) }, transaction: decision.transaction))
    }
}

extension [UInt8] {
    /// Appends a line of a policy request. A control character, which could end the line, becomes `?`.
    ///
    /// Inlinable, because another target calls it for each attribute. Unspecialized code would use a witness table for
    /// each byte.
    @inlinable package mutating func appendAttribute(_ name: StaticString, _ value: some Sequence<UInt8>) {
        name.withUTF8Buffer { append(contentsOf: $0) }
        append(UInt8(ascii: "="))
        for byte in value { append(byte < 0x20 || byte == 0x7f ? UInt8(ascii: "?") : byte) }
        append(UInt8(ascii: "\n"))
    }

    /// Appends a line with an address in its internal form. Postfix, too, names control characters as they are.
    @inlinable package mutating func appendAttribute(_ name: StaticString, address: some Sequence<UInt8>) {
        name.withUTF8Buffer { append(contentsOf: $0) }
        append(UInt8(ascii: "="))
        for byte in address { append(byte == 0x0a ? UInt8(ascii: "?") : byte) }
        append(UInt8(ascii: "\n"))
    }
}
