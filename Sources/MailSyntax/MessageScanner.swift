// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc

/// Bounds of the scanner, with Postfix's names and defaults.
package struct ScannerLimits: Hashable, Sendable {
    /// `header_size_limit`: bytes of one logical header that are looked at.
    package var headerSize = 102_400
    /// `line_length_limit`: longer lines are looked at piece by piece.
    package var lineLength = 2_048
    /// `body_checks_size_limit`: bytes of each body segment that are looked at; 0 is all.
    package var bodyChecksSize = 51_200
    /// `mime_boundary_length_limit`: bytes of a boundary that are compared.
    package var mimeBoundaryLength = 2_048
    /// `mime_nesting_limit`: multiparts within each other. As in Postfix two more pass before the message is refused.
    package var mimeNesting = 100

    package init() {}
}

/// Where a header stands.
package enum HeaderClass: Sendable {
    case primary
    /// After a multipart boundary.
    case mime
    /// At the start of an attached message.
    case nested
}

/// A logical header: its lines joined by newlines, without what follows a NUL in a line.
package struct Header {
    /// Where it is in the text of its block.
    package let textRange: Range<Int>
    package let name: HeaderName
    package let place: HeaderClass
    /// The bytes it takes up in the message, line ends included.
    package let range: Range<Int>
    /// Whether its text is all there is in the message: nothing behind a NUL or beyond the size
    /// limit, and no white space before the colon. Postfix passes on the text.
    package let isVerbatim: Bool

    /// Which checks it goes to.
    package var checkedAs: HeaderClass { name.isMIME ? .mime : place }
}

/// Headers in their order, so many that looking for something in all of them at once pays.
package struct HeaderBlock {
    /// Their texts, each with a newline behind it. Valid during the callback only.
    package let text: UnsafeRawBufferPointer
    package let headers: [Header]

    package func text(of header: Header) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: text[header.textRange])
    }
}

/// Body text that the checks may look at.
package struct BodyText {
    /// Whole lines with their line ends, or one record. Valid during the callback only.
    package let text: UnsafeRawBufferPointer
    /// Where it starts in the message.
    package let offset: Int
    /// One line, or a piece of one that is longer than the limit, to be matched on its own.
    package let isRecord: Bool
}

/// What the scanner finds, in the order of the message.
package protocol ScannerEvents {
    /// A section of headers, or a part of a long one.
    mutating func headers(_ block: HeaderBlock)
    /// Before the first byte that is no primary header, which is at `offset`; `isText` when that
    /// is text, so that an empty line has to be put in.
    mutating func endOfHeaders(at offset: Int, isText: Bool)
    mutating func body(_ text: BodyText)
}

/// The streaming scanner: message bytes in, in pieces of any size, and out what header and body
/// checks see, exactly as Postfix's `mime_state.c` has it behind `smtpd`. Line ends are LF with
/// any number of CRs before it, as in `smtp_stream.c`.
///
///     primary -- empty line, or text --> body     <--+
///        |                                |          |
///        |   message/rfc822               | --boundary        --boundary--
///        +------------------> nested      v          |
///                               |        mime -------+  empty line, or text
///                               +--> body            +---> nested: message/rfc822
///
/// Memory: some headers (bounded by `headerSize`, `blockSize` and `blockCount`), one line piece (bounded by
/// `lineLength`), and the open boundaries (bounded by `mimeNesting`).
package struct MessageScanner: ~Copyable {
    private enum State { case primary, mime, nested, body }

    private struct Boundary {
        /// Where it is in `boundaryTexts`.
        let text: Range<Int>
        /// What a part is that does not say: multipart/digest has messages.
        let partType: ContentType
    }

    private let limits: ScannerLimits
    /// Whether anyone wants `body` events.
    private let wantsBody: Bool
    private var state = State.primary
    private var contentType = ContentType.text
    private var boundaries: [Boundary] = []
    private var boundaryTexts: [UInt8] = []
    /// More multiparts within each other than allowed: Postfix refuses the message.
    package private(set) var nestingExceeded = false

    /// Offset in the message of the next byte to come, or of the first in `carry`.
    private var position = 0
    /// The start of a record whose end has not come yet.
    private var carry: [UInt8] = []
    /// The record at hand goes on with the line of the one before.
    private var continuesLine = false
    private var isFirst = true
    /// The lines at hand are folds of the header that smtpd puts before the message: the first began with a stray CR.
    private var continuesReceived = false
    /// Offset in the body segment as Postfix counts it: each record, plus one for its end.
    private var bodyOffset = 0

    /// The texts of the headers that were not handed on yet, and behind them that of the header at hand.
    private var block = HeaderText()
    private var headers: [Header] = []
    /// Where the header at hand begins in `block`.
    private var headerStart = 0
    private var headerRange = 0..<0
    private var headerIsVerbatim = true
    private var headerName = HeaderName.other

    package init(limits: ScannerLimits = ScannerLimits(), wantsBody: Bool = true) {
        self.limits = limits
        self.wantsBody = wantsBody
    }

    /// Makes ready for another message, with the memory at hand.
    package mutating func reset() {
        state = .primary
        contentType = .text
        keepBoundaries(0)
        nestingExceeded = false
        position = 0
        carry.removeAll(keepingCapacity: true)
        continuesLine = false
        isFirst = true
        continuesReceived = false
        bodyOffset = 0
        clearBlock()
    }

    private mutating func clearBlock() {
        block.removeAll()
        if !headers.isEmpty { headers.removeAll(keepingCapacity: true) }
        headerStart = 0
    }

    // MARK: - Records

    /// Takes the next bytes of the message.
    package mutating func update(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) {
        var rest = bytes
        while !rest.isEmpty {
            if carry.isEmpty {
                let count = takeWhole(rest, &events)
                rest = rest.suffix(from: count)
                if count == 0 {
                    carry.append(contentsOf: rest)
                    return
                }
            } else {
                rest = rest.suffix(from: completeCarry(rest, &events))
            }
        }
    }

    /// Ends the message; text that no line end came for is a line of its own.
    package mutating func finish(_ events: inout some ScannerEvents) {
        if !carry.isEmpty {
            let last = carry
            carry.removeAll(keepingCapacity: true)
            last.withUnsafeBytes { record($0, isPiece: false, &events) }
        }
        endHeader(&events)
        flushHeaders(&events)
        if state == .primary { events.endOfHeaders(at: position, isText: false) }
        state = .body
    }

    /// Bytes that a record starting with `first` may have, its line end included. smtpd reads
    /// that many, and takes the dot away that SMTP puts before another, later.
    private func window(_ first: UInt8) -> Int {
        max(first == UInt8(ascii: ".") && !continuesLine ? limits.lineLength - 1 : limits.lineLength, 1)
    }

    /// Length of the record at the start of `bytes`: up to a newline, or as long as it may be.
    /// nil when its end has not come yet.
    private func recordLength(_ bytes: UnsafeRawBufferPointer, _ window: Int) -> Int? {
        guard let base = bytes.baseAddress else { return nil }
        if let newline = memchr(base, 0x0a, min(bytes.count, window)) {
            return UnsafeRawPointer(newline) - base + 1
        }
        guard bytes.count > window, window > 0 else {
            return bytes.count == window && bytes.last != 0x0d ? window : nil
        }
        // A CRLF is not torn apart (smtp_stream.c).
        return bytes[window - 1] == 0x0d && bytes[window] == 0x0a ? window + 1 : window
    }

    /// The line that begins at `base`, where nothing in it needs a closer look: it ends within `most` bytes, and there is no
    /// NUL in it, and no CR but before its newline.
    @inline(__always)
    private func plainLine(_ base: UnsafeRawPointer, _ most: Int) -> (textLength: Int, length: Int)? {
        let textLength = weir_line_break(base, most)
        var newline = textLength
        while newline < most {
            switch base.load(fromByteOffset: newline, as: UInt8.self) {
            case 0x0a: return (textLength, newline + 1)
            case 0x0d: newline += 1
            default: return nil
            }
        }
        return nil
    }

    /// Adds to the record in `carry`, and hands it on when it is whole.
    private mutating func completeCarry(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) -> Int {
        let window = window(carry[0])
        let taken = min(bytes.count, window + 1 - carry.count)
        carry.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[..<taken]))
        guard let length = carry.withUnsafeBytes({ recordLength($0, window) }) else { return taken }
        let surplus = carry.count - length
        carry.removeLast(surplus)
        // Taken out for the time of the call, so that its memory can be used again.
        var whole: [UInt8] = []
        swap(&whole, &carry)
        whole.withUnsafeBytes { record($0, isPiece: $0.last != 0x0a, &events) }
        whole.removeAll(keepingCapacity: true)
        swap(&whole, &carry)
        return taken - surplus
    }

    /// Takes whole records off the front of `bytes`; returns how many bytes that is.
    private mutating func takeWhole(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) -> Int {
        var start = 0
        while start < bytes.count {
            let rest = bytes.suffix(from: start)
            if !continuesLine, !isFirst {
                let count = state == .body ? takeBody(rest, &events) : takeHeaders(rest, &events)
                start += count
                if count > 0 { continue }
            }
            guard let count = recordLength(rest, window(rest[0])) else { return start }
            record(
                UnsafeRawBufferPointer(rebasing: rest[..<count]), isPiece: rest[count - 1] != 0x0a,
                &events)
            start += count
        }
        return start
    }

    /// One record: a line with its end, or a piece of a line.
    private mutating func record(
        _ raw: UnsafeRawBufferPointer, isPiece: Bool, _ events: inout some ScannerEvents
    ) {
        let length = raw.withoutLineEnd.count
        guard hasCR(raw, 0, length) else { return record(raw, asItCame: raw, length, isPiece, &events) }
        // Every other CR is a space to all that follows smtpd (cleanup_replace_stray_cr_lf).
        var copy = Array(raw)
        for index in 0..<length where copy[index] == 0x0d { copy[index] = 0x20 }
        copy.withUnsafeBytes { record($0, asItCame: raw, length, isPiece, &events) }
    }

    private func hasCR(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        return memchr(base + start, 0x0d, end - start) != nil
    }

    private mutating func record(
        _ raw: UnsafeRawBufferPointer, asItCame: UnsafeRawBufferPointer, _ length: Int, _ isPiece: Bool,
        _ events: inout some ScannerEvents
    ) {
        let text = UnsafeRawBufferPointer(rebasing: raw[..<length])
        if isFirst,
            takeFirst(raw, text, asItCame: UnsafeRawBufferPointer(rebasing: asItCame[..<length]), isPiece, &events)
        {
            return
        }
        if state != .body, takeHeader(raw, text, isPiece, &events) { return }
        takeBodyRecord(raw, text, isPiece, &events)
    }

    /// What smtpd makes of the first records: an mbox `From ` becomes a header, or goes on with the one at hand, and white
    /// space gets an empty line before it, or ends the line at hand. True when there is nothing left to do.
    private mutating func takeFirst(
        _ raw: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer, asItCame: UnsafeRawBufferPointer,
        _ isPiece: Bool,
        _ events: inout some ScannerEvents
    ) -> Bool {
        let quotes = asItCame.prefix { $0 == UInt8(ascii: ">") }.count
        if asItCame.dropFirst(quotes).starts(with: "From ".utf8) {
            if !continuesLine {
                endHeader(&events)
                headerIsVerbatim = false
                headerName = .other
                headerRange = position..<position
            }
            if block.count - headerStart < limits.headerSize {
                let name: StaticString = "X-Mailbox-Line: "
                block.append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
                appendToHeader(text)
            }
            advance(raw, isPiece)
            headerRange = headerRange.lowerBound..<position
            return true
        }
        isFirst = false
        if let first = asItCame.first, first.isBlank {
            if continuesLine {
                continuesLine = false
            } else {
                endHeaders(isText: true, &events)
                bodyOffset = 1
            }
        } else if text.first?.isBlank == true, !isInHeader {
            continuesReceived = true
        }
        return false
    }

    private mutating func advance(_ raw: UnsafeRawBufferPointer, _ isPiece: Bool) {
        position += raw.count
        continuesLine = isPiece
    }

    // MARK: - Headers

    /// Takes whole header lines in one go, while they need no closer look. 0 when the record at hand does.
    private mutating func takeHeaders(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) -> Int {
        let base = bytes.baseAddress!
        var start = 0
        while start < bytes.count {
            let first = base.load(fromByteOffset: start, as: UInt8.self)
            guard let line = plainLine(base + start, min(bytes.count - start, window(first))) else { break }
            let text = UnsafeRawBufferPointer(start: base + start, count: line.textLength)
            if first.isBlank {
                guard isInHeader, block.count - headerStart < limits.headerSize else { break }
                block.append(0x0a)
                headerRange = headerRange.lowerBound..<position + line.length
            } else {
                let nameLength = headerNameLength(text)
                guard nameLength > 0, text[nameLength] == UInt8(ascii: ":") else { break }
                endHeader(&events)
                headerName = HeaderName(UnsafeRawBufferPointer(rebasing: text[..<nameLength]))
                headerIsVerbatim = true
                headerRange = position..<position + line.length
            }
            block.append(text)
            position += line.length
            start += line.length
        }
        return start
    }

    /// Takes a record in a header section; false when it is none of it, and the section is over.
    private mutating func takeHeader(
        _ raw: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer, _ isPiece: Bool,
        _ events: inout some ScannerEvents
    ) -> Bool {
        if isInHeader {
            let isFolded = text.first?.isBlank ?? false
            if continuesLine || isFolded {
                if block.count - headerStart < limits.headerSize {
                    if !continuesLine { block.append(0x0a) }
                    appendToHeader(text)
                } else {
                    headerIsVerbatim = false
                }
                advance(raw, isPiece)
                headerRange = headerRange.lowerBound..<position
                return true
            }
            endHeader(&events)
        } else if continuesReceived, continuesLine || text.first?.isBlank == true {
            advance(raw, isPiece)
            return true
        }
        let nameLength = headerNameLength(text)
        if nameLength > 0 {
            let name = UnsafeRawBufferPointer(rebasing: text[..<nameLength])
            headerName = HeaderName(name)
            headerIsVerbatim = text[nameLength] == UInt8(ascii: ":")
            if headerIsVerbatim {
                appendToHeader(text)
            } else {
                block.append(name)
                appendToHeader(UnsafeRawBufferPointer(rebasing: text[nameLength...].drop(while: \.isBlank)))
            }
            headerRange = position..<position + raw.count
            advance(raw, isPiece)
            return true
        }
        endHeaders(isText: !text.isEmpty, &events)
        return false
    }

    private mutating func appendToHeader(_ text: UnsafeRawBufferPointer) {
        let kept = text.upToNUL
        if kept.count < text.count { headerIsVerbatim = false }
        block.append(kept)
    }

    private var isInHeader: Bool { block.count > headerStart }

    /// Ends the header at hand, if there is one.
    private mutating func endHeader(_ events: inout some ScannerEvents) {
        guard isInHeader else { return }
        let textRange = headerStart..<block.count
        if headerName == .contentType { readContentType(UnsafeRawBufferPointer(rebasing: block.bytes[textRange])) }
        headers.append(
            Header(
                textRange: textRange, name: headerName, place: place, range: headerRange,
                isVerbatim: headerIsVerbatim && textRange.count <= limits.headerSize))
        block.append(0x0a)
        headerStart = block.count
        continuesLine = false
        if block.count >= Self.blockSize || headers.count == Self.blockCount { flushHeaders(&events) }
    }

    /// Headers go on in one block up to this size, and this number.
    private static let blockSize = 1 << 15
    private static let blockCount = 128

    /// Hands on the headers that have ended.
    private mutating func flushHeaders(_ events: inout some ScannerEvents) {
        guard !headers.isEmpty else { return }
        events.headers(HeaderBlock(text: block.bytes, headers: headers))
        clearBlock()
    }

    private var place: HeaderClass {
        switch state {
        case .primary, .body: .primary
        case .mime: .mime
        case .nested: .nested
        }
    }

    /// Leaves a header section; what the body then is depends on the Content-Type.
    private mutating func endHeaders(isText: Bool, _ events: inout some ScannerEvents) {
        endHeader(&events)
        flushHeaders(&events)
        if state == .primary { events.endOfHeaders(at: position, isText: isText) }
        continuesReceived = false
        bodyOffset = 0
        if isText || contentType != .message {
            state = .body
            if !isText, contentType == .multipart { contentType = .other }
        } else {
            state = .nested
            contentType = .text
        }
    }

    private mutating func readContentType(_ header: UnsafeRawBufferPointer) {
        var items = HeaderTokens(header, from: "Content-Type:".utf8.count)
        guard let item = items.nextItem(), let type = item.first else {
            contentType = .other
            return
        }
        let subtype = items.isSpecial(item.second, UInt8(ascii: "/")) ? item.third : nil
        if items.isToken(type, "text") {
            contentType = .text
        } else if items.isToken(type, "message") {
            let isMessage = items.isToken(subtype, "rfc822") || items.isToken(subtype, "global")
            contentType = isMessage ? .message : .otherMessage
        } else if items.isToken(type, "multipart") {
            contentType = .multipart
            pushBoundaries(&items, partType: items.isToken(subtype, "digest") ? .message : .text)
        }
        // Any other type leaves what was there, as in mime_state_content_type().
    }

    /// Every `boundary=` counts: which of several a mail reader takes is anyone's guess.
    private mutating func pushBoundaries(_ items: inout HeaderTokens, partType: ContentType) {
        while let item = items.nextItem() {
            guard let value = item.third, items.isToken(item.first, "boundary"),
                items.isSpecial(item.second, UInt8(ascii: "="))
            else { continue }
            // mime_state.c counts the open ones from -1, and refuses what comes when they are more than the limit.
            guard boundaries.count - 1 <= limits.mimeNesting else {
                nestingExceeded = true
                continue
            }
            let start = boundaryTexts.count
            items.appendValue(of: value, to: &boundaryTexts)
            boundaryTexts.removeLast(max(boundaryTexts.count - start - limits.mimeBoundaryLength, 0))
            boundaries.append(Boundary(text: start..<boundaryTexts.count, partType: partType))
        }
    }

    /// Closes all boundaries but the first `count`.
    private mutating func keepBoundaries(_ count: Int) {
        guard boundaries.count > count else { return }
        boundaries.removeLast(boundaries.count - count)
        boundaryTexts.removeLast(boundaryTexts.count - (boundaries.last?.text.upperBound ?? 0))
    }

    // MARK: - Body

    private var isChecked: Bool {
        wantsBody && (limits.bodyChecksSize == 0 || bodyOffset < limits.bodyChecksSize)
    }

    /// One record of the body, which may be a boundary.
    private mutating func takeBodyRecord(
        _ raw: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer, _ isPiece: Bool,
        _ events: inout some ScannerEvents
    ) {
        if !boundaries.isEmpty, !continuesLine { readBoundary(text) }
        // An empty line matches nothing.
        if isChecked, !text.isEmpty {
            events.body(BodyText(text: raw, offset: position, isRecord: true))
        }
        bodyOffset += text.count + 1
        advance(raw, isPiece)
    }

    /// Which boundary `line` is, if any: a prefix is enough, and the innermost counts.
    private func boundaryIndex(_ line: UnsafeRawBufferPointer) -> Int? {
        guard line.count > 2, line[0] == UInt8(ascii: "-"), line[1] == UInt8(ascii: "-") else { return nil }
        let text = UnsafeRawBufferPointer(rebasing: line[2...])
        for index in boundaries.indices.reversed() {
            let range = boundaries[index].text
            guard range.count <= text.count else { continue }
            let isThis = boundaryTexts.withUnsafeBytes { texts in
                range.isEmpty || memcmp(text.baseAddress!, texts.baseAddress! + range.lowerBound, range.count) == 0
            }
            if isThis { return index }
        }
        return nil
    }

    private mutating func readBoundary(_ line: UnsafeRawBufferPointer) {
        guard let index = boundaryIndex(line) else { return }
        let boundary = boundaries[index]
        let end = 2 + boundary.text.count
        let isClose = line.count >= end + 2 && line[end] == UInt8(ascii: "-") && line[end + 1] == UInt8(ascii: "-")
        keepBoundaries(isClose ? index : index + 1)
        if isClose {
            state = .body
            contentType = .other
            bodyOffset = 0
        } else {
            state = .mime
            contentType = boundary.partType
        }
    }

    /// Takes whole lines of body text in one go: with the next boundary, or up to a line that is too long, or
    /// the end of the text that is checked. 0 when the record at hand needs a closer look.
    private mutating func takeBody(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) -> Int {
        guard isChecked else { return skipBody(bytes) }
        let base = bytes.baseAddress!
        let wholeLines = limits.bodyChecksSize == 0 ? Int.max : limits.bodyChecksSize
        let hasBoundaries = !boundaries.isEmpty
        let mayEnd = min(bytes.count, Self.longestText)
        let dot = UInt8(ascii: ".")
        let (longest, longestWithDot) = (window(0), window(dot))
        var (start, counted) = (0, bodyOffset)
        var boundary: UnsafeRawBufferPointer?
        while start < mayEnd, counted < wholeLines {
            let plain = weir_plain_lines(
                base + start, min(mayEnd - start, wholeLines - counted), longestWithDot, hasBoundaries)
            counted += plain.length - plain.returns
            start += plain.length
            guard start < mayEnd, counted < wholeLines else { break }
            let first = base.load(fromByteOffset: start, as: UInt8.self)
            guard let line = plainLine(base + start, min(bytes.count - start, first == dot ? longestWithDot : longest))
            else { break }
            let text = UnsafeRawBufferPointer(start: base + start, count: line.textLength)
            counted += line.textLength + 1
            start += line.length
            if first == UInt8(ascii: "-"), hasBoundaries, boundaryIndex(text) != nil {
                boundary = text
                break
            }
        }
        guard start > 0 else { return 0 }
        events.body(
            BodyText(
                text: UnsafeRawBufferPointer(rebasing: bytes[..<start]), offset: position,
                isRecord: false))
        position += start
        bodyOffset = counted
        if let boundary {
            // It may set the count back, and belongs to what follows then.
            bodyOffset -= boundary.count + 1
            readBoundary(boundary)
            bodyOffset += boundary.count + 1
        }
        return start
    }

    /// Text that goes to the checks at once, so that their offsets stay small.
    private static let longestText = 1 << 16

    /// Passes over body text that nobody looks at, up to what may be a boundary.
    private mutating func skipBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        if boundaries.isEmpty {
            // Nothing that follows can change a thing.
            position += bytes.count
            return bytes.count
        }
        var start = 0
        while start < bytes.count {
            if bytes[start] == UInt8(ascii: "-"), isMaybeBoundary(bytes, start) { break }
            let most = min(bytes.count - start, window(bytes[start]))
            guard let newline = memchr(bytes.baseAddress! + start, 0x0a, most) else { break }
            start = UnsafeRawPointer(newline) - bytes.baseAddress! + 1
        }
        // The offset is past the limit and only grows, until a boundary sets it back.
        position += start
        return start
    }

    /// Two hyphens, or one and no more bytes yet.
    private func isMaybeBoundary(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Bool {
        start + 1 >= bytes.count || bytes[start + 1] == UInt8(ascii: "-")
    }
}

extension UnsafeRawBufferPointer {
    /// Without the LF at its end and all CRs before it; as it is when it has no LF.
    package var withoutLineEnd: UnsafeRawBufferPointer {
        guard last == 0x0a else { return self }
        var end = count - 1
        while end > 0, self[end - 1] == 0x0d { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: self[..<end])
    }

    /// Postfix keeps headers as C strings.
    fileprivate var upToNUL: UnsafeRawBufferPointer {
        guard let base = baseAddress, let end = memchr(base, 0, count) else { return self }
        return UnsafeRawBufferPointer(start: base, count: UnsafeRawPointer(end) - base)
    }

    fileprivate func suffix(from start: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[start...])
    }
}
