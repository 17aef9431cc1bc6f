// SPDX-License-Identifier: Apache-2.0
internal import Wire

/// What an LMTP server has answered in one transaction.
///
/// No client brings a copy that the verdict adds again. A copy that is deferred comes again with a recipient of the
/// client: one that is deferred anyway, else the first one that was accepted, who then gets the message again. A copy
/// that is refused for good is left out, as at RCPT.
struct LMTPReplies {
    /// Accepted recipients: those of the client, or the one of a REDIRECT.
    var recipients = 0
    /// Accepted recipients that the verdict adds.
    private var copies = 0
    /// The replies to the final dot so far: those for the recipients, then those for the copies.
    var final: [SMTPReply] = []

    /// RSET, or a recipient that the verdict adds, was answered with yes.
    mutating func envelopeChanged(_ command: SMTPClientSession.Command, _ change: FilterDialogue.EnvelopeChange) {
        switch (command, change) {
        case (.reset, _): recipients = 0
        case (.recipient, .redirect): recipients += 1
        case (.recipient, .copies): copies += 1
        default: break
        }
    }

    var areComplete: Bool { final.count >= recipients + copies }

    /// For each recipient of the client, or one for all of them.
    var forClient: [SMTPReply] {
        var own = Array(final.prefix(recipients))
        if let deferred = refusedCopies.first(where: \.isTransient), !own.contains(where: \.isTransient) {
            own[own.firstIndex(where: \.isPositive) ?? 0] = deferred
        }
        return own
    }

    var refusedCopies: [SMTPReply] { final.dropFirst(recipients).filter { !$0.isPositive } }

    /// For each recipient of the client; those without a reply get `failure`. At least one reply, because a redirected
    /// message has no recipient between RSET and its new one.
    func completed(with failure: SMTPReply) -> [SMTPReply] {
        var complete = self
        while !complete.areComplete { complete.final.append(failure) }
        return complete.recipients == 0 ? [failure] : complete.forClient
    }
}
