// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// Tells operators what they should know at once: in the log, and by the channels of `alerts`.
///
/// Whoever raises an alert is never held up: it is put beside what waits, of which there is a bound, and each channel
/// sends in its own time.
package final class Alerts: Sendable {
    private struct Name: Hashable {
        var tier: Alert.Tier
        var subject: String
    }

    private struct State {
        var settings: Configuration.Alerts
        var deliveries: [AlertDelivery]
        var history = AlertHistory<Name>()
        /// Raised before the service was ready; nil since. One that does not come to that tells the log alone: it was
        /// started beside another by mistake, and whoever started it is told.
        var early: [Alert]? = []
    }

    package let marks: AlertMarks
    private let state: Mutex<State>
    private let failures = AlertDelivery.Failures()
    private let log: EventLog

    package init(_ settings: Configuration.Alerts, log: EventLog) {
        self.log = log
        marks = AlertMarks()
        state = Mutex(State(settings: settings, deliveries: Self.deliveries(settings, marks, failures, log)))
    }

    private static func deliveries(
        _ settings: Configuration.Alerts, _ marks: AlertMarks, _ failures: AlertDelivery.Failures, _ log: EventLog
    ) -> [AlertDelivery] {
        var channels: [any AlertChannel] = []
        if let url = settings.webhook { channels.append(Webhook(url: url)) }
        if let path = settings.command { channels.append(AlertCommand(path: path)) }
        if !settings.mail.isEmpty {
            channels.append(AlertMail(sendmail: settings.sendmail, recipients: settings.mail, marks: marks))
        }
        return channels.map { AlertDelivery($0, interval: .seconds(settings.interval), failures: failures, log: log) }
    }

    /// Notices that a channel did not take.
    var failedNotices: UInt64 { failures.count.load(ordering: .relaxed) }

    /// The service is ready: what was raised while it started goes out.
    func begin() {
        let (early, deliveries) = state.withLock { state in
            defer { state.early = nil }
            return (state.early ?? [], state.deliveries)
        }
        for alert in early {
            for delivery in deliveries { delivery.submit(alert) }
        }
    }

    func reload(_ settings: Configuration.Alerts) {
        let replaced: [AlertDelivery] = state.withLock { state in
            guard state.settings != settings else { return [] }
            defer { state.deliveries = Self.deliveries(settings, marks, failures, log) }
            state.settings = settings
            return state.deliveries
        }
        for delivery in replaced { delivery.hurry() }
    }

    /// A key of a limit.
    ///
    /// - Parameter text: asked for only where this is told.
    func raise(_ tier: Alert.Tier, limit: String, key: String, mode: String, _ text: () -> String) {
        let subject = "limit \(limit), key \(key)"
        tell(Name(tier: tier, subject: subject)) {
            Alert(
                time: Int64(time(nil)), tier: tier, limit: limit, key: key, mode: mode, subject: subject, text: text())
        }
    }

    /// Something of Weir's own.
    func raise(trouble subject: String, _ text: String) {
        state.withLock { $0.history.forget(Name(tier: .recovery, subject: subject)) }
        tell(Name(tier: .trouble, subject: subject)) {
            Alert(time: Int64(time(nil)), tier: .trouble, subject: subject, text: text)
        }
    }

    func raise(recovery subject: String, _ text: String) {
        state.withLock { $0.history.forget(Name(tier: .trouble, subject: subject)) }
        tell(Name(tier: .recovery, subject: subject)) {
            Alert(time: Int64(time(nil)), tier: .recovery, subject: subject, text: text)
        }
    }

    private func tell(_ name: Name, _ make: () -> Alert) {
        let repeats: Int? = state.withLock { state in
            let configured: Configuration.Alerts.Tier? =
                name.tier == .recovery ? .trouble : .init(rawValue: name.tier.rawValue)
            guard let configured, state.settings.tiers.contains(configured) else { return nil }
            return state.history.tell(name, at: .now, interval: .seconds(state.settings.repeatAfter))
        }
        guard let repeats else { return }
        var alert = make()
        alert.repeats = repeats
        alert.text = String(alert.text.prefix(Alert.longestText))
        log.notice("alert: \(alert.description)")
        let deliveries = state.withLock { [alert] state in
            state.early?.append(alert)
            return state.early == nil ? state.deliveries : []
        }
        for delivery in deliveries { delivery.submit(alert) }
    }

    /// Sends what waits, within `limit`.
    func stop(within limit: TimeAmount) async {
        let deliveries = state.withLock { $0.deliveries }
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        // The first of the two counts.
        let timeout = promise.futureResult.eventLoop.scheduleTask(in: limit) { promise.succeed() }
        promise.completeWithTask { for delivery in deliveries { await delivery.finish() } }
        try? await promise.futureResult.get()
        timeout.cancel()
    }
}
