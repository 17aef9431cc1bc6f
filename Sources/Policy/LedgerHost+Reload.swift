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
            let before = ledger.limits.map { (limit: $0, keys: $0.accountCount) }
            let relaxed = ledger.reload(configuration.limits, settings: configuration.ledgerSettings)
            ledger.shared?.configure(configuration.limits)
            ledger.adoptAll()
            endBlocks(of: relaxed)
            for (limit, keys) in before where keys > 0 && !ledger.limits.contains(where: { $0 === limit }) {
                log.notice(
                    "limit \(limit.limit.name) was removed or counts something else now: "
                        + "dropped the counts and blocks of \(keys) keys"
                )
            }
        }
        reloads += 1
        self.configuration = configuration
        parser = PolicyRequestParser(names: configuration.attributeNames.names)
        keepsSessions = configuration.milterAsks
        observer.logsPasses = configuration.log.decisions
        if configuration.log.capture != capture?.path {
            capture = configuration.log.capture.map { CaptureFile(path: $0, log: log) }
        }
    }
}
