// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Report
internal import Rules
internal import Wire

/// The content of the current message: the findings of the rules, its headers as a milter counts them, and its body if
/// a rule may change it. Belongs to one loop.
struct MilterContent {
    private let checks: MessageChecks
    /// nil between messages.
    private var filter: MessageFilter?
    /// Names the message in the log; empty without MAIL.
    private(set) var reversePath: [UInt8] = []
    private var headers = MilterHeaders()
    /// The offset of the body in the bytes that the filter has seen; nil while headers arrive.
    private var bodyStart: Int?
    private var body: ReceivedContent?
    private var newBody = MilterBody()
    /// Values of the headers that prove a message to be a probe or an alert.
    private(set) var probeMark: [UInt8]?
    private(set) var alertMark: [UInt8]?

    init(_ checks: MessageChecks) {
        self.checks = checks
    }

    var isBegun: Bool { filter != nil }
    /// Whether suspended lookups are being done on another thread. Until that is over, no event may be handled.
    var isBeingChecked: Bool { filter?.isAway ?? false }
    var hasNoHeaders: Bool { headers.isEmpty }

    /// Takes what the MTA knows of the message by the first header: its queue ID and client.
    func describe(_ macros: MilterMacros) {
        if let queueID = macros["i"] { filter?.wasQueued(as: queueID) }
        if macros.nameLocalClient { filter?.cameWithoutSMTP() }
    }

    /// Takes the sets of checks for the message, before its content.
    func select(_ chosen: ChosenSets) { filter?.select(chosen) }

    mutating func begin(_ rules: ContentRules, reversePath: [UInt8]) {
        filter = checks.acquireFilter(rules)
        self.reversePath = reversePath
    }

    /// - Parameters:
    ///   - hasLeadingSpace: the value includes the space after the colon.
    ///   - alertMarks: nil if nothing is exempt from limits.
    mutating func addHeader(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, hasLeadingSpace: Bool, alertMarks: AlertMarks?
    ) {
        guard let filter, Self.isFieldName(name) else { return headers.skip() }
        headers.append(name)
        if checks.probes.isActive, name.elementsEqual(ProbeBoard.header.utf8) { probeMark = Array(value) }
        if let alertMarks, alertMarks.isActive, name.elementsEqual(AlertMarks.header.utf8) { alertMark = Array(value) }
        guard !filter.isDecided else { return }
        if hasLeadingSpace {
            filter.addHeader(name: name, value: value)
        } else {
            Array([0x20] + value).withUnsafeBytes { filter.addHeader(name: name, value: $0) }
        }
    }

    /// RFC 5322 2.2
    private static func isFieldName(_ name: UnsafeRawBufferPointer) -> Bool {
        !name.isEmpty && name.allSatisfy { 0x20 < $0 && $0 < 0x7f && $0 != UInt8(ascii: ":") }
    }

    private mutating func endHeaders() {
        guard let filter, bodyStart == nil else { return }
        filter.endHeaders()
        bodyStart = filter.count
    }

    /// Checks a piece of the body.
    ///
    /// - Returns: whether later pieces can change the verdict.
    mutating func check(_ piece: ByteBuffer) -> Bool {
        endHeaders()
        guard let filter, !filter.isDecided else { return false }
        piece.withUnsafeReadableBytes { filter.update($0) }
        return true
    }

    /// Has suspended lookups done on another thread, if there are any.
    ///
    /// - Parameter then: called if they have to be waited for, unless the message is dropped meanwhile.
    /// - Returns: whether they have to be.
    func resumeIfSuspended(isCurrent: @escaping (MessageFilter) -> Bool, then: @escaping () -> Void) -> Bool {
        guard let filter, filter.isSuspended else { return false }
        checks.resume(filter) { if isCurrent(filter) { then() } }
        return true
    }

    func isOf(_ filter: MessageFilter) -> Bool { self.filter === filter }

    /// Keeps a piece of a body that a rule may change.
    ///
    /// - Parameters:
    ///   - isEnd: the body is complete.
    ///   - whenWritten: called if the disk has to be waited for.
    /// - Returns: whether it has to be.
    mutating func keep(_ piece: ByteBuffer, isEnd: Bool, whenWritten: @escaping () -> Void) -> Bool {
        var piece = piece
        let content = body ?? checks.makeContent()
        if body == nil { content.begin(most: .max) }
        body = content
        if content.failure == nil { content.buffer.writeBuffer(&piece) }
        content.withNewBytes { _ in }
        return content.spoolIfNeeded(isEnd: isEnd, whenWritten: whenWritten)
    }

    /// The message is complete. Its last lookups may be suspended.
    mutating func endInput() {
        endHeaders()
        filter?.endInput()
    }

    /// The verdict about the complete message; nil between messages.
    func finish() -> Verdict? { filter?.finish() }

    func judgement(
        _ verdict: Verdict, _ origin: MilterJudgement.Origin, newHeaders: [NewHeader]
    ) -> MilterJudgement {
        MilterJudgement(
            verdict, origin: origin, headers: headers, bodyStart: bodyStart ?? 0, size: filter?.count ?? 0,
            body: keptBody, newHeaders: newHeaders)
    }

    private var keptBody: MilterJudgement.KeptBody {
        guard let body else { return .absent }
        switch body.failure {
        case nil: return .complete(body.count)
        case .noRoom(let cause): return .failed(cause)
        case .tooLarge: return .absent
        }
    }

    func write(_ edits: MilterEdits, to output: inout ByteBuffer, headersAhead: Int, hasLeadingSpace: Bool) {
        edits.write(to: &output, headers: headers, headersAhead: headersAhead, hasLeadingSpace: hasLeadingSpace)
    }

    // MARK: A new body

    /// Appends a piece of the new body to the output.
    ///
    /// - Returns: a range of the original body that has to be read from the disk first; nil if the piece is appended.
    mutating func append(_ piece: Verdict.Piece, to output: inout ByteBuffer) -> Range<Int>? {
        switch piece {
        case .new(let text): text.withUnsafeBytes { newBody.write($0, to: &output) }
        case .original(let range):
            guard let body, !body.isSpooled else { return range }
            body.buffer.withUnsafeReadableBytes {
                newBody.write(UnsafeRawBufferPointer(rebasing: $0[range]), to: &output)
            }
        }
        return nil
    }

    func read(_ range: Range<Int>, then: @escaping (Result<ByteBuffer, IOError>) -> Void) {
        body?.read(range, then: then)
    }

    mutating func append(_ piece: ByteBuffer, to output: inout ByteBuffer) {
        piece.withUnsafeReadableBytes { newBody.write($0, to: &output) }
    }

    mutating func finishNewBody(_ output: inout ByteBuffer) { newBody.finish(&output) }

    // MARK: The end

    /// The message is over.
    mutating func end() {
        if let filter { checks.release(filter) }
        reset()
    }

    /// The message was aborted. Its filter may hold a lot of memory, so it is not used again.
    mutating func abort() { reset() }

    private mutating func reset() {
        if let filter, filter.isAway { checks.release(filter) }
        body?.reset()
        self = MilterContent(checks)
    }
}
