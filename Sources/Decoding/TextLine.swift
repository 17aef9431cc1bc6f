// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc
internal import MailSyntax

/// Collects the bytes of one line of UTF-8, and writes it as a reader sees it.
struct TextLine {
    private var bytes: [UInt8] = []
    /// What stands before each line.
    private let prefix: [UInt8]
    /// Whether white space of any length becomes one blank, and none at the ends of the line.
    private let collapses: Bool

    /// Bytes. Longer lines are cut.
    static let longest = 8_192

    init(prefix: StaticString = "", collapses: Bool) {
        self.prefix = Array(UnsafeRawBufferPointer(start: prefix.utf8Start, count: prefix.utf8CodeUnitCount))
        self.collapses = collapses
    }

    var isEmpty: Bool { bytes.isEmpty }

    mutating func append(_ byte: UInt8, to lines: inout LineBuffer) {
        // Not inside a character.
        if bytes.count >= Self.longest, byte & 0xc0 != 0x80 || bytes.count > Self.longest + 8 { end(to: &lines) }
        if collapses, byte.isSpace {
            if let last = bytes.last, last != 0x20 { bytes.append(0x20) }
        } else {
            bytes.append(byte)
        }
    }

    /// The same for several bytes.
    ///
    /// - Parameter isCollapsed: the only white space among them is single blanks.
    mutating func append(_ run: UnsafeBufferPointer<UInt8>, isCollapsed: Bool, to lines: inout LineBuffer) {
        guard bytes.count + run.count <= Self.longest, !collapses || isCollapsed else {
            for byte in run { append(byte, to: &lines) }
            return
        }
        guard collapses, run.first == 0x20, bytes.last ?? 0x20 == 0x20 else { return bytes.append(contentsOf: run) }
        bytes.append(contentsOf: UnsafeBufferPointer(rebasing: run.dropFirst()))
    }

    /// Writes a run of printable ASCII as the end of the line, whose white space is collapsed.
    mutating func write(_ run: UnsafeBufferPointer<UInt8>, to lines: inout LineBuffer) {
        guard bytes.isEmpty, run.count <= Self.longest else {
            append(run, isCollapsed: true, to: &lines)
            return end(to: &lines)
        }
        let start = run.first == 0x20 ? 1 : 0
        let end = run.count > start && run[run.count - 1] == 0x20 ? run.count - 1 : run.count
        guard start < end else { return }
        lines.append(prefix)
        lines.append(UnsafeBufferPointer(rebasing: run[start..<end]))
        lines.append(0x0a)
    }

    /// Removes a carriage return at the end: a newline follows.
    mutating func removeReturn() {
        if bytes.last == 0x0d { bytes.removeLast() }
    }

    /// Ends the line. An empty one is not written.
    mutating func end(to lines: inout LineBuffer) {
        guard !bytes.isEmpty else { return }
        guard !bytes.withUnsafeBytes(VisibleText.isPrintable) else { return endPrintable(to: &lines) }
        var text: [UInt8] = []
        VisibleText.append(bytes, to: &text, most: 3 * (Self.longest + 9))
        bytes.removeAll(keepingCapacity: true)
        if collapses { Self.collapse(&text) }
        if !text.isEmpty { write(text, to: &lines) }
    }

    private func write(_ text: [UInt8], to lines: inout LineBuffer) {
        lines.append(prefix)
        lines.append(text)
        lines.append(0x0a)
    }

    /// Ends a line whose white space is collapsed already, but for a blank at its end.
    private mutating func endPrintable(to lines: inout LineBuffer) {
        if collapses, bytes.last == 0x20 { bytes.removeLast() }
        if !bytes.isEmpty { write(bytes, to: &lines) }
        bytes.removeAll(keepingCapacity: true)
    }

    /// White space beyond ASCII has become blanks only now.
    private static func collapse(_ text: inout [UInt8]) {
        var end = 0
        for byte in text {
            if byte == 0x20, end == 0 || text[end - 1] == 0x20 { continue }
            text[end] = byte
            end += 1
        }
        if end > 0, text[end - 1] == 0x20 { end -= 1 }
        text.removeLast(text.count - end)
    }
}

/// The lines of plain text.
struct PlainText {
    private var line = TextLine(collapses: false)

    /// Whether a line begins.
    var isAtLineStart: Bool { line.isEmpty }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>, to lines: inout LineBuffer) {
        guard var start = text.baseAddress else { return }
        let end = start + text.count
        while start < end {
            if line.isEmpty {
                let copied = weir_copy_lines(start, end - start, lines.place(for: end - start), TextLine.longest)
                lines.take(copied.written)
                start += copied.read
                if copied.read > 0 { continue }
            }
            let found = memchr(start, 0x0a, end - start)
            let lineEnd = found.map { UnsafePointer($0.assumingMemoryBound(to: UInt8.self)) } ?? end
            line.append(UnsafeBufferPointer(start: start, count: lineEnd - start), isCollapsed: false, to: &lines)
            if found != nil {
                line.removeReturn()
                line.end(to: &lines)
            }
            start = lineEnd + (found == nil ? 0 : 1)
        }
    }

    mutating func finish(to lines: inout LineBuffer) { line.end(to: &lines) }
}
