// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Rules
internal import Wire

/// The changes of a verdict to a message for the next hop, apart from edits: the envelope, and Weir's own header.
/// `MessageWriter` carries out its edits.
extension Verdict {
    var envelopeChange: FilterDialogue.EnvelopeChange { isRedirected ? .redirect : .copies }

    /// The commands that change an envelope that the next hop already has to that of the verdict.
    ///
    /// - Parameters:
    ///   - mail: the MAIL command of the client, with its line end.
    ///   - xforward: the XFORWARD commands before it.
    ///   - parameters: those of RCPT that a redirected message keeps.
    ///   - offersDSN: the next hop accepts NOTIFY (RFC 3461).
    func changeEnvelope(
        mail: ByteBuffer, xforward: [ByteBuffer], _ parameters: [UInt8], offersDSN: Bool,
        ask: (SMTPClientSession.Command, ByteBuffer) -> Void
    ) {
        switch recipients {
        case .envelope(let copies):
            for address in copies { ask(.recipient, Self.copy(to: address, offersDSN: offersDSN)) }
        case .redirect(let address):
            ask(.reset, ByteBuffer(staticString: "RSET\r\n"))
            for line in xforward { ask(.xforward, line) }
            ask(.mail, mail)
            ask(.recipient, Self.recipient(address, parameters))
        }
    }

    /// As in Postfix, the sender gets no bounce for a copy.
    static func copy(to address: [UInt8], offersDSN: Bool) -> ByteBuffer {
        recipient(address, offersDSN ? Array("NOTIFY=NEVER".utf8) : [])
    }

    private static func recipient(_ address: [UInt8], _ parameters: [UInt8]) -> ByteBuffer {
        var line = ByteBuffer()
        line.writeStaticString("RCPT TO:<")
        line.writeBytes(address)
        line.writeStaticString(parameters.isEmpty ? ">" : "> ")
        line.writeBytes(parameters)
        line.writeStaticString("\r\n")
        return line
    }

    /// The actions for the Postfix behind Weir, as headers; nil if there are none. Its cleanup(8) carries them out and
    /// removes the headers (conf/postfix/weir_verdict.pcre).
    ///
    /// They can't be forged: the filter removes every X-Weir-Verdict that a message brings.
    var internalHeader: [UInt8]? {
        var text: [UInt8] = []
        for effect in effects {
            // The checks have refused what a header can't carry.
            guard let (name, argument) = effect.cleanupAction else { continue }
            text += "X-Weir-Verdict: \(name.word)".utf8
            if !argument.isEmpty { text += [0x20] + argument }
            text += [0x0d, 0x0a]
        }
        return text.isEmpty ? nil : text
    }

    /// Makes new headers that the Postfix behind Weir would change or drop arguments of its PREPEND. That delivers them
    /// as they are, like Postfix's own header checks.
    mutating func handHeadersToCleanup() {
        for index in edits.indices where edits[index].needsCleanup {
            edits[index].replacement.insert(contentsOf: "X-Weir-Verdict: PREPEND ".utf8, at: 0)
        }
    }

    /// Whether the next hop gets the content unchanged.
    var isVerbatim: Bool { edits.isEmpty && internalHeader == nil }
}
