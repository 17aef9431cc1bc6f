// SPDX-License-Identifier: Apache-2.0
internal import Wire

/// What an LMTP server has answered in one transaction. The client gets each reply as soon as it comes.
struct LMTPReplies {
    /// Accepted recipients: those of the client, or the one of a REDIRECT.
    var recipients = 0
    /// The replies to the final dot so far.
    private var final: [SMTPReply] = []
    /// How many replies the client has.
    private var passedOn = 0

    /// RSET, or the recipient of a REDIRECT, was answered with yes.
    mutating func envelopeChanged(_ command: SMTPClientSession.Command) {
        switch command {
        case .reset: recipients = 0
        case .recipient: recipients += 1
        default: break
        }
    }

    /// Adds a reply to the final dot.
    mutating func add(_ reply: SMTPReply) { final.append(reply.withoutClosing) }

    var areComplete: Bool { final.count >= recipients }
    /// Whether the client brings the message again.
    var areTransient: Bool { final.contains(where: \.isTransient) }

    /// The replies that the client can have now, in the order of its recipients. If they are complete, the last one is
    /// for all further recipients.
    mutating func takeReplies() -> [SMTPReply] {
        defer { passedOn = final.count }
        return Array(final.dropFirst(passedOn))
    }

    /// The replies that the client still has to get if those that did not come are `failure`. At least one reply,
    /// because a redirected message has no recipient between RSET and its new one.
    mutating func complete(with failure: SMTPReply) -> [SMTPReply] {
        guard recipients > 0 else { return [failure] }
        while !areComplete { add(failure) }
        return takeReplies()
    }
}

/// What an LMTP server has answered to the copies of a message, in the order in which they were asked.
struct LMTPCopies {
    /// Copies whose recipient was answered.
    private var asked = 0
    /// The numbers of those whose recipient was accepted.
    private var accepted: [Int] = []
    /// The replies to the final dot so far.
    private var final: [SMTPReply] = []

    mutating func recipientAnswered(_ reply: SMTPReply) {
        if reply.isPositive { accepted.append(asked) }
        asked += 1
    }

    /// Adds a reply to the final dot.
    ///
    /// - Returns: the number of its copy; nil if all have their reply.
    mutating func add(_ reply: SMTPReply) -> Int? {
        guard !areComplete else { return nil }
        defer { final.append(reply) }
        return accepted[final.count]
    }

    var hasRecipients: Bool { !accepted.isEmpty }
    var areComplete: Bool { final.count >= accepted.count }
    var isDeferred: Bool { final.contains(where: \.isTransient) }
}
