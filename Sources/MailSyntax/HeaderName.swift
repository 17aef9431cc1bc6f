// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics

/// The headers with a meaning for the scanner or the filter (Postfix `header_opts.c`).
package enum HeaderName: Sendable {
    case contentType
    /// Content-Description, -Disposition, -ID and -Transfer-Encoding, and MIME-Version.
    case otherMIME
    case to, cc, resentTo, resentCc
    case dkimSignature
    /// X-Weir-Verdict, by which Weir tells the Postfix behind it what to do. Nobody else may send it.
    case weirVerdict
    /// An mbox `From ` line at the start of the message, to which the scanner gives the name X-Mailbox-Line.
    case mailboxLine
    case other

    /// Whether it goes to the MIME header checks, also among the primary headers.
    package var isMIME: Bool { self == .contentType || self == .otherMIME }
    /// Whether it shows recipients to the reader. To a message without any of these, Postfix may add one.
    package var isVisibleRecipient: Bool {
        switch self {
        case .to, .cc, .resentTo, .resentCc: true
        case .contentType, .otherMIME, .dkimSignature, .weirVerdict, .mailboxLine, .other: false
        }
    }

    /// The name of a logical header.
    package init(of header: UnsafeRawBufferPointer) {
        let colon = header.firstIndex(of: UInt8(ascii: ":")) ?? header.count
        var end = colon
        while end > 0, header[end - 1].isSpace { end -= 1 }
        self.init(UnsafeRawBufferPointer(rebasing: header[..<end]))
    }

    init(_ name: UnsafeRawBufferPointer) {
        switch name.count {
        case 2 where name.equalsIgnoringCase("to"): self = .to
        case 2 where name.equalsIgnoringCase("cc"): self = .cc
        case 9 where name.equalsIgnoringCase("resent-to"): self = .resentTo
        case 9 where name.equalsIgnoringCase("resent-cc"): self = .resentCc
        case 10 where name.equalsIgnoringCase("content-id"): self = .otherMIME
        case 12 where name.equalsIgnoringCase("content-type"): self = .contentType
        case 12 where name.equalsIgnoringCase("mime-version"): self = .otherMIME
        case 14 where name.equalsIgnoringCase("dkim-signature"): self = .dkimSignature
        case 14 where name.equalsIgnoringCase("x-weir-verdict"): self = .weirVerdict
        case 19 where name.equalsIgnoringCase("content-description"): self = .otherMIME
        case 19 where name.equalsIgnoringCase("content-disposition"): self = .otherMIME
        case 25 where name.equalsIgnoringCase("content-transfer-encoding"): self = .otherMIME
        default: self = .other
        }
    }
}

/// Whether Postfix removes such a header from every message (`message_drop_headers`).
package func isDroppedHeader(_ header: [UInt8]) -> Bool {
    let name = header.fieldName
    return name.equalsIgnoringCase("bcc") || name.equalsIgnoringCase("content-length")
        || name.equalsIgnoringCase("resent-bcc") || name.equalsIgnoringCase("return-path")
}

/// Whether white space stands before the colon of a header. Postfix takes it away (`mime_state.c`).
package func hasBlankBeforeColon(_ header: [UInt8]) -> Bool {
    header.first { $0 == UInt8(ascii: ":") || $0.isBlank }?.isBlank == true
}

/// The length of the header name at the start of `line`; 0 if it is not a header. A name is printable ASCII without
/// space, followed by optional white space and a colon (Postfix `is_header.c`).
package func headerNameLength(_ line: UnsafeRawBufferPointer) -> Int {
    guard let base = line.baseAddress else { return 0 }
    let length = weir_header_name_end(base, line.count)
    guard length > 0 else { return 0 }
    var index = length
    while index < line.count, line[index].isBlank { index += 1 }
    return index < line.count && line[index] == UInt8(ascii: ":") ? length : 0
}
