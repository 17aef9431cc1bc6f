// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore

/// Bytes that are not a valid SMTP reply (RFC 5321 4.2). The connection to the next hop is closed.
package enum SMTPReplyFault: Error, Equatable, Sendable {
    /// A line longer than `SMTPReply.longestLine`, or a reply longer than `SMTPReply.longest`.
    case tooLong
    /// A line that doesn't begin with a code from 200 to 599, or has neither a space nor a hyphen after it.
    case notReply
    /// A reply whose lines have different codes.
    case codesDiffer
    /// A reply without a command.
    case unexpected
}

/// A reply as the server sent it, with every line ended by CRLF.
package struct SMTPReply: Equatable, Sendable {
    package static let longestLine = 2_048
    package static let longest = 65_536

    /// 200 to 599.
    package let code: Int
    /// All lines with their codes and line ends, as they are relayed.
    package let bytes: ByteBuffer

    package init(code: Int, bytes: ByteBuffer) {
        self.code = code
        self.bytes = bytes
    }

    /// A reply of one line.
    package init(_ code: Int, _ text: some Collection<UInt8>) {
        var bytes = ByteBuffer()
        bytes.writeSMTPReply(code, text)
        self.init(code: code, bytes: bytes)
    }

    package init(_ code: Int, _ text: String) { self.init(code, text.utf8) }

    package var isPositive: Bool { code < 300 }
    package var isTransient: Bool { 400..<500 ~= code }

    /// The first line without its line end, for the log.
    package var text: String {
        String(decoding: bytes.readableBytesView.prefix { $0 != 0x0d }, as: UTF8.self)
    }
}

/// Parses the replies of a next hop. A line may end in a bare LF, as the next hop is the operator's own server; relayed
/// lines always end in CRLF.
package struct SMTPReplyParser {
    /// The lines so far of an incomplete reply.
    private var lines = ByteBuffer()
    private var code = 0

    package init() {}

    /// The next reply; nil until it is complete.
    package mutating func next(_ input: inout ByteBuffer) throws(SMTPReplyFault) -> SMTPReply? {
        while let line = try nextLine(&input) {
            guard line.count >= 3, line.prefix(3).allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }) else { throw .notReply }
            let value = line.prefix(3).reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
            guard 200..<600 ~= value else { throw .notReply }
            let separator = line.count > 3 ? line[line.startIndex + 3] : UInt8(ascii: " ")
            guard separator == UInt8(ascii: " ") || separator == UInt8(ascii: "-") else { throw .notReply }
            guard lines.readableBytes == 0 || code == value else { throw .codesDiffer }
            guard lines.readableBytes + line.count <= SMTPReply.longest else { throw .tooLong }
            code = value
            // The reply is relayed to the client, so a line must not contain another line end.
            lines.reserveCapacity(minimumWritableBytes: line.count + 2)
            lines.writeBytes(line, replacing: { $0 == 0x0d || $0 == 0 })
            lines.writeStaticString("\r\n")
            if separator == UInt8(ascii: " ") {
                defer { lines = ByteBuffer() }
                return SMTPReply(code: value, bytes: lines)
            }
        }
        return nil
    }

    private func nextLine(_ input: inout ByteBuffer) throws(SMTPReplyFault) -> ByteBufferView? {
        let view = input.readableBytesView
        guard let newline = view.prefix(SMTPReply.longestLine).firstIndex(of: 0x0a) else {
            guard view.count < SMTPReply.longestLine else { throw .tooLong }
            return nil
        }
        input.moveReaderIndex(forwardBy: newline - view.startIndex + 1)
        let line = view[view.startIndex..<newline]
        return line.last == 0x0d ? line.dropLast() : line
    }
}

extension ByteBuffer {
    /// Appends a reply of one line. Control characters in `text` become spaces.
    mutating func writeSMTPReply(_ code: Int, _ text: some Collection<UInt8>) {
        let digits = (code / 100, code / 10 % 10, code % 10)
        reserveCapacity(minimumWritableBytes: text.count + 6)
        writeMultipleIntegers(
            UInt8(ascii: "0") + UInt8(digits.0), UInt8(ascii: "0") + UInt8(digits.1),
            UInt8(ascii: "0") + UInt8(digits.2), UInt8(ascii: " "))
        writeBytes(text, replacing: { $0 < 0x20 || $0 == 0x7f })
        writeStaticString("\r\n")
    }

    /// Appends bytes, with a space in place of each bad one. Most texts have none and are copied at once.
    fileprivate mutating func writeBytes(_ bytes: some Collection<UInt8>, replacing isBad: (UInt8) -> Bool) {
        if bytes.contains(where: isBad) {
            writeBytes(bytes.map { isBad($0) ? UInt8(ascii: " ") : $0 })
        } else {
            writeBytes(bytes)
        }
    }
}
