// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Report
internal import Settings

/// Logs the decisions of the ledger in lines that can be matched with Postfix's log.
final class DecisionLog: LedgerObserver {
    private let log: EventLog
    private let alerts: Alerts
    /// What the milter does with mail from sendmail(1) that a limit refuses (`milter.local_over`); nil if the milter
    /// asks about none.
    var localOver: Configuration.Milter.LocalOver?
    /// Also logs requests that pass (`log.decisions`).
    var logsPasses = false
    private(set) var evictedKeys: UInt64 = 0
    /// Asks the other hosts about a key of a shared limit. `client` has sent the request that led to it.
    var onNear: (_ key: KeyName, _ client: String) -> Void = { _, _ in }
    /// Told of each refusal, for the page and `weir top`.
    var onRefusal: (RefusedRequest) -> Void = { _ in }

    init(log: EventLog, alerts: Alerts) {
        self.log = log
        self.alerts = alerts
    }

    /// `ABC123: refuse: RCPT from host[192.0.2.1]: limit per-user, key bob: over, recipients 9/9 per 1m, ...`
    func refused(_ event: LimitEvent, because reason: RefusalReason, _ request: Attributes, action: [UInt8]) {
        let (key, action, client) = (Self.text(event.account.key), self.action(action, request), Self.client(request))
        let (usage, details) = (Self.usage(event), Self.details(request))
        let letsPass = event.limit.answer(to: reason).letsPass
        let verb = event.isShadowed ? "would refuse" : letsPass ? "let through" : "refuse"
        let refused = RefusedRequest(
            time: secondsSince1970(), limit: event.limit.name, key: key, mode: Self.mode(event).rawValue,
            reason: reason.rawValue, usage: usage, retry: event.retrySeconds, action: action,
            queueID: Self.text(request.queueID), client: client, login: Self.text(request.saslUsername),
            sender: Self.text(request.sender), recipient: Self.text(request.recipient))
        log.write(
            .notice,
            "\(Self.origin(verb, request, client)): limit \(event.limit.name), key \(key): \(reason.rawValue), "
                + "\(usage), \(refused.outlook { "\($0)s" })\(details), action=\(action)")
        alert(.over, event, key, client) { "\(reason.rawValue), \(usage)\(details)" }
        onRefusal(refused)
    }

    /// What becomes of the message. Mail from sendmail(1) has no client that could be refused.
    private func action(_ action: [UInt8], _ request: Attributes) -> String {
        guard let localOver, Self.isLocal(request), case .refuse = AccessAction(action) else {
            return Self.text(action)
        }
        return "\(localOver.rawValue.uppercased()) (milter.local_over)"
    }

    /// As the milter tells mail from sendmail(1). Postfix's own requests have a port.
    private static func isLocal(_ request: Attributes) -> Bool {
        let address = request.clientAddress
        return request.clientPort.isEmpty
            && (address.isEmpty || address.isLoopback)
    }

    func near(_ event: LimitEvent, _ request: Attributes) {
        let (key, text) = (Self.text(event.account.key), "\(event.limit.warnAt) % reached, \(Self.usage(event))")
        log.warning("limit \(event.limit.name), key \(key): \(text)")
        alert(.warn, event, key, Self.client(request)) { text }
    }

    func mayBeNear(_ event: LimitEvent, _ request: Attributes) {
        onNear(KeyName(limit: event.limit.name, key: Self.text(event.account.key)), Self.client(request))
    }

    func blocked(_ event: LimitEvent, _ request: Attributes) {
        let key = Self.text(event.account.key)
        let duration = Rate.text(ofDuration: event.retrySeconds * 1000)
        let verb = event.isShadowed ? "would be blocked" : "blocked"
        let text = "\(verb) for \(duration) after \(event.account.refusedTries) refused requests"
        log.warning("limit \(event.limit.name), key \(key): \(text)")
        alert(.block, event, key, Self.client(request)) { text }
    }

    private func alert(
        _ tier: Alert.Tier, _ event: LimitEvent, _ key: String, _ client: String, _ text: () -> String
    ) {
        alerts.raise(
            tier, limit: event.limit.name, key: key, mode: Self.mode(event).rawValue, isShared: event.limit.isShared,
            client: client, text)
    }

    private static func mode(_ event: LimitEvent) -> Limit.Mode { event.isShadowed ? .shadow : .enforce }

    func evicted(_ account: Account, at time: LedgerTime) {
        evictedKeys += 1
        log.complain(.evictedKeys, "more keys than ledger.most_keys: evicted some of the least used, with their counts")
    }

    /// `limit odd-helo: the pattern for helo_name gave up (match limit exceeded): the limit did not apply to RCPT ...`
    func undecided(_ condition: UndecidedCondition, of limit: Limit, _ request: Attributes) {
        log.complain(
            .undecidedCondition(limit: limit.name),
            "limit \(limit.name): the pattern for \(condition.attribute) gave up (\(condition.reason)): "
                + "the limit did not apply to \(Self.text(request.protocolState)) from \(Self.client(request))"
                + Self.details(request))
    }

    func passed(_ request: Attributes) {
        log.info("\(Self.origin("pass", request, Self.client(request)))\(Self.details(request))")
    }

    /// `statistics: max recipients 83/100 per 1m for (per-user:user@example.org) at Nov 23 05:01:02`, as anvil(8).
    func summarize(_ limit: LimitState) {
        guard let peak = limit.takePeak() else { return }
        log.notice(
            "statistics: max \(limit.limit.count.rawValue) \(peak.used)/\(peak.admitted) per "
                + "\(Rate.text(ofDuration: peak.window.milliseconds)) for (\(limit.limit.name):\(Self.text(peak.key))) "
                + "at \(EventLog.time(peak.wallTime / 1000))")
    }

    private static func origin(_ verb: String, _ request: Attributes, _ client: String) -> String {
        let queueID = request.queueID.isEmpty ? "NOQUEUE" : text(request.queueID)
        return "\(queueID): \(verb): \(text(request.protocolState)) from \(client)"
    }

    /// `host[192.0.2.1]`
    private static func client(_ request: Attributes) -> String {
        "\(request.clientName.isEmpty ? "unknown" : text(request.clientName))[\(text(request.clientAddress))]"
    }

    private static func details(_ request: Attributes) -> String {
        var details = ""
        for (name, value) in [
            ("instance", request.instance), ("sasl_username", request.saslUsername), ("sender", request.sender),
            ("recipient", request.recipient), ("uid", request.userID),
        ] where !value.isEmpty {
            details += ", \(name)=\(text(value))"
        }
        return details
    }

    /// `recipients 100/100 per 1m, 540/1000 per 1h`
    private static func usage(_ event: LimitEvent) -> String {
        let rates = event.limit.rates.indices.map { lane in
            let window = Rate.text(ofDuration: event.limit.rates[lane].window.milliseconds)
            return "\(event.account.used(lane: lane))/"
                + "\(event.account.admitted(lane: lane, at: event.time)) per \(window)"
        }
        return "\(event.limit.count.rawValue) \(rates.joined(separator: ", "))"
    }

    private static func text(_ bytes: some Collection<UInt8>) -> String {
        String(decoding: bytes, as: UTF8.self)
    }
}

extension Collection<UInt8> {
    /// Whether the text is the address from which Postfix says that mail of sendmail(1) comes.
    package var isLoopback: Bool { elementsEqual("127.0.0.1".utf8) || elementsEqual("::1".utf8) }
}
