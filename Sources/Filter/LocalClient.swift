// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import MailSyntax

/// A header without its line end.
package struct NewHeader: Equatable, Sendable {
    package let name: [UInt8]
    /// Without the blank after the colon.
    package let value: [UInt8]
}

/// A client whose headers cleanup(8) completes, and what its headers are made of.
package struct LocalClient: Sendable {
    package let queueID: [UInt8]
    /// Postfix's `myhostname`.
    package let hostName: [UInt8]
    /// The sender's address as it stands in a header; empty for the null sender.
    package let sender: [UInt8]

    package init(queueID: [UInt8], hostName: [UInt8], sender: [UInt8]) {
        self.queueID = queueID
        self.hostName = hostName
        self.sender = sender
    }

    /// What cleanup(8) would add in the place of the removed headers. Without the name of a user of sendmail(1), which
    /// only Postfix knows.
    package func replacements(of removed: RemovedHeaders, at time: Int) -> [NewHeader] {
        let prefix = removed.isResent ? "Resent-" : ""
        return removed.fields.compactMap { field in
            switch field {
            case .messageID:
                queueID.isEmpty || hostName.isEmpty
                    ? nil : NewHeader(name: Array("\(prefix)Message-Id".utf8), value: messageID(at: time))
            case .date: NewHeader(name: Array("\(prefix)Date".utf8), value: Self.date(time))
            case .from:
                NewHeader(
                    name: Array("\(prefix)From".utf8), value: sender.isEmpty ? Array("MAILER-DAEMON".utf8) : sender)
            }
        }
    }

    /// With the time, unless long queue IDs make it unnecessary. Short ones are hexadecimal numbers.
    private func messageID(at time: Int) -> [UInt8] {
        let isLong = queueID.contains { $0 > UInt8(ascii: "F") }
        let stamp = isLong ? [] : Self.text(time, "%Y%m%d%H%M%S.", gmtime_r)
        return [UInt8(ascii: "<")] + stamp + queueID + [UInt8(ascii: "@")] + hostName + [UInt8(ascii: ">")]
    }

    /// `mail_date.c`
    private static func date(_ time: Int) -> [UInt8] { text(time, "%a, %e %b %Y %H:%M:%S %z (%Z)", localtime_r) }

    private static func text(
        _ time: Int, _ format: String,
        _ broken: (UnsafePointer<time_t>, UnsafeMutablePointer<tm>) -> UnsafeMutablePointer<tm>?
    ) -> [UInt8] {
        var (seconds, parts) = (time_t(time), tm())
        guard broken(&seconds, &parts) != nil else { return [] }
        return [UInt8](unsafeUninitializedCapacity: 100) { buffer, count in
            count = buffer.withMemoryRebound(to: CChar.self) { strftime($0.baseAddress!, 100, format, &parts) }
        }
    }
}

extension LocalClient {
    /// The client that the Received: header of this Postfix names, if it is pickup(8), a client on this machine, or
    /// known to be local. nil for all others, and without a header that has the queue ID.
    ///
    /// - Parameter sender: the internal form.
    package init?(ofReceivedIn message: [UInt8], queueID: [UInt8], sender: [UInt8], isKnownLocal: Bool) {
        guard let received = OwnReceived(in: message, queueID: queueID),
            received.isFromPickup || isKnownLocal || received.isFromLoopback
        else { return nil }
        var address: [UInt8] = []
        if !sender.isEmpty { EnvelopeAddress.appendExternal(sender, to: &address) }
        self.init(queueID: queueID, hostName: received.hostName, sender: address)
    }
}

/// What the Received: header of this Postfix says: `Received: by mx.example.org (Postfix, from userid 1000)` or
/// `Received: from client.example.org (localhost [127.0.0.1])`.
package struct OwnReceived {
    let hostName: [UInt8]
    /// The message comes from sendmail(1).
    package let isFromPickup: Bool
    let isFromLoopback: Bool

    /// nil without a header that has the queue ID.
    package init?(in message: [UInt8], queueID: [UInt8]) {
        guard !queueID.isEmpty, let lines = Self.firstReceived(message) else { return nil }
        let words = Array(lines.joined()).split(whereSeparator: \.isSpace)
        guard let by = words.firstIndex(where: { $0.elementsEqual("by".utf8) }), by + 1 < words.count,
            let id = words.firstIndex(where: { $0.elementsEqual("id".utf8) }), id + 1 < words.count,
            words[id + 1].prefix(while: { $0 != UInt8(ascii: ";") }).elementsEqual(queueID)
        else { return nil }
        hostName = Array(words[by + 1])
        isFromPickup = by == 1
        isFromLoopback = Self.isLoopback(lines[0])
    }

    private static func isLoopback(_ line: ArraySlice<UInt8>) -> Bool {
        ["[127.0.0.1])", "[IPv6:::1])"].contains { line.suffix($0.utf8.count + 1).starts(with: $0.utf8) }
    }

    /// The lines of the first Received: header, with their ends.
    private static func firstReceived(_ message: [UInt8]) -> [ArraySlice<UInt8>]? {
        var lines: [ArraySlice<UInt8>] = []
        var rest = message[...]
        while let end = rest.firstIndex(of: 0x0a), rest.first != 0x0a {
            let line = rest[...end]
            rest = rest[(end + 1)...]
            if !lines.isEmpty {
                guard line.first?.isBlank == true else { return lines }
                lines.append(line)
            } else if line.prefix(10).equalsIgnoringCase("received: ") {
                lines.append(line)
            }
        }
        return lines.isEmpty ? nil : lines
    }
}

extension Verdict {
    /// Adds headers after those of the message.
    package mutating func append(_ headers: [NewHeader]) {
        guard let end = removed?.end, !headers.isEmpty else { return }
        var text: [UInt8] = []
        for header in headers {
            text += header.name
            text += ": ".utf8
            text += header.value
            text.append(0x0a)
        }
        let index = edits.firstIndex { $0.header == nil && $0.range.lowerBound >= end } ?? edits.endIndex
        edits.insert(Edit(range: end..<end, replacement: text), at: index)
    }
}
