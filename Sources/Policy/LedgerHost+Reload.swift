// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Loop
internal import Report
package import Settings
internal import Wire

extension LedgerHost {
    package func reload(_ configuration: Configuration) {
        loop.preconditionInLoop()
        endTick()
        // Requests that wait were read with the names of the old configuration.
        if sharing?.resumeAll() ?? false { endTick() }
        if let ledger {
            beginTick()
            let dropped = ledger.dropped(by: configuration.limits)
            let relaxed = ledger.reload(configuration.limits, settings: configuration.ledgerSettings)
            ledger.shared?.configure(configuration.limits)
            ledger.adoptAll()
            endBlocks(of: relaxed)
            for state in dropped { report(state, in: ledger) }
        }
        reloads += 1
        self.configuration = configuration
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        keepsSessions = configuration.milterAsks
        observer.logsPasses = configuration.log.decisions
        observer.localOver = configuration.milterAsks ? configuration.milter.localOver : nil
        if configuration.log.capture != capture?.path {
            capture = configuration.log.capture.map { CaptureFile(path: $0, log: log) }
        }
    }

    /// Logs what a reload has dropped. Each block and each raise of an administrator is a change for the audit trail,
    /// too. Those that hold on all hosts are in force again.
    private func report(_ dropped: DroppedState, in ledger: Ledger) {
        let limit = dropped.limit.name
        func ended(_ keys: [[UInt8]], _ end: (Standing) -> LedgerTime?) -> [[UInt8]] {
            keys.filter { key in
                let standings = try? ledger.standings(ofKey: key, limit: limit)
                return !(standings?.contains { end($0) != nil } ?? false)
            }
        }
        if let keys = dropped.keys {
            report(limit, keys: keys, blocked: ended(dropped.blocked, \.blockedUntil))
        }
        let cause = dropped.keys == nil ? "no longer has the windows of some raises" : Self.isGone
        reportRaises(limit, cause, ended(dropped.raised, \.raisedUntil))
    }

    private func report(_ limit: String, keys: Int, blocked: [[UInt8]]) {
        let text = "limit \(limit) \(Self.isGone): dropped the counts and blocks of \(Self.count(keys))"
        guard !blocked.isEmpty else { return log.notice(text) }
        log.warning(
            "\(text); administrators had blocked \(blocked.count) of them: \(Self.list(blocked)); block them again if "
                + "the limit counts these keys")
        record(.unblock, of: blocked, limit, Self.isGone)
    }

    private func reportRaises(_ limit: String, _ cause: String, _ raised: [[UInt8]]) {
        guard !raised.isEmpty else { return }
        log.warning(
            "limit \(limit) \(cause): ended the raises of \(Self.count(raised.count)): \(Self.list(raised)); raise "
                + "them again if they still need it")
        record(.unraise, of: raised, limit, cause)
    }

    private func record(_ action: KeyAction, of keys: [[UInt8]], _ limit: String, _ cause: String) {
        for key in keys.prefix(Self.mostNamed) {
            record(
                action, of: String(decoding: key, as: UTF8.self), by: "reload", reason: "the limit \(cause)",
                limits: [limit])
        }
    }

    private static func list(_ keys: [[UInt8]]) -> String {
        let more = keys.count - mostNamed
        return keys.prefix(mostNamed).map { String(decoding: $0, as: UTF8.self) }.joined(separator: ", ")
            + (more > 0 ? " and \(more) more" : "")
    }

    private static func count(_ keys: Int) -> String { "\(keys) \(keys == 1 ? "key" : "keys")" }

    private static let isGone = "was removed or counts something else now"
    /// The log names at most this many of the keys whose blocks or raises a reload has dropped.
    private static let mostNamed = 20
}
