// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A message that Postfix has accepted by SMTP, as its log tells of it.
struct LoggedMessage {
    var time: Int64
    var queueID: [UInt8]
    var clientName: [UInt8]
    var clientAddress: [UInt8]
    var saslMethod: [UInt8]
    var saslUsername: [UInt8]
    /// `submission` of `postfix/submission/smtpd`.
    var service: [UInt8]
    var sender: [UInt8]
    /// In the queue, with the headers that Postfix has added.
    var size: Int
    var recipients: Int
}

/// What was read, and what was not and why.
package struct LogFigures: Codable, Sendable, Equatable {
    package internal(set) var lines = 0
    /// Lines that are none of Postfix's, or tell nothing about who sends what.
    package internal(set) var otherLines = 0
    /// Lines whose time can't be read: cut, in another language, or no log at all.
    package internal(set) var linesWithoutTime = 0
    /// Lines that are earlier than one before them; they count as if they came with that one.
    package internal(set) var linesOutOfOrder = 0
    package internal(set) var messages = 0
    package internal(set) var recipients = 0
    /// Policy requests of a capture.
    package internal(set) var requests = 0
    /// Messages of sendmail(1), about which no policy server is asked.
    package internal(set) var localMessages = 0
    /// Messages that came back from a content filter.
    package internal(set) var reinjectedMessages = 0
    /// Messages whose client is not in what was read: the log begins later, or they were there before.
    package internal(set) var messagesWithoutClient = 0
    /// Milliseconds since 1970 of the first and the last line.
    package internal(set) var first: Int64?
    package internal(set) var last: Int64?
    /// Files that could not be read to their end.
    package internal(set) var faults: [String] = []
}

/// Puts messages together from the lines of smtpd, pickup and qmgr.
final class LogReader {
    private(set) var figures = LogFigures()
    private var clients: [[UInt8]: LoggedMessage] = [:]
    /// Of messages of sendmail(1), or from a content filter.
    private var others: Set<[UInt8]> = []
    private let take: (LoggedMessage) -> Void
    private let takeRequest: ([UInt8], Int64) -> Void

    /// Messages whose queue manager's line is outstanding; beyond, the oldest are forgotten.
    private static let mostOpen = 200_000

    /// - Parameters:
    ///   - take: of a log: each message that was accepted.
    ///   - takeRequest: of a capture: each policy request, and when it came, in milliseconds since 1970.
    init(take: @escaping (LoggedMessage) -> Void, takeRequest: @escaping ([UInt8], Int64) -> Void) {
        self.take = take
        self.takeRequest = takeRequest
    }

    /// Reads files in the order of their first lines.
    func read(_ paths: [String]) throws(LogFile.Failure) {
        try Self.refuseDoubles(paths)
        var files: [(path: String, start: Int64)] = []
        for path in paths { files.append((path, path == "-" ? .max : try Self.start(of: path))) }
        for (path, _) in files.sorted(by: { $0.start < $1.start }) {
            let file = try LogFile(path: path)
            var time = LogTime(year: Self.year(of: path))
            var journal: JournalExport?
            var capture: CapturedRequest?
            do {
                try file.forEachLine { line in
                    if journal == nil, line.starts(with: JournalExport.mark) { journal = JournalExport() }
                    if capture == nil, journal == nil, CapturedRequest.time(line) != nil { capture = CapturedRequest() }
                    if capture != nil {
                        figures.lines += 1
                        capture?.take(line) { request, time in
                            note(time)
                            figures.requests += 1
                            takeRequest(request, time)
                        }
                    } else if journal != nil {
                        journal?.take(line) { time, tag, text in
                            figures.lines += 1
                            read(text, of: tag, at: time)
                        }
                    } else {
                        figures.lines += 1
                        read(line, &time)
                    }
                }
                journal?.end { time, tag, text in
                    figures.lines += 1
                    read(text, of: tag, at: time)
                }
            } catch {
                figures.faults.append("\(error)")
            }
            if file.longLines > 0 {
                figures.faults.append("\(path): \(file.longLines) lines were too long and were passed over")
            }
        }
    }

    /// What is read twice counts twice.
    private static func refuseDoubles(_ paths: [String]) throws(LogFile.Failure) {
        var seen: [String: String] = [:]
        for path in paths {
            let file = path == "-" ? path : URL(fileURLWithPath: path).resolvingSymlinksInPath().path
            guard let earlier = seen.updateValue(path, forKey: file) else { continue }
            throw LogFile.Failure(
                description: earlier == path ? "\(path) is named twice" : "\(earlier) and \(path) are the same file")
        }
    }

    /// Whether a file is what log.capture has kept; standard input is always a log.
    static func isCapture(_ path: String) throws(LogFile.Failure) -> Bool {
        guard path != "-" else { return false }
        let file = try LogFile(path: path)
        var isCapture: Bool?
        try? file.forEachLine(upTo: 1) { line in isCapture = isCapture ?? (CapturedRequest.time(line) != nil) }
        return isCapture ?? false
    }

    /// A log's last line was written when the file was: where that is earlier in the year than the first line, a year has ended.
    private static func year(of path: String) -> Int {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        var modified = Int((attributes?[.modificationDate] as? Date ?? Date()).timeIntervalSince1970)
        var parts = tm()
        gmtime_r(&modified, &parts)
        let year = Int(parts.tm_year) + 1900
        guard let first = firstTime(of: path, year: year) else { return year }
        // A day more: nobody knows the zone.
        return first > Int64(modified + 86_400) * 1000 ? year - 1 : year
    }

    private static func start(of path: String) throws(LogFile.Failure) -> Int64 {
        _ = try LogFile(path: path)
        return firstTime(of: path, year: year(of: path)) ?? .max
    }

    private static func firstTime(of path: String, year: Int) -> Int64? {
        guard path != "-", let file = try? LogFile(path: path) else { return nil }
        var time = LogTime(year: year)
        var first: Int64?
        try? file.forEachLine(upTo: 1000) { line in
            if first == nil {
                first = time.read(line)?.milliseconds ?? JournalExport.time(line) ?? CapturedRequest.time(line)
            }
        }
        return first
    }

    // MARK: Lines

    private func read(_ line: UnsafeRawBufferPointer, _ time: inout LogTime) {
        guard let (milliseconds, start) = time.read(line) else {
            figures.linesWithoutTime += 1
            return
        }
        // `host tag[pid]: text`
        guard let host = line[start...].firstIndex(of: 0x20),
            let bracket = line[(host + 1)...].firstIndex(of: UInt8(ascii: "[")),
            let colon = line[bracket...].firstIndex(of: UInt8(ascii: ":")), colon + 2 < line.count
        else {
            figures.otherLines += 1
            return note(milliseconds)
        }
        read(
            UnsafeRawBufferPointer(rebasing: line[(colon + 2)...]),
            of: UnsafeRawBufferPointer(rebasing: line[(host + 1)..<bracket]),
            at: milliseconds)
    }

    private func note(_ time: Int64) {
        figures.first = figures.first ?? time
        if let last = figures.last, time < last { figures.linesOutOfOrder += 1 }
        figures.last = max(figures.last ?? time, time)
    }

    /// - Parameter tag: `postfix/submission/smtpd`
    private func read(_ text: UnsafeRawBufferPointer, of tag: UnsafeRawBufferPointer, at time: Int64) {
        note(time)
        guard let slash = tag.lastIndex(of: UInt8(ascii: "/")), let colon = text.firstIndex(of: UInt8(ascii: ":")),
            colon + 2 < text.count
        else {
            figures.otherLines += 1
            return
        }
        let rest = UnsafeRawBufferPointer(rebasing: text[(colon + 2)...])
        let program = tag[(slash + 1)...]
        if program.elementsEqual("smtpd".utf8), rest.starts(with: "client=".utf8) {
            readClient(rest, id: Array(text[..<colon]), service: Self.service(tag[..<slash]), at: time)
        } else if program.elementsEqual("qmgr".utf8) || program.elementsEqual("nqmgr".utf8)
            || program.elementsEqual("oqmgr".utf8)
        {
            readQueueManager(rest, id: Array(text[..<colon]))
        } else if program.elementsEqual("pickup".utf8), rest.starts(with: "uid=".utf8) {
            figures.localMessages += 1
            others.insert(Array(text[..<colon]))
        } else {
            figures.otherLines += 1
        }
    }

    /// What stands behind the first slash: empty of `postfix`.
    private static func service(_ tag: Slice<UnsafeRawBufferPointer>) -> [UInt8] {
        tag.firstIndex(of: UInt8(ascii: "/")).map { Array(tag[($0 + 1)...]) } ?? []
    }

    /// `client=host.example.org[192.0.2.1]:1234, sasl_method=PLAIN, sasl_username=alice`
    private func readClient(_ text: UnsafeRawBufferPointer, id: [UInt8], service: [UInt8], at time: Int64) {
        let parts = text.split(separator: UInt8(ascii: ","))
        let client = parts[0].dropFirst("client=".utf8.count)
        guard let open = client.firstIndex(of: UInt8(ascii: "[")), let close = client.lastIndex(of: UInt8(ascii: "]")),
            open < close
        else {
            figures.otherLines += 1
            return
        }
        var message = LoggedMessage(
            time: time, queueID: id, clientName: Array(client[..<open]),
            clientAddress: Array(client[(open + 1)..<close]), saslMethod: [],
            saslUsername: [], service: service, sender: [], size: 0, recipients: 0)
        for part in parts.dropFirst() {
            let pair = part.drop { $0 == 0x20 }
            guard let equals = pair.firstIndex(of: UInt8(ascii: "=")) else { continue }
            let value = pair[(equals + 1)...]
            switch pair[..<equals] {
            case let name where name.elementsEqual("sasl_method".utf8): message.saslMethod = Array(value)
            case let name where name.elementsEqual("sasl_username".utf8): message.saslUsername = Array(value)
            case let name where name.elementsEqual("orig_queue_id".utf8):
                figures.reinjectedMessages += 1
                others.insert(id)
                return
            default: break
            }
        }
        if clients.count >= Self.mostOpen { forgetOldest() }
        clients[id] = message
    }

    private func forgetOldest() {
        others = []
        let times = clients.values.map(\.time).sorted()
        let limit = times[times.count / 2]
        clients = clients.filter { $0.value.time > limit }
    }

    /// `from=<alice@example.org>, size=1234, nrcpt=2 (queue active)`, or `removed`
    private func readQueueManager(_ text: UnsafeRawBufferPointer, id: [UInt8]) {
        guard text.starts(with: "from=<".utf8) else {
            if text.elementsEqual("removed".utf8) {
                clients[id] = nil
                others.remove(id)
            } else {
                figures.otherLines += 1
            }
            return
        }
        // An address may have what looks like the rest of the line: the last one counts.
        guard let end = Self.lastRange(of: ">, size=", in: text), var rest = Optional(text[end.upperBound...]),
            let size = Self.number(&rest), let count = Self.lastRange(of: "nrcpt=", in: text)
        else {
            figures.otherLines += 1
            return
        }
        guard var message = clients.removeValue(forKey: id) else {
            if !others.contains(id) {
                figures.messagesWithoutClient += 1
                // Deferred mail comes by again.
                others.insert(id)
            }
            return
        }
        if others.count >= Self.mostOpen { others = [] }
        others.insert(id)
        rest = text[count.upperBound...]
        message.sender = Array(text["from=<".utf8.count..<end.lowerBound])
        message.size = size
        message.recipients = min(max(1, Self.number(&rest) ?? 1), 100_000)
        figures.messages += 1
        figures.recipients += message.recipients
        take(message)
    }

    private static func number(_ text: inout Slice<UnsafeRawBufferPointer>) -> Int? {
        var number: Int?
        while let digit = text.first.map({ $0 &- 0x30 }), digit < 10, number ?? 0 < 1 << 40 {
            number = (number ?? 0) * 10 + Int(digit)
            text = text.dropFirst()
        }
        return number
    }

    private static func lastRange(of word: StaticString, in text: UnsafeRawBufferPointer) -> Range<Int>? {
        word.withUTF8Buffer { word in
            guard text.count >= word.count else { return nil }
            for start in stride(from: text.count - word.count, through: 0, by: -1) where text[start] == word[0] {
                if memcmp(text.baseAddress! + start, word.baseAddress!, word.count) == 0 {
                    return start..<start + word.count
                }
            }
            return nil
        }
    }
}

/// Requests as `log.capture` keeps them.
struct CapturedRequest {
    private static let mark = Array("time=".utf8)
    private static let longest = 65_536

    private var time: Int64?
    private var request: [UInt8] = []

    /// Milliseconds, of `time=1790000000.123456`.
    static func time(_ line: UnsafeRawBufferPointer) -> Int64? {
        guard line.count >= mark.count + 12, line.starts(with: mark), let dot = line.firstIndex(of: UInt8(ascii: ".")),
            let seconds = Int64(String(decoding: line[mark.count..<dot], as: UTF8.self)), 0..<1 << 40 ~= seconds,
            let microseconds = Int64(String(decoding: line[(dot + 1)...], as: UTF8.self))
        else { return nil }
        return seconds * 1000 + microseconds / 1000
    }

    mutating func take(_ line: UnsafeRawBufferPointer, _ body: ([UInt8], Int64) -> Void) {
        if request.isEmpty || time == nil, let found = Self.time(line) {
            time = found
        } else if !line.isEmpty {
            if request.count + line.count < Self.longest { request += Array(line) + [0x0a] }
        } else {
            if let time, !request.isEmpty { body(request + [0x0a], time) }
            (time, request) = (nil, [])
        }
    }
}

/// Entries of `journalctl -o export`: fields, a line each, and an empty line.
struct JournalExport {
    static let mark = Array("__CURSOR=".utf8)
    private static let timeField = Array("__REALTIME_TIMESTAMP=".utf8)

    private var time: Int64?
    private var tag: [UInt8] = []
    private var text: [UInt8] = []

    static func time(_ line: UnsafeRawBufferPointer) -> Int64? {
        guard line.starts(with: timeField) else { return nil }
        return Int64(String(decoding: line.dropFirst(timeField.count), as: UTF8.self)).map { $0 / 1000 }
    }

    /// Fields with bytes that are no text are written in another form; Postfix's have none, and others are passed over.
    mutating func take(
        _ line: UnsafeRawBufferPointer, _ body: (Int64, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
    ) {
        if line.isEmpty {
            end(body)
        } else if let found = Self.time(line) {
            time = found
        } else if line.starts(with: "MESSAGE=".utf8) {
            text = Array(line.dropFirst("MESSAGE=".utf8.count))
        } else if line.starts(with: "SYSLOG_IDENTIFIER=".utf8) {
            tag = Array(line.dropFirst("SYSLOG_IDENTIFIER=".utf8.count))
        }
    }

    mutating func end(_ body: (Int64, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void) {
        if let time, !tag.isEmpty {
            tag.withUnsafeBytes { tag in text.withUnsafeBytes { body(time, tag, $0) } }
        }
        self = JournalExport()
    }
}
