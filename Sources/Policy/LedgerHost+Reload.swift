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
            for (limit, keys, blocked) in dropped {
                // Blocks that hold on all hosts are in force again.
                let ended = blocked.filter { key in
                    let standings = try? ledger.standings(ofKey: key, limit: limit.name)
                    return !(standings?.contains { $0.blockedUntil != nil } ?? false)
                }
                report(limit.name, keys: keys, blocked: ended)
            }
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

    /// Logs what a reload has dropped. Each block that an administrator had set is a change for the audit trail, too.
    ///
    /// - Parameter blocked: the keys that administrators had blocked.
    private func report(_ limit: String, keys: Int, blocked: [[UInt8]]) {
        let cause = "was removed or counts something else now"
        let text = "limit \(limit) \(cause): dropped the counts and blocks of \(keys) \(keys == 1 ? "key" : "keys")"
        guard !blocked.isEmpty else { return log.notice(text) }
        let named = blocked.prefix(Self.mostNamed).map { String(decoding: $0, as: UTF8.self) }
        let more = blocked.count - named.count
        log.warning(
            "\(text); administrators had blocked \(blocked.count) of them: \(named.joined(separator: ", "))"
                + (more > 0 ? " and \(more) more" : "") + "; block them again if the limit counts these keys")
        for key in named {
            record(.unblock, of: key, by: "reload", reason: "the limit \(cause)", limits: [limit])
        }
    }

    /// Of the keys whose blocks a reload has dropped.
    private static let mostNamed = 20
}
