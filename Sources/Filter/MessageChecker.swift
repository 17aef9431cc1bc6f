// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

/// Applies the rules to what the scanner finds, and makes the verdict (Postfix `cleanup_message.c`).
struct MessageChecker: ScannerEvents {
    private(set) var rules: ContentRules
    var matcher: Matcher
    var verdict = Verdict()
    /// Whether the verdict is that of a message that has begun.
    private var hasBegun = false

    /// All sets, with their fast passes.
    private var sets: [SetInUse] = []
    /// The sets that the message is checked by, without those whose checks a rule has ended, in the order of `sets`.
    private(set) var checking: [SetInUse] = []
    /// The indexes of the sets that were chosen, and whose condition about a DKIM-Signature does not hold.
    private(set) var leftOut: [Int] = []
    /// nil once it is known which sets apply.
    var held: HeldHeaders?
    /// The set that is asked.
    var current: SetInUse { didSet { headerPass = current.headerPass } }
    /// The fast pass of `current`, kept here so that a block of headers counts no references to it.
    private(set) var headerPass: FastPass?
    /// Whether a rule has ended the checks of `current`.
    private(set) var currentHasEnded = false
    /// What the sets before `current` have made of the header or line.
    var earlier = Outcome.keep
    /// nil without rules for decoded headers.
    private(set) var decoded: DecodedHeaders?
    private(set) var stripsUndisclosedRecipients = false
    private(set) var repairer = HeaderRepairer([])
    /// Whether headers are repaired, or may be taken away where cleanup(8) would add them again.
    private(set) var completes = false
    /// Whether a set may get a fast pass.
    private var mayGetPasses = false
    /// Whether some set is only for messages with a DKIM-Signature, or only for those without one.
    private var dependsOnSignature = false

    /// A rule has ended the checks.
    var isOver = false
    /// Events wait for `resume`.
    var deferred: [DeferredEvent] = []
    /// Whether events are deferred.
    var isDeferring = false
    /// Primary headers so far.
    var headerCount = 0
    var added = AddedHeaders()
    var addable = AddableHeaders()
    /// Where the headers end. A body begins here only if no empty line comes before it.
    var endOfHeaders: Int?
    /// The recipient headers that were stripped because they name nobody.
    var stripped: [StrippedHeader] = []
    /// The recipient headers that a DKIM signature covers.
    var signed: Set<HeaderName> = []
    /// Whether the message has a DKIM signature.
    var isSigned = false
    var repairedHeaders: [RepairedHeader] = []
    /// The DKIM signatures, if rules may edit what they cover.
    var signatures: [[UInt8]] = []
    /// What rules have done to primary headers.
    var changed: [ChangedHeader] = []
    /// The offsets of the first headers that are longer than the limit.
    var longHeaders: [Int] = []
    var moreLongHeaders = 0
    /// Matches so far, logged by Postfix or not.
    var logged = 0
    var unlogged = 0
    var editBytes = 0
    /// The addresses of all BCC effects.
    var copies: Set<[UInt8]> = []

    /// At most this many logged matches of a message are kept, and as many that are not logged.
    static let mostMatches = 1_000
    /// At most this many headers beyond the limit are named in the log.
    static let mostLongHeaders = 10
    /// Bytes. Edits of a message in which every line changes take many times its size.
    static let mostEditBytes = 32 << 20

    init(_ rules: ContentRules, _ matcher: Matcher) {
        self.rules = rules
        self.matcher = matcher
        current = SetInUse(rules.sets[0])
        begin(rules)
    }

    mutating func begin(_ rules: ContentRules) {
        let isNew = rules !== self.rules || sets.isEmpty
        if isNew || mayGetPasses && sets.contains(where: \.hasNewPass) { findSets(of: rules) }
        if isNew { self.rules = rules }
        if hasBegun { verdict = Verdict() }
        hasBegun = true
        if checking.count != sets.count { checking = sets }
        waitForSignature()
        ask(sets[0])
        if case .keep = earlier {} else { earlier = .keep }
        stripsUndisclosedRecipients = rules.checks.undisclosedRecipients != .keep
        isOver = false
        isDeferring = false
        if !deferred.isEmpty { deferred = [] }
        headerCount = 0
        added.reset()
        addable = AddableHeaders()
        isSigned = false
        if !repairedHeaders.isEmpty { repairedHeaders = [] }
        if !signatures.isEmpty { signatures = [] }
        if !changed.isEmpty { changed = [] }
        endOfHeaders = nil
        (logged, unlogged, editBytes) = (0, 0, 0)
        if !longHeaders.isEmpty { (longHeaders, moreLongHeaders) = ([], 0) }
        if !stripped.isEmpty { stripped = [] }
        if !signed.isEmpty { signed = [] }
        if !copies.isEmpty { copies = [] }
        decoded?.beginMessage()
    }

    private mutating func findSets(of rules: ContentRules) {
        sets = rules.sets.map { SetInUse($0) }
        checking = sets
        mayGetPasses = sets.contains(where: \.isIncomplete)
        dependsOnSignature = sets.contains { $0.rules.definition.isSigned != nil }
        if rules.sets.allSatisfy(\.decodedHeader.isEmpty) {
            decoded = nil
        } else {
            decoded = decoded ?? DecodedHeaders()
        }
        repairer = HeaderRepairer(rules.checks.headerRepairs)
        completes = repairer.isActive || rules.mayRemoveAddedHeaders
    }

    /// Checks the message by these sets only. Has an effect before the content.
    ///
    /// - Parameter isSigned: whether the message has a DKIM-Signature; nil if its headers have to say.
    mutating func select(_ chosen: ChosenSets, isSigned: Bool?) {
        checking = chosen.indexes.map { sets[$0] }
        if let first = checking.first { current = first }
        isOver = checking.isEmpty
        verdict.notes = chosen.notes
        waitForSignature()
        if let isSigned { release(isSigned: isSigned) }
    }

    private mutating func waitForSignature() {
        if !leftOut.isEmpty { leftOut = [] }
        guard dependsOnSignature || held != nil else { return }
        held = checking.contains { $0.rules.definition.isSigned != nil } ? HeldHeaders() : nil
    }

    /// Ends the checks of the sets that are only for messages with a DKIM-Signature, or only for those without one.
    mutating func leaveOutSets(isSigned: Bool) {
        leftOut = checking.filter { $0.rules.definition.isSigned == !isSigned }.map(\.rules.index)
        checking.removeAll { leftOut.contains($0.rules.index) }
        isOver = checking.isEmpty
    }

    /// Checks the message by one set.
    mutating func selectOnly(_ index: Int) {
        guard sets.count > 1 else { return }
        checking = [sets[index]]
        current = sets[index]
    }

    /// Whether the message is checked by the set, and no rule has ended its checks.
    func isChecking(_ index: Int) -> Bool { checking.contains { $0.rules.index == index } }

    /// Begins to ask a set about a header or line.
    mutating func ask(_ set: SetInUse) {
        if current !== set { current = set }
        currentHasEnded = false
    }

    /// A rule has ended the checks of its set.
    mutating func endSet() {
        currentHasEnded = true
        checking.removeAll { $0 === current }
        if checking.isEmpty { isOver = true }
    }

    mutating func finish(nestingExceeded: Bool) -> Verdict {
        // Postfix reports it only where there are header checks.
        if nestingExceeded, asksHeaders {
            verdict.notes.append(.nestingExceeded)
            if verdict.disposition == .accept { refuse(550, "5.6.0 MIME nesting exceeds safety limit") }
        }
        if !stripped.isEmpty { reportStripped() }
        if !repairedHeaders.isEmpty { reportRepairs() }
        if !signatures.isEmpty, !verdict.edits.isEmpty { reportBrokenSignatures() }
        if rules.mayRemoveAddedHeaders { verdict.removed = addable.removed(isClientLocal: added.isAny) }
        if !longHeaders.isEmpty {
            let limit = rules.checks.scannerLimits.headerSize
            verdict.notes.append(.longHeaders(offsets: longHeaders, more: moreLongHeaders, limit: limit))
        }
        hasBegun = false
        var finished = Verdict()
        swap(&finished, &verdict)
        return finished
    }

    private var asksHeaders: Bool {
        rules.sets.contains { $0.lists.contains { !$0.isBody && !$0.list.tables.isEmpty } }
    }
}

/// A set of rules, with its fast passes.
final class SetInUse {
    let rules: RuleSet
    let headerPass: FastPass?
    let mimePass: FastPass?
    let nestedPass: FastPass?
    let decodedPass: FastPass?
    let bodyPass: FastPass?
    /// Whether all classes of headers use the pass of the first.
    let sharesPass: Bool
    /// Whether some list had no pass yet.
    let isIncomplete: Bool

    init(_ rules: RuleSet) {
        self.rules = rules
        headerPass = rules.header.fastPass
        mimePass = rules.mimeHeader === rules.header ? headerPass : rules.mimeHeader.fastPass
        nestedPass = rules.nestedHeader === rules.header ? headerPass : rules.nestedHeader.fastPass
        decodedPass = rules.decodedHeader.fastPass
        bodyPass = rules.body.fastPass
        sharesPass = mimePass === headerPass && nestedPass === headerPass
        let passes = [
            (rules.header, headerPass), (rules.mimeHeader, mimePass), (rules.nestedHeader, nestedPass),
            (rules.decodedHeader, decodedPass), (rules.body, bodyPass),
        ]
        // A list may have got its pass since it was asked above, so it is not asked again.
        isIncomplete = passes.contains { list, pass in pass == nil && !list.isEmpty }
    }

    /// Whether a pass may have been compiled since. Once compiled, a pass never changes.
    var hasNewPass: Bool {
        isIncomplete
            && (headerPass !== rules.header.fastPass || mimePass !== rules.mimeHeader.fastPass
                || nestedPass !== rules.nestedHeader.fastPass || decodedPass !== rules.decodedHeader.fastPass
                || bodyPass !== rules.body.fastPass)
    }
}
