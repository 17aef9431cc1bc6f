// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
package import Rules

/// Runs one message after the other through the scanner and the rules: bytes in, verdict out.
/// It belongs to one thread, and the matcher may be shared by all of it.
///
///     filter.begin(rules)
///     filter.update(bytes)        // any number of times, in pieces of any size
///     let verdict = filter.finish()
package final class MessageFilter {
    private var scanner: MessageScanner
    private var checker: Checker
    /// Working space for headers that come in parts.
    private var line: [UInt8] = []

    package init(_ rules: ContentRules, matcher: Matcher) {
        scanner = MessageScanner(limits: rules.checks.scannerLimits, wantsBody: !rules.body.isEmpty)
        checker = Checker(rules, matcher)
    }

    /// Makes ready for a message, to be judged by `rules` to its end.
    package func begin(_ rules: ContentRules) {
        if rules === checker.rules {
            scanner.reset()
        } else {
            scanner = MessageScanner(
                limits: rules.checks.scannerLimits, wantsBody: !rules.body.isEmpty)
        }
        checker.begin(rules)
        count = 0
    }

    /// Those that the last message began with.
    package var rules: ContentRules { checker.rules }

    /// Whether the verdict is known, and the rest of the message can't change it.
    package var isDecided: Bool { checker.verdict.disposition != .accept }

    /// The next bytes of the message; lines end in LF or CRLF, dots are not doubled.
    package func update(_ bytes: UnsafeRawBufferPointer) {
        count += bytes.count
        scanner.update(bytes, &checker)
    }

    /// The next bytes of the message.
    package func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }

    /// A header that comes with its name and value apart, as in the milter protocol: the same as
    /// its line. Where the value breaks without folding, it is folded.
    package func addHeader(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        line.removeAll(keepingCapacity: true)
        line.append(contentsOf: name)
        line.append(UInt8(ascii: ":"))
        // The last line end is that of the header, however the value has it.
        let end = value.lastIndex { $0 != 0x0a && $0 != 0x0d }.map { $0 + 1 } ?? 0
        var rest = value[..<end]
        while let newline = rest.firstIndex(of: 0x0a) {
            line.append(contentsOf: rest[...newline])
            rest = rest[(newline + 1)...]
            if rest.first?.isBlank == false { line.append(0x09) }
        }
        line.append(contentsOf: rest)
        line.append(0x0d)
        line.append(0x0a)
        update(line)
    }

    /// The empty line behind the headers, where they come apart from the body.
    package func endHeaders() { update([0x0d, 0x0a]) }

    /// How many bytes have come.
    package private(set) var count = 0

    /// Ends the message.
    package func finish() -> Verdict {
        scanner.finish(&checker)
        return checker.finish(nestingExceeded: scanner.nestingExceeded)
    }
}

/// Judges what the scanner finds (Postfix `cleanup_message.c`).
private struct Checker: ScannerEvents {
    private(set) var rules: ContentRules
    private let matcher: Matcher
    private(set) var verdict = Verdict()

    private var headerPass: FastPass?
    private var mimePass: FastPass?
    private var nestedPass: FastPass?
    private var bodyPass: FastPass?
    /// All classes of headers have the pass of the first.
    private var sharesPass = false
    private var stripsUndisclosedRecipients = false

    /// No more checks: a rule has decided.
    private var isOver = false
    /// Primary headers so far.
    private var headerCount = 0
    /// The recipient headers taken away, with their names as the first of each was written, and those that a signature covers.
    private var stripped: [HeaderName: String] = [:]
    private var signed: Set<HeaderName> = []
    /// Where the first recipient header was taken away, and how many were.
    private var firstStripped = 0
    private var strippedCount = 0
    /// Matches that are kept.
    private var logged = 0
    private var unlogged = 0
    private var editBytes = 0
    private var copies: Set<[UInt8]> = []

    /// Matches of either kind that are kept of one message.
    private static let mostMatches = 1_000
    /// What edits may take of memory, with their texts: a message of nothing but what is to be changed takes many times its size.
    private static let mostEditBytes = 32 << 20

    init(_ rules: ContentRules, _ matcher: Matcher) {
        self.rules = rules
        self.matcher = matcher
        begin(rules)
    }

    mutating func begin(_ rules: ContentRules) {
        // A pass stays as it is once it is compiled.
        if rules !== self.rules || headerPass == nil || mimePass == nil || nestedPass == nil || bodyPass == nil {
            takePasses(of: rules)
        }
        self.rules = rules
        verdict = Verdict()
        stripsUndisclosedRecipients = rules.checks.undisclosedRecipients == .strip
        isOver = false
        headerCount = 0
        (strippedCount, logged, unlogged, editBytes) = (0, 0, 0, 0)
        if !stripped.isEmpty { stripped = [:] }
        if !signed.isEmpty { signed = [] }
        if !copies.isEmpty { copies = [] }
        matcher.beginMessage()
    }

    private mutating func takePasses(of rules: ContentRules) {
        headerPass = rules.header.fastPass
        mimePass = rules.mimeHeader === rules.header ? headerPass : rules.mimeHeader.fastPass
        nestedPass = rules.nestedHeader === rules.header ? headerPass : rules.nestedHeader.fastPass
        bodyPass = rules.body.fastPass
        sharesPass = mimePass === headerPass && nestedPass === headerPass
    }

    mutating func finish(nestingExceeded: Bool) -> Verdict {
        // Without tables for headers Postfix does not report it.
        if nestingExceeded, rules.lists.contains(where: { !$0.isBody && !$0.list.tables.isEmpty }) {
            verdict.notes.append(.nestingExceeded)
            if verdict.disposition == .accept {
                let text = "5.6.0 MIME nesting exceeds safety limit"
                verdict.disposition = .refuse(Refusal(code: 550, text: Array(text.utf8)))
            }
        }
        if strippedCount > 0 {
            verdict.notes.append(.undisclosedRecipients(offset: firstStripped, more: strippedCount - 1))
        }
        if !stripped.isEmpty { noteBrokenSignatures() }
        var known = Verdict()
        swap(&known, &verdict)
        return known
    }

    private mutating func noteBrokenSignatures() {
        for name in stripped.filter({ signed.contains($0.key) }).values.sorted() {
            verdict.notes.append(.brokenSignature(header: name))
        }
    }
}

// MARK: - Headers

extension Checker {
    mutating func headers(_ block: HeaderBlock) {
        guard !isOver else {
            for header in block.headers { check(header, block.text(of: header), nil) }
            return
        }
        let primary = matcher.candidates(in: block, pass: headerPass)
        guard !sharesPass else {
            for header in block.headers { check(header, block.text(of: header), primary.of(header)) }
            return
        }
        // A list that serves several classes scans once.
        let mime = mimePass === headerPass ? primary : matcher.candidates(in: block, pass: mimePass)
        let nested = nestedPass === headerPass ? primary : matcher.candidates(in: block, pass: nestedPass)
        for header in block.headers {
            let candidates =
                switch header.checkedAs {
                case .primary: primary.of(header)
                case .mime: mime.of(header)
                case .nested: nested.of(header)
                }
            check(header, block.text(of: header), candidates)
        }
    }

    /// `candidates` are nil when no rule can match.
    private mutating func check(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ candidates: LineCandidates?
    ) {
        var ordinal: Int?
        if case .primary = header.place {
            ordinal = headerCount
            headerCount += 1
            switch header.name {
            case .weirVerdict:
                // Whoever sent it, it was not us.
                edit(header.range, [], ordinal)
                return
            case .dkimSignature: signed.formUnion(signedRecipientHeaders(text))
            case .contentType, .otherMIME, .to, .cc, .resentTo, .resentCc, .other: break
            }
        }
        var outcome = Outcome.keep
        if !isOver, let candidates {
            let (list, pass, subject) = checks(for: header.checkedAs)
            if !list.isEmpty,
                let match = matcher.firstMatch(line: text, in: list, pass: pass, candidates: candidates)
            {
                collectGivenUp(list)
                outcome = act(match, list, subject, text, range: header.range, header: ordinal)
            } else if !matcher.givenUp.isEmpty {
                collectGivenUp(list)
            }
        }
        if stripsUndisclosedRecipients, ordinal != nil { outcome = strip(header, text, outcome) }
        switch outcome {
        case .keep where !header.isVerbatim: edit(header.range, folded(cut(Array(text))), ordinal, isFormal: true)
        case .keep: break
        case .drop: edit(header.range, [], ordinal)
        case .replace(let text): edit(header.range, folded(cut(text)), ordinal)
        }
    }

    /// A header of more than `header_size_limit`, as Postfix lets it out (cleanup_out_header): up to the last line that
    /// fits, unless more than a tenth of the limit were lost by that; then up to the limit itself.
    private func cut(_ text: [UInt8]) -> [UInt8] {
        let limit = rules.checks.scannerLimits.headerSize
        guard text.count > limit else { return text }
        let lineStart = text[...limit].lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
        return Array(lineStart * 10 > limit * 9 ? text[..<(lineStart - 1)] : text[..<limit])
    }

    private func checks(
        for place: HeaderClass
    ) -> (RuleList, FastPass?, RuleMatch.Subject) {
        switch place {
        case .primary: (rules.header, headerPass, .header)
        case .mime: (rules.mimeHeader, mimePass, .mimeHeader)
        case .nested: (rules.nestedHeader, nestedPass, .nestedHeader)
        }
    }

    /// Takes an undisclosed-recipients header away, as the rules have left it.
    private mutating func strip(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ outcome: Outcome
    ) -> Outcome {
        let isUndisclosed =
            switch outcome {
            case .keep: header.name.isVisibleRecipient && isUndisclosedRecipients(text)
            case .drop: false
            case .replace(let text):
                text.withUnsafeBytes { HeaderName(of: $0).isVisibleRecipient }
                    && isUndisclosedRecipients(text)
            }
        guard isUndisclosed else { return outcome }
        if strippedCount == 0 { firstStripped = header.range.lowerBound }
        strippedCount += 1
        if stripped[header.name] == nil {
            stripped[header.name] = String(decoding: text.prefix { $0 != UInt8(ascii: ":") }, as: UTF8.self)
        }
        return .drop
    }

    mutating func endOfHeaders(at offset: Int, isText: Bool) {
        if isText { edit(offset..<offset, [0x0a], nil, isFormal: true) }
    }
}

// MARK: - Body

extension Checker {
    mutating func body(_ body: BodyText) {
        guard !isOver else { return }
        let list = rules.body
        let pass = bodyPass
        let matcher = matcher
        if body.isRecord {
            checkLine(body.text, at: body.offset, .unknown, list, pass)
        } else {
            matcher.forEachCandidateLine(in: body.text, of: list, pass: pass) { start, candidates in
                let end = body.text[start...].firstIndex(of: 0x0a).map { $0 + 1 } ?? body.text.count
                let line = UnsafeRawBufferPointer(rebasing: body.text[start..<end])
                checkLine(line, at: body.offset + start, candidates, list, pass)
                return !isOver
            }
        }
        if !matcher.givenUp.isEmpty { collectGivenUp(list) }
    }

    /// One line or piece of one, with its line end if it has one.
    private mutating func checkLine(
        _ raw: UnsafeRawBufferPointer, at offset: Int, _ candidates: LineCandidates,
        _ list: RuleList, _ pass: FastPass?
    ) {
        let line = raw.withoutLineEnd
        guard !line.isEmpty, line[0] != 0,
            let match = matcher.firstMatch(
                line: line, in: list, pass: pass, candidates: candidates)
        else { return }
        let range = offset..<offset + raw.count
        switch act(match, list, .body, line, range: range, header: nil) {
        case .keep: break
        case .drop: edit(range, [], nil)
        case .replace(let text): edit(offset..<offset + line.count, text, nil)
        }
    }
}

// MARK: - Actions

extension Checker {
    private enum Outcome {
        case keep, drop
        case replace([UInt8])
    }

    private mutating func act(
        _ match: Match, _ list: RuleList, _ subject: RuleMatch.Subject,
        _ content: UnsafeRawBufferPointer, range: Range<Int>, header: Int?
    ) -> Outcome {
        var record = RuleMatch(
            subject: subject, offset: range.lowerBound, location: list.location(of: match.rule),
            action: match.text, content: Array(content.prefix(200)))
        defer { keep(record) }
        guard !match.text.isEmpty else {
            // The message waits until the table is mended.
            record.fault = "no action: message not accepted, try again later"
            let text = "4.3.0 content check without an action, try again later"
            verdict.disposition = .refuse(Refusal(code: 451, text: Array(text.utf8)))
            isOver = true
            return .keep
        }
        let action: Action
        do {
            action = try Action(match.text, isHeader: subject.isHeader)
        } catch {
            record.fault = error.message
            return .keep
        }
        switch action {
        case .reject(let refusal):
            verdict.disposition = .refuse(refusal)
            isOver = true
        case .discard:
            verdict.disposition = .discard
            isOver = true
        case .pass:
            isOver = true
        case .redirect(let address) where !isAddress(address):
            record.fault = "no address: message not accepted, try again later"
            verdict.disposition = .refuse(
                Refusal(code: 451, text: Array("4.3.0 content check names no address, try again later".utf8)))
            isOver = true
        case .redirect(let address):
            // It overrides FILTER, before and after it.
            verdict.redirect = address
            verdict.filter = nil
            isOver = true
        case .hold:
            record.isLogged = !verdict.isHeld
            verdict.isHeld = true
        case .filter(let target):
            if verdict.redirect == nil { verdict.filter = target }
        case .bcc(let address) where !isAddress(address): record.fault = "no address: no copy is sent"
        case .bcc(let address): if copies.insert(address).inserted { verdict.bcc.append(address) }
        case .warn, .info: break
        case .dunno: record.isLogged = false
        case .prepend(let text) where subject == .header && isVerdict(text),
            .replace(let text) where subject == .header && isVerdict(text):
            record.fault = "X-Weir-Verdict is for Weir to write"
        case .prepend(let text):
            let lines = subject.isHeader ? folded(cut(text)) : text + [0x0a]
            edit(range.lowerBound..<range.lowerBound, lines, header)
        // Postfix looks at the new header's name again.
        case .replace(let text) where subject == .header && isDropped(text): return .drop
        case .replace(let text): return .replace(text)
        case .strip: return .drop
        case .ignore:
            record.isLogged = false
            return .drop
        }
        return .keep
    }

    /// A message may have any number of lines that match.
    private mutating func keep(_ match: RuleMatch) {
        if match.isLogged { logged += 1 } else { unlogged += 1 }
        if (match.isLogged ? logged : unlogged) <= Self.mostMatches || isOver {
            verdict.matches.append(match)
        } else if match.isLogged {
            verdict.moreMatches += 1
        }
    }

    /// Whether what a rule names can go into an envelope as it stands. Postfix takes any text, and finds later that it names nobody.
    private func isAddress(_ text: [UInt8]) -> Bool {
        !text.isEmpty && !text.contains { $0 <= 0x20 || $0 == 0x7f || "<>\"".utf8.contains($0) }
    }

    /// Whether Postfix takes such a header out of any message (`message_drop_headers`).
    private func isDropped(_ header: [UInt8]) -> Bool {
        let name = header.prefix { $0 != UInt8(ascii: ":") && !$0.isBlank }.map(\.lowercased)
        return Self.droppedHeaders.contains { name.elementsEqual($0.utf8) }
    }

    private static let droppedHeaders = ["bcc", "content-length", "resent-bcc", "return-path"]

    private func isVerdict(_ header: [UInt8]) -> Bool {
        header.withUnsafeBytes { HeaderName(of: $0) == .weirVerdict }
    }

    /// Header text as lines: one that does not begin with white space gets a tab.
    private func folded(_ text: [UInt8]) -> [UInt8] {
        var lines: [UInt8] = []
        for line in text.split(separator: 0x0a, omittingEmptySubsequences: false) {
            if !lines.isEmpty, line.first?.isBlank != true { lines.append(0x09) }
            lines += line
            lines.append(0x0a)
        }
        return lines
    }

    private mutating func edit(_ range: Range<Int>, _ replacement: [UInt8], _ header: Int?, isFormal: Bool = false) {
        guard editBytes <= Self.mostEditBytes else { return }
        editBytes += 2 * MemoryLayout<Edit>.stride + replacement.count
        if editBytes > Self.mostEditBytes {
            verdict.notes.append(.tooManyEdits(verdict.edits.count))
            verdict.edits = []
            isOver = true
            guard case .accept = verdict.disposition else { return }
            verdict.disposition = .refuse(
                Refusal(code: 550, text: Array("5.6.0 message has too many places to change".utf8)))
            return
        }
        verdict.edits.append(Edit(range: range, replacement: replacement, header: header, isFormal: isFormal))
    }

    private mutating func collectGivenUp(_ list: RuleList) {
        for rule in matcher.takeGivenUp() {
            verdict.notes.append(.givenUp(list.location(of: rule.rule), reason: rule.reason))
        }
    }
}
