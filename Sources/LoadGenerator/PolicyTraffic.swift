// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The transactions of a policy load: their senders, recipients and protocol states.
package struct PolicyMix: Sendable {
    package var population = Population()
    package var states: Set<ProtocolState> = [.rcpt]
    /// Recipients per message.
    package var recipients = 1
    package var seed: UInt64 = 1
    /// Path of the `AccountFile`.
    package var account: String?

    package init() {}
}

/// The traffic of a policy load. With the same seed, transaction n is the same in each run except for its `instance`.
package final class PolicyTraffic: LoadTraffic {
    private let mix: PolicyMix
    private var people: PopulationDraw
    private let account: AccountFile?
    private var random: SplitMix64
    private var nextInstance: PolicyInstance
    private var text: [UInt8] = []
    package private(set) var outcomes = OutcomeTally()
    package private(set) var trojan: TrojanReport?

    /// - Parameter firstInstance: the instance of the first transaction; later ones increment its time.
    package init(_ mix: PolicyMix, firstInstance: PolicyInstance) throws {
        self.mix = mix
        people = PopulationDraw(mix.population)
        trojan = mix.population.trojan.map { _ in TrojanReport() }
        account = try mix.account.map(AccountFile.init)
        random = SplitMix64(seed: mix.seed)
        nextInstance = firstInstance
    }

    package func makeDialogue() -> PolicyDialogue {
        PolicyDialogue(traffic: self, states: mix.states, recipients: mix.recipients)
    }

    package func save() throws {
        try account?.save()
    }

    fileprivate func write(_ request: PolicyRequest, into output: inout ByteBuffer) {
        text.removeAll(keepingCapacity: true)
        request.write(to: &text)
        output.writeBytes(text)
    }

    fileprivate func nextMessage(at time: TimeAmount) -> PolicyRequest {
        defer { nextInstance.time += 1 }
        let person = people.next(at: time, using: &random)
        return PolicyRequest(
            instance: nextInstance,
            sender: person.sender,
            client: person.client,
            isTrojan: person.isTrojan,
            clientPort: 32768 + random.next(below: 28232),
            recipient: random.next(below: 1_000_000),
            size: 1200 + random.next(below: 60_000))
    }

    /// - Returns: whether smtpd would continue the transaction.
    fileprivate func record(action: Span<UInt8>, for request: PolicyRequest, at time: TimeAmount) -> Bool {
        let isBlank = { (byte: UInt8) in byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        let word = action.extracting(0..<(action.indices.first { isBlank(action[$0]) } ?? action.count))
        account?.append(request, word: word)
        let isRefused = outcomes.count(word, isRefusal: Self.isRefusal)
        trojan?.count(isTrojan: request.isTrojan, isRefused: isRefused, at: time)
        return !isRefused
    }

    /// The actions with which smtpd rejects or defers (SMTPD_POLICY_README, access(5)).
    private static func isRefusal(_ word: String) -> Bool {
        switch word.uppercased() {
        case "REJECT", "DEFER", "DEFER_IF_PERMIT": true
        default: word.utf8.count == 3 && (word.first == "4" || word.first == "5")
        }
    }
}

/// Sends the requests of one mail transaction after another, in smtpd's order.
///
/// ```
/// message -> RCPT (per recipient) -> DATA -> END-OF-MESSAGE -> next message
/// ```
/// States that are not part of the load are skipped. If no recipient is accepted or DATA is refused, the transaction
/// ends, as it does in smtpd.
package struct PolicyDialogue: LoadDialogue {
    private let traffic: PolicyTraffic
    private let asksAtRcpt, asksAtData, asksAtEndOfMessage: Bool
    private let recipients: Int
    /// The outstanding request, or the next one of the transaction; nil between transactions.
    private var request: PolicyRequest?
    private var isAsking = false
    private var recipientsLeft = 0
    private var accepted = 0

    fileprivate init(traffic: PolicyTraffic, states: Set<ProtocolState>, recipients: Int) {
        self.traffic = traffic
        asksAtRcpt = states.contains(.rcpt)
        asksAtData = states.contains(.data)
        asksAtEndOfMessage = states.contains(.endOfMessage)
        self.recipients = recipients
    }

    package mutating func connected() {}

    package mutating func begin(into output: inout ByteBuffer, at time: TimeAmount) {
        let request = self.request ?? firstRequest(at: time)
        self.request = request
        isAsking = true
        traffic.write(request, into: &output)
    }

    package mutating func receive(
        _ input: inout ByteBuffer, into output: inout ByteBuffer, at time: TimeAmount
    ) throws -> LoadStep {
        guard isAsking, let request else { throw MalformedReply(reason: "unexpected reply") }
        guard let isAccepted = try record(input.readableBytesUInt8Span, for: request, at: time) else { return .wait }
        input.clear()
        isAsking = false
        self.request = next(after: request, isAccepted: isAccepted)
        return .answered
    }

    /// - Returns: whether smtpd would continue the transaction; nil while the reply is incomplete.
    private func record(
        _ reply: Span<UInt8>, for request: PolicyRequest, at time: TimeAmount
    ) throws(MalformedReply) -> Bool? {
        guard let action = try PolicyReply.action(in: reply) else { return nil }
        return traffic.record(action: reply.extracting(action), for: request, at: time)
    }

    private mutating func firstRequest(at time: TimeAmount) -> PolicyRequest {
        var request = traffic.nextMessage(at: time)
        if asksAtRcpt {
            recipientsLeft = recipients
            accepted = 0
        } else {
            accepted = recipients
            request.state = asksAtData ? .data : .endOfMessage
            addEnvelope(to: &request)
        }
        return request
    }

    /// The next request of the transaction; nil if it is over.
    private mutating func next(after answered: PolicyRequest, isAccepted: Bool) -> PolicyRequest? {
        var request = answered
        switch answered.state {
        case .rcpt:
            recipientsLeft -= 1
            if isAccepted {
                accepted += 1
                request.queueID = 0xA_0000_0000 | (answered.instance.time & 0xFFFF_FFFF)
            }
            if recipientsLeft > 0 {
                request.recipient = answered.recipient.map { $0 + 1 }
                return request
            }
            guard accepted > 0 else { return nil }
            if asksAtData {
                request.state = .data
            } else if asksAtEndOfMessage {
                request.state = .endOfMessage
            } else {
                return nil
            }
        case .data:
            guard isAccepted, asksAtEndOfMessage else { return nil }
            request.state = .endOfMessage
        case .endOfMessage:
            return nil
        }
        addEnvelope(to: &request)
        return request
    }

    /// Sets the attributes that depend on the accepted recipients.
    private func addEnvelope(to request: inout PolicyRequest) {
        request.queueID = 0xA_0000_0000 | (request.instance.time & 0xFFFF_FFFF)
        request.recipientCount = accepted
        if accepted > 1 { request.recipient = nil }
    }
}
