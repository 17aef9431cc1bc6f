// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore

/// Decodes the content of a message after DATA (RFC 5321 4.1.1.4 and 4.5.2).
///
///                       CR            LF             .             CR             LF
///     text --> afterCR ----> lineStart (CRLF) --> dot --> dotCR --> END
///
/// Only CRLF.CRLF ends the data, and a dot is removed only after a CRLF, where the sender has added it. Every line of
/// the output ends in CRLF, and it has no other CR or LF: a bare LF becomes CRLF, extra CRs before a line end are
/// dropped (as in `smtp_stream.c`), and any other CR becomes a space (as in `cleanup_replace_stray_cr_lf`). A next hop
/// therefore can't disagree about the line ends (SMTP smuggling).
package struct SMTPDataDecoder {
    private enum State {
        /// After a CRLF, or at the start.
        case lineStart
        /// After the dot at the start of a line.
        case dot
        /// After that dot and a CR.
        case dotCR
        case text
        /// After `count` CRs in a row.
        case carriageReturns(count: Int)
    }

    /// CRs that are held back until the byte after them arrives. In a longer run, the first ones become spaces at once.
    private static let mostCarriageReturns = 64

    private var state = State.lineStart
    /// Whether a line of the content begins with a dot and needs dot-stuffing again.
    package private(set) var hasLeadingDot = false
    /// Whether the output so far ends in the middle of a line.
    private var isWithinLine = false

    package init() {}

    /// Decodes bytes from the front of `input`, and appends the result to `content`.
    ///
    /// - Returns: whether the end of the data was reached; the rest of `input` follows it.
    package mutating func decode(_ input: inout ByteBuffer, into content: inout ByteBuffer) -> Bool {
        content.reserveCapacity(minimumWritableBytes: input.readableBytes)
        var isEnd = false
        let count = input.withUnsafeReadableBytes { decode($0, into: &content, &isEnd) }
        input.moveReaderIndex(forwardBy: count)
        return isEnd
    }

    private mutating func decode(
        _ bytes: UnsafeRawBufferPointer, into content: inout ByteBuffer, _ isEnd: inout Bool
    ) -> Int {
        var index = 0
        while index < bytes.count {
            switch state {
            case .lineStart where bytes[index] == UInt8(ascii: "."):
                state = .dot
                index += 1
            case .dot where bytes[index] == 0x0d:
                state = .dotCR
                index += 1
            case .dotCR where bytes[index] == 0x0a:
                isEnd = true
                state = .lineStart
                return index + 1
            case .dotCR:
                // Not the end of the data: the dot is dropped, and the CR is treated like that of any line.
                state = .carriageReturns(count: 1)
            case .lineStart, .dot, .text:
                state = .text
                index = decodeText(bytes, from: index, into: &content)
            case .carriageReturns(let count):
                index = decodeLineEnd(bytes, from: index, carriageReturns: count, into: &content)
            }
        }
        return index
    }

    /// Decodes whole lines, up to a dot at the start of a line, a bare LF, or a CR that may not belong to a line end.
    private mutating func decodeText(
        _ bytes: UnsafeRawBufferPointer, from start: Int, into content: inout ByteBuffer
    ) -> Int {
        let base = bytes.baseAddress!
        var index = start
        noteLeadingDot(bytes[start])
        while index < bytes.count {
            guard let found = memchr(base + index, 0x0a, bytes.count - index) else {
                // The rest of the input is part of a line; its CRs are decoded one by one.
                return decodePartialLine(bytes, from: start, lineStart: index, end: bytes.count, into: &content)
            }
            let newline = UnsafeRawPointer(found) - base
            guard newline > index, bytes[newline - 1] == 0x0d, memchr(base + index, 0x0d, newline - 1 - index) == nil
            else {
                return decodePartialLine(bytes, from: start, lineStart: index, end: newline, into: &content)
            }
            index = newline + 1
            isWithinLine = false
            // The dot was added by the sender, or ends the data.
            if index == bytes.count || bytes[index] == UInt8(ascii: ".") {
                state = .lineStart
                break
            }
        }
        content.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[start..<index]))
        return index
    }

    /// Decodes the lines from `start`, which need no change, and the line at `lineStart` up to its first CR or `end`.
    private mutating func decodePartialLine(
        _ bytes: UnsafeRawBufferPointer, from start: Int, lineStart: Int, end: Int, into content: inout ByteBuffer
    ) -> Int {
        let base = bytes.baseAddress!
        let stop = memchr(base + lineStart, 0x0d, end - lineStart).map { UnsafeRawPointer($0) - base } ?? end
        content.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[start..<stop]))
        if stop > lineStart { isWithinLine = true }
        guard stop < bytes.count else { return stop }
        if bytes[stop] == 0x0d {
            state = .carriageReturns(count: 1)
        } else {
            // A bare LF becomes a line end, but the sender has stuffed no dot after it.
            content.writeStaticString("\r\n")
            isWithinLine = false
        }
        return stop + 1
    }

    /// Decodes the byte after `count` CRs: another CR, the LF of a line end, or text.
    private mutating func decodeLineEnd(
        _ bytes: UnsafeRawBufferPointer, from index: Int, carriageReturns count: Int, into content: inout ByteBuffer
    ) -> Int {
        switch bytes[index] {
        case 0x0d:
            state = .carriageReturns(count: count + 1)
            if count == Self.mostCarriageReturns {
                content.writeRepeatingByte(UInt8(ascii: " "), count: count)
                isWithinLine = true
                state = .carriageReturns(count: 1)
            }
            return index + 1
        case 0x0a:
            content.writeStaticString("\r\n")
            isWithinLine = false
            state = .lineStart
            return index + 1
        default:
            content.writeRepeatingByte(UInt8(ascii: " "), count: count)
            isWithinLine = true
            state = .text
            return index
        }
    }

    private mutating func noteLeadingDot(_ byte: UInt8) {
        if !isWithinLine, byte == UInt8(ascii: ".") { hasLeadingDot = true }
    }
}

extension ByteBuffer {
    /// Appends content with dot-stuffing: a line that begins with a dot gets another one (RFC 5321 4.5.2).
    ///
    /// - Parameter atLineStart: whether `content` starts at the beginning of a line; updated for the next call.
    package mutating func writeDotStuffed(_ content: UnsafeRawBufferPointer, atLineStart: inout Bool) {
        guard let base = content.baseAddress, !content.isEmpty else { return }
        if atLineStart, content[0] == UInt8(ascii: ".") { writeInteger(UInt8(ascii: ".")) }
        var start = 0
        var search = 0
        while let found = memchr(base + search, 0x0a, content.count - search) {
            search = UnsafeRawPointer(found) - base + 1
            guard search < content.count, content[search] == UInt8(ascii: ".") else { continue }
            writeBytes(UnsafeRawBufferPointer(rebasing: content[start..<search]))
            writeInteger(UInt8(ascii: "."))
            start = search
        }
        writeBytes(UnsafeRawBufferPointer(rebasing: content[start...]))
        atLineStart = content[content.count - 1] == 0x0a
    }
}
