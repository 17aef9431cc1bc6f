// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Wire

extension Target {
    /// The session must take the same steps and give the same replies for commands that come whole and in pieces, and
    /// whether recipients are answered at once or late. Content and replies must be whole lines.
    ///
    /// The first byte is the size of the pieces, the second chooses LMTP; the rest is what a client sends.
    static let smtpServer = Target(name: "smtp-server") { input in
        var choices = Choices(input)
        let (size, variant) = (choices.size(), choices.byte() & 1 == 0 ? SMTPServerSession.Variant.smtp : .lmtp)
        let whole = steps(choices.rest, pieces: choices.rest.count + 1, variant, isLate: false)
        precondition(whole == steps(choices.rest, pieces: size, variant, isLate: false))
        let late = steps(choices.rest, pieces: size, variant, isLate: true)
        precondition(whole.output == late.output && whole.content == late.content)

        precondition(areWholeLines(whole.output.readableBytesView))
        for line in whole.output.readableBytesView.split(separator: 0x0a) {
            precondition(line.count >= 4 && line.prefix(3).allSatisfy { 0x30..<0x3a ~= $0 })
        }
        precondition(areWholeLines(Array(whole.recipients.joined())))
        precondition(whole.messages.allSatisfy(areWholeLines))
    }
}

private struct Outcome: Equatable {
    var steps: [String] = []
    var recipients: [[UInt8]] = []
    var messages: [[UInt8]] = []
    var content: [UInt8] = []
    var output = ByteBuffer()
    var isClosed = false
}

private struct Caller: ~Copyable {
    var session: SMTPServerSession
    let isLate: Bool
    var outcome = Outcome()
    /// Recipients that are not answered yet.
    var waiting: [[UInt8]] = []
    var content = ByteBuffer()

    /// - Returns: false if nothing more happens before more bytes arrive.
    mutating func step() -> Bool {
        guard let step = session.next(into: &content) else {
            guard !waiting.isEmpty else { return false }
            answer(waiting.removeFirst())
            return true
        }
        switch step {
        case .needsCapabilities:
            outcome.steps.append("offer")
            session.offer(capabilities)
        case .recipient(let line):
            outcome.steps.append("recipient")
            outcome.recipients.append(Array(line.readableBytesView))
            if isLate { waiting.append(Array(line.readableBytesView)) } else { answer(Array(line.readableBytesView)) }
        case .content, .answered: break
        case .beginContent: outcome.steps.append("begin")
        case .endOfContent:
            outcome.steps.append("end")
            let message = Array(content.readableBytesView)
            content.clear()
            outcome.messages.append(message)
            session.finish(SMTPReply(message.contains(UInt8(ascii: "!")) ? 550 : 250, "2.0.0 queued"))
        case .aborted: outcome.steps.append("aborted")
        case .closed: outcome.steps.append("closed")
        }
        return true
    }

    private mutating func answer(_ recipient: [UInt8]) {
        session.answerRecipient(SMTPReply(recipient.contains(UInt8(ascii: "!")) ? 550 : 250, "2.1.5 answer"))
    }
}

private let capabilities: SMTPCapabilities = {
    var capabilities = SMTPCapabilities()
    capabilities.extensions = [.size, .dsn]
    capabilities.xforward = [.name, .addr]
    return capabilities
}()

private func steps(
    _ bytes: UnsafeRawBufferPointer, pieces size: Int, _ variant: SMTPServerSession.Variant, isLate: Bool
) -> Outcome {
    var caller = Caller(
        session: SMTPServerSession(
            variant: variant, hostName: Array("mx.example.org".utf8), token: Array("token".utf8)),
        isLate: isLate)
    for piece in pieces(bytes, of: size) where !caller.session.isClosed {
        _ = caller.session.receive(upTo: piece.count, received(piece))
        while !caller.session.isClosed, caller.step() {}
    }
    caller.outcome.content = Array(caller.content.readableBytesView)
    caller.outcome.output = caller.session.output
    caller.outcome.isClosed = caller.session.isClosed
    return caller.outcome
}
