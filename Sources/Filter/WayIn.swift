// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

/// The ways in which Postfix brings a message to the rules. What Postfix does to it before differs from way to way
/// (docs/ways-in.md).
package enum WayIn: String, CaseIterable, Sendable {
    case milter
    /// The SMTP filter after the queue (content_filter).
    case filter
    /// The SMTP filter before the queue (smtpd_proxy_filter).
    case proxy
    /// `weir filter`, run by pipe(8).
    case pipe

    /// A header of a message that the rules do not get, or not all of it.
    package struct UnseenHeader: Equatable, Sendable {
        /// With its line end.
        package let range: Range<Int>
        /// How many of its bytes the rules get.
        package let seen: Int
        package let reason: String
    }

    /// What the rules get of a message.
    package struct View {
        package fileprivate(set) var content: [UInt8] = []
        package fileprivate(set) var unseen: [UnseenHeader] = []
        /// Pieces of the message that follow one another in `content`.
        fileprivate var pieces: [(start: Int, original: Int)] = [(0, 0)]

        fileprivate mutating func append(_ range: Range<Int>, of message: [UInt8]) {
            guard !range.isEmpty else { return }
            pieces.append((content.count, range.lowerBound))
            content += message[range]
        }

        /// The offset in the message of a byte of `content`.
        package func original(_ offset: Int) -> Int {
            let piece = pieces.last { $0.start <= offset }!
            return piece.original + offset - piece.start
        }

        /// A verdict on `content`, with the offsets of the message itself.
        package func inMessage(_ verdict: Verdict) -> Verdict {
            var verdict = verdict
            for index in verdict.matches.indices {
                verdict.matches[index].offset = original(verdict.matches[index].offset)
            }
            for index in verdict.edits.indices {
                let range = verdict.edits[index].range
                let start = original(range.lowerBound)
                verdict.edits[index].range = start..<(range.isEmpty ? start : original(range.upperBound - 1) + 1)
            }
            verdict.notes = verdict.notes.map { note in
                switch note {
                case .undisclosedRecipients(let offset, let more):
                    .undisclosedRecipients(offset: original(offset), more: more)
                case .signedHeaderKept(let offset, let more): .signedHeaderKept(offset: original(offset), more: more)
                case .longHeaders(let offsets, let more, let limit):
                    .longHeaders(offsets: offsets.map(original), more: more, limit: limit)
                case .givenUp, .undecidedSet, .brokenSignature, .brokenSignatures, .addressRepaired,
                    .moreAddressesRepaired, .signedAddressesKept, .partLimit, .nestingExceeded, .tooManyEdits:
                    note
                }
            }
            return verdict
        }
    }

    /// What the rules get of a message as it is stored. Its first Received: header counts as the one that this Postfix
    /// has added.
    package func view(of message: [UInt8]) -> View {
        var view = View()
        var (position, hasReceived) = (0, false)
        while let header = Self.header(in: message, at: position) {
            let name = message[header].fieldName
            let isOwnReceived = !hasReceived && name.equalsIgnoringCase("received")
            hasReceived = hasReceived || isOwnReceived
            var seen = header.count
            if let (bytes, reason) = limit(name, isOwnReceived: isOwnReceived, count: header.count) {
                seen = bytes
                view.unseen.append(UnseenHeader(range: header, seen: bytes, reason: reason))
            }
            view.append(header.lowerBound..<header.lowerBound + seen, of: message)
            if seen > 0, seen < header.count { view.content.append(0x0a) }
            position = header.upperBound
        }
        view.append(position..<message.count, of: message)
        return view
    }

    /// cleanup(8) cuts headers there where any milter is used (KLUDGE_HEADER_LIMIT in `cleanup_message.c`).
    private static let longestMilterHeader = 60_000

    /// How much of a header is seen, and why; nil for all of it.
    private func limit(
        _ name: ArraySlice<UInt8>, isOwnReceived: Bool, count: Int
    ) -> (seen: Int, reason: String)? {
        guard self != .proxy else { return nil }
        let dropped: [StaticString] = ["bcc", "resent-bcc", "return-path", "content-length"]
        if dropped.contains(where: { name.equalsIgnoringCase($0) }) {
            return (0, "Postfix removes it first (message_drop_headers)")
        }
        guard self == .milter else { return nil }
        if isOwnReceived { return (0, "Postfix adds it, and does not show it to a milter") }
        guard count > Self.longestMilterHeader else { return nil }
        return (Self.longestMilterHeader, "Postfix shows a milter only the first 60,000 bytes of a header")
    }

    /// The header that begins at `start`, with its continuation lines; nil at the end of the headers.
    private static func header(in message: [UInt8], at start: Int) -> Range<Int>? {
        var end = start
        while end < message.count, end == start || message[end].isBlank {
            end = message[end...].firstIndex(of: 0x0a).map { $0 + 1 } ?? message.count
        }
        guard message[start..<end].prefix(while: { $0 != 0x0a }).contains(UInt8(ascii: ":")) else { return nil }
        return start..<end
    }

    /// The effects of a verdict that this way in can't carry out, each with what becomes of the message.
    package func impossibleEffects(of verdict: Verdict) -> [String] {
        verdict.effects.compactMap { effect in
            switch (self, effect) {
            case (.milter, .filter): "a milter can't carry out FILTER: weir check-config refuses the rule"
            case (.pipe, .hold), (.pipe, .filter): "weir filter can't carry out HOLD or FILTER: the message waits"
            case (.milter, _), (.filter, _), (.proxy, _), (.pipe, _): nil
            }
        }
    }
}
