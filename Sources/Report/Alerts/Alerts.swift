// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore
internal import NIOPosix
package import Settings
internal import Synchronization

/// Sends alerts to operators by the channels that `alerts` configures. Whoever raises an alert also logs its cause.
///
/// Raising an alert never blocks: it is added to a bounded queue of each channel, which sends at its own pace.
package final class Alerts: Sendable {
    private struct Name: Hashable {
        var tier: Alert.Tier
        var subject: String
    }

    /// Asks whether this host is to send an alert of which several hosts may know. `done` is called once.
    package typealias Claim =
        @Sendable (
            _ name: String, _ time: Duration, _ done: @escaping @Sendable (Bool) -> Void
        ) -> Void

    private struct State {
        var settings: Configuration.Alerts
        var deliveries: [AlertDelivery]
        var history = AlertHistory<Name>()
        /// Alerts raised before the service is ready; nil afterwards. A service that never gets ready sends none,
        /// because a second instance started by mistake must not alert operators.
        var early: [Alert]? = []
        /// nil if no limit is shared.
        var claim: Claim?
    }

    package let marks: AlertMarks
    /// The subject of trouble with weir.yaml.
    package static let configurationSubject = "the configuration"
    private let state: Mutex<State>
    private let failures = AlertDelivery.Failures()
    private let starter: ProgramStarter
    private let advice: AlertAdvice
    private let log: EventLog

    package init(_ settings: Configuration.Alerts, starter: ProgramStarter, advice: AlertAdvice, log: EventLog) {
        self.starter = starter
        self.advice = advice
        self.log = log
        marks = AlertMarks()
        state = Mutex(State(settings: settings, deliveries: []))
        state.withLock { $0.deliveries = deliveries(settings) }
    }

    private func deliveries(_ settings: Configuration.Alerts) -> [AlertDelivery] {
        var channels: [any AlertChannel] = []
        if let url = settings.webhook { channels.append(Webhook(url: url, starter: starter)) }
        if let path = settings.command { channels.append(AlertCommand(path: path, starter: starter)) }
        if !settings.mail.isEmpty {
            channels.append(
                AlertMail(sendmail: settings.sendmail, recipients: settings.mail, marks: marks, starter: starter))
        }
        return channels.map {
            AlertDelivery($0, interval: .seconds(settings.interval), advice: advice, failures: failures, log: log)
        }
    }

    /// Notices that a channel failed to deliver.
    package var failedNotices: UInt64 { failures.count.load(ordering: .relaxed) }

    /// The service is ready: sends the alerts raised during the start.
    package func begin() {
        let (early, deliveries) = state.withLock { state in
            defer { state.early = nil }
            return (state.early ?? [], state.deliveries)
        }
        for alert in early {
            for delivery in deliveries { delivery.submit(alert) }
        }
    }

    /// Alerts about keys of shared limits are claimed from now on before they are sent.
    package func claim(by claim: @escaping Claim) {
        state.withLock { $0.claim = claim }
    }

    package func reload(_ settings: Configuration.Alerts) {
        let replaced: [AlertDelivery] = state.withLock { state in
            guard state.settings != settings else { return [] }
            defer { state.deliveries = deliveries(settings) }
            state.settings = settings
            return state.deliveries
        }
        for delivery in replaced { delivery.hurry() }
    }

    /// An alert about a key of a limit. Of the hosts that share the limit, one sends it.
    ///
    /// - Parameter text: evaluated only if the alert is sent.
    package func raise(
        _ tier: Alert.Tier, limit: String, key: String, mode: String, isShared: Bool, client: String,
        _ text: () -> String
    ) {
        let subject = "limit \(limit), key \(key)"
        raise(Name(tier: tier, subject: subject), isShared: isShared) {
            Alert(
                time: Int64(time(nil)), tier: tier, limit: limit, key: key, mode: mode, client: client,
                subject: subject, text: text(),
                commands: advice.commands(for: tier, limit: limit, mode: mode, key: key), page: advice.page(ofKey: key))
        }
    }

    /// An alert about a failure.
    package func raise(trouble subject: String, _ text: String) {
        state.withLock { $0.history.forget(Name(tier: .recovery, subject: subject)) }
        raise(Name(tier: .trouble, subject: subject)) {
            Alert(
                time: Int64(time(nil)), tier: .trouble, subject: subject, text: text,
                commands: [subject == Self.configurationSubject ? advice.checkCommand : advice.healthCommand])
        }
    }

    /// The failure is over. This is sent even if the failure was never raised, so the caller must know that it was.
    package func raise(recovery subject: String, _ text: String) {
        state.withLock { $0.history.forget(Name(tier: .trouble, subject: subject)) }
        raise(Name(tier: .recovery, subject: subject)) {
            Alert(time: Int64(time(nil)), tier: .recovery, subject: subject, text: text)
        }
    }

    private func raise(_ name: Name, isShared: Bool = false, _ make: () -> Alert) {
        let repeats: Int? = state.withLock { state in
            let configured: Configuration.Alerts.Tier? =
                name.tier == .recovery ? .trouble : .init(rawValue: name.tier.rawValue)
            guard let configured, state.settings.tiers.contains(configured) else { return nil }
            return state.history.record(name, at: .now, interval: .seconds(state.settings.repeatAfter))
        }
        guard let repeats else { return }
        var alert = make()
        alert.repeats = repeats
        alert.text = String(alert.text.prefix(Alert.longestText))
        // A host without channels leaves the alert to others.
        let (claim, repeatAfter) = state.withLock { ($0.deliveries.isEmpty ? nil : $0.claim, $0.settings.repeatAfter) }
        guard isShared, let claim else { return submit(alert) }
        // It ends before this host may send the alert again.
        claim("\(name.tier.rawValue) \(name.subject)", .seconds(repeatAfter) * 0.9) { [self, alert] isOwn in
            if isOwn { submit(alert) }
        }
    }

    private func submit(_ alert: Alert) {
        let deliveries = state.withLock { state in
            state.early?.append(alert)
            return state.early == nil ? state.deliveries : []
        }
        for delivery in deliveries { delivery.submit(alert) }
    }

    /// Sends a notice that only says that it is a test, by one channel or all. Waits until each has taken it or failed.
    ///
    /// - Parameters:
    ///   - channel: the configuration key of the only channel.
    ///   - user: who wants it.
    /// - Returns: what happened, for each channel; empty if no such channel is configured.
    package func test(_ channel: String?, for user: String) async -> [AlertTestOutcome] {
        let channels = state.withLock { $0.deliveries.map(\.channel) }.filter { channel == nil || $0.name == channel }
        let alert = Alert(
            time: Int64(time(nil)), tier: .test, subject: "weir alert --test",
            text: "asked for by \(user); nothing is wrong", commands: [advice.healthCommand])
        let notice = AlertNotice(host: hostName(), alerts: [alert], leftOut: 0, advice: advice)
        let outcomes = await withTaskGroup(of: AlertTestOutcome.self) { group in
            for channel in channels {
                group.addTask {
                    do {
                        try await channel.send(notice)
                        return AlertTestOutcome(channel: channel.name, isDelivered: true, text: channel.success)
                    } catch {
                        return AlertTestOutcome(channel: channel.name, isDelivered: false, text: "\(error)")
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }.sorted { $0.channel < $1.channel }
        }
        for outcome in outcomes {
            let text = "\(outcome.description) (a test for \(user))"
            outcome.isDelivered ? log.notice(text) : log.warning(text)
        }
        return outcomes
    }

    /// The configuration keys of the channels in use.
    package var channelNames: [String] { state.withLock { $0.deliveries.map(\.channel.name) } }

    /// Sends the waiting alerts, within `limit`.
    package func stop(within limit: TimeAmount) async {
        let deliveries = state.withLock { $0.deliveries }
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        // A promise keeps its first result.
        let timeout = promise.futureResult.eventLoop.scheduleTask(in: limit) { promise.succeed() }
        promise.completeWithTask { for delivery in deliveries { await delivery.finish() } }
        try? await promise.futureResult.get()
        timeout.cancel()
    }
}
