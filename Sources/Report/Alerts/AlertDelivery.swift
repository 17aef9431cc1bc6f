// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// A way to notify operators.
protocol AlertChannel: Sendable {
    /// The configuration key, for log lines.
    var name: String { get }
    /// What a delivery means.
    var success: String { get }
    /// Returns when the notice is delivered.
    ///
    /// - Throws: if it was not delivered, or not in time.
    func send(_ notice: AlertNotice) async throws
}

/// The queue of one channel. The first alert is sent at once; those of the next `interval` follow in one notice. While
/// the channel fails, alerts wait until it is back.
final class AlertDelivery: Sendable {
    private struct State {
        var waiting: [Alert] = []
        var leftOut = 0
        /// Runs while alerts wait.
        var sender: Task<Void, Never>?
        var pause: Task<Void, Never>?
        var isHurried = false
    }

    let channel: any AlertChannel
    private let interval: Duration
    private let advice: AlertAdvice
    private let failures: Failures
    private let log: EventLog
    private let state = Mutex(State())

    /// Alerts in one notice. It fits into a mail and into a pipe's buffer.
    private static let most = 50

    /// Notices that were not delivered, or not soon, over all channels.
    final class Failures: Sendable {
        let count = Atomic<UInt64>(0)
    }

    init(
        _ channel: any AlertChannel, interval: Duration, advice: AlertAdvice, failures: Failures, log: EventLog
    ) {
        self.channel = channel
        self.interval = interval
        self.advice = advice
        self.failures = failures
        self.log = log
    }

    func submit(_ alert: Alert) {
        state.withLock { state in
            if state.waiting.count < Self.most {
                state.waiting.append(alert)
            } else {
                state.leftOut += 1
                // A flood of keys must not displace an alert about a next hop.
                if !alert.tier.isOfKeyInUse, let place = state.waiting.lastIndex(where: { $0.tier.isOfKeyInUse }) {
                    state.waiting.remove(at: place)
                    state.waiting.append(alert)
                }
            }
            if state.sender == nil { state.sender = Task { await self.run() } }
        }
    }

    /// From now on sends without pauses, and tries each notice once more.
    func hurry() {
        state.withLock { state in
            state.isHurried = true
            state.pause?.cancel()
        }
    }

    /// Returns when no alert waits.
    func finish() async {
        hurry()
        await state.withLock { $0.sender }?.value
    }

    private func run() async {
        while let notice = nextNotice() {
            await send(notice)
            await pause(interval)
        }
    }

    private func nextNotice() -> AlertNotice? {
        state.withLock { state in
            guard !state.waiting.isEmpty else {
                state.sender = nil
                return nil
            }
            defer { (state.waiting, state.leftOut) = ([], 0) }
            return AlertNotice(
                host: EventLog.hostName, alerts: state.waiting, leftOut: state.leftOut, advice: advice)
        }
    }

    /// Returns when the channel has taken the notice or will never take it. Alerts that come meanwhile wait.
    private func send(_ notice: AlertNotice) async {
        var attempts = AlertAttempts()
        while true {
            do {
                try await channel.send(notice)
                if attempts.areReported { log.notice("\(channel.name): delivers alerts again") }
                return
            } catch {
                let wasReported = attempts.areReported
                let isPermanent = (error as? AlertFailure)?.isPermanent == true
                let pause = attempts.fail(isLast: isPermanent || state.withLock(\.isHurried))
                if !wasReported, pause == nil || attempts.areReported { failures.count.add(1, ordering: .relaxed) }
                if let pause {
                    if attempts.areReported, !wasReported {
                        log.warning("\(channel.name): alert not delivered: \(error); trying again for an hour")
                    }
                    await self.pause(pause)
                } else {
                    return log.warning("\(channel.name): alert not delivered, only logged: \(error)")
                }
            }
        }
    }

    private func pause(_ duration: Duration) async {
        let pause = Task { _ = try? await Task.sleep(for: duration) }
        state.withLock { state in
            state.pause = pause
            if state.isHurried { pause.cancel() }
        }
        await pause.value
    }
}

/// The failed attempts to deliver one notice.
package struct AlertAttempts {
    private var count = 0

    /// Between attempts. The last one repeats.
    private static let pauses: [Duration] = [1, 5, 10, 20, 40, 60].map(Duration.seconds)
    private static let mostUnreported = 2
    /// About an hour of attempts. A channel may fail with this notice alone, and later ones must not wait forever.
    private static let most = 65

    package init() {}

    /// Whether the log should say that the channel fails.
    package var areReported: Bool { count > Self.mostUnreported }

    /// - Returns: the pause before the next attempt; nil if this was the last one.
    package mutating func fail(isLast: Bool) -> Duration? {
        count += 1
        guard !isLast, count < Self.most else { return nil }
        return Self.pauses[min(count, Self.pauses.count) - 1]
    }
}
