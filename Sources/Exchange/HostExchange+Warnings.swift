// SPDX-License-Identifier: Apache-2.0
internal import Engine
internal import Limits
internal import Loop
internal import NIOCore
internal import Policy
package import Report

/// Warnings that all hosts together have used `warn_at` percent of a limit. One host asks about all keys at once that
/// its ledger names, at most a few times a second, and tells the others what it has learned.
extension HostExchange {
    private static let pause: TimeAmount = .milliseconds(100)
    /// Messages that wait for the ledger. More come only from a sender that is no Weir.
    private static let mostOpenMarks = 32

    /// The other hosts must be asked about this key. To be called from any thread.
    ///
    /// - Parameter client: that has sent the request which led to it.
    package func lookAt(_ key: KeyName, client: String) {
        loop.execute { [self] in
            // The ledger names it again.
            guard near.count < MarksMessage.mostKeys else { return }
            near[key] = client
            askAboutNear()
        }
    }

    private func askAboutNear() {
        guard !isAskingAboutNear, !near.isEmpty else { return }
        isAskingAboutNear = true
        let keys = near
        near = [:]
        Task {
            try? await ask(about: keys)
            loop.execute { [self] in
                loop.schedule(in: Self.pause) { [self] in
                    isAskingAboutNear = false
                    askAboutNear()
                }
            }
        }
    }

    private func ask(about keys: [KeyName: String]) async throws {
        let names = Array(keys.keys)
        let (own, answers) = try await ask(.names(names, withHistory: false)) {
            try await ledger.host.standings(of: names, withHistory: false)
        }
        let limits = try await ledger.limits()
        var sums = KeySums(own: name, hosts: figures.hosts)
        sums.add(own: own)
        sums.add(answers, tellAll: true)
        let all = sums.sums(names, at: 0).compactMap { sum in
            limits[sum.limit].map { (sum: sum, limit: $0, marks: KeyMarks(sum, warnAt: $0.warnAt, hosts: hosts.count)) }
        }
        // Before the others hear of it: otherwise, two hosts could take the other's warning for the first.
        let news = try await loop.submit { [self] in
            all.filter { $0.marks.isReached && noteWarning($0.marks.name, limits) }
        }
        tell(all.map(\.marks))
        for (sum, limit, marks) in news { warn(sum, limit, client: keys[marks.name] ?? "") }
        await note(all.map(\.marks), clients: keys)
    }

    private func tell(_ marks: [KeyMarks]) {
        guard !marks.isEmpty, let message = MarksMessage(from: name, keys: marks).message else { return }
        loop.execute { [self] in messenger?.publish(message, on: channels.marks) }
    }

    func takeMarks(_ message: [UInt8]) {
        guard let marks = MarksMessage(message), hosts.contains(marks.from) else { return ignore("marks", message) }
        guard marks.from != name, openMarks < Self.mostOpenMarks else { return }
        openMarks += 1
        let keys = marks.keys.filter { $0.isReached || !warned.contains($0.name, at: .now) }
        Task {
            let limits = (try? await ledger.limits()) ?? [:]
            loop.execute { [self] in
                for marks in keys where marks.isReached { _ = noteWarning(marks.name, limits) }
            }
            await note(keys, clients: [:])
            loop.execute { [self] in openMarks -= 1 }
        }
    }

    /// - Returns: false if a host has warned of the key already.
    private func noteWarning(_ key: KeyName, _ limits: [String: Limit]) -> Bool {
        guard let longest = limits[key.limit]?.rates.map(\.window.milliseconds).max() else { return false }
        let now = ContinuousClock.now
        return warned.add(key, until: now + .milliseconds(longest), at: now)
    }

    private func note(_ marks: [KeyMarks], clients: [KeyName: String]) async {
        let uses = marks.compactMap { marks in marks.use(for: name).map { (marks.name, $0) } }
        let due = try? await ledger.host.note(Dictionary(uses, uniquingKeysWith: { one, _ in one }))
        for key in due ?? [] { lookAt(key, client: clients[key] ?? "") }
    }

    /// One of the hosts that have learned this warns.
    private func warn(_ sum: KeyStanding, _ limit: Limit, client: String) {
        let longest = limit.rates.map(\.window.milliseconds).max() ?? 0
        claim("near \(sum.limit) \(sum.key)", for: .milliseconds(longest) * 0.9) { [log, alerts = ledger.host.alerts] in
            guard $0 else { return }
            let silent = (sum.hosts ?? []).filter { $0.used == nil }.map(\.host).joined(separator: ", ")
            let rates = sum.rates.map { "\($0.used)/\($0.limit) per \($0.window)" }.joined(separator: ", ")
            let text =
                "\(limit.warnAt) % reached by all hosts together, \(sum.count) \(rates)"
                + (silent.isEmpty ? "" : ", without \(silent), which did not answer")
            log.warning("limit \(sum.limit), key \(sum.key): \(text)")
            alerts.raise(
                .warn, limit: sum.limit, key: sum.key, mode: sum.mode, isShared: true, client: client
            ) { text }
        }
    }
}
