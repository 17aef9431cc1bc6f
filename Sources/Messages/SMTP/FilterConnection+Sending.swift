// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Report
internal import Wire

/// The content on its way to the next hop.
extension FilterConnection {
    func sendContent() {
        guard let verdict else { return }
        if !dialogue.isDeliveringCopies { self.verdict = nil }
        if !content.isSpooled, verdict.isVerbatim, !session.contentHasLeadingDot, !dialogue.isDeliveringCopies {
            // Unchanged, in one write with the final dot.
            content.buffer.writeStaticString(".\r\n")
            sendLast(content.buffer)
        } else {
            var writer = MessageWriter(verdict, count: content.count, hasCleanup: isSMTP)
            if content.isSpooled { sendSpooled(writer, ByteBuffer()) } else { sendKept(&writer) }
        }
    }

    private func sendLast(_ bytes: ByteBuffer) {
        dialogue.finalDotSent()
        if !dialogue.isDeliveringCopies { content.reset() }
        nextHop?.writeLast(bytes)
    }

    private func sendKept(_ writer: inout MessageWriter) {
        var output = ByteBuffer()
        output.reserveCapacity(content.count + 4096)
        content.buffer.withUnsafeReadableBytes { writer.writeAll(of: $0, to: &output) }
        sendLast(output)
    }

    /// Sends the pieces one by one, each after the previous one is sent.
    private func sendSpooled(_ writer: MessageWriter, _ pending: ByteBuffer) {
        var (writer, output) = (writer, pending)
        while let piece = writer.next() {
            switch piece {
            case .new(let text): writer.write(new: text, to: &output)
            case .original(let range):
                let (rest, written, transaction) = (writer, output, dialogue.transaction)
                content.read(range) { [self] result in
                    guard dialogue.isSending(transaction) else { return }
                    switch result {
                    case .failure(let error): spoolFailed(error)
                    case .success(let bytes): sendRead(bytes, rest, written)
                    }
                }
                return
            }
        }
        writer.writeEnd(to: &output)
        sendLast(output)
    }

    private func sendRead(_ bytes: ByteBuffer, _ writer: MessageWriter, _ pending: ByteBuffer) {
        var (writer, output) = (writer, pending)
        output.reserveCapacity(minimumWritableBytes: bytes.readableBytes + 64)
        bytes.withUnsafeReadableBytes { writer.write($0, to: &output) }
        let (rest, transaction) = (writer, dialogue.transaction)
        nextHop?.write(output) { [self] in
            guard dialogue.isSending(transaction) else { return }
            sendSpooled(rest, ByteBuffer())
        }
    }

    private func spoolFailed(_ error: any Error) {
        worker.log.complain(.noRoom, "mail is deferred: can't read a spool file: \(error)")
        guard let parting = dialogue.spoolFailed() else { return }
        finish(SMTPReply(451, "4.3.0 Error: queue file read error"), parting)
        advance()
    }
}
