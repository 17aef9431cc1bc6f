// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

/// Applies the rules to what the scanner finds, and makes the verdict (Postfix `cleanup_message.c`).
struct MessageChecker: ScannerEvents {
    private(set) var rules: ContentRules
    var matcher: Matcher
    var verdict = Verdict()

    private(set) var headerPass: FastPass?
    private(set) var mimePass: FastPass?
    private(set) var nestedPass: FastPass?
    private(set) var bodyPass: FastPass?
    private(set) var decodedPass: FastPass?
    /// nil without rules for decoded headers.
    private(set) var decoded: DecodedHeaders?
    /// Whether all classes of headers use the pass of the first.
    private(set) var sharesPass = false
    private(set) var stripsUndisclosedRecipients = false
    private(set) var repairer = HeaderRepairer([])
    /// Whether headers are repaired, or may be taken away where cleanup(8) would add them again.
    private(set) var completes = false

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
        begin(rules)
    }

    mutating func begin(_ rules: ContentRules) {
        // Once compiled, a pass never changes.
        if rules !== self.rules || headerPass == nil || mimePass == nil || nestedPass == nil || bodyPass == nil
            || decoded != nil && decodedPass == nil
        {
            findPasses(of: rules)
        }
        self.rules = rules
        verdict = Verdict()
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

    private mutating func findPasses(of rules: ContentRules) {
        headerPass = rules.header.fastPass
        mimePass = rules.mimeHeader === rules.header ? headerPass : rules.mimeHeader.fastPass
        nestedPass = rules.nestedHeader === rules.header ? headerPass : rules.nestedHeader.fastPass
        bodyPass = rules.body.fastPass
        decodedPass = rules.decodedHeader.fastPass
        if rules.decodedHeader.isEmpty { decoded = nil } else { decoded = decoded ?? DecodedHeaders() }
        repairer = HeaderRepairer(rules.checks.headerRepairs)
        completes = repairer.isActive || rules.mayRemoveAddedHeaders
        sharesPass = mimePass === headerPass && nestedPass === headerPass
    }

    mutating func finish(nestingExceeded: Bool) -> Verdict {
        // Postfix reports it only where there are header checks.
        if nestingExceeded, rules.lists.contains(where: { !$0.isBody && !$0.list.tables.isEmpty }) {
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
        var finished = Verdict()
        swap(&finished, &verdict)
        return finished
    }
}
