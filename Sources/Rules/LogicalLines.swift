// SPDX-License-Identifier: Apache-2.0
import MailSyntax

/// The logical lines of a table file (Postfix `readlline.c`). A line that starts with white space continues the
/// previous one and keeps that white space. Blank lines and comments are skipped, also between continuation lines.
struct LogicalLines {
    struct Line {
        /// The number of its first line that is neither blank nor a comment, from 1.
        let number: Int
        let text: [UInt8]
    }

    private let file: [UInt8]
    private var position = 0
    private var number = 0

    init(_ file: [UInt8]) { self.file = file }

    /// The next logical line; nil at the end of the file.
    mutating func next() -> Line? {
        var text: [UInt8] = []
        var first = 0
        while position < file.count {
            let end = file[position...].firstIndex(of: UInt8(ascii: "\n")) ?? file.count
            let physical = file[position..<end]
            position = min(end + 1, file.count)
            number += 1
            if let start = physical.first(where: { !$0.isSpace }), start != UInt8(ascii: "#") {
                if text.isEmpty { first = number }
                text += physical
            }
            if !text.isEmpty, position == file.count || !continues(file[position]) { break }
        }
        return text.isEmpty ? nil : Line(number: first, text: text)
    }

    private func continues(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: "#") || byte.isSpace
    }
}
