// SPDX-License-Identifier: Apache-2.0
internal import Decoding
internal import MailSyntax
internal import Rules

/// The decoded texts of the headers of one block, and the rules that may match them.
final class DecodedHeaders {
    private let decoder = HeaderDecoder()
    private var text: [UInt8] = []
    private var headers: [Header] = []
    private var candidates: HeaderCandidates?
    /// The index in `headers` of the next header of the block.
    private var next = 0

    /// A header of the block.
    struct Line {
        fileprivate let index: Int
        /// nil when no rule can match.
        let candidates: LineCandidates?
    }

    func beginMessage() { decoder.beginMessage() }

    /// Decodes all headers of a block, and scans them at once.
    func decode(_ block: HeaderBlock, _ matcher: Matcher, _ pass: FastPass?) {
        decode(block)
        candidates = scan(matcher, pass)
    }

    /// Decodes all headers of a block, without scanning them.
    func decode(_ block: HeaderBlock) {
        reset()
        for header in block.headers { append(block.text(of: header), header) }
    }

    /// Scans all headers of the block at once.
    func scan(_ matcher: Matcher, _ pass: FastPass?) -> HeaderCandidates {
        text.withUnsafeBytes { matcher.candidates(in: HeaderBlock(text: $0, headers: headers), pass: pass) }
    }

    /// Decodes one header, without scanning it.
    func decode(_ raw: UnsafeRawBufferPointer, _ header: Header) -> Line {
        reset()
        append(raw, header)
        return Line(index: 0, candidates: .unknown)
    }

    private func append(_ raw: UnsafeRawBufferPointer, _ header: Header) {
        let start = text.count
        decoder.decode(raw, into: &text)
        headers.append(header.withText(in: start..<text.count))
        text.append(0x0a)
    }

    /// Forgets the block.
    private func reset() {
        text.removeAll(keepingCapacity: true)
        headers.removeAll(keepingCapacity: true)
        (candidates, next) = (nil, 0)
    }

    /// The next header of the block; nil if it was not decoded.
    func takeNext() -> Line? {
        guard next < headers.count, let candidates else { return nil }
        defer { next += 1 }
        return Line(index: next, candidates: candidates.of(headers[next]))
    }

    /// A header of the block by its index, as `candidates` of a scan show it.
    func line(_ index: Int, of candidates: HeaderCandidates) -> Line {
        Line(index: index, candidates: candidates.of(headers[index]))
    }

    /// Calls `body` with the decoded text.
    func withText<Result>(of line: Line, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let range = headers[line.index].textRange
        return text.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[range])) }
    }
}

/// A header of a message as the rules for decoded headers see it.
package struct DecodedHeader: Equatable, Sendable {
    /// The byte offset of the header in the message.
    package let offset: Int
    package let place: Place
    /// UTF-8.
    package let text: [UInt8]

    package enum Place: String, Sendable {
        case message
        case mimePart = "part"
        case attachedMessage = "attached"
    }

    /// All headers of a message, in order.
    package static func all(in message: [UInt8], _ checks: ContentChecks) -> [DecodedHeader] {
        var collector = Collector()
        var scanner = MessageScanner(limits: checks.scannerLimits, wantsBody: false)
        message.withUnsafeBytes { scanner.update($0, &collector) }
        scanner.finish(&collector)
        return collector.headers
    }

    private struct Collector: ScannerEvents {
        let decoder = HeaderDecoder()
        var headers: [DecodedHeader] = []

        mutating func headers(_ block: HeaderBlock) {
            for header in block.headers {
                var text: [UInt8] = []
                decoder.decode(block.text(of: header), into: &text)
                let place: Place =
                    switch header.place {
                    case .primary: .message
                    case .mime: .mimePart
                    case .nested: .attachedMessage
                    }
                headers.append(DecodedHeader(offset: header.range.lowerBound, place: place, text: text))
            }
        }

        mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool) {}
        mutating func body(_ text: BodyText) {}
    }
}
