// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

extension MessageChecker {
    /// What a rule makes of the header or line that it matched.
    enum Outcome {
        case keep, drop
        case replace([UInt8])
    }

    /// A header or line that a rule has matched.
    struct Subject {
        let kind: RuleMatch.Subject
        let text: UnsafeRawBufferPointer
        /// Its bytes in the message, with the line end.
        let range: Range<Int>
        /// The number of a primary header, from 0.
        let header: Int?
        /// Whether it is a primary header that is not about MIME.
        let isOfMessage: Bool
        /// The path of the decoded part that it is from.
        var part: [UInt8]?
    }

    /// Carries out the action of a rule that has matched.
    mutating func act(_ match: Match, of list: RuleList, on subject: Subject) -> Outcome {
        var record = RuleMatch(
            subject: subject.kind, set: rules.label(of: current.rules), offset: subject.range.lowerBound,
            location: list.location(of: match.rule), tag: list.tag(of: match.rule), action: match.text,
            content: subject.kind.excerpt(of: subject.text, around: match.hit), part: subject.part)
        defer { keep(record) }
        guard !match.text.isEmpty else {
            // The message is deferred until the table is corrected.
            record.fault = "no action: message not accepted, try again later"
            refuse(451, "4.3.0 content check without an action, try again later")
            return .keep
        }
        do {
            let action = try Action(match.text, isHeader: subject.kind.isHeader)
            return carryOut(action, on: subject, &record)
        } catch {
            record.fault = error.message
            return .keep
        }
    }

    private mutating func carryOut(_ action: Action, on subject: Subject, _ record: inout RuleMatch) -> Outcome {
        guard subject.part == nil || !action.changesLine else {
            record.fault = "a decoded part has no line to change"
            return .keep
        }
        guard mayChange(action, &record) else { return .keep }
        switch action {
        case .reject(let refusal):
            verdict.disposition = .refuse(rules.checks.smtpUTF8 ? refusal : refusal.inASCII)
            isOver = true
        case .discard:
            verdict.disposition = .discard
            isOver = true
        case .pass: endSet()
        case .effect(let effect): apply(effect, &record)
        case .warn, .info: break
        case .dunno: record.isLogged = false
        case .prepend(let text):
            if isReserved(text, subject, &record) { break }
            let lines = subject.kind.isHeader ? folded(text) : text + [0x0a]
            let place = subject.part == nil ? subject.range.lowerBound : 0
            edit(place..<place, lines, subject.header)
            if subject.header != nil { noteChange(of: text, isAdded: true) }
        case .replace(let text):
            if isReserved(text, subject, &record) { break }
            // Postfix looks up the name of the new header again.
            return subject.isOfMessage && isDroppedHeader(text) ? .drop : .replace(text)
        case .strip: return .drop
        case .ignore:
            record.isLogged = false
            return .drop
        }
        return .keep
    }

    /// Whether the action changes nothing that a set before this one has changed.
    private func mayChange(_ action: Action, _ record: inout RuleMatch) -> Bool {
        guard action.changesLine else { return true }
        switch (earlier, action) {
        case (.keep, _), (.drop, .strip), (.drop, .ignore): return true
        case (.drop, _), (.replace, _):
            record.fault = "a set before this one has changed the same \(record.subject.isHeader ? "header" : "line")"
            return false
        }
    }

    /// Whether a rule writes the header that only Weir may write.
    private func isReserved(_ text: [UInt8], _ subject: Subject, _ record: inout RuleMatch) -> Bool {
        guard subject.header != nil, text.withUnsafeBytes({ HeaderName(of: $0) == .weirVerdict }) else {
            return false
        }
        record.fault = "X-Weir-Verdict is for Weir to write"
        return true
    }

    /// Refuses the message and ends the checks.
    mutating func refuse(_ code: Int, _ text: String) {
        verdict.disposition = .refuse(Refusal(code: code, text: Array(text.utf8)))
        isOver = true
    }

    /// Records a match. Any number of lines may match, so only the first ones and the last are kept.
    private mutating func keep(_ match: RuleMatch) {
        if match.isLogged { logged += 1 } else { unlogged += 1 }
        if (match.isLogged ? logged : unlogged) <= Self.mostMatches || isOver {
            verdict.matches.append(match)
        } else if match.isLogged {
            verdict.moreMatches += 1
        }
    }

    /// Header text in lines. A continuation line that does not begin with white space gets a tab.
    func folded(_ text: [UInt8]) -> [UInt8] {
        var lines: [UInt8] = []
        for line in text.split(separator: 0x0a, omittingEmptySubsequences: false) {
            if !lines.isEmpty, line.first?.isBlank != true { lines.append(0x09) }
            lines += line
            lines.append(0x0a)
        }
        return lines
    }

    /// Adds an edit. `header` is the number of the primary header.
    mutating func edit(_ range: Range<Int>, _ replacement: [UInt8], _ header: Int?, isFormal: Bool = false) {
        guard editBytes <= Self.mostEditBytes else { return }
        if header == nil, range.lowerBound == endOfHeaders {
            // Without its first line, the body could begin with something that looks like a header.
            endOfHeaders = nil
            edit(range.lowerBound..<range.lowerBound, [0x0a], nil, isFormal: true)
        }
        editBytes += 2 * MemoryLayout<Edit>.stride + replacement.count
        if editBytes > Self.mostEditBytes {
            verdict.notes.append(.tooManyEdits(verdict.edits.count))
            verdict.edits = []
            isOver = true
            guard case .accept = verdict.disposition else { return }
            return refuse(550, "5.6.0 message has too many places to change")
        }
        verdict.edits.append(Edit(range: range, replacement: replacement, header: header, isFormal: isFormal))
    }

    /// Notes the rules of `list` whose patterns exceeded a limit.
    mutating func collectGivenUp(_ list: RuleList) {
        for rule in matcher.takeGivenUp() {
            verdict.notes.append(.givenUp(list.location(of: rule.rule), reason: rule.reason))
        }
    }
}
