// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc

extension MessageScanner {
    /// Whether the next body text is within the limit of the checks.
    private var isChecked: Bool {
        wantsBody && (limits.bodyChecksSize == 0 || bodyOffset < limits.bodyChecksSize)
    }

    /// Processes one record of the body, which may be a boundary.
    mutating func readBodyRecord(
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

    /// The boundary that `line` begins with, the innermost of several.
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

    /// Processes plain body lines: up to and including a boundary, or up to a line that is not plain, or up to the
    /// limit of the checks. Returns the number of bytes used, 0 if the first line needs `readBodyRecord`.
    mutating func readPlainBody(
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
            // A boundary may reset the offset. It then counts in the segment that it begins.
            bodyOffset -= boundary.count + 1
            readBoundary(boundary)
            bodyOffset += boundary.count + 1
        }
        return start
    }

    /// The largest text of one `body` event.
    private static let longestText = 1 << 16

    /// Skips body text that is not checked, up to a possible boundary. Returns the number of bytes used.
    private mutating func skipBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        if boundaries.isEmpty {
            // The rest of the message produces no events.
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
        // `bodyOffset` is beyond the limit, so it need not be counted until a boundary resets it.
        position += start
        return start
    }

    /// Whether the line begins with two hyphens, or with one at the end of `bytes`.
    private func isMaybeBoundary(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Bool {
        start + 1 >= bytes.count || bytes[start + 1] == UInt8(ascii: "-")
    }
}
