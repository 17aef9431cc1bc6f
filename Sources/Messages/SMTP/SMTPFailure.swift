// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Wire

/// Why the next hop can't take mail now: the cause for the log, and the reply for the client.
package struct SMTPFailure: Error, Equatable {
    package let cause: String
    /// Always transient: the client keeps its mail.
    let reply: SMTPReply

    init(_ cause: String, _ reply: SMTPReply) {
        self.cause = cause
        self.reply = reply
    }

    /// - Parameter code: 421 if the connection ends, too; 451 as a final reply.
    func reply(_ code: Int) -> SMTPReply {
        reply.code == code ? reply : SMTPReply(code, reply.bytes.readableBytesView.dropFirst(4).prefix { $0 != 0x0d })
    }

    package static func lost(_ cause: String) -> SMTPFailure {
        SMTPFailure(cause, SMTPReply(421, "4.4.2 Error: lost connection with the next hop"))
    }
    package static func unreachable(_ cause: String) -> SMTPFailure {
        SMTPFailure(cause, SMTPReply(421, "4.4.1 Error: no answer from the next hop"))
    }
    static let loop = SMTPFailure(
        "is this service itself: a mail loop", SMTPReply(421, "4.4.6 Error: the next hop is this filter itself"))
}

extension SMTPReply {
    /// As the reply to a recipient or a message. A reply other than 2xx, 4xx and 5xx is the next hop's fault, and must
    /// not cause a bounce.
    var asFinal: SMTPReply { 300..<400 ~= code ? .protocolError : self }

    /// As one of several final replies. 421 would say that the connection closes, and the client might miss the others.
    var withoutClosing: SMTPReply {
        guard code == 421 else { return self }
        var text = Array(bytes.readableBytesView)
        for index in text.indices where index == 0 || text[index - 1] == 0x0a { text[index + 1] = UInt8(ascii: "5") }
        return SMTPReply(code: 451, bytes: ByteBuffer(bytes: text))
    }

    /// As the reply to a message that could not be handed on: never positive.
    var asRefusal: SMTPReply { code < 400 ? .protocolError : self }

    /// To the client's recipients. It must not name a recipient that only a rule knows.
    static let deferredCopy = SMTPReply(451, "4.3.0 Error: deferred by the next hop")

    private static let protocolError = SMTPReply(451, "4.5.0 Error: protocol error of the next hop")
}
