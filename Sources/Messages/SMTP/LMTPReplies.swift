// SPDX-License-Identifier: Apache-2.0
internal import Wire

/// What an LMTP server has answered in one transaction, and which replies the client can have.
///
/// The client gets each reply as soon as it comes. Only the reply for its last recipient waits if the verdict adds
/// copies. No client brings a copy again, so a copy that is deferred needs a recipient that is deferred, too: the last
/// one, unless an earlier one is. A copy that is refused for good is left out, as at RCPT.
struct LMTPReplies {
    /// Accepted recipients: those of the client, or the one of a REDIRECT.
    var recipients = 0
    /// Accepted recipients that the verdict adds.
    private var copies = 0
    /// The replies to the final dot so far: those for the recipients, then those for the copies.
    private var final: [SMTPReply] = []
    /// How many replies the client has.
    private var passedOn = 0

    /// RSET, or a recipient that the verdict adds, was answered with yes.
    mutating func envelopeChanged(_ command: SMTPClientSession.Command, _ change: FilterDialogue.EnvelopeChange) {
        switch (command, change) {
        case (.reset, _): recipients = 0
        case (.recipient, .redirect): recipients += 1
        case (.recipient, .copies): copies += 1
        default: break
        }
    }

    /// Adds a reply to the final dot.
    mutating func add(_ reply: SMTPReply) { final.append(reply) }

    var areComplete: Bool { final.count >= recipients + copies }

    /// The replies that the client can have now, in the order of its recipients. If they are complete, the last one is
    /// for all further recipients.
    mutating func takeReplies() -> [SMTPReply] {
        var own = Array(final.prefix(recipients))
        if areComplete {
            if let deferred = refusedCopies.first(where: \.isTransient), !own.contains(where: \.isTransient),
                let last = own.indices.last
            {
                own[last] = deferred
            }
        } else if copies > 0 {
            own = Array(own.prefix(recipients - 1))
        }
        defer { passedOn = own.count }
        return Array(own.dropFirst(passedOn))
    }

    var refusedCopies: [SMTPReply] { final.dropFirst(recipients).filter { !$0.isPositive } }

    /// The replies that the client still has to get if those that did not come are `failure`. At least one reply,
    /// because a redirected message has no recipient between RSET and its new one.
    mutating func complete(with failure: SMTPReply) -> [SMTPReply] {
        guard recipients > 0 else { return [failure] }
        while !areComplete { add(failure) }
        return takeReplies()
    }
}
