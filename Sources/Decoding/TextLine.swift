// SPDX-License-Identifier: Apache-2.0
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

    mutating func append(_ byte: UInt8, to lines: inout [UInt8]) {
        // Not inside a character.
        if bytes.count >= Self.longest, byte & 0xc0 != 0x80 || bytes.count > Self.longest + 8 { end(to: &lines) }
        if collapses, byte.isSpace {
            if let last = bytes.last, last != 0x20 { bytes.append(0x20) }
        } else {
            bytes.append(byte)
        }
    }

    /// The same for several bytes.
    mutating func append(_ run: UnsafeRawBufferPointer, to lines: inout [UInt8]) {
        guard bytes.count + run.count <= Self.longest, !collapses || Self.isCollapsed(run) else {
            for byte in run { append(byte, to: &lines) }
            return
        }
        let isBlank = collapses && run.first == 0x20 && bytes.last ?? 0x20 == 0x20
        bytes.append(contentsOf: run.dropFirst(isBlank ? 1 : 0))
    }

    /// Whether the only white space is single blanks.
    private static func isCollapsed(_ run: UnsafeRawBufferPointer) -> Bool {
        var others: UInt8 = 0
        for byte in run { others |= byte < 0x20 ? 1 : 0 }
        for index in run.indices.dropFirst() { others |= run[index] == 0x20 && run[index - 1] == 0x20 ? 1 : 0 }
        return others == 0
    }

    /// Ends the line. An empty one is not written.
    mutating func end(to lines: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        let start = lines.count
        lines += prefix
        let textStart = lines.count
        VisibleText.append(bytes, to: &lines, most: 2 * Self.longest)
        bytes.removeAll(keepingCapacity: true)
        if collapses { collapse(&lines, from: textStart) }
        if lines.count == textStart { lines.removeLast(lines.count - start) } else { lines.append(0x0a) }
    }

    /// White space beyond ASCII has become blanks only now.
    private func collapse(_ lines: inout [UInt8], from start: Int) {
        var end = start
        for index in start..<lines.count {
            if lines[index] == 0x20, end == start || lines[end - 1] == 0x20 { continue }
            lines[end] = lines[index]
            end += 1
        }
        if end > start, lines[end - 1] == 0x20 { end -= 1 }
        lines.removeLast(lines.count - end)
    }
}

/// The lines of plain text.
struct PlainText {
    private var line = TextLine(collapses: false)

    mutating func append(_ text: UnsafeRawBufferPointer, to lines: inout [UInt8]) {
        guard let base = text.baseAddress else { return }
        var start = 0
        while start < text.count {
            let found = memchr(base + start, 0x0a, text.count - start)
            let end = found.map { UnsafeRawPointer($0) - base } ?? text.count
            let run = UnsafeRawBufferPointer(rebasing: text[start..<end])
            if found != nil, line.isEmpty, 1...TextLine.longest ~= run.count, VisibleText.isPrintable(run) {
                lines.append(contentsOf: text[start...end])
            } else {
                line.append(run, to: &lines)
                if found != nil { line.end(to: &lines) }
            }
            start = end + 1
        }
    }

    mutating func finish(to lines: inout [UInt8]) { line.end(to: &lines) }
}
