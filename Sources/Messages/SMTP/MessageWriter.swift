// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Wire

/// Puts the message together as the next hop is to get it: Weir's own header, the content with its edits, dots stuffed.
struct MessageWriter {
    private var pieces: MessagePieces
    private var atLineStart = true

    init(_ verdict: Verdict, count: Int) {
        var pieces = verdict.pieces(of: count, lineEnd: .crlf)
        if let header = verdict.internalHeader { pieces.insert(.new(header), at: 0) }
        self.pieces = MessagePieces(pieces)
    }

    /// What comes next: text to be taken as it is, or content to be read and then given to `write`.
    mutating func next() -> Verdict.Piece? { pieces.next() }

    mutating func write(_ bytes: UnsafeRawBufferPointer, to output: inout ByteBuffer) {
        output.writeDotStuffed(bytes, atLineStart: &atLineStart)
    }

    /// Writes text of a rule, which may hold CRs of its own: only line ends keep theirs.
    mutating func write(new text: [UInt8], to output: inout ByteBuffer) {
        var text = text
        for index in text.indices where text[index] == 0x0d && (index + 1 == text.count || text[index + 1] != 0x0a) {
            text[index] = UInt8(ascii: " ")
        }
        text.withUnsafeBytes { write($0, to: &output) }
    }

    /// The end of the data.
    mutating func writeEnd(to output: inout ByteBuffer) {
        output.writeStaticString(atLineStart ? ".\r\n" : "\r\n.\r\n")
    }
}

extension Verdict {
    /// What the Postfix behind us is told by a header that its cleanup turns into an action and takes away
    /// (conf/postfix/weir_verdict.pcre). nil where there is nothing to tell.
    ///
    /// It can't be forged: the filter takes every X-Weir-Verdict away that a message brings.
    var internalHeader: [UInt8]? {
        var text = ""
        if isHeld { text += "X-Weir-Verdict: HOLD\r\n" }
        // REDIRECT overrides FILTER, as in Postfix.
        if let filter, redirect == nil, filter.allSatisfy({ 0x20 < $0 && $0 < 0x7f }) {
            text += "X-Weir-Verdict: FILTER \(String(decoding: filter, as: UTF8.self))\r\n"
        }
        return text.isEmpty ? nil : Array(text.utf8)
    }

    /// Whether the content goes on as it came.
    var isVerbatim: Bool { edits.isEmpty && internalHeader == nil }
}
