// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Checks that each message arrives at the sink exactly once and unchanged. Bound to the load's event loop.
package final class Arrivals {
    private struct Entry {
        var message: LoadMessage
        var isAccepted = false
        var wasSentAgain = false
        var arrived: UInt8 = 0
    }

    let corpus: MessageCorpus
    private var entries: [Entry] = []
    private var expected: [UInt8] = []
    private var acceptedButNotArrived = 0
    package private(set) var report = SinkReport()

    /// - Parameters:
    ///   - run: a unique name, of letters and digits.
    ///   - date: the value of the Date: headers.
    package init(_ mix: MessageMix, run: String, date: String) {
        corpus = MessageCorpus(mix, run: run, date: date)
    }

    func sent(_ message: LoadMessage) { entries.append(Entry(message: message)) }

    func sentAgain(_ message: LoadMessage) { entries[message.id].wasSentAgain = true }

    func accepted(_ message: LoadMessage) {
        entries[message.id].isAccepted = true
        report.accepted += 1
        if entries[message.id].arrived == 0 { acceptedButNotArrived += 1 }
    }

    /// The number of accepted messages that have not arrived yet.
    package var missing: Int { acceptedButNotArrived }

    /// Counts missing messages as lost.
    package func finish() -> SinkReport {
        report.lost = acceptedButNotArrived
        return report
    }

    /// Records a message, after dot unstuffing. Lines above the marker header were added on the way.
    func arrived(_ content: UnsafeRawBufferPointer) {
        guard let start = Self.start(of: content), let id = id(in: content[start...]), id < entries.count else {
            report.strangers += 1
            return
        }
        let entry = entries[id]
        if entry.arrived == 0 {
            report.arrived += 1
            if entry.isAccepted { acceptedButNotArrived -= 1 }
        } else if entry.wasSentAgain {
            report.againAfterLoss += 1
        } else {
            report.duplicates += 1
        }
        entries[id].arrived = min(entry.arrived, 254) + 1
        let rest = UnsafeRawBufferPointer(rebasing: content[start...])
        if isEqual(rest, entry.message, undisclosed: true) {
            report.unchanged += 1
        } else if entry.message.isUndisclosed, isEqual(rest, entry.message, undisclosed: false) {
            report.undisclosedStripped += 1
        } else if entry.message.isHit {
            report.hitsChanged += 1
        } else {
            report.changed += 1
        }
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

/// The sink's figures, in messages.
package struct SinkReport: Codable, Sendable, Equatable {
    /// Accepted by the target.
    package fileprivate(set) var accepted = 0
    /// Accepted by the target, but not arrived in time.
    package fileprivate(set) var lost = 0
    package fileprivate(set) var arrived = 0
    /// Arrived again, although sent once.
    package fileprivate(set) var duplicates = 0
    /// Arrived again, after a connection was lost before the answer and the message was resent.
    package fileprivate(set) var againAfterLoss = 0
    package fileprivate(set) var unchanged = 0
    /// Unchanged except for a removed undisclosed-recipients header.
    package fileprivate(set) var undisclosedStripped = 0
    /// Changed, and with the header that the tested rules match.
    package fileprivate(set) var hitsChanged = 0
    package fileprivate(set) var changed = 0
    /// From other runs.
    package fileprivate(set) var strangers = 0

    package init() {}

    /// Whether messages were lost, duplicated or changed.
    package var hasFaults: Bool { lost + duplicates + changed > 0 }
}
