// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Report
internal import Rules
internal import Settings
internal import Wire

/// What a verdict means for the message.
extension FilterConnection {
    func judgement(of verdict: Verdict) -> FilterDialogue.Judgement {
        switch content.failure {
        case .tooLarge: return .answer(SMTPReply(552, "5.3.4 Error: message file too big"))
        case .noRoom(let cause):
            worker.log.complain(.noRoom, "mail is deferred: \(cause)")
            return .answer(SMTPReply(452, "4.3.1 Insufficient system storage"))
        case nil: break
        }
        worker.checks.report(verdict, "filter: \(session.summary)")
        let mark = session.mail.readableBytesView
        let sighting = worker.checks.probes.see(
            mark, at: .filter, "filter \(worker.settings.listen)", verdict.summary, isRefused: verdict.isRefusal)
        if case .last = sighting {
            return .answer(SMTPReply(250, "2.0.0 Ok: a probe, discarded"))
        }
        switch verdict.disposition {
        case .refuse(let refusal): return .answer(SMTPReply(refusal.code, refusal.text))
        case .discard: return .answer(SMTPReply(250, "2.0.0 Ok: discarded"))
        case .accept where !canCarryOut(verdict): return .answer(SMTPReply(451, "4.3.5 Server configuration error"))
        case .accept: return .handOn(noteCopies(of: verdict) ? .copiesFirst : verdict.envelopeChange)
        }
    }
}
