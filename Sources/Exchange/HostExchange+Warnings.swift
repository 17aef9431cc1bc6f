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
    /// Lists of marks that wait for the ledger. More come only from a sender that is no Weir.
    private static let mostOpenMarks = 32
    private static let mostMarked = 10_000

    /// The other hosts must be asked about this key. To be called from any thread.
    ///
    /// - Parameter client: that has sent the request which led to it.
    package func lookAt(_ key: KeyName, client: String) {
        loop.execute { [self] in
            // The ledger names it again.
            guard near.count < Self.mostMarked else { return }
            near[key] = client
            askAboutNear()
        }
    }

    private func askAboutNear() {
        guard !isAskingAboutNear, !near.isEmpty else { return }
        isAskingAboutNear = true
        let keys = Dictionary(uniqueKeysWithValues: near.prefix(MarksMessage.mostKeys).map { ($0.key, $0.value) })
        for key in keys.keys { near[key] = nil }
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
        let changes = try await ledger.host.lastChanges(of: names)
        let (own, answers) = try await ask(.names(names, withHistory: false)) {
            try await ledger.host.standings(of: names, withHistory: false)
        }
        let limits = try await ledger.limits()
        var sums = KeySums(own: name, hosts: figures.hosts)
        sums.add(own: own)
        sums.add(answers, tellAll: true)
        let all = sums.sums(names, at: 0).compactMap { sum -> (sum: KeyStanding, limit: Limit, marks: KeyMarks)? in
            guard let limit = limits[sum.limit] else { return nil }
            let change = changes[KeyName(sum)] ?? 0
            return (sum, limit, KeyMarks(sum, after: change, warnAt: limit.warnAt, hosts: hosts.count))
        }
        loop.execute { [self] in
            let now = ContinuousClock.now
            for (sum, limit, marks) in all {
                for warning in marks.warnings where warned.add(warning, at: now) {
                    warn(warning, sum, limit, client: keys[marks.name] ?? "")
                }
            }
            publish(all.map(\.marks))
            note(all.map(\.marks), clients: keys)
        }
    }

    private func publish(_ marks: [KeyMarks]) {
        guard !marks.isEmpty, let message = MarksMessage(from: name, keys: marks).message else { return }
        messenger?.publish(message, on: channels.marks)
    }

    /// This host may have lost marks on which the others rely: all hosts ask again about all keys that have marks. To
    /// be called from any thread.
    package func renewMarks() {
        loop.execute { [self] in
            guard let message = MarksMessage(from: name, keys: []).message else { return }
            messenger?.publish(message, on: channels.marks)
        }
    }

    func takeMarks(_ message: [UInt8]) {
        guard let marks = MarksMessage(message), hosts.contains(marks.from) else { return ignore("marks", message) }
        if marks.keys.isEmpty { return askAboutMarked() }
        guard marks.from != name, openMarks < Self.mostOpenMarks else { return }
        let now = ContinuousClock.now
        for warning in marks.keys.flatMap(\.warnings) { _ = warned.add(warning, at: now) }
        note(marks.keys, clients: [:])
    }

    private func askAboutMarked() {
        let now = ContinuousClock.now
        marked = marked.filter { now < $0.value }
        for key in marked.keys where near[key] == nil { near[key] = "" }
        askAboutNear()
    }

    private func noteMarked(_ marks: [KeyMarks], at now: ContinuousClock.Instant) {
        if marked.count + marks.count > Self.mostMarked { marked = marked.filter { now < $0.value } }
        for marks in marks where marked.count < Self.mostMarked || marked[marks.name] != nil {
            marked[marks.name] = marks.longest.map { now + $0 }
        }
    }

    private func note(_ marks: [KeyMarks], clients: [KeyName: String]) {
        let now = ContinuousClock.now
        noteMarked(marks, at: now)
        let uses = marks.compactMap { marks in
            marks.use(for: name) { warned.contains($0, at: now) }.map { (marks.name, $0) }
        }
        openMarks += 1
        ledger.host.note(Dictionary(uses, uniquingKeysWith: { one, _ in one })) { [self] due in
            loop.execute { [self] in
                openMarks -= 1
                for key in due { lookAt(key, client: clients[key] ?? "") }
            }
        }
    }

    /// One of the hosts that have learned this warns.
    private func warn(_ warning: SharedWarning, _ sum: KeyStanding, _ limit: Limit, client: String) {
        guard let rate = sum.rates.first(where: { $0.window == warning.window }) else { return }
        let claimed = "near \(sum.limit) \(warning.window) \(warning.change) \(sum.key)"
        claim(claimed, for: warning.quiet * 0.9) { [log, alerts = ledger.host.alerts] in
            guard $0 else { return }
            let silent = (sum.hosts ?? []).filter { $0.used == nil }.map(\.host).joined(separator: ", ")
            let text =
                "\(limit.warnAt) % reached by all hosts together, \(sum.count) \(rate.used)/\(rate.limit) "
                + "per \(rate.window)" + (silent.isEmpty ? "" : ", without \(silent), which did not answer")
            log.warning("limit \(sum.limit), key \(sum.key): \(text)")
            alerts.raise(
                .warn, limit: sum.limit, key: sum.key, mode: sum.mode, isShared: true, client: client
            ) { text }
        }
    }
}
