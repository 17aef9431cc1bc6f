// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Headers that rules have taken away, and that cleanup(8) would add to the mail of a local client after its own header
/// checks. It adds none to the mail of other clients, and the message alone seldom shows which client it came from.
package struct RemovedHeaders: Equatable, Sendable {
    package enum Field: Sendable { case messageID, date, from }

    /// In the order in which cleanup(8) adds them.
    package let fields: [Field]
    /// Whether they are Resent- headers.
    package let isResent: Bool
    /// cleanup(8) has added other headers, so the client is one for which it adds all.
    package let isClientLocal: Bool
    /// Where the headers end in the message.
    package let end: Int
}

/// Follows the headers that cleanup(8) adds where they are missing (`cleanup_header_done_callback`). To and
/// undisclosed-recipients are not among them, as Weir does not know `undisclosed_recipients_header`.
struct AddableHeaders {
    static let names: [StaticString] = [
        "message-id", "date", "from", "resent-message-id", "resent-date", "resent-from",
    ]
    static let namesOfFrom: [StaticString] = ["from", "resent-from"]

    /// The names that the message has, and those that are left, as bits by their index in `names`.
    private var before: UInt8 = 0
    private var after: UInt8 = 0
    private var isResent = false
    /// Where the headers end.
    var end = 0

    /// Notes a header that stays as it is.
    mutating func keep(_ header: UnsafeRawBufferPointer) {
        // Most headers are none of them.
        guard let first = header.first, "DdFfMmRr".utf8.contains(first) else { return }
        before |= Self.bit(header)
        note(new: header)
    }

    /// Notes a header that a rule removes or replaces.
    mutating func change(_ header: UnsafeRawBufferPointer, to new: [UInt8]) {
        before |= Self.bit(header)
        new.withUnsafeBytes { note(new: $0) }
    }

    private mutating func note(new header: UnsafeRawBufferPointer) {
        after |= Self.bit(header)
        if header.prefix(7).equalsIgnoringCase("resent-") { isResent = true }
    }

    private static func bit(_ header: UnsafeRawBufferPointer) -> UInt8 {
        let name = header.fieldName
        return names.firstIndex { name.equalsIgnoringCase($0) }.map { 1 << UInt8($0) } ?? 0
    }

    /// nil if no rule has taken one away.
    func removed(isClientLocal: Bool) -> RemovedHeaders? {
        let missing = (before & ~after) >> (isResent ? 3 : 0) & 7
        guard missing != 0 else { return nil }
        let fields: [RemovedHeaders.Field] = [.messageID, .date, .from]
        return RemovedHeaders(
            fields: fields.indices.filter { missing & 1 << UInt8($0) != 0 }.map { fields[$0] }, isResent: isResent,
            isClientLocal: isClientLocal, end: end)
    }
}
