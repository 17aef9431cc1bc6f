// SPDX-License-Identifier: Apache-2.0
internal import Decoding
internal import MailSyntax
internal import Rules

/// Applies the rules for decoded text and for attachments. What they find is kept apart until the end of the message:
/// the verdict then depends on the message alone, and not on the pieces in which it arrives. It is also kept apart for
/// each set, because a rule for the message as it came may end the checks of one set.
final class PartChecker {
    private var reader: PartReader
    private var lines: SetLines
    private var isReading = true

    /// nil if no rule asks for decoded parts.
    init?(_ rules: ContentRules, _ matcher: Matcher, _ memory: (any SharedMemory)?) {
        guard rules.readsDecodedParts else { return nil }
        reader = PartReader(
            wantsText: rules.sets.contains { !$0.decodedBody.isEmpty },
            wantsAttachments: rules.sets.contains { !$0.attachment.isEmpty }, memory: memory)
        lines = SetLines(all: rules.sets.filter(\.readsDecodedParts).map { PartLines(rules, $0, matcher) })
    }

    /// Begins another message.
    func begin() {
        reader.reset()
        isReading = true
        for index in lines.all.indices { lines.all[index].begin() }
    }

    /// Checks the message by these sets only. Has an effect before the content.
    func select(_ chosen: ChosenSets) {
        for index in lines.all.indices { lines.all[index].isAsked = chosen.indexes.contains(lines.all[index].set) }
    }

    /// Whether any rule for parts can still have an effect.
    private var isNeeded: Bool { lines.all.contains { $0.isAsked && !$0.checker.isOver } }

    /// - Parameter sets: the indexes of sets that do not apply after all.
    func update(_ bytes: UnsafeRawBufferPointer, without sets: [Int]) {
        guard isReading else { return }
        leaveOut(sets)
        isReading = isNeeded
        // What is kept of an archive is released.
        if isReading { reader.update(bytes, &lines) } else { reader.reset() }
    }

    func endInput(without sets: [Int]) {
        leaveOut(sets)
        if isReading, isNeeded { reader.finish(&lines) }
    }

    private func leaveOut(_ sets: [Int]) {
        guard !sets.isEmpty else { return }
        for index in lines.all.indices where sets.contains(lines.all[index].set) { lines.all[index].isAsked = false }
    }

    var isSuspended: Bool { lines.all.contains { !$0.deferred.isEmpty } }

    func resume(with matcher: Matcher) {
        for index in lines.all.indices where !lines.all[index].deferred.isEmpty {
            lines.all[index].resume(with: matcher)
        }
    }

    /// Adds what the sets have found to the verdict of `checker`, one set after the other, unless a rule for the
    /// message as it came has ended the checks.
    func conclude(_ checker: inout MessageChecker) {
        var edits = 0
        for lines in lines.all where lines.isAsked { checker.add(lines.checker, of: lines.set, after: &edits) }
    }
}

/// The lines of decoded parts for each set that has rules for them.
private struct SetLines: PartEvents {
    var all: [PartLines]

    mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) {
        for index in all.indices where all[index].isAsked { all[index].text(lines, of: part) }
    }

    mutating func attachment(_ listing: PartListing, of part: Part) {
        for index in all.indices where all[index].isAsked { all[index].attachment(listing, of: part) }
    }

    mutating func limitReached(_ limit: PartLimit, in part: Part) {
        for index in all.indices where all[index].isAsked { all[index].limitReached(limit, in: part) }
    }
}

/// The lines of decoded parts, and the rules of one set that match them.
private struct PartLines {
    /// The index of the set.
    let set: Int
    /// Whether the message is checked by the set.
    var isAsked = true
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
        case limit(PartLimit, Part)
    }

    init(_ rules: ContentRules, _ set: RuleSet, _ matcher: Matcher) {
        self.set = set.index
        checker = MessageChecker(rules, matcher)
        begin()
    }

    private var rules: RuleSet { checker.current.rules }

    mutating func begin() {
        checker.begin(checker.rules)
        checker.selectOnly(set)
        (textPass, attachmentPass) = (rules.decodedBody.fastPass, rules.attachment.fastPass)
        isAsked = true
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
        let lines = listing.lines()
        if let limit = listing.limit { limitReached(limit, in: part) }
        lines.withUnsafeBytes { check($0, .attachment, part) }
    }

    mutating func limitReached(_ limit: PartLimit, in part: Part) {
        guard !isDeferring else { return deferred.append(.limit(limit, part)) }
        guard !checker.isOver, reported.insert(limit).inserted else { return }
        checker.verdict.notes.append(.partLimit(limit.consequence, part: part.path))
    }

    private mutating func check(_ lines: UnsafeRawBufferPointer, _ kind: RuleMatch.Subject, _ part: Part) {
        guard !checker.isOver else { return }
        guard !isDeferring else { return suspend(lines, kind, part) }
        let isText = kind == .decodedBody
        let list = isText ? rules.decodedBody : rules.attachment
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
            case .limit(let limit, let part): limitReached(limit, in: part)
            }
        }
        checker.matcher = own
        isDeferring = !checker.isOver
    }
}

extension MessageChecker {
    /// Adds a verdict of a set about decoded parts to that about the message as it came.
    ///
    /// - Parameter edits: how many edits at the top are from parts.
    fileprivate mutating func add(_ other: MessageChecker, of set: Int, after edits: inout Int) {
        guard !isOver, isChecking(set) else { return }
        let found = other.verdict
        verdict.matches += found.matches
        verdict.moreMatches += found.moreMatches
        verdict.notes += found.notes.filter { !verdict.notes.contains($0) }
        // All of them are insertions at the top.
        verdict.edits.insert(contentsOf: found.edits, at: edits)
        edits += found.edits.count
        changed += other.changed
        verdict.disposition = found.disposition
        isOver = found.disposition != .accept
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
        case .boundary: "its boundary does not occur, and only its beginning is checked, as text"
        case .header: "one of its headers is too long, and is not read in full"
        case .memory: "filter.most_memory is used up, and only the end of the archive is read"
        case .archive: "some of its archive is not read"
        }
    }
}
