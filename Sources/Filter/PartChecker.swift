// SPDX-License-Identifier: Apache-2.0
internal import Decoding
internal import MailSyntax
internal import Rules

/// Applies the rules for decoded text and for attachments. What they find is kept apart until the end of the message:
/// the verdict then depends on the message alone, and not on the pieces in which it arrives.
final class PartChecker {
    private var reader: PartReader
    private var lines: PartLines

    /// nil if no rule asks for decoded parts.
    init?(_ rules: ContentRules, _ matcher: Matcher, _ memory: (any SharedMemory)?) {
        guard rules.readsDecodedParts else { return nil }
        reader = PartReader(
            wantsText: !rules.decodedBody.isEmpty, wantsAttachments: !rules.attachment.isEmpty, memory: memory)
        lines = PartLines(rules, matcher)
    }

    /// Begins another message.
    func begin() {
        reader.reset()
        lines.begin()
    }

    func update(_ bytes: UnsafeRawBufferPointer) { reader.update(bytes, &lines) }

    func endInput() { reader.finish(&lines) }

    var isSuspended: Bool { !lines.deferred.isEmpty }

    func resume(with matcher: Matcher) { lines.resume(with: matcher) }

    /// Adds what was found to the verdict of `checker`, unless a rule for the message as it came has ended the checks.
    func conclude(_ checker: inout MessageChecker) { checker.add(lines.checker) }
}

/// The lines of decoded parts, and the rules that match them.
private struct PartLines: PartEvents {
    /// Keeps what the rules find.
    private(set) var checker: MessageChecker
    private var textPass: FastPass?
    private var attachmentPass: FastPass?
    private var reported: Set<PartLimit> = []
    /// What waits for `resume`.
    private(set) var deferred: [DeferredPart] = []
    private var isDeferring = false

    enum DeferredPart {
        case lines(RuleMatch.Subject, text: [UInt8], Part)
        case archive(PartListing, Part)
    }

    init(_ rules: ContentRules, _ matcher: Matcher) {
        checker = MessageChecker(rules, matcher)
        begin()
    }

    mutating func begin() {
        checker.begin(checker.rules)
        (textPass, attachmentPass) = (checker.rules.decodedBody.fastPass, checker.rules.attachment.fastPass)
        if !reported.isEmpty { reported = [] }
        if !deferred.isEmpty { deferred = [] }
        isDeferring = false
    }

    mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) { check(lines, .decodedBody, part) }

    /// An archive takes longer to list than a turn of an event loop may.
    mutating func attachment(_ listing: PartListing, of part: Part) {
        guard !checker.isOver else { return }
        if listing.isArchive, isDeferring || checker.matcher.isOnLoop {
            isDeferring = true
            return deferred.append(.archive(listing, part))
        }
        listing.lines().withUnsafeBytes { check($0, .attachment, part) }
    }

    mutating func limitReached(_ limit: PartLimit, in part: Part) {
        guard !checker.isOver, reported.insert(limit).inserted else { return }
        checker.verdict.notes.append(.partLimit(limit.consequence, part: part.path))
    }

    private mutating func check(_ lines: UnsafeRawBufferPointer, _ kind: RuleMatch.Subject, _ part: Part) {
        guard !checker.isOver else { return }
        guard !isDeferring else { return suspend(lines, kind, part) }
        let isText = kind == .decodedBody
        let list = isText ? checker.rules.decodedBody : checker.rules.attachment
        let pass = isText ? textPass : attachmentPass
        guard !list.isEmpty else { return }
        let matcher = checker.matcher
        matcher.forEachCandidateLine(in: lines, of: list, pass: pass) { start, candidates in
            let end = lines[start...].firstIndex(of: 0x0a) ?? lines.count
            let line = UnsafeRawBufferPointer(rebasing: lines[start..<end])
            let match = matcher.firstMatch(line: line, in: list, pass: pass, candidates: candidates)
            guard !matcher.takeSuspension() else {
                suspend(UnsafeRawBufferPointer(rebasing: lines[start...]), kind, part)
                return false
            }
            if let match { act(match, of: list, on: line, kind, part) }
            return !checker.isOver
        }
        if !matcher.givenUp.isEmpty { checker.collectGivenUp(list) }
    }

    private mutating func act(
        _ match: Match, of list: RuleList, on line: UnsafeRawBufferPointer, _ kind: RuleMatch.Subject, _ part: Part
    ) {
        // PREPEND goes before the first header.
        let subject = MessageChecker.Subject(
            kind: kind, text: line, range: part.offset..<part.offset, header: 0, isOfMessage: true, part: part.path)
        _ = checker.act(match, of: list, on: subject)
    }

    // MARK: Suspension, as in `MessageChecker`

    private mutating func suspend(_ lines: UnsafeRawBufferPointer, _ kind: RuleMatch.Subject, _ part: Part) {
        isDeferring = true
        deferred.append(.lines(kind, text: Array(lines), part))
    }

    mutating func resume(with other: Matcher) {
        var waiting: [DeferredPart] = []
        swap(&waiting, &deferred)
        let own = checker.matcher
        checker.matcher = other
        isDeferring = false
        for part in waiting {
            switch part {
            case .lines(let kind, let text, let part): text.withUnsafeBytes { check($0, kind, part) }
            case .archive(let archive, let part): attachment(archive, of: part)
            }
        }
        checker.matcher = own
        isDeferring = !checker.isOver
    }
}

extension MessageChecker {
    /// Adds a verdict about decoded parts to that about the message as it came.
    fileprivate mutating func add(_ other: MessageChecker) {
        guard !isOver else { return }
        let found = other.verdict
        verdict.matches += found.matches
        verdict.moreMatches += found.moreMatches
        verdict.notes += found.notes
        // All of them are insertions at the top.
        verdict.edits = found.edits + verdict.edits
        changed += other.changed
        verdict.disposition = found.disposition
        isOver = other.isOver
        for effect in found.effects {
            if case .bcc(let address) = effect, !mayCopy(to: address) { continue }
            verdict.add(effect)
        }
    }
}

extension PartLimit {
    /// What becomes of the rest.
    var consequence: String {
        switch self {
        case .text: "the text after it is not checked"
        case .parts: "it and the parts after it are not checked"
        case .depth: "what it contains is checked as text"
        case .boundary: "its boundary does not occur, and nothing of it is checked"
        case .memory: "filter.most_memory is used up, and only the end of the archive is read"
        }
    }
}
