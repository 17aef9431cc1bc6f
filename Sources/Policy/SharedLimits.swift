// SPDX-License-Identifier: Apache-2.0
internal import Engine
internal import Limits
internal import Loop
internal import NIOCore
internal import Report
internal import Settings
internal import Sharing
internal import Storage

/// Connects the ledger of this host with the engine: passes calls and answers on, and keeps the clients whose requests
/// wait for an answer.
///
/// All limits that hosts share are decided by the ledger and its `SharedCounts`. Belongs to the ledger's loop.
final class SharedLimits: EngineConnection.Owner {
    private unowned let host: LedgerHost
    private let address: EngineAddress
    private let settings: Configuration.Shared
    private var connection: EngineConnection?
    /// The server that Sentinel has named.
    private var primary: EngineAddress.Server?
    /// Counts the connections that were begun.
    private var attempts = 0
    private var isOpened = false
    private var connectingSince = NIODeadline.now()
    private var retryAt = NIODeadline.now()
    private var pause = SharedLimits.shortestPause
    /// The call that is to be sent once the changes of this turn are stored.
    private var nextCall: Call?
    /// When the open call was sent.
    private var callSent: NIODeadline?
    private var serverVersion = ""
    /// The `maxmemory-policy` that was complained of last.
    private var eviction: String?
    private var state = State.starting
    /// An alert about the engine was raised, and its recovery was not.
    private var isAlarmed = false
    /// nil while the engine is in use.
    private(set) var engineTrouble: EngineTrouble?
    private var suspended: [Int: any LedgerHost.Client] = [:]
    /// When the earliest timer that is set refuses requests, by the ledger's clock.
    private var timerDue = Int64.max

    /// The state that was logged last. A state is logged once, when it begins.
    private enum State: Equatable {
        case starting, shared, unsettled, otherTerms, clone, unsaved
        case failed(EngineFault.Kind)
    }

    private static let beat: TimeAmount = .milliseconds(100)
    private static let patience: TimeAmount = .seconds(1)
    private static let shortestPause: TimeAmount = .milliseconds(100)
    private static let longestPause: TimeAmount = .seconds(2)
    private static let alertSubject = "the engine of shared limits"
    private static let evictionSubject = "the memory of the engine of shared limits"

    init?(_ settings: Configuration.Shared, host: LedgerHost) {
        guard let address = settings.engine else { return nil }
        self.address = address
        self.settings = settings
        self.host = host
        engineTrouble = EngineTrouble(
            cause: "not connected to the engine \(address) yet", effect: "this takes a moment after a start")
    }

    func start() {
        let hosts = settings.hosts.joined(separator: ", ")
        host.log.notice(
            "limits are shared by \(hosts) through \(address); this host is \(settings.name ?? ""), and may use "
                + "1/\(settings.hosts.count) of \(settings.share) % of each limit without asking")
        host.loop.schedule(every: Self.beat) { [weak self] in
            guard let self, !host.isStopped else { return false }
            tend()
            return true
        }
    }

    /// No request waits any more, and the connection is closed.
    func stop() {
        disconnect()
    }

    private var shared: SharedCounts? { host.ledger?.shared }

    private var now: Int64 { host.ledger?.now.milliseconds ?? 0 }

    // MARK: The connection

    /// Runs ten times a second.
    private func tend() {
        guard shared != nil, host.trouble == nil else {
            let hasLeft = isOpened
            disconnect()
            if hasLeft { report(.unsaved) }
            return
        }
        guard connection != nil else {
            if NIODeadline.now() >= retryAt { connect() }
            return
        }
        let since = isOpened ? callSent : connectingSince
        if let since, .now() - since > Self.patience {
            let message = "it has not answered for \(Self.patience.nanoseconds / 1_000_000_000) s: is it overloaded?"
            return engineFailed(EngineFault(silent: message))
        }
        // The end of the turn sends a heartbeat, if one is due.
        if isOpened { host.beginTick() }
    }

    private func connect() {
        connectingSince = .now()
        isOpened = false
        primary = nil
        attempts += 1
        open(address.asking(attempt: attempts))
    }

    private func open(_ address: EngineAddress) {
        let made = EngineConnection(address, settings.login, group: EngineLibrary.group, loop: host.loop, owner: self)
        connection = made
        made.connect()
    }

    func engineFound(_ primary: EngineAddress.Server) {
        self.primary = primary
        open(EngineAddress(.inet(primary), database: address.database))
    }

    private func disconnect() {
        connection?.close()
        connection = nil
        if isOpened { host.onEngine(nil) }
        isOpened = false
        callSent = nil
        nextCall = nil
        guard let shared else { return resume(Array(suspended.keys)) }
        resume(shared.ledger.disconnect())
    }

    func engineOpened(run: String, version: String, eviction: String?) {
        guard let shared else { return disconnect() }
        noteEviction(eviction)
        host.beginTick()
        isOpened = true
        host.onEngine(primary.map { EngineAddress(.inet($0), database: address.database) } ?? address)
        serverVersion = primary.map { "\(version) at \($0)" } ?? version
        nextCall = shared.ledger.connect(run: run, at: now)
    }

    func engineAnswered(_ answer: Answer) {
        guard let shared else { return disconnect() }
        host.beginTick()
        callSent = nil
        pause = Self.shortestPause
        let outcome = shared.ledger.receive(answer, at: now)
        host.adopt(outcome.changes)
        resume(outcome.answered, isAnswered: true)
        if outcome.hangsUp {
            retryAt = .now() + (shared.ledger.isClone ? Self.longestPause : Self.shortestPause)
            if shared.ledger.isClone { report(.clone) }
            return disconnect()
        }
        guard shared.ledger.isReady else { return }
        report(shared.ledger.canAsk ? (shared.ledger.isSettled ? .shared : .otherTerms) : .unsettled)
    }

    func engineFailed(_ fault: EngineFault) {
        host.beginTick()
        disconnect()
        retryAt = .now() + pause
        pause = min(pause * 2, Self.longestPause)
        report(
            .failed(fault.kind),
            primary.map { "\($0), which Sentinel names as the primary: \(fault.message)" } ?? fault.message)
    }

    // MARK: Turns

    /// Sets aside a client whose request needs more than this host may use without asking.
    func suspend(_ client: any LedgerHost.Client, _ number: Int) {
        suspended[number] = client
        client.suspended()
        setTimer()
    }

    private func resume(_ numbers: [Int], isAnswered: Bool = false) {
        guard !numbers.isEmpty else { return }
        host.beginTick()
        host.resuming += numbers.sorted().compactMap { number in
            suspended.removeValue(forKey: number).map { ($0, isAnswered) }
        }
    }

    /// Decides all requests that wait for the engine in this turn.
    ///
    /// - Returns: whether there are any.
    func resumeAll() -> Bool {
        guard !suspended.isEmpty else { return false }
        _ = shared?.ledger.refuseOverdue(at: .max)
        resume(Array(suspended.keys))
        return true
    }

    /// Sets a timer for the waiting request whose time ends first.
    private func setTimer() {
        guard let due = shared?.ledger.nextDeadline, due < timerDue else { return }
        timerDue = due
        host.loop.schedule(in: .milliseconds(max(1, due - now))) { [weak self] in
            guard let self, timerDue == due else { return }
            timerDue = .max
            guard let shared, shared.ledger.hasWaiting else { return }
            host.beginTick()
            resume(shared.ledger.refuseOverdue(at: now))
            setTimer()
        }
    }

    /// Sends the next call, if one is due. All state that it relies on is stored.
    func endTurn() {
        guard host.trouble == nil, isOpened, let connection, let shared else { return }
        guard let call = nextCall.take() ?? shared.ledger.nextCall(at: now) else { return }
        callSent = .now()
        connection.send(call)
    }

    // MARK: The log

    private func report(_ new: State, _ detail: String = "") {
        guard new != state else { return }
        state = new
        engineTrouble = nil
        switch new {
        case .starting: return
        case .shared:
            let text = "\(address) (version \(serverVersion)) is in use: the limits hold over all hosts"
            host.log.notice(text)
            if isAlarmed { host.alerts.raise(recovery: Self.alertSubject, text) }
            isAlarmed = false
        case .unsettled:
            let trouble = EngineTrouble(
                cause: "\(address) (version \(serverVersion)) is in use, but not all of "
                    + "\(settings.hosts.joined(separator: ", ")) have connected to it yet",
                effect: "until all hosts have connected to the engine, this new host has no share; \(cutOffOfNew)")
            engineTrouble = trouble
            host.log.warning("\(trouble.cause): \(trouble.effect)")
        case .otherTerms:
            let isMember = shared?.ledger.kept.settled?.hosts.contains(settings.name ?? "") ?? true
            host.log.warning(
                "\(address) (version \(serverVersion)) is in use, but the hosts have different limits, shares or lists "
                    + "of hosts: until all agree, each uses the smallest of them"
                    + (isMember ? "" : "; this new host has no share, and the engine grants it units once all name it"))
        case .clone:
            complain(
                "another host with the name \(settings.name ?? "") is connected to \(address): give each host its "
                    + "own shared.name; if its ledger was replaced, this ends in 10 s")
        case .unsaved:
            let trouble = EngineTrouble(
                cause: "this host has left \(address), as its ledger is not saved", effect: cutOff)
            engineTrouble = trouble
            host.log.warning("\(trouble)")
        case .failed: complain("can't use the engine \(address): \(detail)")
        }
    }

    private var cutOff: String {
        if settings.onCutOff == .open { return "each host admits all of a limit by itself (on_cut_off: open)" }
        return shared?.ledger.kept.settled != nil
            ? "each host goes on with its share" : "this host is new and has no share: \(cutOffOfNew)"
    }

    private func noteEviction(_ policy: String?) {
        guard policy != eviction else { return }
        eviction = policy
        guard let policy else { return }
        let text =
            "\(address) evicts keys when its memory is full (maxmemory-policy \(policy)), and then grants too much: "
            + "set maxmemory-policy noeviction"
        host.log.warning(text)
        host.alerts.raise(trouble: Self.evictionSubject, text)
    }

    private var cutOffOfNew: String {
        settings.onCutOff == .open ? "it admits all of a limit by itself" : "it refuses what shared limits count"
    }

    private func complain(_ cause: String) {
        let trouble = EngineTrouble(cause: cause, effect: cutOff)
        engineTrouble = trouble
        host.log.error("\(trouble)")
        host.alerts.raise(trouble: Self.alertSubject, "\(trouble)")
        isAlarmed = true
    }
}

extension Configuration {
    /// The ledger's part of `shared`; nil if no limit is shared.
    var sharedCounts: SharedCounts.Settings? {
        guard shared.engine != nil, let name = shared.name else { return nil }
        return SharedCounts.Settings(
            name: name, hosts: shared.hosts, share: shared.share * 10, timeout: shared.timeout,
            isOpenOnCutOff: shared.onCutOff == .open)
    }
}
