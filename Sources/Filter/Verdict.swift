// SPDX-License-Identifier: Apache-2.0
package import MailSyntax
package import Rules

/// What to do with a message, whichever way it came in.
package struct Verdict: Sendable {
    package enum Disposition: Equatable, Sendable {
        case accept
        case refuse(Refusal)
        /// Accepted from the client, and thrown away.
        case discard
    }

    package var disposition = Disposition.accept
    /// In the order of the message; ranges do not overlap.
    package var edits: [Edit] = []
    /// In the order of `Effect.rank`.
    package internal(set) var effects: [Effect] = []
    /// Matches in the order of the message: the first ones, and the one that ended the checks.
    package var matches: [RuleMatch] = []
    /// How many matches to be logged `matches` leaves out.
    package var moreMatches = 0
    /// What else the log tells the operator.
    package var notes: [Note] = []
    /// The repairs of each address that was repaired in a header.
    package var repairs: [AddressRepairs] = []
    /// Headers that cleanup(8) adds where they are missing, and that rules have taken away.
    package internal(set) var removed: RemovedHeaders?

    package init() {}
}

/// A change to the message.
package struct Edit: Equatable, Sendable {
    /// Bytes of the original message; empty for an insertion.
    package var range: Range<Int>
    /// The new text. Its lines end in LF, whatever the message uses.
    package var replacement: [UInt8]
    /// The number of the primary header, from 0; nil for MIME part headers, nested headers and the body.
    package var header: Int?
    /// Whether it only normalises line folding and the like as Postfix does, without a rule.
    package var isFormal = false
}

/// A rule that matched.
package struct RuleMatch: Sendable {
    package enum Subject: String, Sendable {
        case header = "header_checks"
        case mimeHeader = "mime_header_checks"
        case nestedHeader = "nested_header_checks"
        case body = "body_checks"
        case decodedHeader = "decoded_header"
        case decodedBody = "decoded_body"
        case attachment

        /// Whether PREPEND and REPLACE write headers.
        package var isHeader: Bool { self != .body }

        /// The part of a matched text that is kept: its first 200 bytes, or 200 bytes around the hit if the text is
        /// decoded.
        func excerpt(of text: UnsafeRawBufferPointer, around hit: Range<Int>?) -> [UInt8] {
            var start = 0
            switch self {
            case .header, .mimeHeader, .nestedHeader, .body: break
            case .decodedHeader, .decodedBody, .attachment:
                if let hit, hit.upperBound > 200 { start = max(0, hit.lowerBound - 50) }
            }
            // Not inside a character.
            while start > 0, text[start] & 0xc0 == 0x80 { start -= 1 }
            return Array(text[start...].prefix(200))
        }
    }

    package let subject: Subject
    /// The set of checks; nil where there is only one.
    package let set: String?
    /// The byte offset of the header or line in the message.
    package var offset: Int
    package let location: RuleLocation
    package let tag: String?
    /// The right-hand side, with `$n` replaced.
    package let action: [UInt8]
    /// 200 bytes of the header or line, as the rule saw it.
    package let content: [UInt8]
    /// The path of the decoded part that the line is from, as IMAP numbers it.
    package var part: [UInt8]?
    /// Why the action was not carried out.
    package var fault: String?
    /// Whether Postfix would log it: it does not log DUNNO, OK and IGNORE, nor a second HOLD.
    package var isLogged = true
}

extension RuleMatch {
    /// The class of checks, and the decoded part: `decoded_body 2.1`.
    package var view: String {
        subject.rawValue + (part.map { " \(String(decoding: $0, as: UTF8.self))" } ?? "")
    }

    /// `, set customers, tag spam`, as far as the rule has them.
    package var names: String {
        (set.map { ", set \($0)" } ?? "") + (tag.map { ", tag \($0)" } ?? "")
    }
}

/// A line to log that is not about a match.
package enum Note: Equatable, Sendable {
    /// A pattern exceeded a limit and counts as no match.
    case givenUp(RuleLocation, reason: String)
    /// A condition of a set of checks could not be decided, so the set was not asked.
    case undecidedSet(String, attribute: String, reason: String)
    /// An undisclosed-recipients header at this offset was stripped, and `more` of them after it.
    case undisclosedRecipients(offset: Int, more: Int = 0)
    /// An undisclosed-recipients header at this offset stays because a DKIM signature covers it, and `more` after it.
    case signedHeaderKept(offset: Int, more: Int)
    /// A DKIM signature covers the stripped header and will not verify.
    case brokenSignature(header: String)
    /// Rules have changed headers (names in lower case) or the body, and a DKIM signature covers them.
    case brokenSignatures(headers: [[UInt8]], body: Bool)
    /// Headers longer than `header_size_limit`: the rest is not checked, and is passed on. `more` of them follow.
    case longHeaders(offsets: [Int], more: Int, limit: Int)
    /// An address in a header was repaired.
    case addressRepaired(header: [UInt8], from: [UInt8], to: [UInt8], AddressRepairs)
    /// More addresses were repaired than the log names.
    case moreAddressesRepaired(Int)
    /// Addresses in headers stay as they are, because the message has a DKIM-Signature.
    case signedAddressesKept(Int)
    /// A bound on decoding was reached in this part. The text says what happens to the rest.
    case partLimit(String, part: [UInt8])
    /// MIME parts are nested deeper than the limit.
    case nestingExceeded
    /// The edits exceed the memory limit after this many; the message is refused.
    case tooManyEdits(Int)
}

extension Verdict {
    package enum LineEnd: Sendable { case lf, crlf }

    /// A piece of the edited message.
    package enum Piece: Equatable, Sendable {
        /// Bytes of the original message.
        case original(Range<Int>)
        case new([UInt8])
    }

    /// The edited message in pieces. The original is `count` bytes long.
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

    /// The edited message, for an original in memory.
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
    /// Whether a rule writes a header that cleanup(8) would change or drop if a message brought it.
    package var needsCleanup: Bool {
        guard header != nil, !isFormal, !replacement.isEmpty else { return false }
        return isDroppedHeader(replacement) || hasBlankBeforeColon(replacement)
    }

    /// The new text, with the line ends of the message.
    package func text(_ lineEnd: Verdict.LineEnd) -> [UInt8] {
        guard lineEnd == .crlf else { return replacement }
        return replacement.flatMap { $0 == 0x0a ? [0x0d, 0x0a] : [$0] }
    }
}

extension Note: CustomStringConvertible {
    package var description: String {
        switch self {
        case .givenUp(let location, let reason): "\(location): no match, \(reason)"
        case .undecidedSet(let name, let attribute, let reason):
            "the checks of set \(name) do not apply: can't match \(attribute): \(reason)"
        case .undisclosedRecipients(let offset, let more):
            "undisclosed-recipients header at offset \(offset) stripped" + (more > 0 ? ", and \(more) more" : "")
        case .signedHeaderKept(let offset, let more):
            "undisclosed-recipients header at offset \(offset)" + (more > 0 ? " and \(more) more" : "")
                + " kept: a DKIM-Signature covers it"
        case .brokenSignature(let header):
            "the DKIM-Signature covers the stripped \(header) header and will not verify"
        case .brokenSignatures(let headers, let body):
            "a DKIM-Signature covers what was changed ("
                + (headers.map { printable($0) } + (body ? ["the body"] : [])).joined(separator: ", ")
                + ") and will not verify"
        case .longHeaders(let offsets, let more, let limit):
            "headers longer than header_size_limit (\(limit)), at offset "
                + offsets.map(String.init).joined(separator: ", ") + (more > 0 ? " and \(more) more" : "")
                + ": the rest is not checked, and Postfix cuts it where its own limit is no larger"
        case .addressRepaired(let header, let old, let new, let repairs):
            "\(String(decoding: header, as: UTF8.self)): \(String(decoding: old, as: UTF8.self)) becomes "
                + "\(String(decoding: new, as: UTF8.self)): "
                + repairs.names.map { "header_\($0)" }.joined(separator: ", ")
        case .moreAddressesRepaired(let count): "and \(count) more addresses in headers repaired"
        case .signedAddressesKept(let count):
            "addresses in headers not repaired (\(count)): the message has a DKIM-Signature"
        case .partLimit(let rest, let part): "limit reached in part \(String(decoding: part, as: UTF8.self)): \(rest)"
        case .nestingExceeded: "MIME nesting exceeds safety limit"
        case .tooManyEdits(let count): "refused: after \(count) edits there is no room for more"
        }
    }
}
