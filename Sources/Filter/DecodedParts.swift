// SPDX-License-Identifier: Apache-2.0
internal import Decoding
internal import MailSyntax
internal import Rules

/// The parts of a message as the rules for decoded text and for attachments see them.
package struct DecodedParts {
    package struct Line: Equatable, Sendable {
        /// As IMAP numbers it.
        package let part: [UInt8]
        /// Where the content of the part begins in the message.
        package let offset: Int
        /// UTF-8, without a newline.
        package let text: [UInt8]
    }

    package private(set) var text: [Line] = []
    package private(set) var attachments: [Line] = []
    /// The bounds that were reached.
    package private(set) var limits: [Note] = []

    package init(of message: [UInt8]) {
        var reader = PartReader(wantsText: true, wantsAttachments: true)
        var collector = Collector()
        message.withUnsafeBytes { reader.update($0, &collector) }
        reader.finish(&collector)
        self = collector.parts
    }

    private init() {}

    private struct Collector: PartEvents {
        var parts = DecodedParts()

        mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) {
            parts.text += Self.split(lines, part)
        }

        mutating func attachment(_ listing: PartListing, of part: Part) {
            listing.lines().withUnsafeBytes { parts.attachments += Self.split($0, part) }
            if let limit = listing.limit { limitReached(limit, in: part) }
        }

        mutating func limitReached(_ limit: PartLimit, in part: Part) {
            parts.limits.append(.partLimit(limit.consequence, part: part.path))
        }

        private static func split(_ lines: UnsafeRawBufferPointer, _ part: Part) -> [Line] {
            lines.split(separator: 0x0a).map { Line(part: part.path, offset: part.offset, text: Array($0)) }
        }
    }
}
