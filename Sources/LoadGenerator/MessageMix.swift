// SPDX-License-Identifier: Apache-2.0
import NIOCore

/// The content and recipients of a load's messages.
package struct MessageMix: Sendable {
    package enum Content: Sendable {
        /// Text, alternatives, HTML, attachments and forwarded mail from 1 KB to 1 MB, 28 KB on average.
        case realistic
        /// Plain text; bytes.
        case text(size: Int)
        /// Messages with header and body, drawn with equal probability.
        case files([[UInt8]])
    }

    package var content = Content.realistic
    /// Share of messages with a `To: undisclosed-recipients:;` header.
    package var undisclosed = 0.0
    /// Share of messages with the header `hitLine`.
    package var hits = 0.0
    /// `Name: value`, a header that the tested rules match.
    package var hitLine = ""
    /// Recipients of a message with several recipients.
    package var recipients = 1
    /// Share of messages with `recipients` recipients; the others have one.
    package var multi = 1.0
    package var domain = "example.org"
    package var seed: UInt64 = 1

    package init() {}
}

/// One message of a load. `MessageCorpus` writes the same bytes for it each time.
struct LoadMessage: Equatable {
    var id: Int
    var template: Int
    var person: Population.Person
    var recipient: Int
    var recipients: Int
    var isUndisclosed: Bool
    var isHit: Bool
}

/// The messages of a load, one after another; the same for the same seed.
struct MessageSequence {
    let corpus: MessageCorpus
    private var people: PopulationDraw
    private var random: SplitMix64
    private var nextID = 0

    init(_ corpus: MessageCorpus, seed: UInt64, population: Population) {
        self.corpus = corpus
        people = PopulationDraw(population)
        random = SplitMix64(seed: seed)
    }

    mutating func next(at time: TimeAmount) -> LoadMessage {
        defer { nextID += 1 }
        return corpus.next(id: nextID, person: people.next(at: time, using: &random), using: &random)
    }
}

/// Writes messages: first the lines that differ from message to message, then one of a few templates.
struct MessageCorpus {
    /// The end of the header, and the body.
    struct Template {
        var content: [UInt8]
        /// Dot-stuffed (RFC 5321 4.5.2).
        var stuffed: [UInt8]
    }

    let templates: [Template]
    private let weights: AliasTable
    /// False for files, which have complete headers.
    private let writesHeader: Bool
    private let mix: MessageMix
    /// Identifies the messages of this run at the sink.
    let run: String
    private let date: String

    static let marker = Array("X-Weir-Load: ".utf8)
    private static let recipient = Array("recipient".utf8)

    /// - Parameter date: the value of the Date: headers.
    init(_ mix: MessageMix, run: String, date: String) {
        self.mix = mix
        self.run = run
        self.date = date
        var random = SplitMix64(seed: mix.seed)
        let contents: [(share: Double, content: [UInt8])]
        switch mix.content {
        case .realistic: contents = MessageShape.realistic(using: &random)
        case .text(let size): contents = [(1, MessageShape.text(size).content(using: &random))]
        case .files(let files): contents = files.map { (1, Self.withNetworkLineEnds($0)) }
        }
        writesHeader = if case .files = mix.content { false } else { true }
        templates = contents.map { Template(content: $0.content, stuffed: Self.stuffed($0.content)) }
        weights = AliasTable(weights: contents.map(\.share))
    }

    func next(id: Int, person: Population.Person, using random: inout SplitMix64) -> LoadMessage {
        LoadMessage(
            id: id, template: weights.draw(using: &random), person: person, recipient: random.next(below: 1_000_000),
            recipients: mix.recipients > 1 && random.nextShare() < mix.multi ? mix.recipients : 1,
            isUndisclosed: mix.undisclosed > 0 && random.nextShare() < mix.undisclosed,
            isHit: mix.hits > 0 && random.nextShare() < mix.hits)
    }

    /// Writes the lines before the template. None starts with a dot.
    ///
    /// - Parameter undisclosed: false to omit the undisclosed-recipients header.
    func writeHead(of message: LoadMessage, undisclosed: Bool = true, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: Self.marker)
        bytes.append(contentsOf: run.utf8)
        bytes.append(".")
        bytes.append(decimal: UInt64(message.id))
        bytes.append("\r\n")
        if message.isUndisclosed, undisclosed { bytes.append("To: undisclosed-recipients:;\r\n") }
        if message.isHit {
            bytes.append(contentsOf: mix.hitLine.utf8)
            bytes.append("\r\n")
        }
        guard writesHeader else { return }
        bytes.append("Date: ")
        bytes.append(contentsOf: date.utf8)
        bytes.append("\r\nFrom: ")
        writeSender(of: message, to: &bytes)
        if !message.isUndisclosed {
            bytes.append("\r\nTo: ")
            writeRecipient(0, of: message, to: &bytes)
        }
        bytes.append("\r\nMessage-ID: <")
        bytes.append(contentsOf: run.utf8)
        bytes.append(".")
        bytes.append(decimal: UInt64(message.id))
        bytes.append("@load.example>\r\n")
    }

    func writeSender(of message: LoadMessage, to bytes: inout [UInt8]) {
        PolicyRequest.write(sender: message.person.sender, to: &bytes)
    }

    func writeRecipient(_ index: Int, of message: LoadMessage, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: Self.recipient)
        bytes.append(decimal: UInt64(message.recipient + index))
        bytes.append("@")
        bytes.append(contentsOf: mix.domain.utf8)
    }

    /// The index of an address among the recipients of a message; nil if it is none of them.
    func recipientIndex(of address: Span<UInt8>, in message: LoadMessage) -> Int? {
        var number = 0
        for index in min(Self.recipient.count, address.count)..<address.count {
            let digit = Int(address[index]) - 0x30
            guard 0..<10 ~= digit else { break }
            number = number * 10 + digit
            guard number < 1 << 32 else { return nil }
        }
        let index = number - message.recipient
        guard 0..<message.recipients ~= index else { return nil }
        var expected: [UInt8] = []
        writeRecipient(index, of: message, to: &expected)
        return address.isEqual(to: expected) ? index : nil
    }

    /// Ends every line, also the last, with CRLF.
    private static func withNetworkLineEnds(_ file: [UInt8]) -> [UInt8] {
        var lines = file.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        if lines.last?.isEmpty ?? false { lines.removeLast() }
        var content: [UInt8] = []
        for line in lines {
            content += line.last == UInt8(ascii: "\r") ? line.dropLast() : line
            content += [UInt8(ascii: "\r"), UInt8(ascii: "\n")]
        }
        return content
    }

    private static func stuffed(_ content: [UInt8]) -> [UInt8] {
        var stuffed: [UInt8] = []
        var isAtLineStart = true
        for byte in content {
            if isAtLineStart, byte == UInt8(ascii: ".") { stuffed.append(byte) }
            stuffed.append(byte)
            isAtLineStart = byte == UInt8(ascii: "\n")
        }
        return stuffed
    }
}

extension SplitMix64 {
    /// From 0 up to, but not including, 1.0.
    mutating func nextShare() -> Double { Double(next() >> 11) * 0x1p-53 }
}
