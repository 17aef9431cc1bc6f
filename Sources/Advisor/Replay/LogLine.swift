// SPDX-License-Identifier: Apache-2.0

/// A line of a log: when which program wrote what.
struct LogLine {
    let moment: LogMoment
    /// `postfix/submission/smtpd`; empty if the line has none.
    private(set) var tag = UnsafeRawBufferPointer(start: nil, count: 0)
    /// After the tag.
    private(set) var text = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Parses the forms of syslog files, of RFC 5424, of journalctl's short formats, and of `docker compose logs`.
    ///
    /// Returns nil if no time is found.
    init?(_ line: UnsafeRawBufferPointer, _ time: inout LogTime) {
        if let found = time.read(line) {
            self.init(found.moment, Self.withoutTime(Self.from(found.end, of: line)))
            return
        }
        var rest = Self.withoutService(line)
        let hasPriority = Self.skipPriority(&rest)
        // The version of RFC 5424.
        let isStructured = rest.starts(with: "1 ".utf8)
        if isStructured { rest = Self.from(2, of: rest) }
        guard hasPriority || isStructured || rest.count < line.count, let found = time.read(rest) else { return nil }
        rest = Self.from(found.end, of: rest)
        if isStructured {
            self.init(found.moment, structured: rest)
        } else {
            self.init(found.moment, Self.withoutTime(rest))
        }
    }

    /// `host tag[pid]: text`; without a host or a process id, or with more between host and tag (`mail.info`), too.
    init(_ moment: LogMoment, _ rest: UnsafeRawBufferPointer) {
        self.moment = moment
        guard let (end, colon) = Self.endOfTag(in: rest), colon + 2 < rest.count else { return }
        let start = rest[..<end].lastIndex(of: 0x20).map { $0 + 1 } ?? 0
        tag = UnsafeRawBufferPointer(rebasing: rest[start..<end])
        text = Self.from(colon + 2, of: rest)
    }

    /// Where the tag ends, and the colon behind it.
    private static func endOfTag(in text: UnsafeRawBufferPointer) -> (end: Int, colon: Int)? {
        var rest = text[...]
        while let bracket = rest.firstIndex(of: UInt8(ascii: "[")) {
            rest = text[(bracket + 1)...]
            let behind = rest.drop { $0 &- 0x30 < 10 }
            if behind.count < rest.count, behind.starts(with: "]:".utf8) { return (bracket, behind.startIndex + 1) }
        }
        rest = text[...]
        while let colon = rest.firstIndex(of: UInt8(ascii: ":")) {
            rest = text[(colon + 1)...]
            if rest.first == 0x20 { return (colon, colon) }
        }
        return nil
    }

    /// `host tag pid message-id [structured data] text` (RFC 5424 6).
    private init(_ moment: LogMoment, structured rest: UnsafeRawBufferPointer) {
        self.moment = moment
        var rest = rest[...]
        var fields: [Slice<UnsafeRawBufferPointer>] = []
        for _ in 0..<4 {
            guard let end = rest.firstIndex(of: 0x20) else { return }
            fields.append(rest[..<end])
            rest = rest[(end + 1)...]
        }
        guard Self.skipStructuredData(&rest) else { return }
        if rest.starts(with: [0xef, 0xbb, 0xbf]) { rest = rest.dropFirst(3) }
        tag = UnsafeRawBufferPointer(rebasing: fields[1])
        text = UnsafeRawBufferPointer(rebasing: rest)
    }

    /// `- ` or `[id name="value"][id] `
    private static func skipStructuredData(_ rest: inout Slice<UnsafeRawBufferPointer>) -> Bool {
        if rest.first == UInt8(ascii: "-") {
            rest = rest.dropFirst()
        } else {
            while rest.first == UInt8(ascii: "[") {
                var (isQuoted, isEscaped) = (false, false)
                rest = rest.drop { byte in
                    defer { isEscaped = isQuoted && !isEscaped && byte == UInt8(ascii: "\\") }
                    if byte == UInt8(ascii: "\""), !isEscaped { isQuoted.toggle() }
                    return isQuoted || byte != UInt8(ascii: "]")
                }
                guard rest.popFirst() != nil else { return false }
            }
        }
        return rest.popFirst() == 0x20
    }

    /// `<22>`
    private static func skipPriority(_ rest: inout UnsafeRawBufferPointer) -> Bool {
        guard rest.first == UInt8(ascii: "<"), let end = rest.prefix(5).firstIndex(of: UInt8(ascii: ">")),
            end > 1, rest[1..<end].allSatisfy({ $0 &- 0x30 < 10 })
        else { return false }
        rest = from(end + 1, of: rest)
        return true
    }

    /// Without `postfix-1  | `, in colour if it was written for a terminal, or `[pod/postfix-0/postfix] `.
    private static func withoutService(_ line: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        let bare = withoutColour(line)
        if bare.starts(with: "[pod/".utf8), let end = bare.firstIndex(of: 0x20), bare[end - 1] == UInt8(ascii: "]") {
            return from(end + 1, of: bare)
        }
        guard let bar = bare.prefix(128).firstIndex(of: UInt8(ascii: "|")), bar > 1, bare[bar - 1] == 0x20,
            let nameEnd = bare[..<bar].firstIndex(of: 0x20), nameEnd > 0,
            bare[nameEnd..<bar].allSatisfy({ $0 == 0x20 })
        else { return bare }
        let rest = withoutColour(from(bar + 1, of: bare))
        return withoutColour(rest.first == 0x20 ? from(1, of: rest) : rest)
    }

    /// Without `ESC [ 36 m` at its beginning.
    private static func withoutColour(_ text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard text.starts(with: [0x1b, UInt8(ascii: "[")]),
            let end = text.prefix(16).firstIndex(of: UInt8(ascii: "m"))
        else { return text }
        return from(end + 1, of: text)
    }

    /// Without the time at its beginning. With `docker logs --timestamps`, the time that Docker adds stands before the
    /// line's own, and has a zone.
    static func withoutTime(_ text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard text.count > 20, text[6] == 0x20 && text[9] == UInt8(ascii: ":") || text[4] == UInt8(ascii: "-") else {
            return text
        }
        var time = LogTime(year: 1970)
        return time.read(text).map { from($0.end, of: text) } ?? text
    }

    private static func from(_ start: Int, of text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: text[start...])
    }
}
