// SPDX-License-Identifier: Apache-2.0
package import Filter
package import Patterns
package import Policy
package import Rules
package import Wire

/// The milter's side of the dialogue with an MTA, above packets: events in, actions out. It does no I/O, and has no
/// clock.
///
///                 mail             header            body
///     idle ───────────▶ envelope ─────────▶ headers ─────▶ body ◀──────── writingBody
///                        │    ▲                              │    written      ▲
///              recipient │    │ answered                     └─────────────────┘
///                        ▼    │                                     body
///                   askingRecipient
///
///                                 endOfMessage          answered            written
///     envelope, headers, body ────────────────▶ settling ───────▶ concluding ──────▶ buildingBody ──────▶ idle
///                                                                                     │        ▲   end
///                                                                           pieceRead │        │ drained
///                                                                                     ▼        │
///                                                                                    sendingBody
///
/// - askingRecipient, settling: the ledger is asked. Without limits, the dialogue skips these states.
/// - writingBody, concluding: the disk writes a body that a rule may change. A body in memory needs no waiting.
/// - concluding, buildingBody, sendingBody: only for a new body, of which one piece at a time is read and sent. All
///   other messages end with endOfMessage or with settling.
/// - abort leads to idle, and close to closed, from every state.
///
/// While the ledger, the disk or the socket is at work (`isWaiting`), the caller leaves the MTA's next event in the
/// input.
///
/// Reset for each message: the transaction, which only the states from envelope to sendingBody have. Kept until the
/// next CONNECT: the client and its HELO name. SMFIC_ABORT and SMFIC_QUIT_NC both arrive as abort: libmilter's
/// `engine.c` ends the client with SMFIC_QUIT_NC, but the CONNECT that has to follow replaces it anyway. Postfix
/// (`milter8.c`) sends SMFIC_ABORT between messages, and opens a new connection for each SMTP client.
package struct MilterDialogue: ~Copyable {
    private enum State {
        case idle
        case envelope(MilterTransaction)
        case askingRecipient(MilterTransaction)
        case headers(MilterTransaction)
        case body(MilterTransaction)
        case writingBody(MilterTransaction)
        case settling(MilterTransaction, MilterJudgement)
        case concluding(MilterTransaction, MessagePieces)
        case buildingBody(MilterTransaction, MessagePieces)
        case sendingBody(MilterTransaction, MessagePieces)
        case closed
    }

    /// What the caller has to do.
    package enum Action {
        case none
        /// Send SMFIR_CONTINUE, if the MTA waits for a reply.
        case proceed
        /// Refuse the recipient, if the MTA waits for a reply.
        case refuseRecipient(Refusal)
        /// Refuse a recipient, because its address or the sender's can't be repaired.
        case refuseAddress(Refusal, [UInt8])
        /// Ask the ledger. The next event is `answered`.
        case ask(PolicyQuestion)
        /// The message is over.
        case conclude(MilterConclusion)
        /// Send the edits, and write the rest of the kept body to the disk. The next event is `written`.
        case beginNewBody(MilterConclusion)
        /// Append a piece of the new body to the output. The next event is `pieceAppended` or, if the piece has to be
        /// read from the disk, `pieceRead`.
        case append(Verdict.Piece)
        /// The new body, and with it the message, is complete.
        case finishNewBody
        /// The message was aborted: tell the ledger.
        case abandon(PolicyQuestion)
    }

    private var state = State.idle
    private var client = MilterSession.Client()
    private var helo: [UInt8] = []

    package init() {}

    package var isClosed: Bool {
        if case .closed = state { true } else { false }
    }

    /// Whether the ledger, the disk or the socket has to do something before the next event of the MTA.
    package var isWaiting: Bool {
        switch state {
        case .idle, .envelope, .headers, .body, .closed: false
        case .askingRecipient, .writingBody, .settling, .concluding, .buildingBody, .sendingBody: true
        }
    }

    /// The sets of checks for the message under way, before its content.
    package func chooseSets(
        of rules: ContentRules, _ macros: MilterMacros, _ scratch: MatchScratch
    ) -> ChosenSets? {
        switch state {
        case .envelope(let transaction): transaction.chooseSets(of: rules, client, helo: helo, macros, scratch)
        case .idle, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .buildingBody,
            .sendingBody, .closed:
            nil
        }
    }

    // MARK: Events of the MTA

    /// SMFIC_CONNECT
    package mutating func connect(_ client: MilterSession.Client) throws(MilterFault) -> Action {
        try requireIdle("C")
        self.client = client
        helo = []
        return .proceed
    }

    /// SMFIC_HELO
    package mutating func helo(_ name: [UInt8]) throws(MilterFault) -> Action {
        try requireIdle("H")
        helo = name
        return .proceed
    }

    private func requireIdle(_ command: Character) throws(MilterFault) {
        switch state {
        case .idle: return
        case .envelope, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .buildingBody,
            .sendingBody, .closed:
            throw .outOfOrder(command.asciiValue!)
        }
    }

    /// SMFIC_MAIL, or the first event of a message if the MTA sends no MAIL.
    ///
    /// - Parameter instance: a name for the message that no other has; empty without limits.
    package mutating func mail(
        _ reversePath: [UInt8], _ parameters: [[UInt8]], _ macros: MilterMacros, settings: MilterSettings,
        terms: MilterTerms, instance: [UInt8]
    ) throws(MilterFault) -> Action {
        try requireIdle("M")
        state = .envelope(
            MilterTransaction(
                reversePath, parameters, macros, client: client, settings: settings, terms: terms, instance: instance))
        return .proceed
    }

    /// SMFIC_RCPT
    package mutating func recipient(
        _ address: [UInt8], _ parameters: [[UInt8]], _ macros: MilterMacros
    ) throws(MilterFault) -> Action {
        switch state {
        case .envelope(let transaction):
            transaction.noteHost(macros)
            // Mail from sendmail(1) has no client that a refusal would reach.
            if !client.isLocal, let refusal = transaction.refusal(of: address) {
                return .refuseAddress(refusal, address)
            }
            try transaction.append(recipient: address, parameters)
            guard transaction.settings.asksLimits else { return .proceed }
            let question = transaction.recipientQuestion(client, helo: helo, macros)
            state = .askingRecipient(transaction)
            return .ask(question)
        case .idle, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .buildingBody,
            .sendingBody, .closed:
            throw .outOfOrder(UInt8(ascii: "R"))
        }
    }

    /// SMFIC_HEADER
    package mutating func header() throws(MilterFault) -> Action {
        switch state {
        case .envelope(let transaction): state = .headers(transaction)
        case .headers: break
        case .idle, .askingRecipient, .body, .writingBody, .settling, .concluding, .buildingBody, .sendingBody, .closed:
            throw .outOfOrder(UInt8(ascii: "L"))
        }
        return .proceed
    }

    /// SMFIC_BODY
    ///
    /// - Parameter isBeingWritten: the disk has to be waited for; the next event is `written`.
    package mutating func body(isBeingWritten: Bool) throws(MilterFault) -> Action {
        switch state {
        case .body where !isBeingWritten: break
        case .envelope(let transaction), .headers(let transaction), .body(let transaction):
            state = isBeingWritten ? .writingBody(transaction) : .body(transaction)
        case .idle, .askingRecipient, .writingBody, .settling, .concluding, .buildingBody, .sendingBody, .closed:
            throw .outOfOrder(UInt8(ascii: "B"))
        }
        return isBeingWritten ? .none : .proceed
    }

    /// SMFIC_BODYEOB
    package mutating func endOfMessage(
        _ judgement: MilterJudgement, _ macros: MilterMacros
    ) throws(MilterFault) -> Action {
        switch state {
        case .envelope(let transaction), .headers(let transaction), .body(let transaction):
            state = .idle
            switch (judgement.origin, judgement.verdict.disposition) {
            case (.probe, _), (_, .discard): return .conclude(MilterConclusion(.discard))
            case (_, .refuse(let refusal)): return .conclude(MilterConclusion(.refuse(refusal.reply)))
            case (.alert, .accept): return end(transaction, transaction.passAlert(judgement))
            case (.client, .accept): break
            }
            guard transaction.settings.asksLimits else { return end(transaction, transaction.conclude(judgement)) }
            if let refusal = transaction.effects.localRefusal {
                return end(transaction, transaction.refuseLocally(refusal, judgement))
            }
            let question = transaction.finalQuestion(client, helo: helo, macros, size: judgement.size)
            state = .settling(transaction, judgement)
            return .ask(question)
        case .idle, .askingRecipient, .writingBody, .settling, .concluding, .buildingBody, .sendingBody, .closed:
            throw .outOfOrder(UInt8(ascii: "E"))
        }
    }

    /// SMFIC_ABORT or SMFIC_QUIT_NC: ends the message, if one is under way.
    package mutating func abort() -> Action {
        let action = abandonment
        if !isClosed { state = .idle }
        return action
    }

    /// SMFIC_QUIT, or the connection is lost.
    package mutating func close() -> Action {
        let action = abandonment
        state = .closed
        return action
    }

    private var abandonment: Action {
        switch state {
        case .idle, .closed: .none
        case .envelope(let transaction), .askingRecipient(let transaction), .headers(let transaction),
            .body(let transaction), .writingBody(let transaction), .settling(let transaction, _),
            .concluding(let transaction, _), .buildingBody(let transaction, _), .sendingBody(let transaction, _):
            .abandon(transaction.question)
        }
    }

    // MARK: Events of the ledger, the disk and the socket

    /// The ledger has answered. An answer to a connection that is closed meanwhile has no effect.
    package mutating func answered(_ answer: PolicyAnswer) -> Action {
        switch state {
        case .askingRecipient(let transaction):
            state = .envelope(transaction)
            return transaction.apply(answer, isLocal: client.isLocal)
        case .settling(let transaction, let judgement):
            state = .idle
            guard case .decision(let action?, _) = answer else {
                return end(transaction, transaction.conclude(judgement))
            }
            if case .refuse(let refusal) = action {
                guard client.isLocal else { return .conclude(MilterConclusion(.refuse(refusal.reply))) }
                return end(transaction, transaction.refuseLocally(refusal, judgement))
            }
            transaction.effects.add(action)
            return end(transaction, transaction.conclude(judgement))
        case .idle, .envelope, .headers, .body, .writingBody, .concluding, .buildingBody, .sendingBody, .closed:
            return .none
        }
    }

    private mutating func end(_ transaction: MilterTransaction, _ ending: MilterTransaction.Ending) -> Action {
        switch ending {
        case .reply(let conclusion):
            state = .idle
            return .conclude(conclusion)
        case .newBody(let conclusion, let pieces):
            state = .concluding(transaction, MessagePieces(pieces))
            return .beginNewBody(conclusion)
        }
    }

    /// The kept part of the body is on the disk or in memory.
    package mutating func written() -> Action {
        switch state {
        case .writingBody(let transaction):
            state = .body(transaction)
            return .proceed
        case .concluding(let transaction, let pieces): return appendPiece(transaction, pieces)
        case .idle, .envelope, .askingRecipient, .headers, .body, .settling, .buildingBody, .sendingBody, .closed:
            return .none
        }
    }

    /// The piece is in the output.
    package mutating func pieceAppended() -> Action {
        switch state {
        case .buildingBody(let transaction, let pieces): return appendPiece(transaction, pieces)
        case .idle, .envelope, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .sendingBody,
            .closed:
            return .none
        }
    }

    /// The piece was read from the disk, and is in the output. The next one is read when the MTA has taken it.
    package mutating func pieceRead() {
        switch state {
        case .buildingBody(let transaction, let pieces): state = .sendingBody(transaction, pieces)
        case .idle, .envelope, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .sendingBody,
            .closed:
            break
        }
    }

    /// The MTA has taken all output.
    package mutating func drained() -> Action {
        switch state {
        case .sendingBody(let transaction, let pieces): return appendPiece(transaction, pieces)
        case .idle, .envelope, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .buildingBody,
            .closed:
            return .none
        }
    }

    private mutating func appendPiece(_ transaction: MilterTransaction, _ pieces: MessagePieces) -> Action {
        var pieces = pieces
        guard let piece = pieces.next() else {
            state = .idle
            return .finishNewBody
        }
        state = .buildingBody(transaction, pieces)
        return .append(piece)
    }

    /// A piece of the body could not be read. The MTA has a part of the new body, so it must not accept the message.
    package mutating func readFailed(_ cause: String) -> Action {
        switch state {
        case .buildingBody:
            state = .idle
            var conclusion = MilterConclusion(.temporaryFailure)
            conclusion.remarks = [.unreadableSpool(cause: cause)]
            return .conclude(conclusion)
        case .idle, .envelope, .askingRecipient, .headers, .body, .writingBody, .settling, .concluding, .sendingBody,
            .closed:
            return .none
        }
    }
}

extension MilterTransaction {
    /// Applies the ledger's answer about the last recipient.
    fileprivate func apply(_ answer: PolicyAnswer, isLocal: Bool) -> MilterDialogue.Action {
        switch answer {
        case .isCharged(let transaction): wasCharged(transaction)
        case .decision(let action, let transaction):
            wasCharged(transaction)
            if case .refuse(let refusal)? = action, !isLocal {
                removeLastRecipient()
                return .refuseRecipient(refusal)
            }
            if let action { effects.add(action) }
        }
        return .proceed
    }
}
