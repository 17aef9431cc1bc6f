// SPDX-License-Identifier: Apache-2.0
internal import Glibc

extension MessageScanner {
    /// Processes plain header lines, which are almost all. Returns the number of bytes used, 0 if the first line needs
    /// `readHeaderRecord`.
    mutating func readPlainHeaders(
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
                (headerIsVerbatim, headerIsCut) = (true, false)
                headerRange = position..<position + line.length
            }
            block.append(text)
            position += line.length
            start += line.length
        }
        return start
    }

    /// Processes a record in a header section. Returns false if the record ends the section; it then belongs to the
    /// body.
    mutating func readHeaderRecord(
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
                    headerIsCut = true
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
            (headerIsVerbatim, headerIsCut) = (text[nameLength] == UInt8(ascii: ":"), false)
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
        endHeaders(before: text, &events)
        return false
    }

    mutating func appendToHeader(_ text: UnsafeRawBufferPointer) {
        let kept = text.upToNUL
        if kept.count < text.count { headerIsVerbatim = false }
        block.append(kept)
    }

    var isInHeader: Bool { block.count > headerStart }

    /// Ends the current header, if there is one.
    mutating func endHeader(_ events: inout some ScannerEvents) {
        guard isInHeader else { return }
        let textRange = headerStart..<block.count
        if headerName == .contentType { readContentType(UnsafeRawBufferPointer(rebasing: block.bytes[textRange])) }
        headers.append(
            Header(
                textRange: textRange, name: headerName, place: place, range: headerRange,
                isVerbatim: headerIsVerbatim, isCut: headerIsCut || textRange.count > limits.headerSize))
        block.append(0x0a)
        headerStart = block.count
        continuesLine = false
        if block.count >= Self.blockSize || headers.count == Self.blockCount { flushHeaders(&events) }
    }

    /// A block has about this many bytes, or this many headers, at most.
    private static let blockSize = 1 << 15
    private static let blockCount = 128

    /// Reports the complete headers.
    mutating func flushHeaders(_ events: inout some ScannerEvents) {
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

    /// Ends a header section before `text`, which is empty, or begins a body without an empty line before it. The
    /// Content-Type decides what follows.
    mutating func endHeaders(before text: UnsafeRawBufferPointer, _ events: inout some ScannerEvents) {
        let isText = !text.isEmpty
        endHeader(&events)
        flushHeaders(&events)
        if state == .primary {
            let quotes = text.prefix { $0 == UInt8(ascii: ">") }.count
            let isLikeHeader = text.first?.isBlank == true || text.dropFirst(quotes).starts(with: "From ".utf8)
            events.endOfHeaders(at: position, needsEmptyLine: isLikeHeader)
        }
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
        // Any other type leaves `contentType` unchanged, as in mime_state_content_type().
    }

    /// Opens the boundary of every `boundary=`: mail readers differ in which of several they use.
    private mutating func pushBoundaries(_ items: inout HeaderTokens, partType: ContentType) {
        while let item = items.nextItem() {
            guard let value = item.third, items.isToken(item.first, "boundary"),
                items.isSpecial(item.second, UInt8(ascii: "="))
            else { continue }
            // mime_state.c counts open boundaries from -1, and refuses one more once the count exceeds the limit.
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
    mutating func keepBoundaries(_ count: Int) {
        guard boundaries.count > count else { return }
        boundaries.removeLast(boundaries.count - count)
        boundaryTexts.removeLast(boundaryTexts.count - (boundaries.last?.text.upperBound ?? 0))
    }
}

extension UnsafeRawBufferPointer {
    /// The bytes before the first NUL: Postfix keeps headers as C strings.
    fileprivate var upToNUL: UnsafeRawBufferPointer {
        guard let base = baseAddress, let end = memchr(base, 0, count) else { return self }
        return UnsafeRawBufferPointer(start: base, count: UnsafeRawPointer(end) - base)
    }
}
