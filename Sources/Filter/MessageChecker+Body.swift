// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

extension MessageChecker {
    mutating func body(_ body: BodyText) {
        guard !isOver else { return }
        guard !isDeferring else { return suspend(body, from: 0) }
        let list = rules.body
        let pass = bodyPass
        let matcher = matcher
        if body.isRecord {
            checkLine(body.text, at: body.offset, .unknown, list, pass)
            if matcher.takeSuspension() { suspend(body, from: 0) }
        } else {
            matcher.forEachCandidateLine(in: body.text, of: list, pass: pass) { start, candidates in
                let end = body.text[start...].firstIndex(of: 0x0a).map { $0 + 1 } ?? body.text.count
                let line = UnsafeRawBufferPointer(rebasing: body.text[start..<end])
                checkLine(line, at: body.offset + start, candidates, list, pass)
                guard !matcher.takeSuspension() else {
                    suspend(body, from: start)
                    return false
                }
                return !isOver
            }
        }
        if !matcher.givenUp.isEmpty { collectGivenUp(list) }
    }

    private mutating func suspend(_ body: BodyText, from start: Int) {
        suspend(.body(text: Array(body.text[start...]), offset: body.offset + start, isRecord: body.isRecord))
    }

    /// Checks a line or a piece of a long line, with its line end if it has one.
    private mutating func checkLine(
        _ raw: UnsafeRawBufferPointer, at offset: Int, _ candidates: LineCandidates,
        _ list: RuleList, _ pass: FastPass?
    ) {
        let line = raw.withoutLineEnd
        guard !line.isEmpty, line[0] != 0,
            let match = matcher.firstMatch(
                line: line, in: list, pass: pass, candidates: candidates)
        else { return }
        let subject = Subject(
            kind: .body, text: line, range: offset..<offset + raw.count, header: nil, isOfMessage: false)
        switch act(match, of: list, on: subject) {
        case .keep: break
        case .drop: edit(subject.range, [], nil)
        case .replace(let text): edit(offset..<offset + line.count, text, nil)
        }
    }
}
