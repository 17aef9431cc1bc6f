// SPDX-License-Identifier: Apache-2.0

/// A table on a terminal. Numbers are never cut: a column that doesn't fit is left out.
struct TopTable {
    struct Cell {
        let text: String
        /// Follows the text. Never cut.
        var mark = ""

        var width: Int { TerminalCells.width(text) + TerminalCells.width(mark) }
    }

    struct Column {
        let heading: String
        let cells: [Cell]
        let isNumber: Bool
        /// Columns with the highest rank are left out first.
        let rank: Int
        fileprivate let least: Int
        fileprivate let widest: Int

        static func numbers(_ heading: String, rank: Int, _ cells: [String]) -> Column {
            let cells = cells.map { Cell(text: $0) }
            let width = cells.reduce(heading.count) { max($0, $1.width) }
            return Column(heading: heading, cells: cells, isNumber: true, rank: rank, least: width, widest: width)
        }

        /// - Parameter least: cells that are enough to tell one text from another.
        static func texts(_ heading: String, rank: Int, least: Int, _ cells: [Cell]) -> Column {
            let width = cells.reduce(heading.count) { max($0, $1.width) }
            return Column(
                heading: heading, cells: cells, isNumber: false, rank: rank, least: min(least, width), widest: width)
        }
    }

    /// From left to right.
    let columns: [Column]

    /// The heading, then a line for each row.
    func lines(width: Int) -> [String] {
        let shown = fitting(width)
        let count = columns.first?.cells.count ?? 0
        return (-1..<count).map { row in
            let cells = shown.map { column, width in
                let cell = row < 0 ? Cell(text: column.heading) : column.cells[row]
                return TerminalCells.padded(cell.text, mark: cell.mark, width, toTheRight: column.isNumber)
            }
            return TerminalCells.withoutTrailingSpaces(cells.joined(separator: " "))
        }
    }

    /// The columns that fit with their least width. The rest of the width goes first to those that need least of it.
    private func fitting(_ width: Int) -> [(column: Column, width: Int)] {
        var kept = columns
        func least() -> Int { kept.reduce(kept.count - 1) { $0 + $1.least } }
        while kept.count > 1, least() > width, let last = kept.indices.max(by: { kept[$0].rank < kept[$1].rank }) {
            kept.remove(at: last)
        }
        var rest = max(0, width - least())
        var widths = kept.map { min($0.least, width) }
        func need(_ index: Int) -> Int { kept[index].widest - kept[index].least }
        for index in kept.indices.sorted(by: { (need($0), kept[$0].rank) < (need($1), kept[$1].rank) }) {
            let more = min(rest, need(index))
            widths[index] += more
            rest -= more
        }
        return Array(zip(kept, widths))
    }
}

/// Text on a terminal, measured in its cells. What comes from peers is made printable first.
enum TerminalCells {
    static func width(_ text: String) -> Int { text.unicodeScalars.reduce(0) { $0 + width($1) } }

    /// At most `width` cells; a text that is cut ends with `…`.
    static func cut(_ text: String, _ width: Int) -> String {
        guard width > 0 else { return "" }
        guard self.width(text) > width else { return text }
        var (cut, used) = (String.UnicodeScalarView(), 0)
        for scalar in text.unicodeScalars {
            used += self.width(scalar)
            guard used < width else { break }
            cut.append(scalar)
        }
        return String(cut) + "…"
    }

    /// Exactly `width` cells. Only the text is cut.
    static func padded(_ text: String, mark: String = "", _ width: Int, toTheRight: Bool = false) -> String {
        let text = cut(text, width - self.width(mark)) + mark
        let padding = String(repeating: " ", count: max(0, width - self.width(text)))
        return toTheRight ? padding + text : text + padding
    }

    /// The items that fit, from the first on; none is cut.
    static func joined(_ items: [String], _ width: Int) -> String {
        items.reduce("") { line, item in
            let longer = line.isEmpty ? item : "\(line)  \(item)"
            return self.width(longer) <= width ? longer : line
        }
    }

    static func withoutTrailingSpaces(_ text: String) -> String {
        String(text.reversed().drop { $0 == " " }.reversed())
    }

    /// wcwidth(3) depends on the locale.
    private static func width(_ scalar: Unicode.Scalar) -> Int {
        guard !scalar.isASCII else { return 1 }
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return 0
        default: return scalar.properties.isEmojiPresentation || wide.contains { $0 ~= scalar.value } ? 2 : 1
        }
    }

    /// The blocks with East Asian Width W or F (Unicode Standard Annex 11).
    private static let wide: [ClosedRange<UInt32>] = [
        0x1100...0x115f, 0x2e80...0x303e, 0x3041...0x4dbf, 0x4e00...0xa4cf, 0xa960...0xa97f, 0xac00...0xd7a3,
        0xf900...0xfaff, 0xfe30...0xfe6f,
        0xff01...0xff60, 0xffe0...0xffe6, 0x16fe0...0x18dff, 0x1aff0...0x1b2ff, 0x1f200...0x1f2ff, 0x20000...0x3fffd,
    ]
}
