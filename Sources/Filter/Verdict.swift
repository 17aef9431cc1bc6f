// SPDX-License-Identifier: Apache-2.0
package import Rules

/// What is to be done to a message: the same value for every way in.
package struct Verdict: Sendable {
    package enum Disposition: Equatable, Sendable {
        case accept
        case refuse(Refusal)
        /// Taken, and thrown away.
        case discard
    }

    package var disposition = Disposition.accept
    /// In the order of the message; ranges do not overlap.
    package var edits: [Edit] = []
    package var isHeld = false
    /// `transport:destination` of the last FILTER.
    package var filter: [UInt8]?
    /// The only recipient, instead of those of the envelope.
    package var redirect: [UInt8]?
    /// More recipients.
    package var bcc: [[UInt8]] = []
    /// What matched, in the order of the message; of a flood the first, and the one that ended the checks.
    package var matches: [RuleMatch] = []
    /// Matches to be logged that `matches` leaves out.
    package var moreMatches = 0
    /// What the operator should know besides.
    package var notes: [Note] = []

    package init() {}
}

/// A change to the message.
package struct Edit: Equatable, Sendable {
    /// Bytes of the message as it came; empty where something is put in.
    package var range: Range<Int>
    /// What takes their place; lines end in LF, for whatever the message uses.
    package var replacement: [UInt8]
    /// The primary header that this is about, counted from 0; nil for other headers and the body.
    package var header: Int?
    /// No rule asks for it: only the form becomes that of Postfix.
    package var isFormal = false
}

/// A rule that matched.
package struct RuleMatch: Sendable {
    package enum Subject: String, Sendable {
        case header = "header_checks"
        case mimeHeader = "mime_header_checks"
        case nestedHeader = "nested_header_checks"
        case body = "body_checks"

        package var isHeader: Bool { self != .body }
    }

    package let subject: Subject
    /// Of the header or line in the message.
    package let offset: Int
    package let location: RuleLocation
    /// The right-hand side as it came out.
    package let action: [UInt8]
    /// The first 200 bytes of the header or line.
    package let content: [UInt8]
    /// Why the action could not be taken.
    package var fault: String?
    /// Whether Postfix would log it: not for DUNNO, OK, IGNORE, nor a second HOLD.
    package var isLogged = true
}

/// Something to log that is not a match.
package enum Note: Equatable, Sendable {
    /// A rule was given up, and counted as no match.
    case givenUp(RuleLocation, reason: String)
    /// An undisclosed-recipients header at this offset was taken away, and so many behind it.
    case undisclosedRecipients(offset: Int, more: Int = 0)
    /// A DKIM signature covers the header that was taken away, and will not verify.
    case brokenSignature(header: String)
    /// MIME parts within each other beyond the limit.
    case nestingExceeded
    /// More edits than are kept, after so many: the message is refused.
    case tooManyEdits(Int)
}

extension Verdict {
    package enum LineEnd: Sendable { case lf, crlf }

    /// A stretch of the message as it is to be.
    package enum Piece: Equatable, Sendable {
        /// Bytes of the message as it came.
        case original(Range<Int>)
        case new([UInt8])
    }

    /// The message with its edits, `count` bytes long when it came.
    package func pieces(of count: Int, lineEnd: LineEnd) -> [Piece] {
        var pieces: [Piece] = []
        var position = 0
        for edit in edits {
            if position < edit.range.lowerBound {
                pieces.append(.original(position..<edit.range.lowerBound))
            }
            if !edit.replacement.isEmpty { pieces.append(.new(edit.text(lineEnd))) }
            position = edit.range.upperBound
        }
        if position < count { pieces.append(.original(position..<count)) }
        return pieces
    }

    /// A message in memory with its edits.
    package func apply(to message: [UInt8], lineEnd: LineEnd) -> [UInt8] {
        guard !edits.isEmpty else { return message }
        var result: [UInt8] = []
        result.reserveCapacity(message.count + edits.reduce(0) { $0 + $1.replacement.count })
        for piece in pieces(of: message.count, lineEnd: lineEnd) {
            switch piece {
            case .original(let range): result += message[range]
            case .new(let bytes): result += bytes
            }
        }
        return result
    }
}

extension Edit {
    /// The new text with the message's line ends.
    package func text(_ lineEnd: Verdict.LineEnd) -> [UInt8] {
        guard lineEnd == .crlf else { return replacement }
        return replacement.flatMap { $0 == 0x0a ? [0x0d, 0x0a] : [$0] }
    }
}

extension Note: CustomStringConvertible {
    package var description: String {
        switch self {
        case .givenUp(let location, let reason): "\(location): no match, \(reason)"
        case .undisclosedRecipients(let offset, let more):
            "undisclosed-recipients header at offset \(offset) stripped" + (more > 0 ? ", and \(more) more" : "")
        case .brokenSignature(let header):
            "the DKIM-Signature covers the stripped \(header) header and will not verify"
        case .nestingExceeded: "MIME nesting exceeds safety limit"
        case .tooManyEdits(let count): "refused: after \(count) edits there is no room for more"
        }
    }
}
