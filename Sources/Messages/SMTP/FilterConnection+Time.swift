// SPDX-License-Identifier: Apache-2.0
internal import Loop
internal import NIOCore
internal import Report
internal import Wire

/// The timeouts of a client. It is timed out only while it is the one awaited. The disk and the next hop have timeouts
/// of their own.
extension FilterConnection {
    /// Ends what takes too long.
    func checkTime(_ now: NIODeadline) {
        let (timeouts, time) = (worker.timeouts, now - activeSince)
        switch dialogue.awaited(awaitsAnswer: session.awaitsAnswer, isAtDisk: content.atDiskSince != nil) {
        case .content where now - contentSince - content.timeAtDisk > timeouts.content:
            close(SMTPReply(421, "4.4.2 Error: the message takes too long"))
        case .command, .content:
            if time > timeouts.client { close(SMTPReply(421, "4.4.2 Error: timeout exceeded")) }
        case .disk: if let since = content.atDiskSince, now - since > timeouts.disk { giveUpDisk() }
        case .nextHop: break
        case .lastReply: if time > timeouts.client { end() }
        case .close: if time > timeouts.linger { end() }
        }
    }

    private func giveUpDisk() {
        worker.log.complain(.noRoom, "mail is deferred: no answer from the disk of the spool in time")
        worker.checks.counters.count(.deferred)
        close(SMTPReply(421, "4.3.0 Error: queue file system error"))
    }
}
