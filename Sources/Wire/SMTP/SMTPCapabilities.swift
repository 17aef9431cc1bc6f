// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The ESMTP extensions that the filter passes through. It never offers STARTTLS, CHUNKING, BINARYMIME or AUTH, even if
/// the next hop does.
package struct SMTPCapabilities: Equatable, Sendable {
    package struct Extensions: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let pipelining = Extensions(rawValue: 1 << 0)  // RFC 2920
        package static let size = Extensions(rawValue: 1 << 1)  // RFC 1870
        package static let eightBitMIME = Extensions(rawValue: 1 << 2)  // RFC 6152
        package static let smtpUTF8 = Extensions(rawValue: 1 << 3)  // RFC 6531
        package static let dsn = Extensions(rawValue: 1 << 4)  // RFC 3461
        package static let enhancedStatusCodes = Extensions(rawValue: 1 << 5)  // RFC 2034

        fileprivate static let words: [(word: StaticString, bit: Extensions)] = [
            ("PIPELINING", .pipelining), ("8BITMIME", .eightBitMIME), ("SMTPUTF8", .smtpUTF8), ("DSN", .dsn),
            ("ENHANCEDSTATUSCODES", .enhancedStatusCodes),
        ]
    }

    package var extensions: Extensions = []
    /// The maximum size of a message in bytes; 0 if the next hop states none.
    package var size = 0
    /// Attributes of XFORWARD (XFORWARD_README), in the order offered; empty if XFORWARD is not offered.
    package var xforward: [XForwardAttribute] = []

    package init() {}

    /// Parses a reply to EHLO.
    package init(_ reply: SMTPReply) {
        for line in reply.bytes.readableBytesView.split(separator: 0x0a).dropFirst() {
            var words = line.dropFirst(4).split { $0 == UInt8(ascii: " ") || $0 == 0x0d }[...]
            guard let keyword = words.popFirst() else { continue }
            if keyword.isWord("SIZE") {
                extensions.insert(.size)
                size = words.first.flatMap { Int(String(decoding: $0, as: UTF8.self)) }.map { max(0, $0) } ?? 0
            } else if keyword.isWord("XFORWARD") {
                xforward = words.compactMap { word in XForwardAttribute.allCases.first { word.isWord($0.word) } }
            } else if let known = Extensions.words.first(where: { keyword.isWord($0.word) }) {
                extensions.insert(known.bit)
            }
        }
    }

    /// Whether these capabilities include all extensions in `offered` that need the next hop's support.
    package func covers(_ offered: SMTPCapabilities) -> Bool {
        extensions.isSuperset(of: offered.extensions.subtracting([.pipelining, .enhancedStatusCodes]))
            && offered.xforward.allSatisfy(xforward.contains)
    }

    /// Writes the reply to EHLO of a server named `host`.
    ///
    /// PIPELINING is always offered: if the next hop lacks it, commands wait here for its replies.
    package func write(to buffer: inout ByteBuffer, host: some Collection<UInt8>) {
        var lines: [[UInt8]] = [Array(host), Array("PIPELINING".utf8)]
        if extensions.contains(.size) { lines.append(Array((size > 0 ? "SIZE \(size)" : "SIZE").utf8)) }
        for (word, bit) in Extensions.words where bit != .pipelining && extensions.contains(bit) {
            lines.append(word.withUTF8Buffer { Array($0) })
        }
        if !xforward.isEmpty {
            lines.append(Array(("XFORWARD " + xforward.map { "\($0.word)" }.joined(separator: " ")).utf8))
        }
        for (index, line) in lines.enumerated() {
            buffer.writeStaticString(index + 1 < lines.count ? "250-" : "250 ")
            buffer.writeBytes(line)
            buffer.writeStaticString("\r\n")
        }
    }
}

/// An attribute of XFORWARD, which describes the original SMTP client.
package enum XForwardAttribute: CaseIterable, Sendable {
    case name, addr, port, proto, helo, ident, source

    package var word: StaticString {
        switch self {
        case .name: "NAME"
        case .addr: "ADDR"
        case .port: "PORT"
        case .proto: "PROTO"
        case .helo: "HELO"
        case .ident: "IDENT"
        case .source: "SOURCE"
        }
    }
}

extension Collection<UInt8> {
    /// Whether these bytes equal `word`, ignoring case. `word` must be upper case.
    func isWord(_ word: StaticString) -> Bool {
        guard count == word.utf8CodeUnitCount else { return false }
        var expected = word.utf8Start
        for byte in self {
            guard byte & 0xdf == expected.pointee || byte == expected.pointee else { return false }
            expected += 1
        }
        return true
    }
}
