// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Rules
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
    /// The actions that the Postfix behind the filter has to take, as headers; nil without any. Its header checks
    /// (conf/postfix/weir_verdict.pcre) carry them out and remove the headers.
    ///
    /// They can't be forged: the filter removes every X-Weir-Verdict that a message brings.
    var internalHeader: [UInt8]? {
        var text: [UInt8] = []
        for effect in effects {
            guard let (name, argument) = effect.cleanupAction, argument.allSatisfy({ 0x20 < $0 && $0 < 0x7f }) else {
                continue
            }
            text += "X-Weir-Verdict: \(name.word)".utf8
            if !argument.isEmpty { text += [0x20] + argument }
            text += [0x0d, 0x0a]
        }
        return text.isEmpty ? nil : text
    }

    /// Whether the next hop gets the content unchanged.
    var isVerbatim: Bool { edits.isEmpty && internalHeader == nil }
}
