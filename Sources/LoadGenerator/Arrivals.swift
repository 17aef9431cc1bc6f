// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Looks at what arrives at a sink: each message once, and as it was sent. Belongs to the load's event loop.
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
    ///   - run: Letters and digits that no other run has.
    ///   - date: As in a Date: header.
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

    /// How many that were accepted are not there yet.
    package var missing: Int { acceptedButNotArrived }

    /// The figures, once no more is waited for.
    package func finish() -> SinkReport {
        report.lost = acceptedButNotArrived
        return report
    }

    /// Takes a message without the doubled dots. What stands above its first line was added on the way.
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

    /// Where the marker's line begins; it stands in the header.
    private static func start(of content: UnsafeRawBufferPointer) -> Int? {
        var line = 0
        while line < content.count, content[line] != UInt8(ascii: "\r") {
            if content[line...].starts(with: MessageCorpus.marker) { return line }
            guard let end = content[line...].firstIndex(of: UInt8(ascii: "\n")) else { return nil }
            line = end + 1
        }
        return nil
    }

    /// The number of a message of this run.
    private func id(in content: Slice<UnsafeRawBufferPointer>) -> Int? {
        let value = content.dropFirst(MessageCorpus.marker.count).prefix { $0 != UInt8(ascii: "\r") }
        let parts = value.split(separator: UInt8(ascii: "."))
        guard parts.count == 2, parts[0].elementsEqual(corpus.run.utf8) else { return nil }
        return Int(String(decoding: parts[1], as: UTF8.self))
    }
}

/// What a sink has seen.
package struct SinkReport: Codable, Sendable, Equatable {
    /// Messages that the target has accepted, and those of them that did not arrive in time.
    package fileprivate(set) var accepted = 0
    package fileprivate(set) var lost = 0
    package fileprivate(set) var arrived = 0
    /// Arrived a second time although they were sent once.
    package fileprivate(set) var duplicates = 0
    /// Arrived a second time after a connection was lost before the answer.
    package fileprivate(set) var againAfterLoss = 0
    package fileprivate(set) var unchanged = 0
    /// Without their undisclosed-recipients header, else unchanged.
    package fileprivate(set) var undisclosedStripped = 0
    /// Messages with the header that rules look for, and otherwise than they were sent.
    package fileprivate(set) var hitsChanged = 0
    package fileprivate(set) var changed = 0
    /// Messages that are not of this run.
    package fileprivate(set) var strangers = 0

    package init() {}

    /// Whether something is there that must not be.
    package var hasFaults: Bool { lost + duplicates + changed > 0 }
}
