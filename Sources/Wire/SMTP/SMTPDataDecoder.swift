// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore

/// Takes the content of a message off the wire: RFC 5321 4.1.1.4 and 4.5.2.
///
///                       CR            LF             .             CR             LF
///     text --> afterCR ----> lineStart (CRLF) --> dot --> dotCR --> END
///
/// Only CRLF.CRLF ends the data. A dot is taken away behind a CRLF alone, which is where a sender has put one. What
/// comes out has no other line end than CRLF: a bare LF, which a next hop could take for one, is made CRLF, and every
/// other CR goes: before a line end it is dropped (as `smtp_stream.c` does), elsewhere it becomes a blank (as
/// `cleanup_replace_stray_cr_lf` does). So nothing that follows can read the same bytes in another way.
package struct SMTPDataDecoder {
    private enum State {
        /// Behind a CRLF, or at the start.
        case lineStart
        /// A dot behind a CRLF.
        case dot
        /// CRs behind that.
        case dotCR(count: Int)
        case text
        /// So many CRs within a line.
        case carriageReturns(count: Int)
    }

    /// So many are held back to see what follows them; of a longer run the first become blanks.
    private static let mostCarriageReturns = 64

    private var state = State.lineStart
    /// A line of the message begins with a dot, so that it has to be stuffed again.
    package private(set) var hasLeadingDot = false
    /// What came out ends within a line.
    private var isWithinLine = false

    package init() {}

    /// Decodes from the front of `input`, and appends to `content`.
    ///
    /// - Returns: whether the end of the data came; what is left of `input` is behind it.
    package mutating func decode(_ input: inout ByteBuffer, into content: inout ByteBuffer) -> Bool {
        content.reserveCapacity(minimumWritableBytes: input.readableBytes)
        var isEnd = false
        let taken = input.withUnsafeReadableBytes { decode($0, into: &content, &isEnd) }
        input.moveReaderIndex(forwardBy: taken)
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
                state = .dotCR(count: 1)
                index += 1
            case .dotCR(count: 1) where bytes[index] == 0x0a:
                isEnd = true
                state = .lineStart
                return index + 1
            case .dotCR(let count):
                // Not the end: the dot goes, the CRs are looked at as those of any line.
                state = .carriageReturns(count: count)
            case .lineStart, .dot, .text:
                state = .text
                index = takeText(bytes, from: index, into: &content)
            case .carriageReturns(let count):
                index = takeLineEnd(bytes, from: index, carriageReturns: count, into: &content)
            }
        }
        return index
    }

    /// Takes whole lines and parts of one, up to something that wants a closer look.
    private mutating func takeText(
        _ bytes: UnsafeRawBufferPointer, from start: Int, into content: inout ByteBuffer
    ) -> Int {
        let base = bytes.baseAddress!
        var index = start
        noteLeadingDot(bytes[start])
        while index < bytes.count {
            guard let found = memchr(base + index, 0x0a, bytes.count - index) else {
                // The rest of the input: its CRs are looked at one by one.
                return takePartialLine(bytes, from: start, lineStart: index, end: bytes.count, into: &content)
            }
            let newline = UnsafeRawPointer(found) - base
            guard newline > index, bytes[newline - 1] == 0x0d, memchr(base + index, 0x0d, newline - 1 - index) == nil
            else {
                return takePartialLine(bytes, from: start, lineStart: index, end: newline, into: &content)
            }
            index = newline + 1
            isWithinLine = false
            // A dot behind a CRLF is the sender's, or the end.
            if index == bytes.count || bytes[index] == UInt8(ascii: ".") {
                state = .lineStart
                break
            }
        }
        content.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[start..<index]))
        return index
    }

    /// Takes what was found good, and the line at `lineStart` up to its first CR, or `end`.
    private mutating func takePartialLine(
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
            // A bare LF: a line end for whoever takes it for one, but no dot behind it was stuffed.
            content.writeStaticString("\r\n")
            isWithinLine = false
        }
        return stop + 1
    }

    /// Looks at what follows CRs.
    private mutating func takeLineEnd(
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
    /// Appends content for the wire: a line that begins with a dot gets another (RFC 5321 4.5.2).
    ///
    /// - Parameter atLineStart: whether `content` begins a line; set to whether what follows it does.
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
