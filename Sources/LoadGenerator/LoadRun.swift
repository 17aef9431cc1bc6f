// SPDX-License-Identifier: Apache-2.0
import Histogram
package import NIOCore

/// One load from first connect to report. Bound to one event loop, whose clock is the load's.
///
/// First it opens all connections; then the clock starts. In a closed loop, a connection starts its next operation when
/// the last is answered. In an open loop, `ArrivalSchedule` decides when; an operation waits while all connections are
/// busy, and its latency includes the wait. After the duration or the count, the run starts no new operations and waits
/// at most `timeout` for outstanding answers.
package final class LoadRun<Traffic: LoadTraffic> {
    package typealias Connection = LoadConnection<Traffic>
    package typealias Connector = (Connection) -> EventLoopFuture<Void>

    /// Postfix's default of smtpd_policy_service_retry_delay.
    package static var retryDelay: TimeAmount { .seconds(1) }
    private static var sweepInterval: TimeAmount { .milliseconds(100) }

    private let eventLoop: any EventLoop
    private let target: LoadTarget
    private let options: LoadOptions
    private let traffic: Traffic
    private let connect: Connector
    private let progress: (LoadProgress) -> Void
    private let report: EventLoopPromise<LoadReport>
    private var connections: [Connection] = []

    private var isIssuing = false
    private var isOver = false
    private var started: NIODeadline?
    private var schedule: ArrivalSchedule?
    private var arrival: Scheduled<Void>?
    /// Connections that wait for an operation to become due (open loop).
    private var idle = CircularBuffer<Connection>()
    private var timers: [RepeatedTask] = []
    private var ending: Scheduled<Void>?

    private var issued = 0
    private var answered = 0
    private var resent = 0
    private var abandoned = 0
    private var errors = LoadErrors()
    private var lastError: String?
    private var endedBy: LoadEnding?
    /// When the last operation was answered, or no more were started, whichever is later.
    private var measuredUntil: NIODeadline?
    private var series: [LoadProgress] = []
    private var secondBegan = NIODeadline.distantPast
    private var second: Histogram<UInt32>
    private var total: Histogram<UInt32>
    private let longestLatency: UInt64

    package init(
        on eventLoop: any EventLoop, target: LoadTarget, options: LoadOptions, traffic: Traffic,
        connect: @escaping Connector, progress: @escaping (LoadProgress) -> Void
    ) {
        self.eventLoop = eventLoop
        self.target = target
        self.options = options
        self.traffic = traffic
        self.connect = connect
        self.progress = progress
        report = eventLoop.makePromise()
        // Upper bound: an operation waits for a connection at most until the end, and then for its answer.
        longestLatency = UInt64((options.duration + options.timeout + options.timeout).nanoseconds)
        second = Histogram(highestTrackableValue: longestLatency)
        total = Histogram(highestTrackableValue: longestLatency)
    }

    /// Connects, and starts the clock when all connects have succeeded or failed.
    package func start() -> EventLoopFuture<LoadReport> {
        connections = (0..<options.connections).map { _ in Connection(run: self, dialogue: traffic.makeDialogue()) }
        var pending = connections.count
        for connection in connections {
            connect(connection).assumeIsolated().whenComplete { result in
                if self.isOver { connection.close() }
                if case .failure(let error) = result { self.connectFailed(error) }
                pending -= 1
                if pending == 0 { self.begin() }
            }
        }
        return report.futureResult
    }

    /// Ends the load now and reports the figures so far.
    package func interrupt() {
        finish(.interrupted)
    }

    private func begin() {
        guard !isOver else { return }
        guard connections.contains(where: \.isConnected) else {
            isOver = true
            return report.fail(LoadError.unreachable(target: "\(target)", reason: lastError ?? "no connection"))
        }
        isIssuing = true
        let now = eventLoop.now
        started = now
        secondBegan = now
        schedule = options.pace.map { ArrivalSchedule(start: now, pace: $0, duration: options.duration) }
        ending = scheduled(in: options.duration) { $0.stopIssuing(.duration) }
        timers = [
            repeated(every: Self.sweepInterval) { $0.sweep() },
            repeated(every: .seconds(1)) { $0.endSecond() },
        ]
        for connection in connections {
            if connection.isConnected { ready(connection) } else { retry(connection) }
        }
    }

    // MARK: Pace

    /// Starts the next operation on an idle connection, or makes it wait for one.
    private func ready(_ connection: Connection) {
        guard isIssuing else { return finishIfDrained() }
        let now = eventLoop.now
        guard schedule != nil else { return issue(to: connection, due: now, now: now) }
        if let due = schedule?.popDue(at: now) {
            issue(to: connection, due: due, now: now)
        } else {
            idle.append(connection)
            awaitArrival()
        }
    }

    private func issue(to connection: Connection, due: NIODeadline, now: NIODeadline) {
        issued += 1
        connection.begin(due: due, now: now)
        if issued == options.count { stopIssuing(.count) }
    }

    private func awaitArrival() {
        guard arrival == nil, let next = schedule?.next else { return }
        arrival = eventLoop.assumeIsolated().scheduleTask(deadline: next) { self.arrive() }
    }

    private func arrive() {
        arrival = nil
        let now = eventLoop.now
        while isIssuing, let connection = idle.first, let due = schedule?.popDue(at: now) {
            idle.removeFirst()
            issue(to: connection, due: due, now: now)
        }
        if isIssuing, !idle.isEmpty { awaitArrival() }
    }

    // MARK: Callbacks from connections

    func answered(by connection: Connection, due: NIODeadline) {
        guard !isOver else { return }
        answered += 1
        let now = eventLoop.now
        measuredUntil = now
        let latency = (now - due).nanoseconds
        second.record(min(UInt64(max(latency, 0)), longestLatency))
        ready(connection)
    }

    func lost(_ connection: Connection, _ kind: WritableKeyPath<LoadErrors, Int>, reason: String) {
        guard !isOver else { return }
        errors[keyPath: kind] += 1
        lastError = reason
        idle.removeAll { $0 === connection }
        if isIssuing || connection.outstanding != nil { retry(connection) }
    }

    private func connectFailed(_ error: any Error) {
        errors.refused += 1
        lastError = error.reason
    }

    private func retry(_ connection: Connection) {
        guard options.reconnect else { return giveUp(connection) }
        _ = scheduled(in: Self.retryDelay) { run in
            guard !run.isOver else { return }
            run.connect(connection).assumeIsolated().whenComplete { result in
                guard !run.isOver else { return connection.close() }
                switch result {
                case .success where connection.outstanding != nil:
                    run.resent += 1
                    connection.resend(now: run.eventLoop.now)
                case .success:
                    run.ready(connection)
                case .failure(let error):
                    run.connectFailed(error)
                    run.retry(connection)
                }
            }
        }
    }

    private func giveUp(_ connection: Connection) {
        if connection.outstanding != nil { abandoned += 1 }
        connection.abandon()
        if connections.contains(where: \.isConnected) { finishIfDrained() } else { finish(.lost) }
    }

    /// Closes connections whose answer is overdue.
    private func sweep() {
        let now = eventLoop.now
        for connection in connections where connection.isConnected {
            guard let sent = connection.outstanding?.sent, now - sent >= options.timeout else { continue }
            connection.close()
            lost(connection, \.timeout, reason: "no answer in time")
        }
    }

    private var outstanding: Int { issued - answered - abandoned }

    /// Without the wait for answers that never came.
    private var measuredSeconds: Double {
        guard let started, let measuredUntil else { return 0 }
        return (measuredUntil - started).seconds
    }

    /// Since the clock started.
    var elapsed: TimeAmount { started.map { eventLoop.now - $0 } ?? .zero }

    // MARK: The end

    private func stopIssuing(_ reason: LoadEnding) {
        guard isIssuing else { return }
        isIssuing = false
        measuredUntil = eventLoop.now
        endedBy = reason
        ending?.cancel()
        ending = scheduled(in: options.timeout) { $0.finish(reason) }
        finishIfDrained()
    }

    private func finishIfDrained() {
        if let endedBy, outstanding == 0 { finish(endedBy) }
    }

    private func finish(_ reason: LoadEnding) {
        guard !isOver else { return }
        isOver = true
        let now = eventLoop.now
        if isIssuing { measuredUntil = now }
        isIssuing = false
        let seconds = measuredSeconds
        ending?.cancel()
        arrival?.cancel()
        for timer in timers { timer.cancel() }
        for connection in connections { connection.close() }
        // The last row may be of a shorter time, but not of the few answers after the end.
        if now - secondBegan > .milliseconds(500) || series.isEmpty { endSecond() } else { total.add(second) }
        do {
            try traffic.save()
        } catch {
            return report.fail(error)
        }
        report.succeed(
            LoadReport(
                target: "\(target)",
                connections: connections.count(where: \.wasConnected),
                rate: options.pace?.meanRate,
                endedBy: reason,
                seconds: seconds,
                answered: answered,
                answeredPerSecond: seconds > 0 ? Double(answered) / seconds : 0,
                latency: LatencyReport(total),
                actions: traffic.outcomes.counts,
                refusals: traffic.outcomes.refusals,
                errors: errors,
                resent: resent,
                unanswered: abandoned + outstanding,
                unsent: unsent(after: seconds),
                lastError: lastError,
                trojan: traffic.trojan,
                percentiles: PercentilePoint.points(of: total),
                series: series))
    }

    private func unsent(after seconds: Double) -> Int {
        guard let schedule, issued < options.count else { return 0 }
        let due = schedule.pace.due(within: min(seconds, options.duration.seconds))
        return max(0, min(Int(due), options.count) - issued)
    }

    private func endSecond() {
        let now = LoadProgress(
            elapsedSeconds: max(Int(elapsed.seconds.rounded()), (series.last?.elapsedSeconds ?? 0) + 1),
            answered: Int(second.totalCount),
            latency: LatencyReport(second),
            refusals: traffic.outcomes.refusals,
            errors: errors.total)
        series.append(now)
        secondBegan = eventLoop.now
        progress(now)
        total.add(second)
        second.reset()
        // On an error end the load: finish() saves again, and reports the error.
        if (try? traffic.save()) == nil { finish(.interrupted) }
    }

    private func scheduled(in delay: TimeAmount, _ body: @escaping (LoadRun) -> Void) -> Scheduled<Void> {
        eventLoop.assumeIsolated().scheduleTask(in: delay) { body(self) }
    }

    private func repeated(every delay: TimeAmount, _ body: @escaping (LoadRun) -> Void) -> RepeatedTask {
        let bound = NIOLoopBound((self, body), eventLoop: eventLoop)
        return eventLoop.scheduleRepeatedTask(initialDelay: delay, delay: delay) { _ in
            let (run, body) = bound.value
            body(run)
        }
    }
}
