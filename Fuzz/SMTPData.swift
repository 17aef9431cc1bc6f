// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Wire

extension Target {
    /// The decoder must give the same content for pieces of any size, whole lines, and what the rules in its comment
    /// give byte by byte. Content that is dot-stuffed and decoded again must be the same.
    ///
    /// The first byte is the size of the pieces; the rest is what a client sends after DATA.
    static let data = Target(name: "smtp-data") { input in
        var choices = Choices(input)
        let size = choices.size()
        let whole = decode(choices.rest, pieces: choices.rest.count + 1)
        let parts = decode(choices.rest, pieces: size)
        precondition(whole == parts)
        let lines = whole.content.lastIndex(of: 0x0a).map { Array(whole.content[...$0]) } ?? []
        precondition(areWholeLines(lines))
        guard whole.rest != nil else { return }
        precondition(lines == whole.content)
        precondition(plainlyDecoded(Array(choices.rest)) == whole.content)
        let startsWithDot = whole.content.indices.contains {
            whole.content[$0] == UInt8(ascii: ".") && ($0 == 0 || whole.content[$0 - 1] == 0x0a)
        }
        precondition(whole.hasLeadingDot == startsWithDot)

        let stuffed = stuff(whole.content, pieces: whole.content.count + 1)
        precondition(stuffed == stuff(whole.content, pieces: size))
        let again = (stuffed + ".\r\nQUIT\r\n".utf8).withUnsafeBytes { decode($0, pieces: size) }
        precondition(again.content == whole.content && again.rest == Array("QUIT\r\n".utf8))
    }
}

private struct Outcome: Equatable {
    var content: [UInt8]
    /// What follows the end of the data; nil if there was no end.
    var rest: [UInt8]?
    var hasLeadingDot: Bool
}

private func decode(_ bytes: UnsafeRawBufferPointer, pieces size: Int) -> Outcome {
    var decoder = SMTPDataDecoder()
    var (content, rest): (ByteBuffer, [UInt8]?) = (ByteBuffer(), nil)
    for piece in pieces(bytes, of: size) {
        guard rest == nil else {
            rest? += piece
            continue
        }
        var buffer = ByteBuffer(bytes: piece)
        if decoder.decode(&buffer, into: &content) {
            rest = Array(buffer.readableBytesView)
        } else {
            precondition(buffer.readableBytes == 0)
        }
    }
    return Outcome(content: Array(content.readableBytesView), rest: rest, hasLeadingDot: decoder.hasLeadingDot)
}

private func stuff(_ content: [UInt8], pieces size: Int) -> [UInt8] {
    var (stuffed, atLineStart) = (ByteBuffer(), true)
    content.withUnsafeBytes { content in
        for piece in pieces(content, of: size) { stuffed.writeDotStuffed(piece, atLineStart: &atLineStart) }
    }
    return Array(stuffed.readableBytesView)
}

/// The content of data that has an end, by the rules one after the other.
private func plainlyDecoded(_ bytes: [UInt8]) -> [UInt8] {
    var content: [UInt8] = []
    var (index, isLineStart) = (0, true)
    while index < bytes.count {
        if isLineStart, bytes[index] == UInt8(ascii: ".") {
            if bytes[index...].starts(with: ".\r\n".utf8) { return content }
            index += 1
            isLineStart = false
            continue
        }
        isLineStart = false
        let returns = bytes[index...].prefix { $0 == 0x0d }.count
        index += returns
        guard index < bytes.count else { break }
        if bytes[index] == 0x0a {
            // Of a long run, the first CRs become spaces.
            content += Array(repeating: UInt8(ascii: " "), count: max(0, returns - 1) / 64 * 64) + "\r\n".utf8
            isLineStart = returns > 0
            index += 1
        } else {
            content += Array(repeating: UInt8(ascii: " "), count: returns)
            guard returns == 0 else { continue }
            content.append(bytes[index])
            index += 1
        }
    }
    preconditionFailure("the data has no end")
}
