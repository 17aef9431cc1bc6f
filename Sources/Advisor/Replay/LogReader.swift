// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A message that Postfix accepted over SMTP, from its log.
struct LoggedMessage {
    var time: Int64
    var queueID: [UInt8]
    var clientName: [UInt8]
    var clientAddress: [UInt8]
    var saslMethod: [UInt8]
    var saslUsername: [UInt8]
    /// `submission` for `postfix/submission/smtpd`.
    var service: [UInt8]
    var sender: [UInt8]
    /// Bytes in the queue, including headers that Postfix added.
    var size: Int
    var recipients: Int
}

/// How much of the logs was counted, and why the rest was not.
package struct LogFigures: Codable, Sendable, Equatable {
    package internal(set) var lines = 0
    /// Lines that are not Postfix's, or not about clients, senders and recipients.
    package internal(set) var otherLines = 0
    /// Lines without a readable time: truncated, in another language, or not from a log.
    package internal(set) var linesWithoutTime = 0
    /// Lines with an earlier time than a previous line. They count at the time of that line.
    package internal(set) var linesOutOfOrder = 0
    package internal(set) var messages = 0
    package internal(set) var recipients = 0
    /// Policy requests of a capture.
    package internal(set) var requests = 0
    /// Messages of sendmail(1), for which Postfix sends no policy requests.
    package internal(set) var localMessages = 0
    /// Messages returned by a content filter.
    package internal(set) var reinjectedMessages = 0
    /// Messages whose client line is missing, for example because the log starts later.
    package internal(set) var messagesWithoutClient = 0
    /// The times of the first and last line, in milliseconds since 1970.
    package internal(set) var first: Int64?
    package internal(set) var last: Int64?
    /// Errors of files that could not be read to their end.
    package internal(set) var faults: [String] = []
}

/// Assembles messages from the log lines of smtpd, pickup and qmgr, and reads policy requests from captures.
final class LogReader {
    private(set) var figures = LogFigures()
    /// Messages without a qmgr line yet, by queue id.
    private var pending: [[UInt8]: LoggedMessage] = [:]
    /// Queue ids that don't count: already counted, without a client line, of sendmail(1), or from a content filter.
    private var ignored: Set<[UInt8]> = []
    private let onMessage: (LoggedMessage) -> Void
    private let onRequest: ([UInt8], Int64) -> Void

    /// The size of `pending` at which its older half is dropped.
    private static let mostPending = 200_000

    /// - Parameters:
    ///   - onMessage: called with each accepted message of a log.
    ///   - onRequest: called with each policy request of a capture and its time, in milliseconds since 1970.
    init(onMessage: @escaping (LoggedMessage) -> Void, onRequest: @escaping ([UInt8], Int64) -> Void) {
        self.onMessage = onMessage
        self.onRequest = onRequest
    }

    /// Reads files in the order of their first lines.
    func read(_ paths: [String]) throws(LogFile.Failure) {
        try Self.rejectDuplicates(paths)
        var files: [(path: String, start: Int64)] = []
        for path in paths { files.append((path, path == "-" ? .max : try Self.start(of: path))) }
        for (path, _) in files.sorted(by: { $0.start < $1.start }) {
            let file = try LogFile(path: path)
            do {
                try read(file, year: Self.year(of: path))
            } catch {
                figures.faults.append("\(error)")
            }
            if file.longLines > 0 {
                figures.faults.append("\(path): skipped \(file.longLines) lines that are too long")
            }
        }
    }

    /// - Parameter year: of the first line.
    private func read(_ file: LogFile, year: Int) throws {
        var time = LogTime(year: year)
        var journal: JournalExport?
        var capture: CapturedRequest?
        func readEntry(_ time: Int64, _ tag: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer) {
            figures.lines += 1
            read(text, of: tag, at: time)
        }
        try file.forEachLine { line in
            if journal == nil, line.starts(with: JournalExport.mark) { journal = JournalExport() }
            if capture == nil, journal == nil, CapturedRequest.time(line) != nil { capture = CapturedRequest() }
            if capture != nil {
                figures.lines += 1
                capture?.append(line) { request, time in
                    record(time)
                    figures.requests += 1
                    onRequest(request, time)
                }
            } else if journal != nil {
                journal?.append(line, readEntry)
            } else {
                figures.lines += 1
                read(line, &time)
            }
        }
        journal?.end(readEntry)
    }

    /// A file given twice would count twice.
    private static func rejectDuplicates(_ paths: [String]) throws(LogFile.Failure) {
        var seen: [String: String] = [:]
        for path in paths {
            let file = path == "-" ? path : URL(fileURLWithPath: path).resolvingSymlinksInPath().path
            guard let earlier = seen.updateValue(path, forKey: file) else { continue }
            throw LogFile.Failure(
                description: earlier == path ? "\(path) is given twice" : "\(earlier) and \(path) are the same file")
        }
    }

    /// Whether a file is a capture (`log.capture`). Standard input is always a log.
    static func isCapture(_ path: String) throws(LogFile.Failure) -> Bool {
        guard path != "-" else { return false }
        let file = try LogFile(path: path)
        var isCapture: Bool?
        try? file.forEachLine(upTo: 1) { line in isCapture = isCapture ?? (CapturedRequest.time(line) != nil) }
        return isCapture ?? false
    }

    /// The year of a log's first line. The file was modified when its last line was written; if that is earlier in the
    /// year than the first line, the first line is of the year before.
    private static func year(of path: String) -> Int {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        var modified = Int((attributes?[.modificationDate] as? Date ?? Date()).timeIntervalSince1970)
        var parts = tm()
        gmtime_r(&modified, &parts)
        let year = Int(parts.tm_year) + 1900
        guard let first = firstTime(of: path, year: year) else { return year }
        // Allow a day, as the time zone is unknown.
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
            return record(milliseconds)
        }
        read(
            UnsafeRawBufferPointer(rebasing: line[(colon + 2)...]),
            of: UnsafeRawBufferPointer(rebasing: line[(host + 1)..<bracket]),
            at: milliseconds)
    }

    private func record(_ time: Int64) {
        figures.first = figures.first ?? time
        if let last = figures.last, time < last { figures.linesOutOfOrder += 1 }
        figures.last = max(figures.last ?? time, time)
    }

    /// - Parameter tag: `postfix/submission/smtpd`
    private func read(_ text: UnsafeRawBufferPointer, of tag: UnsafeRawBufferPointer, at time: Int64) {
        record(time)
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
            ignored.insert(Array(text[..<colon]))
        } else {
            figures.otherLines += 1
        }
    }

    /// The part after the first slash: `submission` of `postfix/submission`, empty for `postfix`.
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
                ignored.insert(id)
                return
            default: break
            }
        }
        if pending.count >= Self.mostPending { dropOldest() }
        pending[id] = message
    }

    private func dropOldest() {
        ignored = []
        let times = pending.values.map(\.time).sorted()
        let limit = times[times.count / 2]
        pending = pending.filter { $0.value.time > limit }
    }

    /// `from=<alice@example.org>, size=1234, nrcpt=2 (queue active)`, or `removed`
    private func readQueueManager(_ text: UnsafeRawBufferPointer, id: [UInt8]) {
        guard text.starts(with: "from=<".utf8) else {
            if text.elementsEqual("removed".utf8) {
                pending[id] = nil
                ignored.remove(id)
            } else {
                figures.otherLines += 1
            }
            return
        }
        // A sender address may contain the same text, so search from the end.
        guard let end = Self.lastRange(of: ">, size=", in: text), var rest = Optional(text[end.upperBound...]),
            let size = Self.number(&rest), let count = Self.lastRange(of: "nrcpt=", in: text)
        else {
            figures.otherLines += 1
            return
        }
        guard var message = pending.removeValue(forKey: id) else {
            if !ignored.contains(id) {
                figures.messagesWithoutClient += 1
                // qmgr logs deferred mail again at each retry.
                ignored.insert(id)
            }
            return
        }
        if ignored.count >= Self.mostPending { ignored = [] }
        ignored.insert(id)
        rest = text[count.upperBound...]
        message.sender = Self.internalForm(text["from=<".utf8.count..<end.lowerBound])
        message.size = size
        message.recipients = min(max(1, Self.number(&rest) ?? 1), 100_000)
        figures.messages += 1
        figures.recipients += message.recipients
        onMessage(message)
    }

    /// The address as the policy server gets it: `a b@example.org`, where the log has `"a b"@example.org`
    /// (quote_822_local.c).
    private static func internalForm(_ logged: Slice<UnsafeRawBufferPointer>) -> [UInt8] {
        guard logged.first == UInt8(ascii: "\"") else { return Array(logged) }
        var (address, rest): ([UInt8], _) = ([], logged.dropFirst())
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "\\"): if let next = rest.popFirst() { address.append(next) }
            case UInt8(ascii: "\""): return address + rest
            default: address.append(byte)
            }
        }
        // info_log_addr_form = internal: the quote belongs to the address.
        return Array(logged)
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

/// Parses a capture (`log.capture`): for each request a time line, its attributes, and an empty line.
struct CapturedRequest {
    private static let mark = Array("time=".utf8)
    private static let longest = 65_536

    private var time: Int64?
    private var request: [UInt8] = []

    /// The milliseconds of `time=1790000000.123456`.
    static func time(_ line: UnsafeRawBufferPointer) -> Int64? {
        guard line.count >= mark.count + 12, line.starts(with: mark), let dot = line.firstIndex(of: UInt8(ascii: ".")),
            let seconds = Int64(String(decoding: line[mark.count..<dot], as: UTF8.self)), 0..<1 << 40 ~= seconds,
            let microseconds = Int64(String(decoding: line[(dot + 1)...], as: UTF8.self))
        else { return nil }
        return seconds * 1000 + microseconds / 1000
    }

    mutating func append(_ line: UnsafeRawBufferPointer, _ body: ([UInt8], Int64) -> Void) {
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

/// Parses the output of `journalctl -o export`: a line per field, and an empty line after each entry.
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

    /// Ignores binary fields, which have another form; Postfix's entries have none.
    mutating func append(
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
