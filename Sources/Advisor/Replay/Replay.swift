// SPDX-License-Identifier: Apache-2.0
import Limits
package import Settings
import Wire

/// Runs the limits of a configuration over the mail of a log, on a clock that follows the log.
///
/// The very ledger that answers Postfix decides, with a store that keeps nothing. Beside it each key's use is followed as if
/// nothing had been refused: that shows which numbers would suit.
package final class Replay {
    private let ledger: Ledger
    private let clocks = ReplayClocks()
    private var parser: PolicyRequestParser
    private var ranges: [Range<Int>] = []
    private let refusals = RefusalRecorder()
    private var courses: [UsageCourse]
    private let leftOut: [String]
    private var text: [UInt8] = []
    private var instance = 0
    /// Recipients of the transactions of a capture, by what names them.
    private var followed: [[UInt8]: Int] = [:]
    private static let mostFollowed = 100_000

    /// What a log does not tell; a limit that asks for it can't be replayed.
    private static let told: Set<String> = [
        "sender", "sender_domain", "sasl_username", "sasl_domain", "sasl_method", "client_address", "client_name",
        "size", "recipient_count",
        "policy_context", "protocol_state", "instance", "queue_id", "protocol_name", "request",
    ]

    private let paths: [String]

    /// - Parameter paths: of logs or captures, in any order.
    /// - Throws: where a file can't be read at all.
    package init(_ configuration: Configuration, over paths: [String]) throws {
        self.paths = paths
        let isCapture = try paths.contains(where: LogReader.isCapture)
        let isTold = { (limit: Limit) in
            isCapture
                || (limit.key.parts.map(\.name) + limit.conditions.map(\.part.name)).allSatisfy(Self.told.contains)
        }
        let limits = configuration.limits.filter(isTold)
        leftOut = configuration.limits.filter { !isTold($0) }.map(\.name)
        var settings = Ledger.Settings()
        settings.givesBackDropped = configuration.givesBackDropped
        settings.mostAccounts = configuration.ledger.mostKeys
        ledger = try Ledger(limits: limits, settings: settings, clocks: clocks, store: ReplayStore())
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        courses = limits.map(UsageCourse.init)
        ledger.observer = refusals
    }

    /// Reads all, and tells what the limits made of it.
    ///
    /// - Throws: where a file can't be read at all.
    package func run() throws -> ReplayReport {
        let reader = LogReader(take: { [self] in take($0) }, takeRequest: { [self] in take(request: $0, at: $1) })
        try reader.read(paths)
        let limits = zip(ledger.limits, courses).map { state, course in
            LimitReplay(course, refusals: refusals.of(limit: state.limit.name))
        }
        return ReplayReport(log: reader.figures, limits: limits, limitsLeftOut: leftOut)
    }

    // MARK: Messages

    private func take(_ message: LoggedMessage) {
        clocks.advance(to: message.time)
        ledger.beginTick()
        instance += 1
        var taken = 0
        for recipient in 0..<message.recipients where decide(message, "RCPT", recipient: recipient, count: 0) {
            taken += 1
        }
        if taken > 0 { _ = decide(message, "END-OF-MESSAGE", recipient: taken == 1 ? 0 : nil, count: taken) }
        follow(message)
        // What has been idle long enough leaves the memory, as in the service.
        if instance % 64 == 0 { _ = ledger.maintain(slots: 256) }
    }

    /// - Returns: whether Postfix would have gone on.
    private func decide(_ message: LoggedMessage, _ state: String, recipient: Int?, count: Int) -> Bool {
        var passes = true
        withRequest(message, state, recipient: recipient, count: count) { request in
            ledger.prepare(request)
            ledger.fetch()
            passes = !refusals.isRefused { _ = ledger.decide(request) }
            ledger.discardBatch()
        }
        return passes
    }

    /// Of a capture: everything is there that Postfix said.
    private func take(request: [UInt8], at time: Int64) {
        clocks.advance(to: time)
        ledger.beginTick()
        instance += 1
        request.withUnsafeBytes { bytes in
            var searched = 0
            guard (try? parser.parse(bytes, searched: &searched, ranges: &ranges)) != nil else { return }
            ranges.withUnsafeBufferPointer { ranges in
                let attributes = Attributes(bytes: bytes, ranges: ranges)
                ledger.prepare(attributes)
                ledger.fetch()
                _ = ledger.decide(attributes)
                ledger.discardBatch()
                follow(attributes, at: time)
            }
        }
        if instance % 64 == 0 { _ = ledger.maintain(slots: 256) }
    }

    /// What a transaction adds by this request, as if nothing had been refused.
    private func follow(_ request: Attributes, at time: Int64) {
        let key = Array(request.instance) + Array(request.clientAddress)
        let state = ProtocolState(request.protocolState)
        if followed.count > Self.mostFollowed { followed = [:] }
        let before = followed[key]
        var recipients = 0
        switch state {
        case .rcpt: recipients = 1
        case .data, .endOfMessage: if before == nil { recipients = max(1, Int(request.recipientCount)) }
        default: return
        }
        followed[key] = (before ?? 0) + recipients
        for course in courses {
            course.take(
                request, recipients: recipients, messages: before == nil ? 1 : 0,
                size: state == .endOfMessage ? Int(request.size) : 0,
                at: ledger.now, wall: time)
        }
    }

    private func follow(_ message: LoggedMessage) {
        let now = ledger.now
        withRequest(message, "END-OF-MESSAGE", recipient: nil, count: message.recipients) { request in
            for course in courses {
                course.take(
                    request, recipients: message.recipients, messages: 1, size: message.size, at: now,
                    wall: message.time)
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
        text.withUnsafeBytes { bytes in
            var searched = 0
            // A value with a NUL, of a damaged log, is no request; then there is nothing to count.
            guard (try? parser.parse(bytes, searched: &searched, ranges: &ranges)) != nil else { return }
            ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
        }
    }
}

/// Collects what the limits refuse.
private final class RefusalRecorder: LedgerObserver {
    private var found: [String: [[UInt8]: KeyRefusals]] = [:]
    private var wasRefused = false

    /// Whether what `body` asks the ledger was refused by a limit that is enforced.
    func isRefused(_ body: () -> Void) -> Bool {
        wasRefused = false
        body()
        return wasRefused
    }

    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {
        if event.limit.mode == .enforce { wasRefused = true }
        let rate = "\(event.used)/\(event.admitted) per \(Rate.text(ofDuration: event.rate.window.milliseconds))"
        found[event.limit.name, default: [:]][
            event.account.key,
            default: KeyRefusals(
                key: String(decoding: event.account.key, as: UTF8.self), first: event.time.milliseconds,
                reason: "\(reason.rawValue), \(rate)")
        ].refused += 1
    }

    func near(_ event: LimitEvent) {}
    func blocked(_ event: LimitEvent) {}
    func evicted(_ account: Account, at time: LedgerTime) {}

    /// Most refusals first.
    func of(limit: String) -> [KeyRefusals] {
        (found[limit] ?? [:]).values.sorted { ($0.refused, $1.key) > ($1.refused, $0.key) }
    }
}
