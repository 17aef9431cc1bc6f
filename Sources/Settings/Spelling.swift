// SPDX-License-Identifier: Apache-2.0

/// Suggestions for misspelt words, and quotes of the operator's text for messages.
enum Spelling {
    /// The candidate with the smallest edit distance, at most a third of the word's length (and at least 1). Without
    /// one, the longest candidate that the word begins with, such as `header` for Postfix's `header_checks`.
    static func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
        let word = word.lowercased()
        let letters = Array(word.unicodeScalars)
        let allowance = max(1, letters.count / 3)
        let similar =
            candidates
            .map { ($0, distance(letters, Array($0.lowercased().unicodeScalars))) }
            .filter { $0.1 <= allowance }
            .min { $0.1 < $1.1 }?.0
        return similar ?? candidates.filter { word.hasPrefix("\($0.lowercased())_") }.max { $0.count < $1.count }
    }

    /// `; did you mean 'policy'?`, or an empty string.
    static func hint(for word: String, among candidates: some Sequence<String>) -> String {
        nearest(to: word, among: candidates).map { "; did you mean '\($0)'?" } ?? ""
    }

    /// `; did you mean 'policy'? Expected one of policy, admin`
    static func alternatives(to word: String, among allowed: [String]) -> String {
        let hint = hint(for: word, among: allowed)
        return (hint.isEmpty ? "; expected one of " : "\(hint) Expected one of ") + allowed.joined(separator: ", ")
    }

    /// The number of insertions, deletions, substitutions and transpositions (optimal string alignment).
    private static func distance(_ one: [Unicode.Scalar], _ other: [Unicode.Scalar]) -> Int {
        guard !one.isEmpty, !other.isEmpty else { return max(one.count, other.count) }
        var rows = [Array(0...other.count)]
        for i in 1...one.count {
            var row = [i]
            for j in 1...other.count {
                let change = one[i - 1] == other[j - 1] ? 0 : 1
                var best = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + change)
                if i > 1, j > 1, one[i - 1] == other[j - 2], one[i - 2] == other[j - 1] {
                    best = min(best, rows[i - 2][j - 2] + 1)
                }
                row.append(best)
            }
            rows.append(row)
        }
        return rows[one.count][other.count]
    }

    /// The operator's text in quotes, at most 80 characters of it, with escapes for those that can't be seen.
    static func quoted(_ text: String) -> String {
        "'\(shown(text))'"
    }

    static func shown(_ text: String) -> String {
        let longest = 80
        let scalars = text.unicodeScalars.prefix(longest).map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: scalar.escaped(asASCII: true)
            default: String(scalar)
            }
        }
        return scalars.joined() + (text.unicodeScalars.count > longest ? "..." : "")
    }
}
