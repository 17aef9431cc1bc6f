// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Wire

/// What a verdict changes of a message on its way to the next hop: the envelope, and a header of Weir's own.
/// `MessageWriter` carries out its edits.
extension Verdict {
    var envelopeChange: FilterDialogue.EnvelopeChange { redirect == nil ? .copies : .redirect }

    /// The commands that bring an envelope which the next hop has already to what the verdict asks for.
    ///
    /// - Parameters:
    ///   - mail: the MAIL command of the client, with its line end.
    ///   - xforward: the XFORWARD commands before it.
    ///   - offersDSN: the next hop takes NOTIFY (RFC 3461).
    func changeEnvelope(
        mail: ByteBuffer, xforward: [ByteBuffer], offersDSN: Bool,
        ask: (SMTPClientSession.Command, ByteBuffer) -> Void
    ) {
        guard let redirect else {
            // As in Postfix, the sender gets no bounce for a copy.
            for address in bcc { ask(.recipient, Self.recipient(address, offersDSN ? "> NOTIFY=NEVER\r\n" : ">\r\n")) }
            return
        }
        ask(.reset, ByteBuffer(staticString: "RSET\r\n"))
        for line in xforward { ask(.xforward, line) }
        ask(.mail, mail)
        ask(.recipient, Self.recipient(redirect, ">\r\n"))
    }

    /// - Parameter end: what follows the address.
    private static func recipient(_ address: [UInt8], _ end: StaticString) -> ByteBuffer {
        var line = ByteBuffer()
        line.writeStaticString("RCPT TO:<")
        line.writeBytes(address)
        line.writeStaticString(end)
        return line
    }

    /// A header that the cleanup(8) of the Postfix behind Weir turns into an action and takes away
    /// (conf/postfix/weir_verdict.pcre). nil without such an action.
    ///
    /// It can't be forged: the filter removes every X-Weir-Verdict that a message brings.
    var internalHeader: [UInt8]? {
        var text = ""
        if isHeld { text += "X-Weir-Verdict: HOLD\r\n" }
        // REDIRECT overrides FILTER, as in Postfix.
        if let filter, redirect == nil, filter.allSatisfy({ 0x20 < $0 && $0 < 0x7f }) {
            text += "X-Weir-Verdict: FILTER \(String(decoding: filter, as: UTF8.self))\r\n"
        }
        return text.isEmpty ? nil : Array(text.utf8)
    }

    /// Whether the content is handed on as it came.
    var isVerbatim: Bool { edits.isEmpty && internalHeader == nil }
}
