// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Wire

extension Target {
    /// The session must report the same events and send the same commands for replies that come whole and in pieces.
    /// Replies that are relayed must be whole lines with one code. What comes in one piece with a 354 ends the session
    /// there at the latest.
    ///
    /// The first byte is the size of the pieces, the second chooses LMTP; the rest is what a next hop sends.
    static let smtpClient = Target(name: "smtp-client") { input in
        var choices = Choices(input)
        let (size, variant) = (choices.size(), choices.byte() & 1 == 0 ? SMTPServerSession.Variant.smtp : .lmtp)
        let whole = events(afterEach354(choices.rest), variant)
        let parts = events(afterEach354(choices.rest).flatMap { pieces($0, of: size) }, variant)
        precondition(whole == parts)
        precondition(whole.events.starts(with: events([choices.rest], variant).events))
        for case .reply(_, let reply) in whole.events { check(reply) }
        for case .refused(let reply) in whole.events { check(reply) }
        precondition(areWholeLines(whole.output.readableBytesView))
    }
}

/// Cuts an input after each line that may be a reply 354: content is sent before the next reply.
private func afterEach354(_ bytes: UnsafeRawBufferPointer) -> [UnsafeRawBufferPointer] {
    var (pieces, start, line): ([UnsafeRawBufferPointer], Int, Int) = ([], 0, 0)
    for (index, byte) in bytes.enumerated() where byte == 0x0a {
        let next = index + 1
        if bytes[line..<next].starts(with: "354".utf8) {
            pieces.append(UnsafeRawBufferPointer(rebasing: bytes[start..<next]))
            start = next
        }
        line = next
    }
    return pieces + [UnsafeRawBufferPointer(rebasing: bytes[start...])]
}

private func check(_ reply: SMTPReply) {
    precondition(200..<600 ~= reply.code && areWholeLines(reply.bytes.readableBytesView))
    let lines = reply.bytes.readableBytesView.split(separator: 0x0a)
    for (index, line) in lines.enumerated() {
        precondition(line.starts(with: "\(reply.code)".utf8) && !line.contains(0))
        let separator = line.dropFirst(3).first
        precondition((separator == UInt8(ascii: "-")) == (index + 1 < lines.count))
    }
}

private struct Outcome: Equatable {
    var events: [SMTPClientSession.Event] = []
    var fault: SMTPReplyFault?
    var output = ByteBuffer()
    var capabilities = SMTPCapabilities()
    var isIdle = false
}

private func events(_ pieces: [UnsafeRawBufferPointer], _ variant: SMTPServerSession.Variant) -> Outcome {
    var session = SMTPClientSession(
        variant: variant, hostName: Array("mx.example.org".utf8), token: Array("token".utf8))
    var outcome = Outcome()
    reading: for piece in pieces {
        _ = session.receive(upTo: piece.count, received(piece))
        do throws(SMTPReplyFault) {
            while let event = try session.next() {
                outcome.events.append(event)
                switch event {
                case .ready:
                    session.send(.mail, "MAIL FROM:<a@example.org>\r\n")
                    session.send(.recipient, "RCPT TO:<b@example.com>\r\n")
                    session.send(.recipient, "RCPT TO:<c@example.com>\r\n")
                    session.send(.data, "DATA\r\n")
                case .reply(.data, let reply) where reply.code == 354: session.endData()
                case .reply(.data, _), .reply(.endOfData, _):
                    session.send(.reset, "RSET\r\n")
                    session.send(.quit, "QUIT\r\n")
                case .reply: break
                case .refused, .loop: break reading
                }
            }
        } catch {
            outcome.fault = error
            break
        }
    }
    outcome.output = session.output
    outcome.capabilities = session.capabilities
    outcome.isIdle = session.isIdle
    return outcome
}
