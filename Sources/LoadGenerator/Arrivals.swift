// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Checks that each message arrives at the sink exactly once and unchanged. Bound to the load's event loop.
package final class Arrivals {
    private enum Answer {
        case none, accepted, refused
    }

    private struct Entry {
        var message: LoadMessage
        /// The index of its first recipient in `recipients`.
        let firstRecipient: Int
        /// The number of recipients that were not refused and for whom it has not arrived.
        var outstanding: Int
        var answer = Answer.none
        var wasSentAgain = false
        var hasArrived = false
    }

    private enum RecipientState: UInt8 {
        case waiting, refused, arrived
    }

    let corpus: MessageCorpus
    private var entries: [Entry] = []
    /// The recipients of all messages.
    private var recipients: [RecipientState] = []
    private var expected: [UInt8] = []
    private var acceptedButNotArrived = 0
    package private(set) var report = SinkReport()

    /// - Parameters:
    ///   - run: a unique name, of letters and digits.
    ///   - date: the value of the Date: headers.
    package init(_ mix: MessageMix, run: String, date: String) {
        corpus = MessageCorpus(mix, run: run, date: date)
    }

    func sent(_ message: LoadMessage) {
        entries.append(
            Entry(message: message, firstRecipient: recipients.count, outstanding: message.recipients))
        recipients.append(contentsOf: repeatElement(.waiting, count: message.recipients))
    }

    /// The recipients are named again: refusals of the first attempt are void.
    func sentAgain(_ message: LoadMessage) {
        entries[message.id].wasSentAgain = true
        let first = entries[message.id].firstRecipient
        for index in first..<first + message.recipients where recipients[index] == .refused {
            recipients[index] = .waiting
            entries[message.id].outstanding += 1
        }
    }

    /// - Parameter recipient: its index among the recipients of the message.
    func refused(recipient: Int, of message: LoadMessage) {
        let index = entries[message.id].firstRecipient + recipient
        guard recipients[index] == .waiting else { return }
        recipients[index] = .refused
        entries[message.id].outstanding -= 1
    }

    func refused(_ message: LoadMessage) { entries[message.id].answer = .refused }

    func accepted(_ message: LoadMessage) {
        entries[message.id].answer = .accepted
        report.accepted += 1
        if entries[message.id].outstanding > 0 { acceptedButNotArrived += 1 }
    }

    /// The number of accepted messages that have not arrived yet for all of their recipients.
    package var missing: Int { acceptedButNotArrived }

    /// Counts missing messages as lost.
    package func finish() -> SinkReport {
        report.lost = acceptedButNotArrived
        report.arrivedAlthoughRefused = entries.count {
            $0.answer == .refused && $0.hasArrived && !$0.wasSentAgain
        }
        return report
    }

    /// Records a message, after dot unstuffing. Lines above the marker header were added on the way.
    func arrived(_ content: UnsafeRawBufferPointer, _ envelope: Envelope) {
        guard let start = Self.start(of: content), let id = id(in: content[start...]), id < entries.count else {
            report.strangers += 1
            return
        }
        let entry = entries[id]
        let hasItsEnvelope = record(envelope, of: id)
        let rest = UnsafeRawBufferPointer(rebasing: content[start...])
        if hasItsEnvelope, isEqual(rest, entry.message, undisclosed: true) {
            report.unchanged += 1
        } else if hasItsEnvelope, entry.message.isUndisclosed, isEqual(rest, entry.message, undisclosed: false) {
            report.undisclosedStripped += 1
        } else if entry.message.isHit {
            report.hitsChanged += 1
        } else {
            report.changed += 1
        }
    }

    /// - Returns: whether the message came from its sender, and only to recipients that it has and that were not
    ///   refused.
    private func record(_ envelope: Envelope, of id: Int) -> Bool {
        let entry = entries[id]
        var (isNew, isAgain, isItsOwn) = (false, false, !envelope.recipients.isEmpty)
        for address in envelope.recipients {
            guard let recipient = corpus.recipientIndex(of: address.span, in: entry.message),
                case let index = entry.firstRecipient + recipient, recipients[index] != .refused
            else {
                isItsOwn = false
                continue
            }
            if recipients[index] == .arrived { isAgain = true } else { isNew = true }
            if recipients[index] == .waiting { entries[id].outstanding -= 1 }
            recipients[index] = .arrived
        }
        entries[id].hasArrived = true
        if isNew, entries[id].outstanding == 0 {
            report.arrived += 1
            if entry.answer == .accepted { acceptedButNotArrived -= 1 }
        }
        if isAgain {
            if entry.wasSentAgain { report.againAfterLoss += 1 } else { report.duplicates += 1 }
        }
        expected.removeAll(keepingCapacity: true)
        corpus.writeSender(of: entry.message, to: &expected)
        return isItsOwn && envelope.sender == expected
    }

    private func isEqual(_ content: UnsafeRawBufferPointer, _ message: LoadMessage, undisclosed: Bool) -> Bool {
        expected.removeAll(keepingCapacity: true)
        corpus.writeHead(of: message, undisclosed: undisclosed, to: &expected)
        let template = corpus.templates[message.template].content
        guard content.count == expected.count + template.count, let base = content.baseAddress else { return false }
        return memcmp(base, expected, expected.count) == 0
            && memcmp(base + expected.count, template, template.count) == 0
    }

    /// The offset of the marker header.
    private static func start(of content: UnsafeRawBufferPointer) -> Int? {
        var line = 0
        while line < content.count, content[line] != UInt8(ascii: "\r") {
            if content[line...].starts(with: MessageCorpus.marker) { return line }
            guard let end = content[line...].firstIndex(of: UInt8(ascii: "\n")) else { return nil }
            line = end + 1
        }
        return nil
    }

    /// The id in the marker header, if the message is of this run.
    private func id(in content: Slice<UnsafeRawBufferPointer>) -> Int? {
        let value = content.dropFirst(MessageCorpus.marker.count).prefix { $0 != UInt8(ascii: "\r") }
        let parts = value.split(separator: UInt8(ascii: "."))
        guard parts.count == 2, parts[0].elementsEqual(corpus.run.utf8) else { return nil }
        return Int(String(decoding: parts[1], as: UTF8.self))
    }
}

/// The sender and the recipients of a message at the sink.
struct Envelope {
    var sender: [UInt8] = []
    var recipients: [[UInt8]] = []
}

/// The sink's figures, in messages.
package struct SinkReport: Codable, Sendable, Equatable {
    /// Accepted by the target.
    package fileprivate(set) var accepted = 0
    /// Accepted by the target, but not arrived in time for all recipients that the target accepted.
    package fileprivate(set) var lost = 0
    /// Arrived for all recipients.
    package fileprivate(set) var arrived = 0
    /// Refused by the target, and arrived nevertheless.
    package fileprivate(set) var arrivedAlthoughRefused = 0
    /// Arrived again for the same recipient, although sent once.
    package fileprivate(set) var duplicates = 0
    /// Arrived again, after a connection was lost before the answer and the message was resent.
    package fileprivate(set) var againAfterLoss = 0
    package fileprivate(set) var unchanged = 0
    /// Unchanged except for a removed undisclosed-recipients header.
    package fileprivate(set) var undisclosedStripped = 0
    /// Changed, and with the header that the tested rules match.
    package fileprivate(set) var hitsChanged = 0
    /// With other content, from another sender or to other recipients.
    package fileprivate(set) var changed = 0
    /// From other runs.
    package fileprivate(set) var strangers = 0

    package init() {}

    /// Whether messages were lost, duplicated or changed, or arrived although they were refused.
    package var hasFaults: Bool { lost + duplicates + changed + arrivedAlthoughRefused > 0 }
}
