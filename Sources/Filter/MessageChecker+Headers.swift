// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

extension MessageChecker {
    mutating func headers(_ block: HeaderBlock) {
        guard held == nil else { return hold(block) }
        guard !isOver, !isDeferring else {
            for header in block.headers { check(header, block.text(of: header), nil, nil) }
            return
        }
        guard checking.count == 1 else { return checkSets(block) }
        if current !== checking[0] { ask(checking[0]) }
        decoded?.decode(block, matcher, current.decodedPass)
        let primary = matcher.candidates(in: block, pass: headerPass)
        if current.sharesPass, decoded == nil {
            for header in block.headers { check(header, block.text(of: header), primary.of(header), nil) }
            return
        }
        let found = HeaderHits(block, current, matcher, primary)
        for header in block.headers {
            check(header, block.text(of: header), found.of(header), decoded?.takeNext())
        }
    }

    /// - Parameters:
    ///   - candidates: nil when no rule can match.
    ///   - line: the decoded text; nil when no rule asks for it.
    @inline(__always)
    private mutating func check(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ candidates: LineCandidates?, _ line: DecodedHeaders.Line?
    ) {
        guard !isDeferring else { return suspend(.header(text: Array(text), header)) }
        guard let (ordinal, isAdded) = take(header, text) else { return }
        // Most headers match nothing.
        guard !isOver, !isAdded, candidates != nil || line != nil else {
            return keep(header, text, ordinal)
        }
        guard let outcome = lookUp(header, text, ordinal, candidates, line) else { return }
        conclude(header, text, ordinal, outcome)
    }

    /// Counts a header, and notes what does not depend on rules.
    ///
    /// - Returns: the number of a primary header, and whether cleanup(8) has added it; nil if it is dropped.
    @inline(__always)
    mutating func take(_ header: Header, _ text: UnsafeRawBufferPointer) -> (ordinal: Int?, isAdded: Bool)? {
        guard case .primary = header.place else { return (nil, false) }
        let ordinal = headerCount
        headerCount += 1
        let isAdded = added.areNext(text)
        switch header.name {
        case .weirVerdict:
            // Weir writes it for the next hop only, so this one is forged.
            edit(header.range, [], ordinal)
            return nil
        case .dkimSignature:
            signed.formUnion(signedRecipientHeaders(text))
            isSigned = true
            keepSignature(text)
        case .contentType, .otherMIME, .to, .cc, .resentTo, .resentCc, .mailboxLine, .other: break
        }
        return (ordinal, isAdded)
    }

    /// Applies the rules for the header as it is, and then those for its decoded text.
    ///
    /// - Returns: nil if a lookup was suspended.
    mutating func lookUp(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int?, _ candidates: LineCandidates?,
        _ line: DecodedHeaders.Line?
    ) -> Outcome? {
        if let candidates {
            guard let outcome = lookUp(header, text, ordinal, candidates) else { return nil }
            guard case .keep = outcome, !isOver, !currentHasEnded else { return outcome }
        }
        guard let line else { return .keep }
        return lookUp(header, text, ordinal, line)
    }

    private mutating func lookUp(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int?, _ candidates: LineCandidates
    ) -> Outcome? {
        let (list, pass, kind) = checks(for: header.checkedAs)
        guard !list.isEmpty else { return .keep }
        guard let match = matcher.firstMatch(line: text, in: list, pass: pass, candidates: candidates) else {
            if !matcher.givenUp.isEmpty { collectGivenUp(list) }
            guard matcher.takeSuspension() else { return .keep }
            suspend(.suspendedHeader(text: Array(text), header, ordinal: ordinal, place))
            return nil
        }
        collectGivenUp(list)
        let subject = Subject(
            kind: kind, text: text, range: header.range, header: ordinal, isOfMessage: header.checkedAs == .primary)
        return act(match, of: list, on: subject)
    }

    /// Applies the rules for decoded headers.
    ///
    /// - Returns: nil if the lookup was suspended.
    mutating func lookUp(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int?, _ line: DecodedHeaders.Line
    ) -> Outcome? {
        guard let decoded, let candidates = line.candidates else { return .keep }
        let list = current.rules.decodedHeader
        return decoded.withText(of: line) { shown in
            guard
                let match = matcher.firstMatch(line: shown, in: list, pass: current.decodedPass, candidates: candidates)
            else {
                if !matcher.givenUp.isEmpty { collectGivenUp(list) }
                guard matcher.takeSuspension() else { return .keep }
                suspend(.suspendedDecodedHeader(text: Array(text), header, ordinal: ordinal, place))
                return nil
            }
            collectGivenUp(list)
            let subject = Subject(
                kind: .decodedHeader, text: shown, range: header.range, header: ordinal,
                isOfMessage: header.checkedAs == .primary)
            return act(match, of: list, on: subject)
        }
    }

    /// Carries out that the rules have made nothing of a header. Most need nothing else.
    @inline(__always)
    private mutating func keep(_ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int?) {
        let mayBeStripped = stripsUndisclosedRecipients && header.name.isVisibleRecipient
        guard mayBeStripped || completes || header.isCut || !header.isVerbatim else { return }
        conclude(header, text, ordinal, .keep)
    }

    /// Carries out what the rules have made of a header.
    mutating func conclude(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int?, _ outcome: Outcome
    ) {
        var outcome = outcome
        if ordinal != nil {
            switch outcome {
            case .keep: break
            case .drop: noteChange(of: text)
            case .replace(let new):
                noteChange(of: text)
                noteChange(of: new, isAdded: true)
            }
        }
        if stripsUndisclosedRecipients, let ordinal { outcome = strip(header, text, ordinal, outcome) }
        if completes, let ordinal { complete(header, text, ordinal, &outcome) }
        if header.isCut { noteLong(header) }
        switch outcome {
        case .keep where header.isCut: keepWhole(header, ordinal)
        case .keep where !header.isVerbatim: edit(header.range, folded(Array(text)), ordinal, isFormal: true)
        case .keep: break
        case .drop: edit(header.range, [], ordinal)
        case .replace(let text): edit(header.range, folded(text), ordinal)
        }
    }

    /// Repairs the addresses of a header, and follows whether it is taken away.
    private mutating func complete(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int, _ outcome: inout Outcome
    ) {
        if repairer.isActive { outcome = repair(header, text, ordinal, outcome) }
        guard rules.mayRemoveAddedHeaders else { return }
        switch outcome {
        case .keep: addable.keep(text)
        case .drop: addable.change(text, to: [])
        case .replace(let new): addable.change(text, to: new)
        }
    }

    private mutating func noteLong(_ header: Header) {
        if longHeaders.count < Self.mostLongHeaders {
            longHeaders.append(header.range.lowerBound)
        } else {
            moreLongHeaders += 1
        }
    }

    /// Leaves a header beyond the limit as it is: the limit is only for what rules see. The next hop must still take a
    /// `From ` line for a header, whatever comes before it.
    private mutating func keepWhole(_ header: Header, _ ordinal: Int?) {
        guard header.name == .mailboxLine else { return }
        let start = header.range.lowerBound
        edit(start..<start, Array("X-Mailbox-Line: ".utf8), ordinal, isFormal: true)
    }

    private func checks(for headerClass: HeaderClass) -> (RuleList, FastPass?, RuleMatch.Subject) {
        switch headerClass {
        case .primary: (current.rules.header, current.headerPass, .header)
        case .mime: (current.rules.mimeHeader, current.mimePass, .mimeHeader)
        case .nested: (current.rules.nestedHeader, current.nestedPass, .nestedHeader)
        }
    }

    /// Postfix inserts an empty line by itself where there is none (`mime_state.c`), or reports it
    /// (`non_empty_end_of_header_action`), so the message goes on as it came.
    mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool) {
        release(isSigned: false)
        guard !isDeferring else { return suspend(.endOfHeaders(offset: offset, needsEmptyLine: needsEmptyLine)) }
        addable.end = offset
        if needsEmptyLine { edit(offset..<offset, [0x0a], nil, isFormal: true) } else { endOfHeaders = offset }
    }
}
