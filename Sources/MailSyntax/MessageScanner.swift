// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc

/// The streaming scanner. Message bytes go in, in pieces of any size; out comes what header and body checks see,
/// exactly as in Postfix's `mime_state.c` after `smtpd`. A line end is LF with any number of CRs before it, as in
/// `smtp_stream.c`. A record is a line, or a piece of a line longer than `lineLength`.
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
    enum State { case primary, mime, nested, body }

    struct Boundary {
        /// Its bytes in `boundaryTexts`.
        let text: Range<Int>
        /// The type of a part without Content-Type: the parts of multipart/digest are messages.
        let partType: ContentType
    }

    let limits: ScannerLimits
    /// Whether `body` events are needed.
    let wantsBody: Bool
    var state = State.primary
    var contentType = ContentType.text
    var boundaries: [Boundary] = []
    var boundaryTexts: [UInt8] = []
    /// Whether multiparts are nested deeper than the limit: Postfix refuses the message.
    package internal(set) var nestingExceeded = false

    /// The offset in the message of the first byte of `carry`, or of the next byte to come.
    var position = 0
    /// An incomplete record.
    private var carry: [UInt8] = []
    /// smtpd removes the dot that SMTP adds to a leading dot only after it has read a record. Set to false after
    /// `reset` for a message that did not come with doubled dots, as from sendmail(1).
    package var dotsWereDoubled = true
    /// The current record continues the line of the previous one.
    var continuesLine = false
    /// The next record is at the start of the message, or follows only `From ` lines that become headers.
    private var isFirst = true
    /// The current lines continue the Received: header that smtpd puts before the message, because the first line began
    /// with a stray CR.
    var continuesReceived = false
    /// The offset in the body segment as Postfix counts it: the text of each record and one byte for its end.
    var bodyOffset = 0

    /// The texts of `headers`, and after them the text of the current header.
    var block = HeaderText()
    /// Complete headers that no event has reported yet.
    var headers: [Header] = []
    /// Where the current header begins in `block`.
    var headerStart = 0
    var headerRange = 0..<0
    var headerIsVerbatim = true
    /// Some of the header is beyond the limit, and not in `block`.
    var headerIsCut = false
    var headerName = HeaderName.other

    package init(limits: ScannerLimits = ScannerLimits(), wantsBody: Bool = true) {
        self.limits = limits
        self.wantsBody = wantsBody
    }

    /// Starts another message and keeps the allocated memory.
    package mutating func reset() {
        state = .primary
        contentType = .text
        keepBoundaries(0)
        nestingExceeded = false
        position = 0
        carry.removeAll(keepingCapacity: true)
        dotsWereDoubled = true
        continuesLine = false
        isFirst = true
        continuesReceived = false
        bodyOffset = 0
        clearBlock()
    }

    mutating func clearBlock() {
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
                let count = readRecords(rest, &events)
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

    /// Ends the message. Text without a line end is a line of its own.
    package mutating func finish(_ events: inout some ScannerEvents) {
        if !carry.isEmpty {
            let last = carry
            carry.removeAll(keepingCapacity: true)
            last.withUnsafeBytes { record($0, isPiece: false, &events) }
        }
        endHeader(&events)
        flushHeaders(&events)
        if state == .primary { events.endOfHeaders(at: position, needsEmptyLine: false) }
        state = .body
    }

    /// The largest size of a record that starts with `first`, with its line end.
    func window(_ first: UInt8) -> Int {
        let hasDoubledDot = first == UInt8(ascii: ".") && !continuesLine && dotsWereDoubled
        return max(hasDoubledDot ? limits.lineLength - 1 : limits.lineLength, 1)
    }

    /// The length of the record at the start of `bytes`: up to a newline, or at most `window`. nil if it is incomplete.
    private func recordLength(_ bytes: UnsafeRawBufferPointer, _ window: Int) -> Int? {
        guard let base = bytes.baseAddress else { return nil }
        if let newline = memchr(base, 0x0a, min(bytes.count, window)) {
            return UnsafeRawPointer(newline) - base + 1
        }
        guard bytes.count > window, window > 0 else {
            return bytes.count == window && bytes.last != 0x0d ? window : nil
        }
        // A CRLF is never split (smtp_stream.c).
        return bytes[window - 1] == 0x0d && bytes[window] == 0x0a ? window + 1 : window
    }

    /// The line that begins at `base`; nil if it does not end within `most` bytes, contains a NUL, or contains a CR
    /// other than directly before its newline.
    @inline(__always)
    func plainLine(_ base: UnsafeRawPointer, _ most: Int) -> (textLength: Int, length: Int)? {
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

    /// Adds to the record in `carry`, and processes it once it is complete. Returns the number of bytes used.
    private mutating func completeCarry(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) -> Int {
        let window = window(carry[0])
        let taken = min(bytes.count, window + 1 - carry.count)
        carry.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[..<taken]))
        guard let length = carry.withUnsafeBytes({ recordLength($0, window) }) else { return taken }
        let surplus = carry.count - length
        carry.removeLast(surplus)
        // Moved out during the call, and back to keep its memory.
        var complete: [UInt8] = []
        swap(&complete, &carry)
        complete.withUnsafeBytes { record($0, isPiece: $0.last != 0x0a, &events) }
        complete.removeAll(keepingCapacity: true)
        swap(&complete, &carry)
        return taken - surplus
    }

    /// Processes the complete records at the start of `bytes`. Returns the number of bytes used.
    private mutating func readRecords(
        _ bytes: UnsafeRawBufferPointer, _ events: inout some ScannerEvents
    ) -> Int {
        var start = 0
        while start < bytes.count {
            let rest = bytes.suffix(from: start)
            if !continuesLine, !isFirst {
                let count = state == .body ? readPlainBody(rest, &events) : readPlainHeaders(rest, &events)
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

    /// Processes one record, with its line end if it has one.
    private mutating func record(
        _ raw: UnsafeRawBufferPointer, isPiece: Bool, _ events: inout some ScannerEvents
    ) {
        let length = raw.withoutLineEnd.count
        guard hasCR(raw, 0, length) else { return record(raw, original: raw, length, isPiece, &events) }
        // smtpd replaces every other CR by a space (cleanup_replace_stray_cr_lf).
        var copy = Array(raw)
        for index in 0..<length where copy[index] == 0x0d { copy[index] = 0x20 }
        copy.withUnsafeBytes { record($0, original: raw, length, isPiece, &events) }
    }

    private func hasCR(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        return memchr(base + start, 0x0d, end - start) != nil
    }

    private mutating func record(
        _ raw: UnsafeRawBufferPointer, original: UnsafeRawBufferPointer, _ length: Int, _ isPiece: Bool,
        _ events: inout some ScannerEvents
    ) {
        let text = UnsafeRawBufferPointer(rebasing: raw[..<length])
        if isFirst {
            let original = UnsafeRawBufferPointer(rebasing: original[..<length])
            if readFirstRecord(raw, text, original: original, isPiece, &events) { return }
        }
        if state != .body, readHeaderRecord(raw, text, isPiece, &events) { return }
        readBodyRecord(raw, text, isPiece, &events)
    }

    /// Treats the first records as smtpd does. An mbox `From ` line becomes a header or continues the current one. A
    /// line that begins with white space gets an empty line before it, or ends the current line. Returns whether the
    /// record is done.
    private mutating func readFirstRecord(
        _ raw: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer, original: UnsafeRawBufferPointer,
        _ isPiece: Bool,
        _ events: inout some ScannerEvents
    ) -> Bool {
        let quotes = original.prefix { $0 == UInt8(ascii: ">") }.count
        if original.dropFirst(quotes).starts(with: "From ".utf8) {
            if !continuesLine {
                endHeader(&events)
                (headerIsVerbatim, headerIsCut) = (false, false)
                headerName = .mailboxLine
                headerRange = position..<position
            }
            if block.count - headerStart >= limits.headerSize {
                headerIsCut = true
            } else {
                let name: StaticString = "X-Mailbox-Line: "
                block.append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
                appendToHeader(text)
            }
            advance(raw, isPiece)
            headerRange = headerRange.lowerBound..<position
            isFirst = limits.fromLines == .all
            return true
        }
        isFirst = false
        if let first = original.first, first.isBlank {
            if continuesLine {
                continuesLine = false
            } else {
                endHeaders(before: text, &events)
                bodyOffset = 1
            }
        } else if text.first?.isBlank == true, !isInHeader {
            continuesReceived = true
        }
        return false
    }

    mutating func advance(_ raw: UnsafeRawBufferPointer, _ isPiece: Bool) {
        position += raw.count
        continuesLine = isPiece
    }
}

extension UnsafeRawBufferPointer {
    /// The bytes without a final LF and all CRs before it.
    package var withoutLineEnd: UnsafeRawBufferPointer {
        guard last == 0x0a else { return self }
        var end = count - 1
        while end > 0, self[end - 1] == 0x0d { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: self[..<end])
    }

    fileprivate func suffix(from start: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[start...])
    }
}
