// SPDX-License-Identifier: Apache-2.0

/// What the messages of a load are like.
package struct MessageMix: Sendable {
    package enum Content: Sendable {
        /// Text, alternatives, HTML, attachments and forwarded mail from 1 KB to 1 MB, 28 KB on the average.
        case realistic
        /// Plain text of so many bytes.
        case text(size: Int)
        /// These, header and body, in turn.
        case files([[UInt8]])
    }

    package var content = Content.realistic
    /// Share of messages with a `To: undisclosed-recipients:;`.
    package var undisclosed = 0.0
    /// Share of messages with `hitLine` in their header.
    package var hits = 0.0
    /// `Name: value`, a header that the rules under test look for.
    package var hitLine = ""
    /// Recipients of a message that has several, and the share of these.
    package var recipients = 1
    package var multi = 1.0
    package var domain = "example.org"
    package var seed: UInt64 = 1

    package init() {}
}

/// One message of a load: enough to write it again, byte for byte.
struct LoadMessage: Equatable {
    var id: Int
    var template: Int
    var person: Population.Person
    var recipient: Int
    var recipients: Int
    var isUndisclosed: Bool
    var isHit: Bool
}

/// Writes messages. What differs from message to message stands in the first lines; the rest is one of some templates.
struct MessageCorpus {
    /// Header and body from where they no longer differ.
    struct Template {
        var content: [UInt8]
        /// With dots doubled, as SMTP has them.
        var stuffed: [UInt8]
    }

    let templates: [Template]
    private let weights: AliasTable
    /// Files have a header of their own.
    private let writesHeader: Bool
    private let mix: MessageMix
    /// Names the run, so that what arrives of another one is no concern of this one.
    let run: String
    private let date: String

    static let marker = Array("X-Weir-Load: ".utf8)

    /// - Parameter date: as in a Date: header.
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

    /// The first lines. They have no dot at their beginning.
    ///
    /// - Parameter undisclosed: whether the undisclosed-recipients header is there, where the message has one.
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
        bytes.append("recipient")
        bytes.append(decimal: UInt64(message.recipient + index))
        bytes.append("@")
        bytes.append(contentsOf: mix.domain.utf8)
    }

    /// Each line with a CR and an LF at its end, also the last.
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
    /// From 0 up to, but not including, 1.
    mutating func nextShare() -> Double { Double(next() >> 11) * 0x1p-53 }
}
