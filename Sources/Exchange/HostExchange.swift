// SPDX-License-Identifier: Apache-2.0
package import Engine
internal import Glibc
package import Loop
internal import NIOCore
package import Policy
package import Report
package import Settings
package import Sharing
internal import Synchronization

/// The conversation of the hosts that share limits: this host asks all others what they know, and answers their
/// questions from its own ledger.
///
/// A question goes to a channel of the engine that all hosts listen to; answers come on a channel of this host. Nothing
/// is sent unless somebody asks. Whatever a message contains, it only costs this host one walk at a time through its
/// keys.
///
/// Sendable, unchecked: all state but `told` belongs to `loop`, which is not the ledger's.
package final class HostExchange: EngineMessenger.Owner, @unchecked Sendable {
    package let name: String
    /// All, this one too.
    let hosts: [String]
    let loop: SocketLoop
    let log: EventLog
    let ledger: LocalKeys
    let channels: HostChannels
    var messenger: EngineMessenger?
    private var open = OpenQuestions()
    private var waiting = WaitingQuestions()
    private var recent = RecentAnswers()
    /// The keys that the other hosts must be asked about (`lookAt`), each with a client that has used it.
    var near: [KeyName: String] = [:]
    var isAskingAboutNear = false
    var warned = WarnedKeys()
    /// The keys that have marks, on whatever host, and until when.
    var marked: [KeyName: ContinuousClock.Instant] = [:]
    /// Lists of marks that the ledger has not taken note of yet.
    var openMarks = 0
    /// The fault of the last attempt to connect. It is logged if it comes twice in a row.
    private var lastFault: EngineFault.Kind?
    private var isLogged = false
    private let told: Mutex<Told>

    /// What is known of the other hosts.
    private struct Told {
        /// When each host took the figures that it told last.
        var taken: [String: ContinuousClock.Instant] = [:]
        /// The hosts that have answered the last question that they were asked.
        var answered: Set<String> = []
        /// Why the other hosts can't be asked.
        var fault: String? = "the engine is not in use yet"
        /// The last answers to `figures`.
        var figures: [String: HostAnswer] = [:]
    }

    /// How long to wait for answers, once the part of this host is there. A host with a long list to make may take as
    /// long again.
    private static let patience: Duration = .milliseconds(500)
    private static let mostPatience: Duration = .seconds(10)
    private static let claimTimeout: TimeAmount = .milliseconds(500)

    /// - Parameter host: that of the ledger of this host.
    package init?(_ settings: Configuration.Shared, host: LedgerHost, loop: SocketLoop, log: EventLog) {
        guard let address = settings.engine, let name = settings.name else { return nil }
        self.name = name
        self.loop = loop
        self.log = log
        hosts = settings.hosts
        ledger = LocalKeys(host: host, hosts: settings.hosts.count)
        channels = HostChannels(database: address.database)
        told = Mutex(Told())
        messenger = EngineMessenger(
            settings.login, channels: [channels.questions, channels.answers(to: name), channels.marks], loop: loop,
            owner: self)
    }

    /// Uses the engine at this address from now on. To be called from any thread.
    ///
    /// - Parameter address: not of Sentinel; nil while no engine can be used.
    package func use(_ address: EngineAddress?) {
        loop.execute { [self] in
            (lastFault, isLogged) = (nil, false)
            setFault("the engine can't be used")
            messenger?.use(address)
        }
    }

    /// Ends all questions and claims.
    package func stop() async {
        try? await loop.submit { [self] in messenger?.use(nil) }
    }

    /// The hosts, and how old their last figures are.
    package var figures: SharedFigures {
        let now = ContinuousClock.now
        return told.withLock { told in
            SharedFigures(
                fault: told.fault,
                hosts: hosts.map { host in
                    if host == name { return HostFigures(name: host, isThisHost: true, hasAnswered: true, age: 0) }
                    return HostFigures(
                        name: host, isThisHost: false, hasAnswered: told.fault == nil && told.answered.contains(host),
                        age: told.taken[host].map { (now - $0) / .seconds(1) })
                })
        }
    }

    /// The last answers to `figures` of each other host. Their `age` is of now.
    var latestFigures: [HostAnswer] {
        let now = ContinuousClock.now
        return told.withLock { told in
            hosts.compactMap { host in
                guard var answer = told.figures[host], let taken = told.taken[host] else { return nil }
                answer.age = max(answer.age, (now - taken) / .seconds(1))
                return answer
            }
        }
    }

    // MARK: Asking

    /// Asks other hosts, and does the part of this host meanwhile.
    ///
    /// - Parameter names: who is asked; nil for all others.
    /// - Returns: the part of this host, and the answers that have come in time.
    func ask<Part: Sendable>(
        _ subject: HostQuestion.Subject, of names: Set<String>? = nil, while own: () async throws -> Part
    ) async throws -> (Part, [HostAnswer]) {
        let (part, answers) = try await put(subject, to: names, while: own)
        return (part, answers ?? [])
    }

    /// Asks the other hosts for nothing, and does the part of this host meanwhile.
    ///
    /// - Returns: the part of this host, and those that have not answered in time; none if they can't be asked.
    func greet<Part: Sendable>(while own: () async throws -> Part) async throws -> (Part, silent: [HostFigures]) {
        let (part, answers) = try await put(.names([], withHistory: false), to: nil, while: own)
        guard let answers else { return (part, []) }
        let answered = Set(answers.map(\.from)).union([name])
        return (part, figures.hosts.filter { !answered.contains($0.name) })
    }

    /// - Returns: the part of this host, and the answers that have come in time; nil if the hosts can't be asked.
    private func put<Part: Sendable>(
        _ subject: HostQuestion.Subject, to names: Set<String>?, while own: () async throws -> Part
    ) async throws -> (Part, [HostAnswer]?) {
        let names = (names ?? Set(hosts)).subtracting([name])
        let began = ContinuousClock.now
        let id = await begin(subject, names)
        let part: Part
        do {
            part = try await own()
        } catch {
            if let id { loop.execute { [self] in open.end(id) } }
            throw error
        }
        guard let id else { return (part, nil) }
        let patience = min(Self.mostPatience, Self.patience + (.now - began))
        return (part, await answers(to: id, of: names, within: patience))
    }

    /// - Returns: nil if the hosts can't be asked.
    private func begin(_ subject: HostQuestion.Subject, _ names: Set<String>) async -> UInt64? {
        let id = UInt64.random(in: 0..<1 << 53)
        return await withCheckedContinuation { continuation in
            loop.execute { [self] in
                let question = HostQuestion(id: id, from: name, subject: subject)
                guard !names.isEmpty, let messenger, messenger.isOpen, let message = question.message,
                    open.begin(id, to: names, at: .now)
                else { return continuation.resume(returning: nil) }
                messenger.publish(message, on: channels.questions)
                continuation.resume(returning: id)
            }
        }
    }

    private func answers(to id: UInt64, of names: Set<String>, within patience: Duration) async -> [HostAnswer] {
        await withCheckedContinuation { continuation in
            loop.execute { [self] in
                open.finish(id) { [self] answers in
                    told.withLock { $0.answered = $0.answered.subtracting(names).union(answers.map(\.from)) }
                    continuation.resume(returning: answers)
                }
                loop.schedule(in: TimeAmount(patience)) { [self] in open.end(id) }
            }
        }
    }

    // MARK: The engine

    package func messengerOpened() {
        if isLogged { log.notice("the other hosts can be asked again") }
        (lastFault, isLogged) = (nil, false)
        setFault(nil)
        // It may have missed marks.
        renewMarks()
    }

    package func messengerFailed(_ fault: EngineFault) {
        setFault(fault.message)
        // The ledger has a connection of its own: if that fails as well, it has said so.
        if lastFault == fault.kind, !isLogged {
            isLogged = true
            log.warning(
                "can't ask the other hosts: \(fault.message); until this works, figures are of this host alone, and "
                    + "each host sends its own alerts")
        }
        lastFault = fault.kind
    }

    private func setFault(_ text: String?) { told.withLock { $0.fault = text } }

    package func messengerReceived(_ message: [UInt8], on channel: String) {
        switch channel {
        case channels.questions: takeQuestion(message)
        case channels.marks: takeMarks(message)
        default: takeAnswer(message)
        }
    }

    private func takeAnswer(_ message: [UInt8]) {
        guard var answer = HostAnswer(message), answer.from != name, hosts.contains(answer.from) else {
            return ignore("an answer", message)
        }
        answer.setClock(to: secondsSince1970())
        let now = ContinuousClock.now
        told.withLock { told in
            told.taken[answer.from] = now - .seconds(answer.age)
            if !answer.limits.isEmpty || !answer.refusals.isEmpty { told.figures[answer.from] = answer }
        }
        // One that comes too late shows that the host is there, and no more.
        _ = open.take(answer, at: now)
    }

    func ignore(_ kind: String, _ message: [UInt8]) {
        log.complain(
            .strangeHost,
            "ignored \(kind) of \(message.count) bytes on a channel of the engine: it is none of a host in "
                + "shared.hosts, or of another version of Weir")
    }

    // MARK: Answering

    private func takeQuestion(_ message: [UInt8]) {
        guard let question = HostQuestion(message), hosts.contains(question.from) else {
            return ignore("a question", message)
        }
        guard question.from != name, waiting.add(question, at: .now) else { return }
        answerNext()
    }

    private func answerNext() {
        while let question = waiting.next(at: .now, mostAge: Self.mostPatience) {
            if let answer = recent.answer(to: question, at: .now) {
                send(answer, to: question)
                waiting.end(question)
            } else {
                answer(question)
            }
        }
    }

    private func answer(_ question: HostQuestion) {
        Task {
            var answer = HostAnswer(id: question.id, from: name, age: 0)
            let began = ContinuousClock.now
            // A host that can't tell says nothing: its silence is shown, and zeros would be wrong.
            let canTell = (try? await ledger.answer(question.subject, in: &answer)) != nil
            loop.execute { [self, answer] in
                if canTell {
                    recent.add(answer, to: question.subject, madeAt: began)
                    var answer = answer
                    answer.age = (.now - began) / .seconds(1)
                    send(answer, to: question)
                }
                waiting.end(question)
                answerNext()
            }
        }
    }

    private func send(_ answer: HostAnswer, to question: HostQuestion) {
        var answer = answer
        answer.sentAt = secondsSince1970()
        guard let message = answer.message else { return }
        messenger?.publish(message, on: channels.answers(to: question.from))
    }

    // MARK: Alerts

    /// Claims an alert for this host. `done` is called once, with false if another host has it. If the engine does not
    /// say so in time, each host has it: better twice than never.
    ///
    /// - Parameter name: the same on all hosts.
    package func claim(_ name: String, for time: Duration, _ done: @escaping @Sendable (Bool) -> Void) {
        loop.execute { [self] in
            let claim = OpenClaim(done)
            loop.schedule(in: Self.claimTimeout) { claim.end(true) }
            let milliseconds = max(1, Int64(time / .milliseconds(1)))
            guard let messenger else { return claim.end(true) }
            messenger.claim(HostChannels.alertKey(name), by: self.name, milliseconds: milliseconds) { isOwn, fault in
                claim.end(isOwn ?? true)
                guard let fault else { return }
                self.log.complain(
                    .strangeHost, "can't claim an alert, so each host sends its own: \(fault.message)")
            }
        }
    }

    /// Belongs to the loop.
    private final class OpenClaim {
        private var done: ((Bool) -> Void)?

        init(_ done: @escaping (Bool) -> Void) { self.done = done }

        /// Only the first call counts.
        func end(_ isOwn: Bool) { done.take()?(isOwn) }
    }
}
