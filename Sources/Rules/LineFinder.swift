// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// Finds the lines of positions in a text. It remembers the last line, because a long header has many hits.
package struct LineFinder {
    /// The start of the line that was found last. Before there is one, no position lies between these bounds.
    private var start = 1
    private var end = 0

    package init() {}

    /// From the first byte of the line to its newline, or to the end of the text.
    ///
    /// No byte of the last line is searched again, so that positions in ascending order take one pass over the text.
    ///
    /// - Parameter position: at most the size of the text, which is the same in all calls. A newline ends its line.
    package mutating func line(of position: Int, in text: UnsafeRawBufferPointer) -> Range<Int> {
        if start <= position, position <= end { return start..<end }
        guard let base = text.baseAddress else { return 0..<0 }
        // The last line ends with a newline if there is anything after it.
        let before = Self.lastNewline(base, in: (position > end ? end : 0)..<position)
        let after = memchr(base + position, 0x0a, text.count - position)
        start = before.map { $0 + 1 } ?? 0
        end = after.map { UnsafeRawPointer($0) - base } ?? text.count
        return start..<end
    }

    /// memrchr(3), which Swift does not import.
    private static func lastNewline(_ base: UnsafeRawPointer, in range: Range<Int>) -> Int? {
        var end = range.upperBound
        while end > range.lowerBound {
            let start = max(range.lowerBound, end - 64)
            var last: Int?
            var next = start
            while let found = memchr(base + next, 0x0a, end - next) {
                last = UnsafeRawPointer(found) - base
                next = UnsafeRawPointer(found) - base + 1
            }
            if let last { return last }
            end = start
        }
        return nil
    }
}
