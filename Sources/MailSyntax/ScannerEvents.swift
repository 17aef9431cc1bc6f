// SPDX-License-Identifier: Apache-2.0

/// The limits of the scanner, with Postfix's names and defaults. All but `mimeNesting` are bytes.
package struct ScannerLimits: Hashable, Sendable {
    /// Which mbox `From ` lines at the start of a message become X-Mailbox-Line headers.
    package enum FromLines: String, CaseIterable, Sendable {
        /// All of them, as in smtpd up to 3.7.20, 3.8.18, 3.9.12, 3.10.11 and 3.11.4.
        case all
        /// Only the first, as in newer versions. A second one ends the headers.
        case first
    }

    /// `header_size_limit`: the part of a logical header that is checked.
    package var headerSize = 102_400
    /// `line_length_limit`: longer lines are checked in pieces.
    package var lineLength = 2_048
    /// `body_checks_size_limit`: the part of each body segment that is checked; 0 is all of it.
    package var bodyChecksSize = 51_200
    /// `mime_boundary_length_limit`: the part of a boundary that is compared.
    package var mimeBoundaryLength = 2_048
    /// `mime_nesting_limit`: nested multiparts. As in Postfix, two more pass before the message is refused.
    package var mimeNesting = 100
    package var fromLines = FromLines.all

    package init() {}
}

/// Where a header stands.
package enum HeaderClass: Sendable {
    case primary
    /// After a multipart boundary.
    case mime
    /// At the start of an attached message.
    case nested
}

/// A logical header: its lines joined by newlines, each cut at its first NUL.
package struct Header {
    /// Its bytes in the text of the block.
    package let textRange: Range<Int>
    package let name: HeaderName
    package let place: HeaderClass
    /// Its bytes in the message, with line ends.
    package let range: Range<Int>
    /// Whether its text is the same as in the message, as far as it goes: no NUL, and no white space before the colon.
    /// Postfix passes on the text.
    package let isVerbatim: Bool
    /// Whether it is longer than `headerSize` in the message. Postfix with that limit passes on only so much.
    package let isCut: Bool

    /// The class of checks that it goes to.
    package var checkedAs: HeaderClass { name.isMIME ? .mime : place }

    /// The same header, with its text elsewhere.
    package func withText(in range: Range<Int>) -> Header {
        Header(
            textRange: range, name: name, place: place, range: self.range, isVerbatim: isVerbatim, isCut: isCut)
    }
}

/// Consecutive headers, to be searched in one scan.
package struct HeaderBlock {
    /// Their texts, each with a newline at the end. Valid during the callback only.
    package let text: UnsafeRawBufferPointer
    package let headers: [Header]

    package init(text: UnsafeRawBufferPointer, headers: [Header]) {
        self.text = text
        self.headers = headers
    }

    package func text(of header: Header) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: text[header.textRange])
    }
}

/// Body text to be checked.
package struct BodyText {
    /// Complete lines with their line ends, or one record. Valid during the callback only.
    package let text: UnsafeRawBufferPointer
    /// The offset in the message.
    package let offset: Int
    /// Whether it is one line, or a piece of a line longer than the limit, to be matched on its own.
    package let isRecord: Bool

    package init(text: UnsafeRawBufferPointer, offset: Int, isRecord: Bool) {
        self.text = text
        self.offset = offset
        self.isRecord = isRecord
    }
}

/// What the scanner finds, in the order of the message.
package protocol ScannerEvents {
    /// A header section, or a part of a long one.
    mutating func headers(_ block: HeaderBlock)
    /// The primary headers end at `offset`. `needsEmptyLine` if the body follows without an empty line, and a server
    /// could take its first line for a part of the headers.
    mutating func endOfHeaders(at offset: Int, needsEmptyLine: Bool)
    mutating func body(_ text: BodyText)
}
