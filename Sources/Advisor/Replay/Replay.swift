// SPDX-License-Identifier: Apache-2.0
import Limits
package import Settings
import Wire

/// Applies the limits of a configuration to the mail of a log, on a clock that follows the log.
///
/// Decides with the same `Ledger` as the service, on a store that keeps nothing. It also follows the use of each key as
/// if nothing had been refused, from which it suggests rates.
package final class Replay {
    private let together: ReplayedLedger
    private var masking: Masking
    private let clocks = ReplayClocks()
    private var parser: PolicyRequestParser
    private var ranges: [Range<Int>] = []
    private var usages: [LimitUsage]
    private let leftOut: [String]
    private var text: [UInt8] = []
    private var instance = 0
    /// Recipients of the transactions of a capture, by instance and client address.
    private var transactions: [[UInt8]: Int] = [:]
    private static let mostTransactions = 100_000

    /// The attributes that a log has. A limit that uses others can't be replayed from a log.
    private static let loggedAttributes: Set<String> = [
        "sender", "sender_domain", "sasl_username", "sasl_domain", "sasl_method", "client_address", "client_name",
        "size", "recipient_count",
        "policy_context", "protocol_state", "instance", "queue_id", "protocol_name", "request",
    ]

    private let paths: [String]

    /// - Parameter paths: logs or captures, in any order.
    /// - Throws: if a file can't be opened.
    package init(_ configuration: Configuration, over paths: [String]) throws {
        self.paths = paths
        let isCapture = try paths.contains(where: LogReader.isCapture)
        let isReplayable = { (limit: Limit) in
            isCapture
                || (limit.key.parts.map(\.name) + limit.conditions.map(\.part.name))
                    .allSatisfy(Self.loggedAttributes.contains)
        }
        let limits = configuration.limits.filter(isReplayable)
        leftOut = configuration.limits.filter { !isReplayable($0) }.map(\.name)
        var settings = Ledger.Settings()
        settings.givesBackDropped = configuration.givesBackDropped
        settings.mostAccounts = configuration.ledger.mostKeys
        together = try ReplayedLedger(limits, settings, clocks)
        masking = try Masking(limits, settings, clocks)
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        usages = limits.map(LimitUsage.init)
    }

    /// Reads all files and reports what the limits would have done.
    ///
    /// - Throws: if a file can't be opened; `UnreadableLog` if nothing in the files is understood.
    package func run() throws -> ReplayReport {
        let reader = LogReader(onMessage: { [self] in replay($0) }, onRequest: { [self] in replay($0, at: $1) })
        try reader.read(paths)
        let limits = usages.map { usage in
            let name = usage.limit.name
            return LimitReplay(usage, refusals: together.refusals(of: name), masks: masking.masks(of: name))
        }
        return ReplayReport(log: reader.figures, limits: limits, limitsLeftOut: leftOut)
    }

    // MARK: Messages

    private func replay(_ message: LoggedMessage) {
        beginTick(at: message.moment)
        masking.compare(decide(message, with: together)) { decide(message, with: $0) }
        recordUsage(message)
        endTick()
    }

    /// - Returns: what became of each recipient, and of the message if one was accepted.
    private func decide(_ message: LoggedMessage, with ledger: ReplayedLedger) -> [ReplayedLedger.Outcome] {
        var outcomes: [ReplayedLedger.Outcome] = []
        for recipient in 0..<message.recipients {
            withRequest(message, "RCPT", recipient: recipient, count: 0) { outcomes.append(ledger.decide($0)) }
        }
        let accepted = outcomes.count { $0.refusing == nil }
        if accepted > 0 {
            withRequest(message, "END-OF-MESSAGE", recipient: accepted == 1 ? 0 : nil, count: accepted) {
                outcomes.append(ledger.decide($0))
            }
        }
        return outcomes
    }

    /// Replays a captured request, which has all attributes.
    private func replay(_ request: [UInt8], at moment: LogMoment) {
        beginTick(at: moment)
        withAttributes(of: request) { attributes in
            masking.compare([together.decide(attributes)]) { [$0.decide(attributes)] }
            recordUsage(attributes, at: moment)
        }
        endTick()
    }

    private func beginTick(at moment: LogMoment) {
        clocks.advance(to: moment.milliseconds)
        together.beginTick(moment)
        masking.beginTick(moment)
        instance += 1
    }

    /// Now and then drops idle keys from memory, as the service does.
    private func endTick() {
        guard instance % 64 == 0 else { return }
        _ = together.ledger.maintain(slots: 256)
        masking.maintain()
    }

    /// Adds what this request adds to its transaction, as if nothing had been refused.
    private func recordUsage(_ request: Attributes, at moment: LogMoment) {
        let key = Array(request.instance) + Array(request.clientAddress)
        let state = ProtocolState(request.protocolState)
        if transactions.count > Self.mostTransactions { transactions = [:] }
        let before = transactions[key]
        var recipients = 0
        switch state {
        case .rcpt: recipients = 1
        case .data, .endOfMessage: if before == nil { recipients = max(1, Int(request.recipientCount)) }
        default: return
        }
        transactions[key] = (before ?? 0) + recipients
        for usage in usages {
            usage.add(
                request, recipients: recipients, messages: before == nil ? 1 : 0,
                size: state == .endOfMessage ? Int(request.size) : 0,
                at: together.ledger.now, moment)
        }
    }

    private func recordUsage(_ message: LoggedMessage) {
        let now = together.ledger.now
        withRequest(message, "END-OF-MESSAGE", recipient: nil, count: message.recipients) { request in
            for usage in usages {
                usage.add(
                    request, recipients: message.recipients, messages: 1, size: message.size, at: now,
                    message.moment)
            }
        }
    }

    private func withRequest(
        _ message: LoggedMessage, _ state: String, recipient: Int?, count: Int, _ body: (Attributes) -> Void
    ) {
        text.removeAll(keepingCapacity: true)
        func add(_ name: StaticString, _ value: some Sequence<UInt8>) {
            name.withUTF8Buffer { text.append(contentsOf: $0) }
            text.append(UInt8(ascii: "="))
            text.append(contentsOf: value)
            text.append(UInt8(ascii: "\n"))
        }
        add("request", "smtpd_access_policy".utf8)
        add("protocol_state", state.utf8)
        add("instance", "\(instance)".utf8)
        add("queue_id", message.queueID)
        add("client_address", message.clientAddress)
        add("client_name", message.clientName)
        add("sender", message.sender)
        if let recipient { add("recipient", "\(recipient)@invalid".utf8) }
        add("recipient_count", "\(count)".utf8)
        add("size", "\(message.size)".utf8)
        add("sasl_method", message.saslMethod)
        add("sasl_username", message.saslUsername)
        add("policy_context", message.service)
        text.append(UInt8(ascii: "\n"))
        withAttributes(of: text, body)
    }

    /// Calls `body` unless the request is malformed, such as one with a NUL from a damaged log.
    private func withAttributes(of request: [UInt8], _ body: (Attributes) -> Void) {
        request.withUnsafeBytes { bytes in
            var searched = 0
            guard (try? parser.parse(bytes, searched: &searched, ranges: &ranges)) != nil else { return }
            ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
        }
    }
}
