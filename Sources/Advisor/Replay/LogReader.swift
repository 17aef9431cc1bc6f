// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Assembles messages from the log lines of smtpd, pickup and qmgr, and reads policy requests from captures.
final class LogReader {
    private(set) var figures = LogFigures()
    /// The time of the latest line, in milliseconds.
    private var latest: Int64 = .min
    private var time = LogTime(year: 1970)
    private var understanding = Understanding()
    /// Messages without a qmgr line yet, by queue id.
    private var pending: [[UInt8]: LoggedMessage] = [:]
    /// Messages that a content filter may have returned.
    private var held = HeldMessages()
    /// Queue ids that don't count: already counted, without a client line, of sendmail(1), or from a content filter.
    private var ignored: Set<[UInt8]> = []
    private let onMessage: (LoggedMessage) -> Void
    private let onRequest: ([UInt8], LogMoment) -> Void

    /// The size of `pending` at which its older half is dropped, and of `ignored` at which all of it is.
    private static let mostPending = 200_000

    /// - Parameters:
    ///   - onMessage: called with each accepted message of a log.
    ///   - onRequest: called with each policy request of a capture and its time.
    init(onMessage: @escaping (LoggedMessage) -> Void, onRequest: @escaping ([UInt8], LogMoment) -> Void) {
        self.onMessage = onMessage
        self.onRequest = onRequest
    }

    /// Reads files in the order of their first lines.
    ///
    /// - Throws: if a file can't be opened, or if the files have lines and none is understood.
    func read(_ paths: [String]) throws {
        try Self.rejectDuplicates(paths)
        var files: [(path: String, year: Int, start: Int64)] = []
        for path in paths {
            if !LogFile.isReadOnce(path) { _ = try LogFile(path: path) }
            let year = LogYear.first(of: path)
            files.append((path, year, Self.firstTime(of: path, year: year) ?? .max))
        }
        var ofAll = Understanding()
        for (path, year, _) in files.sorted(by: { $0.start < $1.start }) {
            let file = try LogFile(path: path)
            understanding = Understanding()
            do {
                try read(file, year: year)
            } catch {
                figures.faults.append("\(error)")
            }
            if file.longLines > 0 {
                let lines = file.longLines == 1 ? "1 line that is" : "\(file.longLines) lines that are"
                figures.faults.append("\(path): skipped \(lines) too long")
            }
            if let fault = understanding.fault(of: [path]) { figures.faults.append(fault.description) }
            ofAll.add(understanding)
        }
        if let fault = ofAll.fault(of: paths) { throw fault }
        release(held.removeAll())
        if figures.messages == 0, !pending.isEmpty {
            let messages = pending.count == 1 ? "1 message has" : "\(pending.count) messages have"
            figures.faults.append(
                "\(messages) a line of smtpd and none of qmgr: only part of the log seems to be here")
        }
    }

    /// - Parameter year: of the first line.
    private func read(_ file: LogFile, year: Int) throws {
        time.beginFile(year: year)
        var journal: JournalExport?
        var capture: CapturedRequest?
        func readEntry(_ time: Int64, _ tag: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer) {
            figures.lines += 1
            if !read(text, of: tag, at: .utc(time)) { understanding.miss(text) }
        }
        try file.forEachLine { line in
            if journal == nil, line.starts(with: JournalExport.mark) { journal = JournalExport() }
            if capture == nil, journal == nil, CapturedRequest.time(line) != nil { capture = CapturedRequest() }
            if capture != nil {
                figures.lines += 1
                capture?.append(line) { request, time in
                    record(.utc(time))
                    understanding.isAny = true
                    figures.requests += 1
                    onRequest(request, .utc(time))
                }
            } else if journal != nil {
                journal?.append(line, readEntry)
            } else {
                figures.lines += 1
                read(line)
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

    /// Whether a file is a capture (`log.capture`). Standard input and pipes are always logs.
    static func isCapture(_ path: String) throws(LogFile.Failure) -> Bool {
        guard !LogFile.isReadOnce(path) else { return false }
        let file = try LogFile(path: path)
        var isCapture: Bool?
        try? file.forEachLine(upTo: 1) { line in isCapture = isCapture ?? (CapturedRequest.time(line) != nil) }
        return isCapture ?? false
    }

    /// Milliseconds since 1970; nil if the first 1,000 lines have no time, and for standard input and pipes.
    ///
    /// - Parameter year: of the first line.
    static func firstTime(of path: String, year: Int) -> Int64? {
        guard !LogFile.isReadOnce(path), let file = try? LogFile(path: path) else { return nil }
        var time = LogTime(year: year)
        var first: Int64?
        try? file.forEachLine(upTo: 1000) { line in
            if first == nil {
                let plain = Self.withoutDamage(line)
                first =
                    LogLine(plain, &time)?.moment.milliseconds ?? Self.timeOfJSON(plain, &time)
                    ?? JournalExport.time(plain) ?? CapturedRequest.time(plain)
            }
        }
        return first
    }

    // MARK: Lines

    private func read(_ line: UnsafeRawBufferPointer) {
        let line = Self.withoutDamage(line)
        if line.isEmpty { return }
        switch JSONLogLine(line) {
        case .entry(let time, let tag, let text):
            let isKnown = tag.withUnsafeBytes { tag in text.withUnsafeBytes { read($0, of: tag, at: .utc(time)) } }
            if !isKnown { understanding.miss(line) }
        case .line(let plain): plain.withUnsafeBytes { readPlain($0) }
        case nil: readPlain(line)
        }
    }

    private func readPlain(_ line: UnsafeRawBufferPointer) {
        guard let entry = LogLine(line, &time) else {
            figures.linesWithoutTime += 1
            return understanding.miss(line)
        }
        if !read(entry.text, of: entry.tag, at: entry.moment) { understanding.miss(line) }
    }

    /// Without what is not the log's: a byte order mark, the NULs that a crash of the machine leaves, and the CR of
    /// Windows.
    static func withoutDamage(_ line: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var rest = line[...]
        if rest.first == 0xef, rest.starts(with: [0xef, 0xbb, 0xbf]) { rest = rest.dropFirst(3) }
        if rest.first == 0 { rest = rest.drop { $0 == 0 } }
        if rest.last == 0x0d { rest = rest.dropLast() }
        return UnsafeRawBufferPointer(rebasing: rest)
    }

    private static func timeOfJSON(_ line: UnsafeRawBufferPointer, _ time: inout LogTime) -> Int64? {
        switch JSONLogLine(line) {
        case .entry(let time, _, _): time
        case .line(let plain): plain.withUnsafeBytes { LogLine($0, &time)?.moment.milliseconds }
        case nil: nil
        }
    }

    private func record(_ moment: LogMoment) {
        if figures.first == nil { (figures.first, figures.firstZone) = (moment.reported, moment.zone) }
        if moment.milliseconds < latest {
            figures.linesOutOfOrder += 1
        } else {
            (latest, figures.last, figures.lastZone) = (moment.milliseconds, moment.reported, moment.zone)
            release(held.removeAll(before: latest))
        }
    }

    /// Passes on messages that no content filter has returned.
    private func release(_ messages: [HeldMessages.Outcome]) {
        for case (let message, let isReturned) in messages {
            if isReturned {
                figures.reinjectedMessages += 1
            } else {
                figures.messages += 1
                figures.recipients += message.recipients
                onMessage(message)
            }
        }
    }

    /// - Parameters:
    ///   - tag: `postfix/submission/smtpd`
    ///   - isInner: whether this is a container's line from the text of a line of its machine's log.
    /// - Returns: whether the line is Postfix's.
    private func read(
        _ text: UnsafeRawBufferPointer, of tag: UnsafeRawBufferPointer, at moment: LogMoment, isInner: Bool = false
    ) -> Bool {
        if !isInner, case let inner = LogLine.withoutTime(text), inner.count < text.count {
            let line = LogLine(moment, inner)
            return read(line.text, of: line.tag, at: moment, isInner: true)
        }
        record(moment)
        guard let slash = tag.lastIndex(of: UInt8(ascii: "/")) else {
            figures.otherLines += 1
            return false
        }
        understanding.isAny = true
        guard let colon = text.firstIndex(of: UInt8(ascii: ":")), colon + 2 < text.count else {
            figures.otherLines += 1
            return true
        }
        let rest = UnsafeRawBufferPointer(rebasing: text[(colon + 2)...])
        let id = text[..<colon]
        let program = tag[(slash + 1)...]
        let (isServer, service) = (program.elementsEqual("smtpd".utf8), tag[..<slash])
        if isServer, rest.starts(with: "client=".utf8), !id.elementsEqual("NOQUEUE".utf8) {
            readClient(rest, id: Array(id), service: Self.service(service), at: moment)
        } else if isServer, id.elementsEqual("proxy-accept".utf8) {
            figures.otherLines += 1
            guard let origin = LoggedOrigin(proxyAccept: rest, service: Self.service(service)) else { return true }
            pending[origin.queueID]?.apply(origin)
            held.apply(origin)
        } else if program.elementsEqual("qmgr".utf8) || program.elementsEqual("nqmgr".utf8)
            || program.elementsEqual("oqmgr".utf8)
        {
            readQueueManager(rest, id: Array(id))
        } else if program.elementsEqual("pickup".utf8), rest.starts(with: "uid=".utf8) {
            figures.localMessages += 1
            ignore(Array(id))
        } else {
            if program.elementsEqual("smtp".utf8) || program.elementsEqual("lmtp".utf8) { held.readDelivery(rest) }
            figures.otherLines += 1
        }
        return true
    }

    /// The part after the first slash: `submission` of `postfix/submission`, empty for `postfix`.
    private static func service(_ tag: Slice<UnsafeRawBufferPointer>) -> [UInt8] {
        tag.firstIndex(of: UInt8(ascii: "/")).map { Array(tag[($0 + 1)...]) } ?? []
    }

    /// `client=host.example.org[192.0.2.1]:1234, sasl_method=PLAIN, sasl_username=alice`
    private func readClient(_ text: UnsafeRawBufferPointer, id: [UInt8], service: [UInt8], at moment: LogMoment) {
        let parts = text.split(separator: UInt8(ascii: ","))
        // Before the queue, the client of a filter is the smtpd that names its own client.
        let own = parts.first { $0.starts(with: " orig_client=".utf8) }?.dropFirst(" orig_client=".utf8.count)
        let client = own ?? parts[0].dropFirst("client=".utf8.count)
        guard let open = client.firstIndex(of: UInt8(ascii: "[")), let close = client.lastIndex(of: UInt8(ascii: "]")),
            open < close
        else {
            figures.otherLines += 1
            return
        }
        var message = LoggedMessage(
            moment: moment, queueID: id, clientName: Array(client[..<open]),
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
                ignore(id)
                return
            default: break
            }
        }
        if pending.count >= Self.mostPending { dropOldest() }
        pending[id] = message
    }

    private func ignore(_ id: [UInt8]) {
        if ignored.count >= Self.mostPending { ignored = [] }
        ignored.insert(id)
    }

    private func dropOldest() {
        ignored = []
        let times = pending.values.map(\.moment.milliseconds).sorted()
        let limit = times[times.count / 2]
        pending = pending.filter { $0.value.moment.milliseconds > limit }
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
        guard let end = text.lastRange(of: ">, size="), var rest = Optional(text[end.upperBound...]),
            let size = Self.number(&rest), let count = text.lastRange(of: "nrcpt=")
        else {
            figures.otherLines += 1
            return
        }
        guard var message = pending.removeValue(forKey: id) else {
            if !ignored.contains(id) {
                figures.messagesWithoutClient += 1
                // qmgr logs deferred mail again at each retry.
                ignore(id)
            }
            return
        }
        ignore(id)
        rest = text[count.upperBound...]
        message.sender = Self.internalForm(text["from=<".utf8.count..<end.lowerBound])
        message.size = size
        message.recipients = min(max(1, Self.number(&rest) ?? 1), 100_000)
        held.append(message, at: latest)
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
}
