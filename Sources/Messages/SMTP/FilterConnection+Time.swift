// SPDX-License-Identifier: Apache-2.0
internal import Loop
internal import NIOCore
internal import Report
internal import Settings
internal import Wire

/// The timeouts of a client. It is timed out only while it is the one awaited. The disk and the next hop have timeouts
/// of their own, and one together for the answer to a message.
extension FilterConnection {
    /// Ends what takes too long.
    func checkTime(_ now: NIODeadline) {
        let (timeouts, time) = (worker.timeouts, now - activeSince)
        let isAnswerOverdue = answerDueSince.map { now - $0 > timeouts.answer } ?? false
        if isBeingChecked, dialogue.isServing {
            // Before the final dot, a client waits only so long until its next bytes are read.
            if isAnswerOverdue || answerDueSince == nil && time > timeouts.client { giveUpChecks() }
            return
        }
        switch dialogue.awaited(awaitsAnswer: session.awaitsAnswer, isAtDisk: content.atDiskSince != nil) {
        case .content where now - contentSince - content.timeAtDisk > timeouts.content:
            close(SMTPReply(421, "4.4.2 Error: the message takes too long"))
        case .command, .content:
            if time > timeouts.client { close(SMTPReply(421, "4.4.2 Error: timeout exceeded")) }
        case .disk:
            if isAnswerOverdue || content.atDiskSince.map({ now - $0 > timeouts.disk }) ?? false { giveUpDisk() }
        case .nextHop: if isAnswerOverdue { nextHop?.timeOut() }
        case .lastReply: if time > timeouts.client { end() }
        case .close: if time > timeouts.linger { end() }
        }
    }

    private func giveUpChecks() {
        worker.log.warning("filter: \(session.summary): deferred: its checks take too long")
        worker.checks.counters.count(.deferred)
        close(SMTPReply(421, "4.3.0 Error: the content checks take too long"))
    }

    private func giveUpDisk() {
        worker.log.complain(.noRoom, "mail is deferred: no answer from the disk of the spool in time")
        worker.checks.counters.count(.deferred)
        close(SMTPReply(421, "4.3.0 Error: queue file system error"))
    }

    /// Before the queue, the client is smtpd(8), which closes a connection that takes too long, and never shuts down
    /// only one side. Its own client sends the message again.
    var hasGivenUp: Bool { worker.settings.mode == .beforeQueue && session.awaitsAnswer }

    /// The only time when a message can arrive twice (RFC 5321 4.5.4.1).
    func logPossibleDuplicate(_ cause: String) {
        worker.log.warning(
            "filter: \(session.summary): the message may arrive twice: \(cause) before the reply to the final dot")
    }
}
