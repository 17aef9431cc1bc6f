// SPDX-License-Identifier: Apache-2.0

/// Keeps messages back until the log would say that a content filter returned them.
///
/// amavisd and the like take a message by SMTP or LMTP and give it back by SMTP under another queue id. When the filter
/// has replied, smtp(8) logs where it sent the message and, in the reply, that id:
///
///     4Cc1111111z1: to=<a@example.org>, relay=127.0.0.1[127.0.0.1]:10024, ..., status=sent (250 2.0.0 from
///     MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4Cc1111111z2)
struct HeldMessages {
    typealias Outcome = (message: LoggedMessage, isReturned: Bool)

    private struct Entry {
        let message: LoggedMessage
        let time: Int64
    }

    /// In the order of qmgr's lines.
    private var entries: [Entry] = []
    /// The first of `entries` that is still here.
    private var first = 0
    /// The clients of the messages that are here, by queue id.
    private var clients: [[UInt8]: [UInt8]] = [:]
    private var returned: Set<[UInt8]> = []
    /// What the smtpd before a filter before the queue knew of messages that are here.
    private var origins: [[UInt8]: LoggedOrigin] = [:]

    /// A filter replies within milliseconds of the queue manager's line.
    private static let milliseconds: Int64 = 30_000

    mutating func append(_ message: LoggedMessage, at time: Int64) {
        entries.append(Entry(message: message, time: time))
        clients[message.queueID] = message.clientAddress
    }

    /// Removes the messages that have been here long enough.
    mutating func removeAll(before now: Int64) -> [Outcome] {
        guard first < entries.count, entries[first].time < now - Self.milliseconds else { return [] }
        return removeAll { $0.time < now - Self.milliseconds }
    }

    mutating func removeAll() -> [Outcome] {
        removeAll { _ in true }
    }

    private mutating func removeAll(while isDue: (Entry) -> Bool) -> [Outcome] {
        let due = entries[first...].prefix(while: isDue)
        first = due.endIndex
        let outcomes = due.map { entry in
            var message = entry.message
            let id = message.queueID
            clients[id] = nil
            if let origin = origins.removeValue(forKey: id) { message.apply(origin) }
            return (message, returned.remove(id) != nil)
        }
        if first > entries.count / 2 {
            entries.removeSubrange(..<first)
            first = 0
        }
        return outcomes
    }

    /// Completes a message that is here.
    mutating func apply(_ origin: LoggedOrigin) {
        if clients[origin.queueID] != nil { origins[origin.queueID] = origin }
    }

    /// Reads a line of smtp(8) or lmtp(8): a message that is here was returned if the relay reports its queue id, and
    /// the message came from there.
    mutating func readDelivery(_ text: UnsafeRawBufferPointer) {
        guard !clients.isEmpty, text.last == UInt8(ascii: ")"),
            let found = text.lastRange(of: "queued as "), let relay = text.lastRange(of: ", relay=")
        else { return }
        let id = Array(text[found.upperBound...].prefix { $0 &- 0x30 < 10 || ($0 | 0x20) &- 0x61 < 26 })
        guard let client = clients[id], Self.isSame(Self.host(text[relay.upperBound...]), client) else { return }
        returned.insert(id)
    }

    /// The address of `localhost[127.0.0.1]:10024, `, or the path of a socket.
    private static func host(_ relay: Slice<UnsafeRawBufferPointer>) -> [UInt8] {
        guard let open = relay.firstIndex(of: UInt8(ascii: "[")),
            let close = relay[open...].firstIndex(of: UInt8(ascii: "]"))
        else { return [] }
        return Array(relay[(open + 1)..<close])
    }

    private static func isSame(_ relay: [UInt8], _ client: [UInt8]) -> Bool {
        relay == client || isLocal(relay) && isLocal(client)
    }

    private static func isLocal(_ address: [UInt8]) -> Bool {
        address.starts(with: "127.".utf8) || address.elementsEqual("::1".utf8) || address.contains(UInt8(ascii: "/"))
    }
}

extension UnsafeRawBufferPointer {
    /// Where a word occurs last.
    func lastRange(of word: StaticString) -> Range<Int>? {
        word.withUTF8Buffer { word in
            guard count >= word.count else { return nil }
            for start in stride(from: count - word.count, through: 0, by: -1) where self[start] == word[0] {
                if self[start..<start + word.count].elementsEqual(word) { return start..<start + word.count }
            }
            return nil
        }
    }
}
