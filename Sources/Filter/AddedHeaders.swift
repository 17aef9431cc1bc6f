// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Recognises the headers that cleanup(8) adds to a message: Message-Id, Date, From and an undisclosed-recipients
/// header, in this order, after those that the message brings (`cleanup_header_done_callback`). Postfix's own header
/// checks never see them.
///
/// Only a Message-Id that names the queue file proves them, because a client learns the queue ID after its message. It
/// must be the only one, as cleanup(8) adds none to a message that has one: so nobody can try many. Headers that are
/// added to a message with a Message-Id of its own are therefore not recognised.
struct AddedHeaders {
    /// The ID of the queue file that cleanup(8) has written; empty where nothing is recognised.
    var queueID: [UInt8] = []
    /// The first header is the Received: header of pickup(8), which has the queue ID.
    var comesFromPickup = false
    /// The headers that may still come; nil before the Message-Id.
    private var expected: ArraySlice<StaticString>?
    private var isResent = false
    /// The message has a Message-Id, or Resent-Message-Id, of its own.
    private var hasMessageID = false
    private var hasResentMessageID = false
    /// Whether there is an added header, so that cleanup(8) adds all that are missing.
    var isAny: Bool { expected != nil }

    mutating func reset() { self = AddedHeaders() }

    /// Whether the next primary header is an added one.
    mutating func areNext(_ header: UnsafeRawBufferPointer) -> Bool {
        if comesFromPickup { takeQueueID(from: header) }
        // Most headers are no Message-Id.
        guard !queueID.isEmpty, expected != nil || header.first.map("MmRr".utf8.contains) == true else { return false }
        guard let names = expected else { return isMessageIDNext(header) }
        let resent: StaticString = "Resent-"
        let isResentHeader = isResent && header.starts(with: resent)
        let rest = isResentHeader ? header.dropFirst(resent.utf8CodeUnitCount) : header[...]
        guard let index = names.firstIndex(where: { rest.starts(with: $0) }) else {
            // What follows was added by a milter.
            expected = []
            return false
        }
        expected = names[(index + 1)...]
        return true
    }

    private mutating func isMessageIDNext(_ header: UnsafeRawBufferPointer) -> Bool {
        let name = header.prefix { $0 != UInt8(ascii: ":") }
        isResent = name.equalsIgnoringCase("resent-message-id")
        guard isResent || name.equalsIgnoringCase("message-id") else { return false }
        let isFirst = !(isResent ? hasResentMessageID : hasMessageID)
        guard isFirst, isMessageID(header.dropFirst(isResent ? "Resent-".utf8.count : 0)) else {
            if isResent { hasResentMessageID = true } else { hasMessageID = true }
            return false
        }
        expected = ["Date: ", "From: ", "To:"]
        return true
    }

    /// `Received: by mx.example.org (Postfix, from userid 1000)`, and in the next line `id 4ZkTx12345; ` and the date.
    private mutating func takeQueueID(from header: UnsafeRawBufferPointer) {
        comesFromPickup = false
        guard header.starts(with: "Received: by ") else { return }
        let lines = header.split(separator: 0x0a)
        guard lines.count == 2, lines[0].last == UInt8(ascii: ")"), lines[1].starts(with: "\tid ") else { return }
        queueID = Array(lines[1].dropFirst("\tid ".utf8.count).prefix { $0 != UInt8(ascii: ";") })
    }

    /// `Message-Id: <20261128180112.4ZkTx12345@mx.example.org>`, without the time for long queue IDs.
    private func isMessageID(_ header: Slice<UnsafeRawBufferPointer>) -> Bool {
        let start: StaticString = "Message-Id: <"
        guard header.starts(with: start), header.last == UInt8(ascii: ">") else { return false }
        var id = header.dropFirst(start.utf8CodeUnitCount)
        let time = id.prefix { 0x30...0x39 ~= $0 }
        if time.count == Self.timeLength, id.dropFirst(time.count).first == UInt8(ascii: ".") {
            id = id.dropFirst(time.count + 1)
        }
        return id.starts(with: queueID) && id.dropFirst(queueID.count).first == UInt8(ascii: "@")
    }

    /// `20261128180112`
    private static let timeLength = 14
}

extension Collection<UInt8> {
    fileprivate func starts(with text: StaticString) -> Bool {
        text.withUTF8Buffer { self.starts(with: $0) }
    }
}
