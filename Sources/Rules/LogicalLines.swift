// SPDX-License-Identifier: Apache-2.0
import MailSyntax

/// The logical lines of a table file (Postfix `readlline.c`). A line that starts with white space continues the
/// previous one and keeps that white space. Blank lines and comments are skipped, also between continuation lines; only
/// the comments with a tag are kept.
struct LogicalLines {
    struct Line {
        /// The number of its first line that is neither blank nor a comment, from 1.
        let number: Int
        let text: [UInt8]
        /// The tag comments directly above it.
        let tags: [TagComment]
    }

    /// `# tag: spam`
    struct TagComment {
        /// The number of its line, from 1.
        let number: Int
        /// The rest of the line, without surrounding white space.
        let tag: ArraySlice<UInt8>
    }

    private let file: [UInt8]
    private var position = 0
    private var number = 0
    /// The tag comments directly above the next line.
    private var tags: [TagComment] = []
    /// Tag comments that stand directly above no logical line.
    private(set) var strayTags: [TagComment] = []

    init(_ file: [UInt8]) { self.file = file }

    /// The next logical line; nil at the end of the file.
    mutating func next() -> Line? {
        var text: [UInt8] = []
        var first = 0
        var tagsOfLine: [TagComment] = []
        while position < file.count {
            let end = file[position...].firstIndex(of: UInt8(ascii: "\n")) ?? file.count
            let physical = file[position..<end]
            position = min(end + 1, file.count)
            number += 1
            let content = physical.drop(while: \.isSpace)
            if content.first == UInt8(ascii: "#"), let tag = Self.tag(in: content.dropFirst()) {
                tags.append(TagComment(number: number, tag: tag))
            } else if content.isEmpty || content.first == UInt8(ascii: "#") {
                dropTags()
            } else {
                if text.isEmpty { (first, tagsOfLine, tags) = (number, tags, []) } else { dropTags() }
                text += physical
            }
            if !text.isEmpty, position == file.count || !continues(file[position]) { break }
        }
        if position == file.count { dropTags() }
        return text.isEmpty ? nil : Line(number: first, text: text, tags: tagsOfLine)
    }

    private mutating func dropTags() {
        strayTags += tags
        tags = []
    }

    /// - Parameter comment: what follows `#`.
    private static func tag(in comment: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
        let content = comment.drop(while: \.isSpace)
        guard content.prefix(4).equalsIgnoringCase("tag:") else { return nil }
        let tag = content.dropFirst(4).drop(while: \.isSpace)
        return tag[..<((tag.lastIndex { !$0.isSpace } ?? tag.startIndex - 1) + 1)]
    }

    private func continues(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: "#") || byte.isSpace
    }
}
