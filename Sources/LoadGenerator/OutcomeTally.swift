// SPDX-License-Identifier: Apache-2.0

/// Counts answers by their first word, without creating a String for each.
package struct OutcomeTally {
    private struct Entry {
        let word: [UInt8]
        let isRefusal: Bool
        var count = 0
    }

    /// Further words are counted together, as a faulty peer could send a new word each time.
    package static let maximumWords = 64
    package static let other = "(other)"

    private var entries: [Entry] = []
    package private(set) var refusals = 0

    package init() {}

    /// Counts an answer that starts with `word`.
    ///
    /// - Returns: whether it is a refusal. `isRefusal` is called once per word.
    package mutating func count(_ word: Span<UInt8>, isRefusal: (String) -> Bool) -> Bool {
        let index = index(of: word, isRefusal: isRefusal)
        entries[index].count += 1
        if entries[index].isRefusal { refusals += 1 }
        return entries[index].isRefusal
    }

    private mutating func index(of word: Span<UInt8>, isRefusal: (String) -> Bool) -> Int {
        for index in entries.indices where word.isEqual(to: entries[index].word) { return index }
        var text = Self.other
        if entries.count < Self.maximumWords {
            text = String(decoding: word.indices.map { word[$0] }, as: UTF8.self)
        } else if let index = entries.firstIndex(where: { $0.word == Array(Self.other.utf8) }) {
            return index
        }
        entries.append(Entry(word: Array(text.utf8), isRefusal: isRefusal(text)))
        return entries.count - 1
    }

    /// The number of answers by their first word.
    package var counts: [String: Int] {
        Dictionary(entries.map { (String(decoding: $0.word, as: UTF8.self), $0.count) }, uniquingKeysWith: +)
    }
}
