// SPDX-License-Identifier: Apache-2.0
package import Filter
package import MailSyntax
internal import Policy
internal import Rules
internal import Settings
internal import Wire

/// A message that is complete, as the rules judge it.
package struct MilterJudgement {
    /// Where the message comes from, as its headers prove it.
    package enum Origin {
        case client
        /// A probe of `weir doctor --try`, which goes no further.
        case probe
        /// An alert of Weir's own, which no limit applies to.
        case alert
    }

    /// The body that was kept because a rule may change it.
    package enum KeptBody: Equatable {
        /// Bytes.
        case complete(Int)
        case absent
        /// Neither memory nor disk has room for it; the reason.
        case failed(String)
    }

    package let verdict: Verdict
    package let origin: Origin
    package let headers: MilterHeaders
    /// The offset of the body, in the same unit as the ranges of the verdict.
    package let bodyStart: Int
    /// Bytes of the whole message.
    package let size: Int
    package let body: KeptBody
    /// Headers to add after those of the message.
    package let newHeaders: [NewHeader]

    package init(
        _ verdict: Verdict, origin: Origin, headers: MilterHeaders, bodyStart: Int, size: Int, body: KeptBody,
        newHeaders: [NewHeader]
    ) {
        self.verdict = verdict
        self.origin = origin
        self.headers = headers
        self.bodyStart = bodyStart
        self.size = size
        self.body = body
        self.newHeaders = newHeaders
    }
}

/// What ends a message: lines for the log, a charge that the ledger withdraws, edits, and the reply.
package struct MilterConclusion {
    /// The reply to the end of the message.
    package enum Reply: Equatable {
        /// SMFIR_CONTINUE
        case accept
        /// SMFIR_DISCARD
        case discard
        /// SMFIR_REPLYCODE: code, enhanced status code and text.
        case refuse([UInt8])
        /// SMFIR_TEMPFAIL
        case temporaryFailure
    }

    /// Something for the log.
    package enum Remark: Equatable {
        case alertPassed
        /// Mail from sendmail(1) is over a limit; the reply that a client would get.
        case held([UInt8])
        case deferred([UInt8])
        case repaired(from: [UInt8], to: [UInt8], AddressRepairs)
        case tooManyHeaders
        /// The verdict can't be carried out. `on_failure` decides what happens to the message, except at FILTER.
        case impossible(cause: String, isDeferred: Bool)
        case unreadableSpool(cause: String)
    }

    package var remarks: [Remark] = []
    /// The transaction whose charge the ledger withdraws.
    package var withdrawn: UInt64?
    /// To be written before the reply, or before the new body.
    package var edits: MilterEdits?
    package var reply: Reply

    init(_ reply: Reply) { self.reply = reply }
}

extension MilterTransaction {
    /// How a message ends.
    enum Ending {
        case reply(MilterConclusion)
        /// The edits, a new body in these pieces, and the reply.
        case newBody(MilterConclusion, [Verdict.Piece])
    }

    /// Mail from sendmail(1) is over a limit. It has no client that could try again, so it is held, or deferred in the
    /// MTA's queue. Either way, it is not charged: what some of its recipients were charged is given back.
    func refuseLocally(_ refusal: Refusal, _ judgement: MilterJudgement) -> Ending {
        switch settings.localOver {
        case .hold:
            effects.replaceHoldReason(refusal.text)
            return conclude(judgement, [.held(refusal.reply)], withdrawn: charged)
        case .defer:
            let reply = refusal.deferred.reply
            var conclusion = MilterConclusion(.refuse(reply))
            conclusion.remarks = [.deferred(reply)]
            conclusion.withdrawn = charged
            return .reply(conclusion)
        }
    }

    /// An alert is charged nothing, and is delivered whatever limits have answered.
    func passAlert(_ judgement: MilterJudgement) -> Ending {
        effects = LimitEffects()
        return conclude(judgement, [.alertPassed], withdrawn: charged)
    }

    /// Ends a message that neither rules nor limits refuse.
    func conclude(
        _ judgement: MilterJudgement, _ remarks: [MilterConclusion.Remark] = [], withdrawn: UInt64? = nil
    ) -> Ending {
        var conclusion = MilterConclusion(.accept)
        conclusion.remarks = remarks
        conclusion.withdrawn = withdrawn
        guard !effects.isDiscarded else {
            conclusion.reply = .discard
            return .reply(conclusion)
        }
        var edits = MilterEdits(judgement, self)
        if !settings.repairs.isEmpty { repair(&edits, &conclusion.remarks) }
        // The sender chooses the number of headers, and must not choose what `on_failure` does.
        guard edits.canName(judgement.headers) else {
            conclusion.remarks.append(.tooManyHeaders)
            conclusion.reply = .refuse(Array("550 5.6.0 message has too many headers".utf8))
            return .reply(conclusion)
        }
        // A rule that takes its action from the matched text: the configuration refuses all others. Without FILTER the
        // message must not be delivered, whatever `on_failure` says.
        if judgement.verdict.asksForFilter {
            conclusion.remarks.append(.impossible(cause: "a milter can't carry out FILTER", isDeferred: true))
            conclusion.reply = .temporaryFailure
            return .reply(conclusion)
        }
        if let cause = obstacle(to: edits, judgement.body) {
            let isDeferred = settings.onFailure == .defer
            conclusion.remarks.append(.impossible(cause: cause, isDeferred: isDeferred))
            conclusion.reply = isDeferred ? .temporaryFailure : .accept
            return .reply(conclusion)
        }
        conclusion.edits = edits
        guard case .complete(let size) = judgement.body, !edits.bodyEdits.isEmpty else { return .reply(conclusion) }
        var body = Verdict()
        body.edits = edits.bodyEdits
        return .newBody(conclusion, body.pieces(of: size, lineEnd: .crlf))
    }

    /// Why the edits can't be carried out; nil if they can.
    private func obstacle(to edits: MilterEdits, _ body: MilterJudgement.KeptBody) -> String? {
        guard edits.actions.isSubset(of: terms.actions) else {
            return "the MTA does not grant the edits of this message"
        }
        guard let last = edits.bodyEdits.last else { return nil }
        switch body {
        case .failed(let cause): return cause
        case .complete(let size) where last.range.upperBound <= size: return nil
        case .complete, .absent: return "the body was not kept in full"
        }
    }

    private func repair(_ edits: inout MilterEdits, _ remarks: inout [MilterConclusion.Remark]) {
        if let new = repaired(reversePath, &remarks) { edits.repairedSender = new }
        for (index, recipient) in recipients.enumerated() {
            if let new = repaired(recipient, &remarks) { edits.repairedRecipients[index] = new }
        }
    }

    /// nil for an address that stays as it is.
    private func repaired(_ address: [UInt8], _ remarks: inout [MilterConclusion.Remark]) -> [UInt8]? {
        guard case .repaired(let new, let repairs) = repairer.repair(address) else { return nil }
        remarks.append(.repaired(from: address, to: new, repairs))
        return new
    }
}
