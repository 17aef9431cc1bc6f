// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Wire

/// Writes a message for the next hop: Weir's own header, the content with the verdict's edits, and dots stuffed.
struct MessageWriter {
    private var pieces: MessagePieces
    private var atLineStart = true

    /// - Parameter hasCleanup: whether cleanup(8) of a Postfix behind Weir gets the message, which would drop or change
    ///   some new headers unless they are handed to it as such.
    init(_ verdict: Verdict, count: Int, hasCleanup: Bool) {
        var verdict = verdict
        if hasCleanup { verdict.handHeadersToCleanup() }
        var pieces = verdict.pieces(of: count, lineEnd: .crlf)
        if let header = verdict.internalHeader { pieces.insert(.new(header), at: 0) }
        self.pieces = MessagePieces(pieces)
    }

    /// The next piece: text for `write(new:to:)`, or a range of the content for `write(_:to:)`.
    mutating func next() -> Verdict.Piece? { pieces.next() }

    mutating func write(_ bytes: UnsafeRawBufferPointer, to output: inout ByteBuffer) {
        output.writeDotStuffed(bytes, atLineStart: &atLineStart)
    }

    /// Writes text of a rule. A CR that is not part of a line end becomes a space.
    mutating func write(new text: [UInt8], to output: inout ByteBuffer) {
        var text = text
        for index in text.indices where text[index] == 0x0d && (index + 1 == text.count || text[index + 1] != 0x0a) {
            text[index] = UInt8(ascii: " ")
        }
        text.withUnsafeBytes { write($0, to: &output) }
    }

    /// Writes a message whose content is in memory, to its end.
    mutating func writeAll(of content: UnsafeRawBufferPointer, to output: inout ByteBuffer) {
        while let piece = next() {
            switch piece {
            case .new(let text): write(new: text, to: &output)
            case .original(let range): write(UnsafeRawBufferPointer(rebasing: content[range]), to: &output)
            }
        }
        writeEnd(to: &output)
    }

    /// Writes the end of the data.
    mutating func writeEnd(to output: inout ByteBuffer) {
        output.writeStaticString(atLineStart ? ".\r\n" : "\r\n.\r\n")
    }
}
