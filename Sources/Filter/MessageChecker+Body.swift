// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

extension MessageChecker {
    mutating func body(_ body: BodyText) { check(body, from: SetPlace(set: 0, earlier: .keep)) }

    /// - Parameter place: how far the sets have been asked about the first line.
    mutating func check(_ body: BodyText, from place: SetPlace) {
        guard !isOver else { return }
        guard !isDeferring else { return suspend(body, from: 0, place) }
        guard checking.count == 1 else { return checkSets(body, from: place) }
        if current !== checking[0] { ask(checking[0]) }
        let list = current.rules.body
        let pass = current.bodyPass
        let matcher = matcher
        if body.isRecord {
            checkLine(body.text, at: body.offset, .unknown)
            if matcher.takeSuspension() { suspend(body, from: 0, place) }
        } else {
            matcher.forEachCandidateLine(in: body.text, of: list, pass: pass) { start, candidates in
                let end = body.text[start...].firstIndex(of: 0x0a).map { $0 + 1 } ?? body.text.count
                let line = UnsafeRawBufferPointer(rebasing: body.text[start..<end])
                checkLine(line, at: body.offset + start, candidates)
                guard !matcher.takeSuspension() else {
                    suspend(body, from: start, place)
                    return false
                }
                return !isOver
            }
        }
        if !matcher.givenUp.isEmpty { collectGivenUp(list) }
    }

    mutating func suspend(_ body: BodyText, from start: Int, _ place: SetPlace) {
        suspend(
            .body(text: Array(body.text[start...]), offset: body.offset + start, isRecord: body.isRecord, place))
    }

    private mutating func checkLine(_ line: UnsafeRawBufferPointer, at offset: Int, _ candidates: LineCandidates) {
        concludeLine(line, at: offset, lookUp(line, at: offset, candidates))
    }

    /// Applies the rules of the current set to a line or a piece of a long line, with its line end if it has one.
    mutating func lookUp(_ raw: UnsafeRawBufferPointer, at offset: Int, _ candidates: LineCandidates) -> Outcome {
        let line = raw.withoutLineEnd
        let list = current.rules.body
        guard !line.isEmpty, line[0] != 0,
            let match = matcher.firstMatch(
                line: line, in: list, pass: current.bodyPass, candidates: candidates)
        else { return .keep }
        let subject = Subject(
            kind: .body, text: line, range: offset..<offset + raw.count, header: nil, isOfMessage: false)
        return act(match, of: list, on: subject)
    }

    /// Carries out what the rules have made of a line.
    mutating func concludeLine(_ raw: UnsafeRawBufferPointer, at offset: Int, _ outcome: Outcome) {
        switch outcome {
        case .keep: break
        case .drop: edit(offset..<offset + raw.count, [], nil)
        case .replace(let text): edit(offset..<offset + raw.withoutLineEnd.count, text, nil)
        }
    }
}
