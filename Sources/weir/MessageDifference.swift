// SPDX-License-Identifier: Apache-2.0
import Filter

/// The changes of a verdict, as the lines of a unified diff.
struct MessageDifference {
    enum Line: Equatable {
        /// Number of the first line shown, from 1.
        case place(Int)
        case context([UInt8])
        case removed([UInt8])
        case added([UInt8])
    }

    private(set) var lines: [Line] = []
    private static let contextCount = 2

    init(_ message: [UInt8], _ edits: [Edit]) {
        let ends = message.indices.filter { message[$0] == 0x0a }.map { $0 + 1 }
        var bounds = [0] + ends
        if bounds.last != message.count { bounds.append(message.count) }
        var shown = 0
        var index = 0
        while index < edits.count {
            // Edits of the same lines form one hunk.
            var (first, end) = Self.lineRange(of: edits[index], bounds)
            var next = index + 1
            while next < edits.count {
                let (start, stop) = Self.lineRange(of: edits[next], bounds)
                guard start < end || (start == end && start == first) else { break }
                (first, end) = (min(first, start), max(end, stop))
                next += 1
            }
            showContext(from: shown, to: first, message, bounds, isFirst: index == 0)
            for line in first..<end { lines.append(.removed(Self.line(line, message, bounds))) }
            let old = bounds[first]..<bounds[end]
            for line in Self.changed(old, message, edits[index..<next]) {
                lines.append(.added(line))
            }
            shown = end
            index = next
        }
        let last = min(shown + Self.contextCount, bounds.count - 1)
        if !edits.isEmpty, shown < last {
            for line in shown..<last { lines.append(.context(Self.line(line, message, bounds))) }
        }
    }

    private mutating func showContext(
        from shown: Int, to first: Int, _ message: [UInt8], _ bounds: [Int], isFirst: Bool
    ) {
        let isNear = !isFirst && first - shown <= 2 * Self.contextCount
        if !isNear {
            if !isFirst {
                for line in shown..<min(shown + Self.contextCount, first) {
                    lines.append(.context(Self.line(line, message, bounds)))
                }
            }
            lines.append(.place(max(0, first - Self.contextCount) + 1))
        }
        let start = isNear ? shown : max(isFirst ? 0 : shown, first - Self.contextCount)
        for line in start..<first { lines.append(.context(Self.line(line, message, bounds))) }
    }

    /// The lines that an edit touches; empty for an insertion between two lines.
    private static func lineRange(of edit: Edit, _ bounds: [Int]) -> (Int, Int) {
        let first = max(count(in: bounds, below: edit.range.lowerBound + 1) - 1, 0)
        if edit.range.isEmpty, bounds[first] == edit.range.lowerBound { return (first, first) }
        let end = min(count(in: bounds, below: edit.range.upperBound), bounds.count - 1)
        return (min(first, end), end)
    }

    /// How many of `bounds`, in ascending order, are below `position`.
    private static func count(in bounds: [Int], below position: Int) -> Int {
        var (low, high) = (0, bounds.count)
        while low < high {
            let middle = (low + high) / 2
            if bounds[middle] < position { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private static func line(_ number: Int, _ message: [UInt8], _ bounds: [Int]) -> [UInt8] {
        trimmed(message[bounds[number]..<bounds[number + 1]])
    }

    private static func trimmed(_ line: ArraySlice<UInt8>) -> [UInt8] {
        var line = line
        while let last = line.last, last == 0x0a || last == 0x0d { line.removeLast() }
        return Array(line)
    }

    private static func changed(
        _ range: Range<Int>, _ message: [UInt8], _ edits: ArraySlice<Edit>
    ) -> [[UInt8]] {
        var text: [UInt8] = []
        var position = range.lowerBound
        for edit in edits {
            text += message[position..<edit.range.lowerBound] + edit.replacement
            position = edit.range.upperBound
        }
        if position < range.upperBound { text += message[position..<range.upperBound] }
        if text.last == 0x0a { text.removeLast() } else if text.isEmpty { return [] }
        return text.split(separator: 0x0a, omittingEmptySubsequences: false).map { trimmed($0) }
    }
}
