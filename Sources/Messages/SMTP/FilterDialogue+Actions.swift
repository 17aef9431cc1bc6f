// SPDX-License-Identifier: Apache-2.0
package import Wire

/// What `FilterDialogue` is told, and what it asks its caller to do.
extension FilterDialogue {
    /// What the client can still say.
    package enum Input {
        case open
        /// It has shut down its side of the connection. What it said before is still answered.
        case ended
    }

    /// What becomes of the connection to the next hop when a transaction leaves it.
    package enum Parting: Equatable {
        /// There is no connection.
        case none
        /// RSET drops the transaction.
        case reset
        /// Only the end of the connection can drop the transaction, or the connection is out of step.
        case disconnect
        /// The final dot has gone. The next hop answers it, but the client no longer hears that.
        case detach
        /// The transaction is complete.
        case release
    }

    /// How the verdict changes the envelope. It decides which refusals of the next hop count.
    package enum EnvelopeChange: Equatable {
        /// Recipients are added. One that is refused for good is left out.
        case copies
        /// To an LMTP server: copies go first, in a transaction of their own. Likewise.
        case copiesFirst
        /// All recipients are replaced by another, without whom the message can't go.
        case redirect
    }

    /// What became of a complete message.
    package enum Judgement {
        case answer(SMTPReply)
        case handOn(EnvelopeChange)
    }

    /// How the connection ends once the last reply has gone.
    package enum Farewell {
        /// The client expects no more.
        case close
        /// The client may still be sending. It would lose the reply if the socket were closed at once.
        case linger
    }

    package enum RecipientAction: Equatable {
        /// Take a connection to the next hop, call `began`, and ask XFORWARD and MAIL before this recipient.
        case begin
        /// Ask on the connection of the transaction.
        case ask
        case ignore
    }

    package enum JudgementAction: Equatable {
        /// Ask for what the verdict adds to the envelope, then DATA.
        case askData
        /// Deliver the copies on another connection, with the whole of a transaction up to DATA.
        case deliverCopies
        case finish(SMTPReply, Parting)
        case ignore
    }

    package enum ReplyAction {
        /// Disconnect, and ask these on a fresh connection.
        case askAgain([Question])
        /// The reply to the earliest recipient that has none.
        case answerRecipient(SMTPReply)
        case logRefusedXForward
        case logRefusedCopy
        case sendContent
        /// The message was not handed on.
        case finish(SMTPReply, Parting)
        /// The next hop's reply to the final dot, for the client. Release the connection.
        case finalReply(SMTPReply)
        /// Replies of an LMTP server for the client's next recipients, in their order. Others follow.
        case passOn([SMTPReply])
        /// The replies of an LMTP server for the client's last recipients, in their order, where the last reply is for
        /// all of those without a reply; and whether any recipient is deferred. Release the connection.
        case finalReplies([SMTPReply], isDeferred: Bool)
        /// An LMTP server's final reply for the copy with this number. Call `copyNoted`.
        case copyAnswered(Int, SMTPReply)
        /// A copy is deferred for this reason: so is the message.
        case deferWithCopies(SMTPReply, SMTPReply, Parting)
        /// No copy was accepted, for this reason unless it is logged already. Leave their connection, and ask DATA for
        /// the client's recipients.
        case leaveOutCopies(SMTPReply?, Parting)
        case ignore
    }

    package enum CopiesAction: Equatable {
        case wait
        /// Leave the connection of the copies, and ask DATA for the client's recipients.
        case askData(Parting)
        case finish(SMTPReply, Parting)
    }

    package enum LossAction {
        /// Ask these on a fresh connection. The loss is no fault: the next hop may close an idle connection.
        case askAgain([Question])
        /// The client has to come again.
        case close(SMTPReply)
        case finish(SMTPReply)
        /// An LMTP server is lost. These are the replies for the client's recipients without a reply, in their order.
        case finishEach([SMTPReply])
        /// The loss counts, but nothing has to be answered now.
        case wait
    }

    package enum SentAction: Equatable {
        case wait
        /// Shut down the sending side, and read until the client closes.
        case linger
        case close
    }

    /// Whom the filter waits for, which decides the timeout.
    package enum Awaited: Equatable {
        /// The client's next command.
        case command
        /// The client's content.
        case content
        /// The disk, which writes or reads the spool.
        case disk
        /// The next hop, whose connection has timeouts of its own.
        case nextHop
        /// The client has to take its last reply.
        case lastReply
        /// The client has to close.
        case close
    }
}
