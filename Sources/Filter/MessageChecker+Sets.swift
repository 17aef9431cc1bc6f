// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

/// The rules of one set that may match the headers of a block.
struct HeaderHits {
    private let primary: HeaderCandidates
    private let mime: HeaderCandidates
    private let nested: HeaderCandidates

    init(_ block: HeaderBlock, _ set: SetInUse, _ matcher: Matcher, _ primary: HeaderCandidates) {
        self.primary = primary
        // Classes that share a list share its scan.
        mime = set.mimePass === set.headerPass ? primary : matcher.candidates(in: block, pass: set.mimePass)
        nested = set.nestedPass === set.headerPass ? primary : matcher.candidates(in: block, pass: set.nestedPass)
    }

    /// nil if no rule can match the header.
    func of(_ header: Header) -> LineCandidates? {
        switch header.checkedAs {
        case .primary: primary.of(header)
        case .mime: mime.of(header)
        case .nested: nested.of(header)
        }
    }
}

/// Several sets. Each header and line is looked up in one set after the other, and each set finds it as it came.
extension MessageChecker {
    /// How far the sets have been asked about a header or line.
    struct SetPlace {
        /// The set that is asked.
        let set: Int
        /// What those before it have made of the header or line.
        let earlier: Outcome
    }

    var place: SetPlace { SetPlace(set: current.rules.index, earlier: earlier) }

    mutating func checkSets(_ block: HeaderBlock) {
        decoded?.decode(block)
        let asked = checking.map { set in
            let primary = matcher.candidates(in: block, pass: set.headerPass)
            return (
                set: set.rules.index, hits: HeaderHits(block, set, matcher, primary),
                decoded: set.rules.decodedHeader.isEmpty ? nil : decoded?.scan(matcher, set.decodedPass)
            )
        }
        for (number, header) in block.headers.enumerated() {
            let text = block.text(of: header)
            guard !isDeferring else {
                suspend(.header(text: Array(text), header))
                continue
            }
            guard let (ordinal, isAdded) = take(header, text) else { continue }
            let isChecked = !isOver && !isAdded
            let outcome =
                !isChecked
                ? .keep
                : askSets(from: SetPlace(set: 0, earlier: .keep)) { checker, set in
                    guard let asked = asked.first(where: { $0.set == set.rules.index }) else { return .keep }
                    let line = asked.decoded.flatMap { checker.decoded?.line(number, of: $0) }
                    return checker.lookUp(header, text, ordinal, asked.hits.of(header), line)
                }
            if let outcome { conclude(header, text, ordinal, outcome) }
        }
    }

    /// Asks the sets about a header or line, until one ends the checks.
    ///
    /// - Parameter ask: asks one set; nil if its lookup was suspended.
    /// - Returns: what they have made of it; nil if a lookup was suspended.
    mutating func askSets(
        from place: SetPlace, _ ask: (inout MessageChecker, SetInUse) -> Outcome?
    ) -> Outcome? {
        earlier = place.earlier
        defer { earlier = .keep }
        for set in checking where set.rules.index >= place.set && !isOver {
            self.ask(set)
            guard let outcome = ask(&self, set) else { return nil }
            if case .keep = outcome { continue }
            earlier = outcome
        }
        return earlier
    }

    /// Looks up a header in all sets from one on, without a scan.
    ///
    /// - Parameter isDecodedOnly: the first set has been asked about the header as it is.
    mutating func lookUpAll(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int?, from place: SetPlace,
        isDecodedOnly: Bool = false
    ) -> Outcome? {
        askSets(from: place) { checker, set in
            let isAsked = isDecodedOnly && set.rules.index == place.set
            let line = set.rules.decodedHeader.isEmpty ? nil : checker.decoded?.decode(text, header)
            return checker.lookUp(header, text, ordinal, isAsked ? nil : .unknown, line)
        }
    }

    mutating func checkSets(_ body: BodyText, from place: SetPlace) {
        guard !body.isRecord else {
            checkLine(body, at: 0, body.text, from: place) { _ in .unknown }
            return
        }
        let asked = checking
        let matcher = matcher
        matcher.forEachCandidateLine(in: body.text, of: asked.map { ($0.rules.body, $0.bodyPass) }) { start, found in
            let end = body.text[start...].firstIndex(of: 0x0a).map { $0 + 1 } ?? body.text.count
            let line = UnsafeRawBufferPointer(rebasing: body.text[start..<end])
            // What was asked before a suspension is about the first line.
            let begun = start == 0 ? place : SetPlace(set: 0, earlier: .keep)
            let isDone = checkLine(body, at: start, line, from: begun) { set in
                asked.firstIndex { $0 === set }.flatMap { found[$0] }
            }
            return isDone && !isOver
        }
    }

    /// - Returns: false if a lookup was suspended.
    @discardableResult
    private mutating func checkLine(
        _ body: BodyText, at start: Int, _ line: UnsafeRawBufferPointer, from place: SetPlace,
        _ candidates: (SetInUse) -> LineCandidates?
    ) -> Bool {
        let outcome = askSets(from: place) { checker, set in
            guard let candidates = candidates(set) else { return .keep }
            let outcome = checker.lookUp(line, at: body.offset + start, candidates)
            if !checker.matcher.givenUp.isEmpty { checker.collectGivenUp(set.rules.body) }
            guard checker.matcher.takeSuspension() else { return outcome }
            checker.suspend(body, from: start, checker.place)
            return nil
        }
        if let outcome { concludeLine(line, at: body.offset + start, outcome) }
        return outcome != nil
    }
}
