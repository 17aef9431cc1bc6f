// SPDX-License-Identifier: Apache-2.0
package import Decoding
internal import Glibc
internal import Limits
internal import MailSyntax
internal import Patterns
package import Rules

/// Checks one message after the other: bytes in, verdict out. A filter belongs to one thread. The filters of a thread
/// may share a matcher.
///
///     filter.begin(rules)
///     filter.update(bytes)        // any number of times, in pieces of any size
///     let verdict = filter.finish()
///
/// With a matcher for event loops, a lookup that takes long suspends the filter. Then `update` must not be called again
/// until `resume` has returned.
package final class MessageFilter {
    private var scanner: MessageScanner
    private var checker: MessageChecker
    /// nil without rules for decoded parts.
    private var parts: PartChecker?
    private let lookups = MessageLookups()
    private let memory: (any SharedMemory)?
    /// The sets for a message of which nothing is known; nil without conditions.
    private var setsByDefault: ChosenSets?
    /// The buffer of `addHeader`.
    private var line: [UInt8] = []
    private var hasEnded = false
    /// For lookups that were suspended. It serves this filter alone.
    private var unhurried: Matcher?

    /// - Parameter memory: bounds what is kept of messages while they arrive.
    package init(_ rules: ContentRules, matcher: Matcher, memory: (any SharedMemory)? = nil) {
        scanner = MessageScanner(limits: rules.checks.scannerLimits, wantsBody: rules.readsBody)
        checker = MessageChecker(rules, matcher)
        parts = PartChecker(rules, matcher, memory)
        self.memory = memory
        setsByDefault = Self.setsByDefault(of: rules)
        if let setsByDefault { select(setsByDefault) }
    }

    /// Begins a message, which `rules` apply to until its end.
    package func begin(_ rules: ContentRules) {
        if rules === checker.rules {
            scanner.reset()
            parts?.begin()
        } else {
            scanner = MessageScanner(
                limits: rules.checks.scannerLimits, wantsBody: rules.readsBody)
            parts = PartChecker(rules, checker.matcher, memory)
            setsByDefault = Self.setsByDefault(of: rules)
        }
        checker.begin(rules)
        lookups.reset()
        count = 0
        hasEnded = false
        if let setsByDefault { select(setsByDefault) }
    }

    private static func setsByDefault(of rules: ContentRules) -> ChosenSets? {
        guard rules.areConditional else { return nil }
        let scratch = MatchScratch(limits: Condition.matchLimits)
        var selection = SetSelection(rules, MessageAttributes(), scratch)
        return selection.finish()
    }

    /// Says which sets of the rules the message is checked by. Without it, those that apply where nothing is known of a
    /// message. Has an effect before the content only.
    ///
    /// - Parameter isSigned: whether the message has a DKIM-Signature; nil if its headers have to say.
    package func select(_ chosen: ChosenSets, isSigned: Bool? = nil) {
        checker.select(chosen, isSigned: isSigned)
        parts?.select(chosen)
    }

    /// The indexes of the chosen sets whose condition about a DKIM-Signature does not hold. Known at the end of the
    /// headers.
    package var leftOutSets: [Int] { checker.leftOut }

    /// Whether a DKIM-Signature has come in the headers so far.
    package var isSigned: Bool { checker.isSigned }

    /// The rules that apply to the current message.
    package var rules: ContentRules { checker.rules }

    /// Says which queue file cleanup(8) has written the message to, so that rules skip the headers that it has added.
    /// Has an effect before the headers only.
    package func wasQueued(as queueID: [UInt8]) { checker.added.queueID = queueID }

    /// Says that the message comes from the queue, and from pickup(8) before that. Its first header then has the queue
    /// ID.
    package func wasSubmittedLocally() { checker.added.comesFromPickup = true }

    /// Says that the message did not come over SMTP, so that no leading dot was doubled. Has an effect only before the
    /// content.
    package func cameWithoutSMTP() { scanner.dotsWereDoubled = false }

    /// Whether the rest of the message can't change the verdict.
    package var isDecided: Bool { checker.verdict.disposition != .accept }

    /// Takes the next bytes of the message. Lines end in LF or CRLF; dots are not doubled.
    package func update(_ bytes: UnsafeRawBufferPointer) {
        count += bytes.count
        takeMatcher()
        scanner.update(bytes, &checker)
        if let parts, !checker.isOver { parts.update(bytes, without: checker.leftOut) }
    }

    /// Takes the next bytes of the message.
    package func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }

    /// Takes a header whose name and value come apart, as in the milter protocol. A continuation line that does not
    /// begin with white space gets a tab.
    package func addHeader(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        line.removeAll(keepingCapacity: true)
        line.append(contentsOf: name)
        line.append(UInt8(ascii: ":"))
        // Line ends at the end of the value are not part of the header.
        let end = value.lastIndex { $0 != 0x0a && $0 != 0x0d }.map { $0 + 1 } ?? 0
        var rest = UnsafeRawBufferPointer(rebasing: value[..<end])
        while let base = rest.baseAddress, let newline = memchr(base, 0x0a, rest.count) {
            let next = UnsafeRawPointer(newline) - base + 1
            line.append(contentsOf: UnsafeRawBufferPointer(rebasing: rest[..<next]))
            rest = UnsafeRawBufferPointer(rebasing: rest[next...])
            if rest.first?.isBlank == false { line.append(0x09) }
        }
        line.append(contentsOf: rest)
        line.append(0x0d)
        line.append(0x0a)
        update(line)
    }

    /// Ends the headers after `addHeader`; the body follows.
    package func endHeaders() { update([0x0d, 0x0a]) }

    /// The bytes of the message so far.
    package private(set) var count = 0

    /// Ends the bytes of the message. That may suspend the filter.
    package func endInput() {
        hasEnded = true
        takeMatcher()
        scanner.finish(&checker)
        if let parts, !checker.isOver { parts.endInput(without: checker.leftOut) }
    }

    /// Has the matcher, which other messages use too, count lookups for this one.
    private func takeMatcher() {
        if checker.matcher.message !== lookups { checker.matcher.message = lookups }
    }

    /// Ends the message.
    package func finish() -> Verdict {
        if !hasEnded { endInput() }
        precondition(!isSuspended, "a verdict before the lookups are done")
        parts?.conclude(&checker)
        return checker.finish(nestingExceeded: scanner.nestingExceeded)
    }

    /// Releases what is kept of a message that is done or dropped.
    package func releaseMemory() {
        parts?.begin()
        checker.held = nil
    }

    // MARK: Suspension

    /// Whether another thread is doing the lookups of this filter. Belongs to the loop of its connection.
    package var isAway = false

    /// Whether lookups wait for `resume`.
    package var isSuspended: Bool { checker.isSuspended || parts?.isSuspended ?? false }

    /// Makes the matcher of `resume`, so that `abandon` can be called while that runs.
    package func prepareToResume() {
        guard unhurried == nil else { return }
        let matcher = Matcher(rules.checks)
        matcher.message = lookups
        unhurried = matcher
    }

    /// Does the lookups that were suspended, with no limits but those of the message. May be called on any thread;
    /// until it returns, the filter belongs to that thread, and only `abandon` may be called on another.
    package func resume() {
        guard let unhurried else { return }
        checker.resume(with: unhurried)
        parts?.resume(with: unhurried)
    }

    /// Ends `resume` soon. The filter can't be used again.
    package func abandon() { unhurried?.abandon() }
}
