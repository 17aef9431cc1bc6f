// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

extension Target {
    /// The scanner must report the same events for a message in one piece and in many pieces, with offsets within the
    /// message, and respect its limits.
    ///
    /// The first byte is the size of the pieces; the rest is the message.
    static let scanner = Target(name: "scanner") { input in
        var choices = Choices(input)
        let (size, message) = (choices.size(), choices.rest)
        let limits = [ScannerLimits(), smallLimits, middleLimits]
        for limits in limits {
            let whole = scan(message, pieces: message.count, limits)
            let pieces = scan(message, pieces: size, limits)
            precondition(whole.found == pieces.found && whole.nestingExceeded == pieces.nestingExceeded)
        }
    }
}

/// Small enough for short inputs to reach.
private let smallLimits: ScannerLimits = {
    var limits = ScannerLimits()
    limits.headerSize = 100
    limits.lineLength = 24
    limits.bodyChecksSize = 200
    limits.mimeBoundaryLength = 5
    limits.mimeNesting = 3
    return limits
}()

/// For the path that scans many lines at once, which needs two blocks of 64 bytes.
private let middleLimits: ScannerLimits = {
    var limits = ScannerLimits()
    limits.lineLength = 140
    limits.bodyChecksSize = 500
    return limits
}()

private func scan(
    _ message: UnsafeRawBufferPointer, pieces: Int, _ limits: ScannerLimits
) -> (found: [Found], nestingExceeded: Bool) {
    var scanner = MessageScanner(limits: limits)
    var events = Findings(size: message.count, limits: limits)
    var start = 0
    while start < message.count {
        let end = min(message.count, start + pieces)
        scanner.update(UnsafeRawBufferPointer(rebasing: message[start..<end]), &events)
        start = end
    }
    scanner.finish(&events)
    return (events.found, scanner.nestingExceeded)
}

private enum Found: Equatable {
    case header(HeaderClass, Range<Int>, isVerbatim: Bool, [UInt8])
    case endOfHeaders(Int, needsEmptyLine: Bool)
    case line(Int, [UInt8])
}

private struct Findings: ScannerEvents {
    let size: Int
    let limits: ScannerLimits
    var found: [Found] = []

    mutating func headers(_ block: HeaderBlock) {
        for header in block.headers {
            let text = block.text(of: header)
            precondition(header.range.lowerBound >= 0 && header.range.upperBound <= size)
            // A header just below the limit may get one more record.
            precondition(text.count <= limits.headerSize + limits.lineLength + "X-Mailbox-Line: \r\n".utf8.count)
            found.append(
                .header(header.checkedAs, header.range, isVerbatim: header.isVerbatim && !header.isCut, Array(text)))
        }
    }

    mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool) {
        precondition(0...size ~= offset)
        found.append(.endOfHeaders(offset, needsEmptyLine: needsEmptyLine))
    }

    /// Splits body text into lines, so that the number of lines per event does not matter.
    mutating func body(_ body: BodyText) {
        precondition(body.offset >= 0 && body.offset + body.text.count <= size)
        var start = 0
        while start < body.text.count {
            let end =
                body.isRecord ? body.text.count : (body.text[start...].firstIndex(of: 0x0a) ?? body.text.count - 1) + 1
            let key = UnsafeRawBufferPointer(rebasing: body.text[start..<end]).withoutLineEnd
            precondition(key.count <= limits.lineLength + 1)
            if !key.isEmpty { found.append(.line(body.offset + start, Array(key))) }
            start = end
        }
    }
}
