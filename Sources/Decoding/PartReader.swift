// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import MailSyntax

/// A part of a message that has no parts itself.
package struct Part {
    /// As IMAP numbers it (RFC 9051 6.4.5), such as `2.1`.
    package let path: [UInt8]
    /// Where its content begins in the message.
    package let offset: Int
}

/// What a `PartReader` finds, in the order of the message.
package protocol PartEvents {
    /// Lines of decoded text in UTF-8, each with a newline.
    mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part)
    /// The part is complete. Whether a bound of its archive is reached is known after `listing.lines`.
    mutating func attachment(_ listing: PartListing, of part: Part)
    /// Some of the part is left out.
    mutating func limitReached(_ limit: PartLimit, in part: Part)
}

package enum PartLimit: Sendable {
    /// The text of the part, or of all parts.
    case text
    /// The number of parts. The part is the first one that is left out.
    case parts
    /// The depth of parts. The part is shown as text.
    case depth
    /// The boundary of the part does not occur. Its beginning is shown as text.
    case boundary
    /// The length of a Content- header, or of a boundary.
    case header
    /// The memory of all messages, for an archive. Its end is kept.
    case memory
    /// A bound on archives. The lines that are about what is left out say `limit`.
    case archive
}

/// The streaming reader of MIME parts (RFC 2045, RFC 2046): message bytes go in, in pieces of any size; out come the
/// decoded lines of text parts, and lines about all parts. The result does not depend on the pieces, and is the same
/// whether lines end in LF or CRLF, but for the bounds in bytes.
///
/// It reads as mail programs do: a boundary is a line of its own, and text before the first and after the last one is
/// left out. `MessageScanner` reads as Postfix does.
package struct PartReader: ~Copyable {
    private enum State {
        case headers, content
        /// Before the first boundary.
        case preamble
        /// After the last boundary, or beyond the bounds.
        case skipped
    }

    private struct Level {
        let part: Part
        /// The headers of a part whose boundary does not occur.
        let headers: ContentHeaders
        let boundaries: [[UInt8]]
        /// What the paths of its parts begin with.
        let prefix: [UInt8]
        /// The depth of its parts.
        let depth: Int
        /// The parts of multipart/digest are messages.
        let isDigest: Bool
        /// Whether its headers, or those around it, contradict each other.
        let isAmbiguous: Bool
        /// Whether one of the boundaries has occurred.
        var isFound = false
        var count = 0
    }

    /// Levels of parts and attached messages.
    package static let deepest = 50
    package static let mostParts = 1_000
    /// Bytes of a header; the rest is left out.
    package static let longestHeader = 65_536
    /// Bytes that are shown of a part whose boundary does not occur.
    private static let longestPreamble = 262_144

    private var state = State.headers
    private var levels: [Level] = []
    /// By boundary, the indices in `levels`.
    private var openBoundaries: [[UInt8]: [Int]] = [:]
    private var depth = 0
    private var partCount = 0
    private var hasReportedParts = false
    /// The offset in the message of the next byte.
    private var position = 0
    private var isAtLineStart = true
    /// A line that may be a boundary.
    private var carry: [UInt8] = []
    /// A line end that belongs to the boundary if one follows.
    private var held: [UInt8] = []
    /// What the innermost level begins with, until its boundary occurs.
    private var preamble: [UInt8] = []
    private var line: [UInt8] = []
    private var header: [UInt8] = []
    /// Whether a Content- header of the part is as long as one may be.
    private var isHeaderCut = false

    private let headerDecoder = HeaderDecoder()
    private var headers = ContentHeaders()
    private var isDigestPart = false
    /// Whether headers around the current part contradict each other.
    private var isAmbiguous = false
    /// The path of the current part, and what those of its own parts begin with.
    private var path = PartReader.rootPath
    private var prefix: [UInt8] = []
    private var leaf: LeafReader

    private static let rootPath = [UInt8(ascii: "1")]
    /// Bytes of a line that may be a boundary.
    private static let longestBoundaryLine = 2_200

    /// - Parameters:
    ///   - wantsText: whether the text of parts is needed.
    ///   - wantsAttachments: whether the lines about parts are needed.
    ///   - memory: bounds the archives that are kept.
    package init(wantsText: Bool, wantsAttachments: Bool, memory: (any SharedMemory)? = nil) {
        leaf = LeafReader(wantsText: wantsText, wantsAttachments: wantsAttachments, memory: memory)
    }

    /// Starts another message.
    package mutating func reset() {
        state = .headers
        levels.removeAll(keepingCapacity: true)
        openBoundaries.removeAll(keepingCapacity: true)
        (depth, partCount, hasReportedParts, position, isAtLineStart) = (0, 0, false, 0, true)
        carry.removeAll(keepingCapacity: true)
        held.removeAll(keepingCapacity: true)
        line.removeAll(keepingCapacity: true)
        header.removeAll(keepingCapacity: true)
        headers = ContentHeaders()
        (isHeaderCut, isDigestPart, isAmbiguous) = (false, false, false)
        preamble = []
        (path, prefix) = (Self.rootPath, [])
        headerDecoder.beginMessage()
        leaf.beginMessage()
    }

    /// Takes the next bytes of the message.
    package mutating func update(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        var rest = bytes
        while !rest.isEmpty {
            let count = carry.isEmpty ? read(rest, &events) : completeCarry(rest, &events)
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    /// Ends the message.
    package mutating func finish(_ events: inout some PartEvents) {
        if !carry.isEmpty { takeCarry(&events) }
        if case .headers = state {
            if !line.isEmpty { endHeaderLine(&events) }
            if case .headers = state { endHeaders(&events) }
        }
        endPart(keepingLineEnd: true, &events)
        closeLevels(downTo: 0, keepingLineEnd: true, &events)
        state = .skipped
    }

    // MARK: - Lines

    private mutating func read(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) -> Int {
        if isAtLineStart, mayBeBoundary(bytes) { return readBoundary(bytes, &events) }
        if case .headers = state { return readHeaders(bytes, &events) }
        guard !levels.isEmpty else {
            pass(bytes, &events)
            return bytes.count
        }
        var end = 0
        while end < bytes.count {
            guard let newline = memchr(bytes.baseAddress! + end, 0x0a, bytes.count - end) else {
                isAtLineStart = false
                end = bytes.count
                break
            }
            isAtLineStart = true
            end = UnsafeRawPointer(newline) - bytes.baseAddress! + 1
            if end < bytes.count, bytes[end] == UInt8(ascii: "-") { break }
        }
        pass(UnsafeRawBufferPointer(rebasing: bytes[..<end]), &events)
        return end
    }

    private func mayBeBoundary(_ bytes: UnsafeRawBufferPointer) -> Bool {
        !levels.isEmpty && bytes[0] == UInt8(ascii: "-") && (bytes.count < 2 || bytes[1] == UInt8(ascii: "-"))
    }

    private mutating func readBoundary(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) -> Int {
        let most = min(bytes.count, Self.longestBoundaryLine)
        guard let newline = memchr(bytes.baseAddress!, 0x0a, most) else {
            carry.append(contentsOf: bytes[..<most])
            if most == Self.longestBoundaryLine { takeCarry(&events) }
            return most
        }
        let count = UnsafeRawPointer(newline) - bytes.baseAddress! + 1
        takeLine(UnsafeRawBufferPointer(rebasing: bytes[..<count]), &events)
        return count
    }

    private mutating func completeCarry(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) -> Int {
        let most = min(bytes.count, Self.longestBoundaryLine - carry.count)
        let newline = memchr(bytes.baseAddress!, 0x0a, most).map { UnsafeRawPointer($0) - bytes.baseAddress! + 1 }
        carry.append(contentsOf: bytes[..<(newline ?? most)])
        let isOther = carry.count >= 2 && carry[1] != UInt8(ascii: "-")
        if newline != nil || carry.count == Self.longestBoundaryLine || isOther { takeCarry(&events) }
        return newline ?? most
    }

    private mutating func takeCarry(_ events: inout some PartEvents) {
        let bytes = carry
        carry.removeAll(keepingCapacity: true)
        bytes.withUnsafeBytes { takeLine($0, &events) }
    }

    /// Takes a line, or the beginning of a long one.
    private mutating func takeLine(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        let end = bytes.last == 0x0a
        if let (level, isClose) = boundary(bytes.withoutLineEnd) {
            position += bytes.count
            isAtLineStart = true
            return cross(level, isClose: isClose, &events)
        }
        isAtLineStart = end
        if case .headers = state {
            var rest = bytes
            // The line may end the headers, and a body begins with it.
            while !rest.isEmpty, case .headers = state {
                rest = UnsafeRawBufferPointer(rebasing: rest[readHeaders(rest, &events)...])
            }
            isAtLineStart = end
            if !rest.isEmpty { pass(rest, &events) }
        } else {
            pass(bytes, &events)
        }
    }

    // MARK: - Boundaries

    /// The innermost level that the line is a boundary of. The time does not depend on the number of levels.
    private func boundary(_ line: UnsafeRawBufferPointer) -> (level: Int, isClose: Bool)? {
        guard line.count > 2, line[0] == UInt8(ascii: "-"), line[1] == UInt8(ascii: "-") else { return nil }
        var text = line[2...]
        while let last = text.last, last.isBlank { text.removeLast() }
        let name = Array(text)
        let next = openBoundaries[name]?.last
        var close: Int?
        if name.suffix(2).elementsEqual("--".utf8) { close = openBoundaries[Array(name.dropLast(2))]?.last }
        guard let level = [next, close].compactMap({ $0 }).max() else { return nil }
        return (level, isClose: level != next)
    }

    private mutating func open(_ level: Level) {
        for boundary in level.boundaries { openBoundaries[boundary, default: []].append(levels.count) }
        levels.append(level)
    }

    private mutating func closeLevels(
        downTo count: Int, keepingLineEnd: Bool, _ events: inout some PartEvents
    ) {
        while levels.count > count {
            let level = levels.removeLast()
            for boundary in level.boundaries {
                openBoundaries[boundary]?.removeLast()
                if openBoundaries[boundary]?.isEmpty == true { openBoundaries[boundary] = nil }
            }
            if !level.isFound { showPreamble(of: level, keepingLineEnd: keepingLineEnd, &events) }
        }
        preamble = []
    }

    /// Shows the beginning of a part whose boundary does not occur. Only the innermost level can be one.
    private mutating func showPreamble(of level: Level, keepingLineEnd: Bool, _ events: inout some PartEvents) {
        events.limitReached(.boundary, in: level.part)
        state = .content
        leaf.begin(level.part, level.headers.withoutParts, isAmbiguous: level.isAmbiguous)
        let text = preamble
        if !text.isEmpty { text.withUnsafeBytes { deliver($0, &events) } }
        endPart(keepingLineEnd: keepingLineEnd, &events)
    }

    private mutating func cross(_ level: Int, isClose: Bool, _ events: inout some PartEvents) {
        if case .headers = state {
            if !line.isEmpty { endHeaderLine(&events) }
            if case .headers = state { endHeaders(&events) }
        }
        endPart(keepingLineEnd: false, &events)
        if !isClose { levels[level].isFound = true }
        depth = levels[level].depth - (isClose ? 1 : 0)
        closeLevels(downTo: isClose ? level : level + 1, keepingLineEnd: false, &events)
        state = .skipped
        guard !isClose else { return }
        levels[level].count += 1
        path = levels[level].prefix + Array(String(levels[level].count).utf8)
        prefix = path + [UInt8(ascii: ".")]
        (isDigestPart, isAmbiguous) = (levels[level].isDigest, levels[level].isAmbiguous)
        headers = ContentHeaders()
        partCount += 1
        guard partCount <= Self.mostParts else {
            if !hasReportedParts { events.limitReached(.parts, in: Part(path: path, offset: position)) }
            hasReportedParts = true
            return
        }
        state = .headers
    }

    // MARK: - Headers

    private mutating func readHeaders(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) -> Int {
        let newline = memchr(bytes.baseAddress!, 0x0a, bytes.count).map { UnsafeRawPointer($0) - bytes.baseAddress! }
        let text = UnsafeRawBufferPointer(rebasing: bytes[..<(newline ?? bytes.count)])
        line.append(contentsOf: text.prefix(max(0, Self.longestHeader - line.count)))
        let count = newline.map { $0 + 1 } ?? bytes.count
        position += count
        isAtLineStart = newline != nil
        if newline != nil { endHeaderLine(&events) }
        return count
    }

    private mutating func endHeaderLine(_ events: inout some PartEvents) {
        while line.last == 0x0d { line.removeLast() }
        defer { line.removeAll(keepingCapacity: true) }
        if let first = line.first, first.isBlank, !header.isEmpty {
            header += line.prefix(max(0, Self.longestHeader - header.count))
            return
        }
        readHeader()
        let isHeader = line.withUnsafeBytes { headerNameLength($0) > 0 }
        if isHeader || line.starts(with: "From ".utf8) || line.starts(with: ">From ".utf8) {
            return header += line
        }
        endHeaders(&events)
        // Without an empty line, the body begins here.
        guard !line.isEmpty else { return }
        let text = line + [0x0a]
        text.withUnsafeBytes { take($0, &events) }
    }

    private mutating func readHeader() {
        if header.prefix(8).equalsIgnoringCase("content-") {
            headers.read(header, headerDecoder)
            isHeaderCut = isHeaderCut || header.count == Self.longestHeader
        }
        header.removeAll(keepingCapacity: true)
    }

    private mutating func endHeaders(_ events: inout some PartEvents) {
        readHeader()
        let type = headers.type
        let part = Part(path: path, offset: position)
        let isMultipart = headers.hasParts
        if isHeaderCut || headers.isCut { events.limitReached(.header, in: part) }
        isHeaderCut = false
        let isMessage =
            type.elementsEqual("message/rfc822".utf8) || type.elementsEqual("message/global".utf8)
            || type.isEmpty && isDigestPart
        guard isMultipart || isMessage && TransferDecoder.Encoding(headers.encoding) == .identity else {
            return beginLeaf(part)
        }
        guard depth < Self.deepest else {
            events.limitReached(.depth, in: part)
            return beginLeaf(part)
        }
        depth += 1
        isAmbiguous = isAmbiguous || headers.isAmbiguous
        if isMultipart {
            open(
                Level(
                    part: part, headers: headers, boundaries: headers.boundaries, prefix: prefix, depth: depth,
                    isDigest: type.elementsEqual("multipart/digest".utf8), isAmbiguous: isAmbiguous))
            state = .preamble
        } else {
            prefix = path + [UInt8(ascii: ".")]
            path = prefix + Self.rootPath
            headers = ContentHeaders()
            isDigestPart = false
            state = .headers
        }
    }

    // MARK: - Content

    private mutating func beginLeaf(_ part: Part) {
        state = .content
        leaf.begin(part, headers, isAmbiguous: isAmbiguous || headers.isAmbiguous)
    }

    private mutating func pass(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        take(bytes, &events)
        position += bytes.count
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        switch state {
        case .content: deliver(bytes, &events)
        case .preamble: preamble.append(contentsOf: bytes.prefix(max(0, Self.longestPreamble - preamble.count)))
        case .headers, .skipped: break
        }
    }

    /// Takes content of the part, except for a line end, which may belong to a boundary.
    private mutating func deliver(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        if held.elementsEqual([0x0d]), bytes.count == 1, bytes[0] == 0x0a { return held.append(0x0a) }
        flushHeld(&events)
        var end = bytes.count
        if bytes[end - 1] == 0x0a {
            end -= end > 1 && bytes[end - 2] == 0x0d ? 2 : 1
        } else if bytes[end - 1] == 0x0d {
            end -= 1
        }
        held.append(contentsOf: bytes[end...])
        if end > 0 { leaf.update(UnsafeRawBufferPointer(rebasing: bytes[..<end]), &events) }
    }

    private mutating func flushHeld(_ events: inout some PartEvents) {
        guard !held.isEmpty else { return }
        held.withUnsafeBytes { leaf.update($0, &events) }
        held.removeAll(keepingCapacity: true)
    }

    private mutating func endPart(keepingLineEnd: Bool, _ events: inout some PartEvents) {
        guard case .content = state else { return }
        if keepingLineEnd { flushHeld(&events) }
        held.removeAll(keepingCapacity: true)
        leaf.finish(&events)
    }
}
