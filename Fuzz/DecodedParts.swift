// SPDX-License-Identifier: Apache-2.0
internal import Decoding

extension Target {
    /// What is read of a message does not depend on the pieces in which it arrives, nor on what came before. It is
    /// lines of UTF-8 without control characters, and no more than the bounds allow.
    static let decodedParts = Target(name: "decoded-parts") { input in
        var choices = Choices(input)
        let size = choices.size()
        check(choices.rest, inPieces: size)
    }

    /// The same for the content of an attachment, such as a zip archive.
    static let archive = Target(name: "archive") { input in
        var message = Array("Content-Type: application/zip\n\n".utf8)
        message.append(contentsOf: input)
        message.withUnsafeBytes { check($0, inPieces: 4_096) }
    }
}

private func check(_ message: UnsafeRawBufferPointer, inPieces size: Int) {
    var reader = PartReader(wantsText: true, wantsAttachments: true)
    let whole = found(message, inPieces: max(1, message.count), &reader)
    reader.reset()
    precondition(found(message, inPieces: size, &reader) == whole)
    // HTML can add `link: ` to each address, and a character of an old set takes up to four bytes.
    precondition(whole.text.count <= 64 << 20 && whole.attachments.count <= 16 << 20)
}

private struct Findings: PartEvents, Equatable {
    var text: [UInt8] = []
    var attachments: [UInt8] = []
    var limits = 0

    mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) { Self.append(lines, to: &text) }

    mutating func attachment(_ listing: PartListing, of part: Part) {
        listing.lines().withUnsafeBytes { Self.append($0, to: &attachments) }
    }

    mutating func limitReached(_ limit: PartLimit, in part: Part) { limits += 1 }

    private static func append(_ lines: UnsafeRawBufferPointer, to all: inout [UInt8]) {
        precondition(lines.last == 0x0a && lines.first != 0x0a)
        precondition(lines.allSatisfy { $0 >= 0x20 && $0 != 0x7f || $0 == 0x0a })
        precondition(String(validating: lines, as: UTF8.self) != nil)
        all.append(contentsOf: lines)
    }
}

private func found(_ message: UnsafeRawBufferPointer, inPieces size: Int, _ reader: inout PartReader) -> Findings {
    var findings = Findings()
    for piece in pieces(message, of: size) { reader.update(piece, &findings) }
    reader.finish(&findings)
    return findings
}
