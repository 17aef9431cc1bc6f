// SPDX-License-Identifier: Apache-2.0

/// The text of a document as Unicode scalars, in which libyaml counts lines and columns.
struct YAMLText {
    struct Position: Hashable {
        let line: Int
        let column: Int
    }

    /// Replaces the `*` of an alias in `withoutAliases` (private use area).
    static let aliasMark: Unicode.Scalar = "\u{E000}"

    private var scalars: [Unicode.Scalar]
    /// The positions of possible aliases: each `*` at the start of a word.
    let aliases: [Int]
    /// The original names of renamed keys.
    private(set) var renamed: [Position: String] = [:]

    init(_ text: String) {
        scalars = Array(text.unicodeScalars)
        aliases = scalars.indices.filter { [scalars] index in
            guard scalars[index] == "*", index + 1 < scalars.count else { return false }
            let next = scalars[index + 1]
            let isName = next.isASCII && (next.properties.isAlphabetic || next.properties.numericType != nil)
            let previous = index > 0 ? scalars[index - 1] : "\n"
            return (isName || next == "_" || next == "-")
                && (previous.properties.isWhitespace || "[{,:?".unicodeScalars.contains(previous))
        }
    }

    var string: String { Self.string(scalars) }

    var withoutAliases: String {
        var scalars = scalars
        for index in aliases { scalars[index] = Self.aliasMark }
        return Self.string(scalars)
    }

    private static func string(_ scalars: [Unicode.Scalar]) -> String {
        var string = String.UnicodeScalarView()
        string.append(contentsOf: scalars)
        return String(string)
    }

    func position(of index: Int) -> (line: Int, column: Int) {
        var position = (line: 1, column: 1)
        for before in scalars.indices.prefix(index) {
            if endsLine(before) { position = (position.line + 1, 1) } else { position.column += 1 }
        }
        return position
    }

    /// Gives the key at a position a unique name of the same length. Returns false if there is no such key there.
    mutating func rename(_ name: String, line: Int, column: Int) -> Bool {
        guard var index = index(line: line, column: column) else { return false }
        if scalars[index] == "\"" || scalars[index] == "'" { index += 1 }
        guard index < scalars.count, scalars[index] == name.unicodeScalars.first,
            let unused = Unicode.Scalar(Self.aliasMark.value + 1 + UInt32(renamed.count))
        else { return false }
        renamed[Position(line: line, column: column)] = name
        scalars[index] = unused
        return true
    }

    func scalar(line: Int, column: Int) -> Unicode.Scalar? {
        index(line: line, column: column).map { scalars[$0] }
    }

    private func index(line: Int, column: Int) -> Int? {
        var left = line - 1
        var start = 0
        while left > 0 {
            guard let end = scalars.indices[start...].first(where: endsLine) else { return nil }
            start = end + 1
            left -= 1
        }
        let index = start + column - 1
        return scalars.indices.contains(index) ? index : nil
    }

    /// Line ends of YAML 1.1: LF, CR, CRLF, NEL, LS, PS.
    private func endsLine(_ index: Int) -> Bool {
        switch scalars[index] {
        case "\n", "\u{85}", "\u{2028}", "\u{2029}": true
        case "\r": index + 1 == scalars.count || scalars[index + 1] != "\n"
        default: false
        }
    }
}
